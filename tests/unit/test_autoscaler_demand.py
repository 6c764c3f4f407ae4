from typing import Any

import pytest

from autoscaler.roster import Phase, Worker
from autoscaler.sizing.demand import WINDOW_S, Traffic, assess, watch
from producer.contract.fleet.fleet_schema import Model
from producer.contract.fleet.settings import Settings
from scheduler.queue_lengths import ModelQueues, QueueState

SETTINGS = Settings(models={"m": Model(engine="echo", tiers=("interactive", "batch"))})


LIE_S = 1e9
"""The age that a producer's stamp claims, which nothing may follow from."""


def queues(
    fast: int = 0, slow: int = 0, *, arrived: int | None = None, inflight: int = 0, suspects: int = 0
) -> ModelQueues:
    tiers = (
        QueueState("m", "interactive", fast, LIE_S, 2.0 if fast else 0.0, fast if arrived is None else arrived),
        QueueState("m", "batch", slow, LIE_S, 9.0 if slow else 0.0, slow),
    )
    return ModelQueues("m", tiers, inflight, 0, suspects)


def watched(*arrivals: tuple[float, int]) -> Traffic:
    traffic = None
    for now, arrived in arrivals:
        traffic = watch(traffic, now, queues(arrived=arrived))
    assert traffic is not None
    return traffic


def test_a_steady_stream_has_its_rate() -> None:
    traffic = watched(*((float(second), 3 * second) for second in range(30)))
    assert traffic.per_s()[0] == pytest.approx(3)


def test_one_job_in_the_first_second_is_not_a_rate_of_one_per_second() -> None:
    assert watched((0, 0), (0.1, 1)).per_s()[0] == pytest.approx(1 / WINDOW_S)


def test_a_rate_is_forgotten_after_the_window() -> None:
    assert watched((0, 0), (1, 50), (2, 50), (2 + WINDOW_S, 50), (3 + WINDOW_S, 50)).per_s()[0] == 0


def test_the_window_keeps_few_samples() -> None:
    assert len(watched(*((second / 2, second) for second in range(1000))).samples) <= 2 * WINDOW_S + 3


def test_an_emptied_server_starts_the_count_anew() -> None:
    traffic = watched((0, 100), (1, 101), (2, 0), (3, 2))
    assert traffic.per_s()[0] == pytest.approx(2 / WINDOW_S)


def test_a_dip_from_reading_in_mid_claim_does_not_forget_the_rate() -> None:
    traffic = watched(*((float(second), 3 * second) for second in range(20)), (20, 52), (21, 63))
    assert traffic.per_s()[0] == pytest.approx(3, rel=0.1)


def test_quiet_is_counted_from_the_last_arrival_queue_or_running_job() -> None:
    traffic = watched((0, 5), (1, 6), (2, 6), (9, 6))
    assert assess(9, SETTINGS, queues(arrived=6), traffic, [], {}).quiet_s == 8
    busy = watch(traffic, 10, queues(arrived=6, inflight=1))
    assert assess(10, SETTINGS, queues(arrived=6), busy, [], {}).quiet_s == 0


def test_the_first_look_counts_as_activity() -> None:
    assert assess(50, SETTINGS, queues(), watch(None, 50, queues()), [], {}).quiet_s == 0


def worker(name: str, phase: Phase, **more: Any) -> Worker:
    return Worker(name, "m", "cpu:0", phase, True, 0.0, **more)


def test_what_was_ever_measured_wins_over_the_heartbeats_of_now() -> None:
    workers = [worker("a", Phase.READY, jobs_per_s=4, load_s=2), worker("b", Phase.READY, jobs_per_s=6)]
    traffic = watch(None, 0, queues())
    by_beats = assess(0, SETTINGS, queues(), traffic, workers, {})
    assert (by_beats.jobs_per_s, by_beats.load_s) == (5, 2)
    measured = assess(0, SETTINGS, queues(), traffic, workers, {"jobs_per_s": 8, "load_s": 3})
    assert (measured.jobs_per_s, measured.load_s) == (8, 3)


def test_where_its_replicas_types_are_known_a_replica_is_as_fast_as_those() -> None:
    traffic = watch(None, 0, queues())
    measured = {"jobs_per_s": 8, "load_s": 3, "jobs_per_s:H200": 12, "jobs_per_s:L4": 2}
    here = [worker("a", Phase.READY, device_type="H200"), worker("b", Phase.LOADING, device_type="L4")]
    found = assess(0, SETTINGS, queues(), traffic, here, measured)
    assert (found.jobs_per_s, found.speeds) == (7, {"H200": 12, "L4": 2})
    assert assess(0, SETTINGS, queues(), traffic, [], measured).jobs_per_s == 8


def test_jobs_press_in_a_tier_that_cannot_wait_and_when_they_must_run_alone() -> None:
    def pressing(waiting: ModelQueues) -> bool:
        return assess(0, SETTINGS, waiting, watch(None, 0, waiting), [], {}).pressing

    assert [pressing(one) for one in (queues(), queues(slow=9), queues(fast=1), queues(suspects=1))] == [
        False, False, True, True,
    ]  # fmt: skip


def test_workers_are_counted_by_phase_and_those_that_drain_are_no_replicas() -> None:
    workers = [worker("a", Phase.READY), worker("b", Phase.DRAINING), worker("c", Phase.STARTING)]
    found = assess(0, SETTINGS, queues(3, 4), watch(None, 0, queues()), workers, {})
    assert found.replicas == 2
    assert found.phases[Phase.DRAINING] == 1
    assert found.queued == 7


def test_urgency_is_lateness_in_units_of_the_target() -> None:
    found = assess(0, SETTINGS, queues(1, 1), watch(None, 0, queues()), [], {})
    assert found.urgency == pytest.approx(2.0)  # interactive: 2 s of 1 s; batch: 9 s of 600 s


def test_a_suspect_is_queued_keeps_its_model_active_and_grows_as_late_as_a_job_of_the_fastest_tier() -> None:
    with_one = queues(suspects=1)
    traffic = watch(watch(None, 0, with_one), 3, with_one)
    found = assess(3, SETTINGS, with_one, traffic, [], {})
    assert (found.queued, found.none, found.quiet_s) == (1, False, 0)
    assert found.urgency == pytest.approx(3.0)  # 3 s of interactive's 1 s
    gone = watch(traffic, 4, queues())
    assert assess(4, SETTINGS, queues(), gone, [], {}).urgency == 0
