"""Readiness of a model: what it lacks to be served, by heartbeats and the autoscaler's lease."""

from __future__ import annotations

from collections.abc import Iterable

from ..contract.heartbeat import Heartbeat, WorkerState


def obstacle(model: str, beats: Iterable[Heartbeat], led: bool) -> str:
    """What the model lacks now, and the cure; empty when a worker of it is ready.

    Args:
        beats: the last heartbeats of all live workers.
        led: whether an autoscaler holds the leader lease.
    """
    states = {beat.state for beat in beats if beat.model == model}
    if WorkerState.READY in states:
        return ""
    if WorkerState.LOADING in states:
        return f"a worker of {model} is loading"
    if led:
        return f"no worker of {model} yet, though an autoscaler leads: 'stoker status' shows its decisions"
    if states:
        return f"the last worker of {model} is draining and no autoscaler leads: start the fleet with 'stoker up'"
    return f"no worker of {model} and no autoscaler leads: start the fleet with 'stoker up'"
