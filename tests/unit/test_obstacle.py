"""What a model lacks to be served."""

from producer.contract.heartbeat import Heartbeat, WorkerState
from producer.estimates.readiness import obstacle


def beat(model: str, state: WorkerState) -> Heartbeat:
    return Heartbeat(
        name="w",
        model=model,
        device="cpu:0",
        host="h",
        pid=1,
        pid_created_at=0,
        state=state,
        started_at=0,
        beat_at=0,
    )


def test_without_a_worker_the_cure_depends_on_the_autoscaler() -> None:
    others = [beat("other", WorkerState.READY)]
    for beats in ([], others):
        assert obstacle("m", beats, led=False) == (
            "no worker of m and no autoscaler leads: start the fleet with 'stoker up'"
        )
        assert "stoker status" in obstacle("m", beats, led=True)


def test_a_worker_is_waited_for_or_there() -> None:
    loading, ready, draining = (beat("m", state) for state in WorkerState)
    assert obstacle("m", [loading], led=False) == "a worker of m is loading"
    assert obstacle("m", [loading, ready], led=False) == ""
    assert "draining" in obstacle("m", [draining], led=False)
    assert "stoker status" in obstacle("m", [draining], led=True)
