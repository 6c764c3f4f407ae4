"""The growth of a model of which nothing is measured yet, and what of that growth stays."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.actions.shrink import shrink
from autoscaler.observation import Memory, Observation
from autoscaler.roster import Phase, Worker
from autoscaler.sizing.cold_start import cold_size, needed_since
from autoscaler.sizing.demand import Demand, TierDemand
from autoscaler.sizing.history import SETTLED_S, History, remember
from autoscaler.sizing.policy_registry import SLACK
from autoscaler.sizing.size import Size
from producer.contract.fleet.fleet_schema import DeviceType, Model, Scaling
from producer.contract.fleet.settings import Settings
from simulator.hardware import Hardware
from simulator.run import Simulation
from simulator.service import ServiceModel
from simulator.traces.trace import Trace, assign

AHEAD_S = 120.0


def model(high: int = 64, low: int = 0, **more: Any) -> Model:
    return Model(engine="echo", min_replicas=low, max_replicas=high, **more)


def demand(queued: int, *, target: float = 1.0, ready: int = 0, loading: int = 0, **more: Any) -> Demand:
    phases = {Phase.READY: ready, Phase.LOADING: loading}
    return Demand("m", (TierDemand("tier", target, queued),), phases=phases, **more)


def replicas(one: Demand, of: Model | None = None) -> int:
    return cold_size(of or model(), one, 30.0, AHEAD_S).replicas


def test_one_replica_is_started_however_much_waits() -> None:
    assert replicas(demand(1)) == 1
    assert replicas(demand(10_000)) == 1
    assert replicas(demand(10_000, loading=1)) == 1, "it is still loading"
    assert replicas(demand(10_000), model(jobs_per_s=5.0)) == 1


def test_it_doubles_at_most_once_a_load_time_whatever_the_first_rate_says() -> None:
    assert replicas(demand(1000, ready=1, jobs_per_s=0.05)) == 2
    assert replicas(demand(1000, ready=1, loading=1, jobs_per_s=0.05)) == 2
    assert replicas(demand(1000, ready=2, jobs_per_s=0.05)) == 4
    assert replicas(demand(1000, ready=2, jobs_per_s=0.05), model(high=3)) == 3
    assert replicas(demand(0, ready=1, running=1), model(low=5)) == 5, "the minimum is no guess"


def test_what_is_there_already_is_no_growth() -> None:
    assert replicas(demand(1000, ready=1, loading=5, jobs_per_s=0.05)) == 6


def test_before_any_rate_only_what_cannot_wait_for_one_asks_for_more() -> None:
    assert replicas(demand(100, ready=1)) == 2
    assert replicas(demand(100, ready=1, target=600.0)) == 1
    assert replicas(demand(3, ready=1, free_slots=5)) == 1


def test_a_declared_rate_stands_for_the_measured_one() -> None:
    few = demand(100, target=100.0, ready=2, jobs_per_s=0.1)
    assert replicas(few) == 4
    assert replicas(few, model(jobs_per_s=1.0)) == 1


def test_the_reason_tells_the_bound() -> None:
    reason = cold_size(model(), demand(1000, ready=1, jobs_per_s=0.05), 30.0, AHEAD_S).reason
    assert "until a replica is measured, no more than twice the 1 that have loaded" in reason
    assert "a replica does 0.05" in reason


@given(
    queued=st.integers(0, 10_000),
    ready=st.integers(0, 20),
    loading=st.integers(0, 20),
    per_s=st.floats(0, 100),
    target=st.floats(0.1, 1000),
)
def test_it_never_asks_for_more_than_a_doubling(
    queued: int, ready: int, loading: int, per_s: float, target: float
) -> None:
    one = demand(queued, target=target, ready=ready, loading=loading, jobs_per_s=per_s)
    assert replicas(one) <= max(1, 2 * ready, ready + loading)


def test_a_rate_counts_once_as_many_jobs_are_done_as_are_held() -> None:
    def capacity(served_s: float, jobs_per_s: float) -> float:
        worker = Worker(
            "w", "m", "cpu:0", Phase.READY, True, 0.0, running=32, batch_size=32, jobs_per_s=jobs_per_s, load_s=60.0
        )
        return remember(History(0.0), 60.0 + served_s, demand(0), [worker], 32).capacity.per_s(32)

    assert capacity(SETTLED_S - 1, 2.0) == 0
    assert capacity(SETTLED_S, 2.0) == pytest.approx(2.0)
    assert capacity(SETTLED_S, 0.1) == 0, "6 jobs of 32: it fills up for the first time"
    assert capacity(320.0, 0.1) == pytest.approx(0.1), "they just take long"


def test_what_was_never_needed_is_known_until_it_is_gone() -> None:
    assert needed_since(None, False, 4, 4) == 0
    assert needed_since(0, True, 3, 4) == 3
    assert needed_since(3, True, 2, 4) == 3, "it was needed once"
    assert needed_since(3, True, 2, 3) is None, "it is gone"
    assert needed_since(3, True, 5, 4) is None, "all of it is needed"
    assert needed_since(None, True, 2, 4) is None, "nothing was ever started without a measurement"


def test_what_was_never_needed_is_drained_at_once_and_the_rest_kept() -> None:
    settings = Settings(models={"m": model()})
    workers = [Worker(f"w{n}", "m", f"cpu:{n}", Phase.READY, True, float(n)) for n in range(6)]
    seen = Observation(1000.0, settings, {"m": demand(0, ready=6, running=1)}, [], workers)
    told, memory = shrink(seen, Memory(), {"m": Size(2, "why", 240.0, needed=4)}, workers)
    assert [one.worker for one in told] == ["w5", "w4"]
    assert "no more than 4 were ever needed" in told[0].reason
    assert memory.surplus["m"].since == 1000.0, "the others go once they were surplus for long enough"
    told, _ = shrink(seen, Memory(), {"m": Size(2, "why", 240.0)}, workers)
    assert told == []


def test_a_model_that_needs_a_few_replicas_does_not_start_dozens_when_it_is_cold() -> None:
    tiers = {"interactive": 1.0, "standard": 1.0}
    settings = Settings(models={"m": Model(engine="generate", source="m", max_replicas=64)}, scaling=Scaling())
    hardware = Hardware((DeviceType(type="gpu", count=64),), {"m": ServiceModel(0.02, 0.0005, 0.0001, load_s=60.0)})
    count, per_s = 1200, 2.0
    requests = Trace([n / per_s for n in range(count)], [10_000] * count, [300] * count)
    run = Simulation(settings, hardware, assign(requests, settings, tiers=tiers), SLACK)
    outcome = run.run()
    work = count * hardware.services["m"].device_s(10_000, 300, 32) / outcome.ends_at
    assert max(sum(sample.held) for sample in outcome.samples) <= 4 * work
