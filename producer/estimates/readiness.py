"""Readiness of a model: what it lacks to be served, by heartbeats and by what the autoscaler publishes."""

from __future__ import annotations

from collections.abc import Iterable

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
