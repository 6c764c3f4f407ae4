"""The scaling policies, as the pure functions that they are."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.observation import Memory, Observation
from autoscaler.roster import Phase, Worker
from autoscaler.sizing.demand import Demand, TierDemand
from autoscaler.sizing.forecast import TICK_S, Forecast
from autoscaler.sizing.history import History, remember
from autoscaler.sizing.policies.forecast import forecast_size
from autoscaler.sizing.policies.slack import slack_size
from autoscaler.sizing.policies.target_tracking import tracking_size
from autoscaler.sizing.policies.threshold import threshold_size
from autoscaler.sizing.policy_registry import POLICIES, named
from producer.contract.errors import ConfigError
from producer.contract.fleet.fleet_schema import Model, PolicyName, Scaling, ThresholdSettings
from producer.contract.fleet.settings import Settings

LOAD_S = 60.0
FULL = 10
NOW = 50_000.0


def model(low: int = 0, high: int = 16) -> Model:
    return Model(engine="echo", min_replicas=low, max_replicas=high, max_concurrency=FULL)


def demand(
    *tiers: TierDemand, ready: int = 1, starting: int = 0, running: int = 0, free: int = 0, **more: Any
) -> Demand:
    phases = {Phase.READY: ready, Phase.LOADING: starting}
    return Demand("m", tiers, running, free_slots=free, phases=phases, load_s=LOAD_S, **more)


def arriving(per_s: float, ticks: int = 60, horizon_s: float = 2 * LOAD_S) -> Forecast:
    found = Forecast(0.0, 0)
    for tick in range(1, ticks + 1):
        found = found.after(tick * TICK_S, round(per_s * tick * TICK_S), horizon_s)
    return found


def known(per_s: float, **tiers: Forecast) -> History:
    """A replica is known to do ``per_s`` when full."""
    empty = remember(None, 0.0, Demand("m", jobs_per_s=per_s), [], FULL)
    return replace(empty, tiers=tiers)


def replicas(one: Demand, history: History, of: Model | None = None, **scaling: Any) -> int:
    return slack_size(of or model(), one, history, Scaling(**scaling)).replicas


def test_the_settings_know_every_policy_and_no_other() -> None:
    assert set(get_args(PolicyName)) == set(POLICIES)
    assert named("slack").name == Scaling().policy
    with pytest.raises(ConfigError, match="allowed: slack, backlog"):
        named("magic")


def test_slack_is_sized_for_what_is_forecast_of_tiers_that_cannot_wait() -> None:
    fast, slow = TierDemand("fast", 1.0), TierDemand("slow", 600.0)
    history = known(2.0, fast=arriving(8.0), slow=arriving(8.0))
    # 8 jobs/s at 2 a replica; the slow tier's are waited for.
    assert replicas(demand(fast, slow, running=1), history, headroom=0) == 4


def test_what_can_wait_is_sized_by_its_queue_and_the_time_that_is_left() -> None:
    history = known(2.0)
    assert replicas(demand(TierDemand("slow", 600.0, queued=3000), running=1), history) == 3  # 3.3, to the nearest
    assert replicas(demand(TierDemand("slow", 600.0, queued=3000, waited_s=350), running=1), history) == 8


def test_what_can_wait_is_not_left_to_settle_at_its_target() -> None:
    # As many as come in one target wait: sized for all of it, half of them would wait a little longer.
    served_per_s, target_s = 2.0, 600.0
    queued = round(3.5 * served_per_s * target_s)
    assert replicas(demand(TierDemand("slow", target_s, queued=queued), running=1), known(served_per_s)) == 5


def test_a_target_that_no_new_replica_could_meet_counts_as_one_that_it_could() -> None:
    # 480 in 120 s, not in the second that the tier has.
    assert replicas(demand(TierDemand("fast", 1.0, queued=480), running=1), known(1.0)) == 4


def test_headroom_is_in_units_of_what_the_forecast_was_wrong_by() -> None:
    swinging = Forecast(0.0, 0)
    arrived = 0
    for tick in range(1, 200):
        arrived += 100 if tick // 24 % 2 else 20  # of 10 a second for four minutes, then 2
        swinging = swinging.after(tick * TICK_S, arrived, 2 * LOAD_S)
    fast = TierDemand("fast", 1.0)
    none, one, two = (replicas(demand(fast, running=1), known(1.0, fast=swinging), headroom=z) for z in (0, 1, 2))
    assert none < one < two
    steady = [replicas(demand(fast, running=1), known(1.0, fast=arriving(6.0)), headroom=z) for z in (0, 1, 2)]
    assert max(steady) - min(steady) <= 1


def test_headroom_is_there_for_bursts_and_does_not_come_on_top_of_one() -> None:
    history = known(1.0, fast=arriving(4.0))
    history = replace(history, tiers={"fast": replace(history.tiers["fast"], squares=(100.0,) * 4, weight=24.0)})
    headroom = replicas(demand(TierDemand("fast", 1.0), running=1), history, headroom=1)
    assert headroom == 6
    assert replicas(demand(TierDemand("fast", 1.0, queued=120), running=1), history, headroom=1) == 6
    assert replicas(demand(TierDemand("fast", 1.0, queued=1200), running=1), history, headroom=1) == 14


def test_a_surplus_is_kept_for_some_load_times_and_the_idle_time_at_least() -> None:
    fast = TierDemand("fast", 1.0, queued=1)
    assert slack_size(model(), demand(fast), known(1.0), Scaling(keep_loads=3)).spare_s == 3 * LOAD_S
    assert slack_size(model(), demand(fast), known(1.0), Scaling(keep_loads=0, idle_s=45)).spare_s == 45


def test_slack_goes_to_zero_after_that_time_and_comes_from_it_with_the_first_job() -> None:
    nothing, one = TierDemand("fast", 1.0), TierDemand("fast", 1.0, queued=1)
    assert replicas(demand(nothing, quiet_s=4 * LOAD_S - 1), known(1.0)) == 1
    assert replicas(demand(nothing, quiet_s=4 * LOAD_S), known(1.0)) == 0
    assert replicas(demand(one, ready=0), known(1.0)) == 1
    assert replicas(demand(one, ready=0), History(0.0)) == 1


def test_an_unknown_capacity_is_sized_by_the_backlog_and_at_most_doubled() -> None:
    slow = TierDemand("slow", 100.0, queued=1000)
    found = slack_size(model(), demand(slow, jobs_per_s=2.0, ready=3), History(0.0), Scaling())
    assert found.replicas == 5
    assert slack_size(model(), demand(slow, jobs_per_s=2.0), History(0.0), Scaling()).replicas == 2
    assert found.spare_s == 4 * LOAD_S


def test_the_reason_has_the_numbers() -> None:
    fast = TierDemand("fast", 1.0, queued=7)
    reason = slack_size(model(high=3), demand(fast, running=5), known(2.0, fast=arriving(8.0)), Scaling()).reason
    for part in (
        "7 queued",
        "8.00 expected (as now tells)",
        "in 120 s",
        "a full replica does 2.00",
        "max_replicas is 3",
    ):
        assert part in reason


@given(
    queued=st.integers(0, 10**6), waited=st.floats(0, 1e5), per_s=st.floats(0, 1e4), rate=st.floats(0, 1e3),
    ready=st.integers(0, 20), low=st.integers(0, 5), more=st.integers(1, 11), quiet=st.floats(0, 1e5),
    running=st.integers(0, 100),
)  # fmt: skip
def test_every_policy_stays_within_bounds_and_never_says_zero_while_a_job_waits(
    queued: int, waited: float, per_s: float, rate: float, ready: int, low: int, more: int, quiet: float, running: int
) -> None:
    settings = Settings(models={"m": model(low, low + more)})
    tier = TierDemand("fast", 1.0, queued, waited, rate, queued)
    one = demand(tier, ready=ready, running=running, quiet_s=quiet, jobs_per_s=per_s)
    seen = Observation(NOW, settings, {"m": one}, [], [])
    for policy in POLICIES.values():
        sizes, memory = policy.sizes(seen, Memory())
        sizes, _ = policy.sizes(replace(seen, now=NOW + 10), memory)
        assert low <= sizes["m"].replicas <= low + more
        assert sizes["m"].replicas >= 1 or not queued
        assert sizes["m"].reason


def test_the_threshold_steps_by_one_and_cools_down() -> None:
    full = demand(TierDemand("fast", 1.0, queued=500), ready=4, running=40, free=0)
    idle = demand(TierDemand("fast", 1.0), ready=4, running=11, free=29)
    between = demand(TierDemand("fast", 1.0), ready=4, running=20, free=20)
    steps = [(full, 59.0, 4), (full, 60.0, 5), (full, None, 5), (idle, 299.0, 4), (idle, 300.0, 3), (between, None, 4)]
    for one, since_s, expected in steps:
        assert threshold_size(model(), one, since_s, Scaling()).replicas == expected
    assert "cooling down for 1 s more" in threshold_size(model(), full, 59.0, Scaling()).reason


def test_the_threshold_remembers_when_it_stepped() -> None:
    settings = Settings(models={"m": model()})
    full = demand(TierDemand("fast", 1.0, queued=500), ready=4, running=40)
    sizes, memory = named("threshold").sizes(Observation(NOW, settings, {"m": full}, [], []), Memory())
    assert sizes["m"].replicas == 5
    more = demand(TierDemand("fast", 1.0, queued=500), ready=4, starting=1, running=40)
    for later, expected in ((30, 5), (59, 5), (60, 6)):
        sizes, _ = named("threshold").sizes(Observation(NOW + later, settings, {"m": more}, [], []), memory)
        assert sizes["m"].replicas == expected


def test_a_threshold_below_which_everything_is_also_above_is_refused() -> None:
    with pytest.raises(ValueError, match=r"down is 0\.9, allowed: below up \(0\.8\)"):
        ThresholdSettings(down=0.9)


@pytest.mark.parametrize(
    ("running", "queued", "expected"), [(28, 0, 4), (30, 0, 4), (36, 0, 6), (40, 40, 12), (7, 0, 1)]
)
def test_target_tracking_is_the_horizontal_pod_autoscaler(running: int, queued: int, expected: int) -> None:
    one = demand(TierDemand("fast", 1.0, queued=queued), ready=4, running=running, free=40 - running)
    assert tracking_size(model(), one, Scaling()).replicas == expected


def test_forecast_is_sized_for_the_rate_alone() -> None:
    history = known(2.0, fast=arriving(8.0), slow=arriving(8.0))
    tiers: Sequence[TierDemand] = (TierDemand("fast", 1.0, queued=10_000), TierDemand("slow", 600.0))
    assert forecast_size(model(), demand(*tiers), history, 30.0).replicas == 10  # 16 / 2 / 0.8


def test_a_history_takes_one_look_a_tick_and_no_rate_of_a_replica_that_still_fills_up() -> None:
    one = demand(TierDemand("fast", 1.0, arrived=5), jobs_per_s=4.0)
    first = remember(None, NOW, one, [], FULL)
    assert first.capacity.per_s(FULL) == pytest.approx(4.0)
    assert remember(first, NOW + 1, one, [], FULL) is first
    fresh = Worker("a", "m", "cpu:0", Phase.READY, True, NOW - 100, load_s=60, running=3, jobs_per_s=0.1, batch_size=3)
    after = remember(first, NOW + 10, one, [fresh], FULL)
    assert after.capacity.per_s(FULL) == pytest.approx(4.0)
    settled = replace(fresh, started_at=NOW - 1000, jobs_per_s=1.0, batch_size=10)
    for tick in range(2, 200):
        after = remember(after, NOW + 10 * tick, one, [settled], FULL)
    assert after.capacity.per_s(FULL) == pytest.approx(1.0, rel=0.05)
