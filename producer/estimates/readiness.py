"""Readiness of a model: what it lacks to be served, by heartbeats and by what the autoscaler publishes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from ..contract.errors import ModelUnavailable
from ..contract.heartbeat import Heartbeat, WorkerState
from ..contract.published import PublishedSize

FAILED_STARTS = 3
"""Starts that failed one after the other, from which on a model counts as unavailable: fewer may be an accident."""
RETRY_S = 5.0
"""Least time after which to ask for an unavailable model again, in seconds."""


def obstacle(model: str, beats: Iterable[Heartbeat], led: bool, size: PublishedSize | None = None) -> str:
    """What the model lacks now, and the cure; empty when a worker of it is ready.

    Args:
        beats: the last heartbeats of all live workers.
        led: whether an autoscaler holds the leader lease.
        size: what the autoscaler has published of the model.
    """
    states = {beat.state for beat in beats if beat.model == model}
    if WorkerState.READY in states:
        return ""
    if size is not None and _fails(size):
        return _told(model, size)
    if WorkerState.LOADING in states:
        return f"a worker of {model} is loading"
    if led:
        return f"no worker of {model} yet, though an autoscaler leads: 'stoker status' shows its decisions"
    if states:
        return f"the last worker of {model} is draining and no autoscaler leads: start the fleet with 'stoker up'"
    return f"no worker of {model} and no autoscaler leads: start the fleet with 'stoker up'"


class ModelState(StrEnum):
    """What a client can expect of a model."""

    READY = "ready"
    LOADING = "loading"
    IDLE = "idle"
    """It has no worker; a job starts one."""
    UNAVAILABLE = "unavailable"
    """Its workers fail to start, or no autoscaler would start one."""


@dataclass(frozen=True, slots=True)
class ModelOutlook:
    """The state of a model, and about how many seconds a worker of it needs until it is ready; None when not known."""

    model: str
    state: ModelState
    ready_in_s: float | None = None

    @property
    def text(self) -> str:
        """It in words, for a client that waits."""
        if self.state is ModelState.READY:
            return f"{self.model} is ready"
        if self.state is ModelState.UNAVAILABLE:
            return f"{self.model} has no worker, and none is being started"
        known = self.ready_in_s is not None
        when = f"about {self.ready_in_s:.0f} s more" if known else "for a time that was not measured yet"
        return f"{self.model} is {'loading' if self.state is ModelState.LOADING else 'being started'}, {when}"


def outlook(model: str, beats: Iterable[Heartbeat], size: PublishedSize | None, now: float) -> ModelOutlook:
    """What a client can expect of a model; for operators, :func:`obstacle` tells more.

    Args:
        beats: the last heartbeats of all live workers.
        size: what the autoscaler has published of the model; None when it has published nothing lately.
        now: Unix seconds.
    """
    own = [beat for beat in beats if beat.model == model]
    if any(beat.state is WorkerState.READY for beat in own):
        return ModelOutlook(model, ModelState.READY, 0.0)
    load_s = size.demand.load_s if size is not None else 0.0
    if size is not None and _fails(size):
        return ModelOutlook(model, ModelState.UNAVAILABLE)
    if loading := [beat.started_at for beat in own if beat.state is WorkerState.LOADING]:
        return ModelOutlook(model, ModelState.LOADING, max(0.0, min(loading) + load_s - now) if load_s else None)
    if size is None:
        return ModelOutlook(model, ModelState.UNAVAILABLE)
    return ModelOutlook(model, ModelState.IDLE, load_s or None)


def unavailable(model: str, size: PublishedSize | None, now: float) -> ModelUnavailable | None:
    """Why no job of the model should be queued now; None while it is served, or may be soon.

    Args:
        size: what the autoscaler has published of the model; None when it has published nothing lately.
        now: Unix seconds.
    """
    if size is None or not _fails(size):
        return None
    return ModelUnavailable(_told(model, size), max(RETRY_S, size.backed_off_until - now))


def _fails(size: PublishedSize) -> bool:
    serving = sum(size.demand.phases.get(phase, 0) for phase in ("ready", "draining"))
    return size.failed_starts >= FAILED_STARTS and not serving


def _told(model: str, size: PublishedSize) -> str:
    return f"{model} cannot be served: {size.backed_off_for}; mend it, then 'stoker retry {model}' starts it at once"
