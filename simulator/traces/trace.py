"""A trace: every request of a run, with what it asks for. One list per field, since a run has millions."""

from __future__ import annotations

import bisect
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from producer.contract.errors import StokerError

if TYPE_CHECKING:
    from pydantic import ValidationError

    from producer.contract.fleet.settings import Settings


class TraceError(StokerError):
    """A trace that cannot be read: the file, the line and what was expected."""


def mistakes(error: ValidationError) -> str:
    """What is wrong with a part of a trace, in one line: its values are no secrets, and are shown."""
    return "; ".join(
        f"{'.'.join(map(str, one['loc'])) or 'it'} is missing"
        if one["type"] == "missing"
        else f"{'.'.join(map(str, one['loc'])) or 'it'} = {str(one['input'])[:60]!r}: {one['msg']}"
        for one in error.errors()
    )


@dataclass(frozen=True, slots=True)
class Trace:
    """Requests in the order of their arrival.

    ``at`` is seconds from the beginning, ``model``, ``tier`` and ``tenant`` are indices into ``models``, ``tiers`` and
    ``tenants``; as long as no model or tier was assigned, these are empty. All lists have the same length.
    """

    at: Sequence[float]
    input_tokens: Sequence[int]
    output_tokens: Sequence[int]
    tenant: Sequence[int] = ()
    model: Sequence[int] = ()
    tier: Sequence[int] = ()
    models: tuple[str, ...] = ()
    tiers: tuple[str, ...] = ()
    tenants: tuple[str, ...] = field(default=("default",))

    def __len__(self) -> int:
        return len(self.at)

    @property
    def lasts_s(self) -> float:
        """When the last request arrives."""
        return self.at[-1] if self.at else 0.0


def assign(
    trace: Trace,
    settings: Settings,
    seed: int = 0,
    models: Mapping[str, float] | None = None,
    tiers: Mapping[str, float] | None = None,
    tenants: Mapping[str, float] | None = None,
) -> Trace:
    """Give every request a model, a tier and a tenant, which no public trace has: drawn independently, in these shares.

    Args:
        models: weight of each; by default the fleet's, all alike.
        tiers: weight of each; by default those of the fleet that every model has, all alike.
        tenants: weight of each; by default those of the trace, or one.

    Raises:
        UnknownModel, UnknownTier: of one that the fleet does not have.
        TraceError: no tiers are given, and the models have none in common.
    """
    models = models or dict.fromkeys(settings.models, 1.0)
    common = [tier for tier in settings.tiers if all(tier in settings.model(name).tiers for name in models)]
    tiers = tiers or dict.fromkeys(common, 1.0)
    if not tiers:
        raise TraceError("no tier is served by all models: say which, with their shares")
    for name in models:
        for tier in tiers:
            settings.tier(name, tier)
    rng = random.Random(seed)
    return replace(
        trace,
        model=_draw(rng, list(models.values()), len(trace)),
        tier=_draw(rng, list(tiers.values()), len(trace)),
        tenant=_draw(rng, list(tenants.values()), len(trace)) if tenants else trace.tenant or [0] * len(trace),
        models=tuple(models),
        tiers=tuple(tiers),
        tenants=tuple(tenants) if tenants else trace.tenants,
    )


def _draw(rng: random.Random, weights: Sequence[float], count: int) -> list[int]:
    return rng.choices(range(len(weights)), weights, k=count)


def until(trace: Trace, seconds: float) -> Trace:
    """What arrives before that many seconds."""
    return _cut(trace, slice(0, bisect.bisect_left(trace.at, seconds)))


def since(trace: Trace, seconds: float) -> Trace:
    """What arrives from that many seconds on, which is its new beginning."""
    rest = _cut(trace, slice(bisect.bisect_left(trace.at, seconds), None))
    return replace(rest, at=[at - seconds for at in rest.at])


def _cut(trace: Trace, part: slice) -> Trace:
    fields = ("at", "input_tokens", "output_tokens", "tenant", "model", "tier")
    return replace(trace, **{name: getattr(trace, name)[part] for name in fields})


def faster(trace: Trace, times: float) -> Trace:
    """The same requests, arriving faster by a factor."""
    return trace if times == 1 else replace(trace, at=[at / times for at in trace.at])
