"""What a model lacks to be served."""

from producer.contract.heartbeat import Heartbeat, WorkerState
from producer.contract.published import PublishedDemand, PublishedSize, ScaleUpConditions
from producer.estimates.readiness import FAILED_STARTS, ModelOutlook, obstacle, outlook, unavailable

NOW = 1_000_000.0


def size(failed_starts: int, **phases: int) -> PublishedSize:
    return PublishedSize(
        replicas=1,
        reason="jobs wait",
        demand=PublishedDemand(model="m", phases=phases),
        one_more=ScaleUpConditions(present=0, tier="batch", queued=1),
        backed_off_until=NOW + 64,
        backed_off_for="a worker ended unasked 7 times in a row; next start after 64 s. Last: no weights",
        failed_starts=failed_starts,
    )


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


def test_a_model_whose_workers_fail_to_start_is_unavailable_with_the_reason() -> None:
    error = unavailable("m", size(FAILED_STARTS), NOW)
    assert error is not None
    assert error.retry_after_s == 64
    assert "Last: no weights" in str(error)
    assert "stoker retry m" in str(error)
    assert obstacle("m", [beat("m", WorkerState.LOADING)], led=True, size=size(FAILED_STARTS)) == str(error)


def test_a_model_is_available_while_it_is_served_or_has_failed_by_accident() -> None:
    assert unavailable("m", None, NOW) is None
    assert unavailable("m", size(FAILED_STARTS - 1), NOW) is None
    for phase in ("ready", "draining"):
        assert unavailable("m", size(FAILED_STARTS, **{phase: 1}), NOW) is None
    assert obstacle("m", [beat("m", WorkerState.READY)], led=True, size=size(FAILED_STARTS)) == ""


def test_clients_are_told_the_state_and_how_long_it_takes() -> None:
    loading, ready, draining = (beat("m", state) for state in WorkerState)
    measured = size(0).model_copy(update={"demand": PublishedDemand(model="m", load_s=40)})

    def told(
        *beats: Heartbeat, size: PublishedSize | None = measured, now: float = 10.0
    ) -> tuple[str, float | None, str]:
        found: ModelOutlook = outlook("m", beats, size, now)
        return found.state.value, found.ready_in_s, found.text

    assert told(loading, ready) == ("ready", 0.0, "m is ready")
    assert told(loading) == ("loading", 30.0, "m is loading, about 30 s more")
    assert told(loading, now=99.0)[1] == 0.0
    assert told(loading, size=None)[1:] == (None, "m is loading, for a time that was not measured yet")
    for beats in ((), (draining,), (beat("other", WorkerState.READY),)):
        assert told(*beats) == ("idle", 40.0, "m is being started, about 40 s more")
        assert told(*beats, size=None) == ("unavailable", None, "m has no worker, and none is being started")
    assert told(loading, size=size(FAILED_STARTS))[0] == "unavailable"
