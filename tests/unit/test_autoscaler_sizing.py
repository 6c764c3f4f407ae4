from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.roster import Phase
from autoscaler.sizing.demand import Demand, TierDemand
from autoscaler.sizing.size import size
from producer.contract.fleet.fleet_schema import Model

IDLE_S = 30.0


def model(low: int = 0, high: int = 10) -> Model:
    return Model(engine="echo", min_replicas=low, max_replicas=high)


def demand(
    queued: int = 0,
    *,
    target: float = 1.0,
    age: float = 0.0,
    rate: float = 0.0,
    running: int = 0,
    quiet: float = 0.0,
    replicas: int = 0,
    per_s: float = 0.0,
    load: float = 0.0,
    free: int = 0,
) -> Demand:
    tier = TierDemand("tier", target, queued, age, rate)
    return Demand("m", (tier,), running, quiet, per_s, load, free, {Phase.READY: replicas})


def replicas(one: Demand, of: Model | None = None) -> int:
    return size(of or model(), one, IDLE_S).replicas


def test_nothing_wanted_nothing_started() -> None:
    assert replicas(demand()) == 0


def test_one_job_is_enough_to_start_from_zero() -> None:
    assert replicas(demand(1)) == 1


def test_a_capacity_never_measured_asks_for_one_replica_however_long_the_queue() -> None:
    assert replicas(demand(10_000)) == 1


def test_a_capacity_never_measured_keeps_the_replicas_there_are() -> None:
    assert replicas(demand(5, replicas=3)) == 3


def test_the_backlog_is_cleared_within_the_target() -> None:
    # 100 jobs in 10 s at 2 jobs/s a replica.
    assert replicas(demand(100, target=10, per_s=2, replicas=1)) == 5


def test_time_already_waited_is_not_there_to_wait_again() -> None:
    assert replicas(demand(100, target=20, age=10, per_s=2, replicas=1)) == 5


def test_what_the_present_replica_clears_while_another_loads_starts_no_other() -> None:
    # 8 jobs, target 1 s: 4 replicas, if they were there. But one takes 15 s to load and the present one 4 s.
    assert replicas(demand(8, target=1, per_s=2, load=0, replicas=1)) == 4
    assert replicas(demand(8, target=1, per_s=2, load=15, replicas=1)) == 1


def test_arrivals_that_outrun_the_replicas_add_some_with_head_room() -> None:
    # 8 jobs/s at 2 jobs/s a replica, filled to 80%: 5 replicas; and one job waits, 1 s long.
    assert replicas(demand(1, target=1, rate=8, per_s=2, replicas=3)) == 6


def test_arrivals_of_a_tier_that_may_wait_are_judged_by_its_backlog() -> None:
    assert replicas(demand(1000, target=600, rate=100, per_s=2, replicas=1)) == 1


def test_free_slots_take_what_waits_before_a_replica_is_added() -> None:
    assert replicas(demand(3, target=1, rate=20, per_s=1, replicas=2, free=3)) == 2
    assert replicas(demand(4, target=1, rate=20, per_s=1, replicas=2, free=3)) == 10


def test_a_replica_stays_until_the_model_was_quiet_for_the_idle_time() -> None:
    assert replicas(demand(replicas=1, quiet=IDLE_S - 1, per_s=5)) == 1
    assert replicas(demand(replicas=1, quiet=IDLE_S, per_s=5)) == 0


def test_running_jobs_keep_a_replica_however_quiet_the_queue() -> None:
    assert replicas(demand(running=1, replicas=1, quiet=1000)) == 1


def test_the_more_urgent_tier_goes_first_so_the_other_needs_room_for_both() -> None:
    tiers = (TierDemand("slow", 100, 100), TierDemand("fast", 10, 100))
    one = Demand("m", tiers, jobs_per_s=1, phases={Phase.READY: 1})
    assert replicas(one, model(high=100)) == 10  # fast: 100 in 10 s; slow: 200 in 100 s


def test_a_suspect_alone_starts_a_worker_and_the_reason_says_so() -> None:
    alone = Demand("m", (TierDemand("fast", 1),), suspects=1)
    found = size(model(), alone, IDLE_S)
    assert found.replicas == 1
    assert "1 queued: 1 suspect;" in found.reason
    assert "2 suspects" in size(model(), replace(alone, suspects=2), IDLE_S).reason


def test_suspects_are_as_urgent_as_the_fastest_tier() -> None:
    tiers = (TierDemand("slow", 100, 100), TierDemand("fast", 10))
    one = Demand("m", tiers, jobs_per_s=1, phases={Phase.READY: 1}, suspects=30)
    assert replicas(one) == 3  # 30 in 10 s; and 130 in 100 s


def test_the_reason_holds_the_numbers() -> None:
    found = size(model(high=4), demand(100, target=10, age=0.5, per_s=2, replicas=1), IDLE_S)
    for part in ("100 queued", "waiting 0.5 s", "target 10 s", "a replica does 2.00", "max_replicas is 4"):
        assert part in found.reason


@pytest.mark.parametrize(("low", "queued", "expected"), [(2, 0, 2), (0, 10_000, 3)])
def test_minimum_and_maximum_bind(low: int, queued: int, expected: int) -> None:
    assert replicas(demand(queued, per_s=1), model(low, 3)) == expected


@given(
    queued=st.integers(0, 10**6),
    age=st.floats(0, 1e5),
    rate=st.floats(0, 1e4),
    running=st.integers(0, 1000),
    quiet=st.floats(0, 1e5),
    there=st.integers(0, 20),
    per_s=st.floats(0, 1e4),
    load=st.floats(0, 1e3),
    low=st.integers(0, 5),
    more=st.integers(1, 5),
)
def test_whatever_is_measured_the_size_is_within_bounds_and_never_zero_while_a_job_waits(
    queued: int, age: float, rate: float, running: int, quiet: float, there: int, per_s: float, load: float,
    low: int, more: int,
) -> None:  # fmt: skip
    one = demand(queued, age=age, rate=rate, running=running, quiet=quiet, replicas=there, per_s=per_s, load=load)
    found = replicas(one, model(low, low + more))
    assert low <= found <= low + more
    assert found >= 1 or queued == 0


@given(queued=st.integers(0, 1000), more=st.integers(0, 1000), per_s=st.floats(0.1, 100))
def test_more_waiting_never_wants_fewer(queued: int, more: int, per_s: float) -> None:
    assert replicas(demand(queued, per_s=per_s)) <= replicas(demand(queued + more, per_s=per_s))
