"""The report: the figures of an outcome."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from .outcome import Fate

if TYPE_CHECKING:
    from producer.contract.fleet.settings import Settings

    from ..hardware import Hardware
    from .outcome import RunOutcome


@dataclass(frozen=True, slots=True)
class TierReport:
    """One tier. ``attained`` is the share of its requests that were started within the target and done, of all that
    came: refused and dead ones missed it. Waits in seconds, of those that were started; NaN when none was."""

    tier: str
    requests: int
    attained: float
    wait_p50_s: float
    wait_p99_s: float
    refused: int


@dataclass(frozen=True, slots=True)
class Report:
    """One run under one policy. ``missed`` counts the requests of all tiers that were not started within their target.

    ``cost`` is device hours times the price of each type, in its currency.
    """

    policy: str
    tiers: tuple[TierReport, ...]
    requests: int
    missed: int
    refused: int
    dead: int
    device_hours: float
    cost: float
    starts: int
    lasted_s: float
    tokens_done: int

    @property
    def attained(self) -> float:
        """Share of all requests that were started within their tier's target."""
        return 1 - self.missed / self.requests if self.requests else 1.0

    def line(self) -> dict[str, Any]:
        """For a JSON line, which knows no NaN: what there is none of is None."""
        tiers = [{key: None if value != value else value for key, value in asdict(one).items()} for one in self.tiers]
        return {**asdict(self), "tiers": tiers, "attained": self.attained}


def report(policy: str, settings: Settings, hardware: Hardware, outcome: RunOutcome) -> Report:
    """The figures of an outcome."""
    trace = outcome.trace
    tiers = tuple(
        _tier(name, settings.tiers[name].target_wait_s, tier, outcome) for tier, name in enumerate(trace.tiers)
    )
    price = {kind.type: kind.price_per_hour for kind in hardware.devices}
    done = [request for request, fate in enumerate(outcome.fate) if fate == Fate.DONE]
    return Report(
        policy=policy,
        tiers=tiers,
        requests=len(trace),
        missed=sum(round((1 - tier.attained) * tier.requests) for tier in tiers),
        refused=outcome.fate.count(Fate.REFUSED),
        dead=outcome.fate.count(Fate.DEAD),
        device_hours=outcome.device_hours,
        cost=sum(seconds / 3600 * price[kind] for kind, seconds in outcome.device_s.items()),
        starts=outcome.starts,
        lasted_s=outcome.ends_at,
        tokens_done=sum(trace.input_tokens[one] + trace.output_tokens[one] for one in done),
    )


def _tier(name: str, target_s: float, tier: int, outcome: RunOutcome) -> TierReport:
    trace, started = outcome.trace, outcome.started
    own = [request for request, of in enumerate(trace.tier) if of == tier]
    waits = sorted(started[one] - trace.at[one] for one in own if started[one] == started[one])
    met = sum(outcome.fate[one] == Fate.DONE and started[one] - trace.at[one] <= target_s for one in own)
    attained = met / len(own) if own else 1.0
    refused = sum(outcome.fate[one] == Fate.REFUSED for one in own)
    return TierReport(name, len(own), attained, quantile(waits, 0.5), quantile(waits, 0.99), refused)


def quantile(ordered: Sequence[float], share: float) -> float:
    """The smallest of these that at least that share of them does not exceed; NaN of none."""
    if not ordered:
        return float("nan")
    return ordered[max(0, -(-round(len(ordered) * share * 1e6) // 1_000_000) - 1)]
