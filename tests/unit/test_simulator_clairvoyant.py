"""The clairvoyant bound: cases that can be reckoned by hand, and that no schedule goes below it."""

import math

import pytest

from autoscaler.sizing.policy_registry import BACKLOG
from producer.contract.fleet.fleet_schema import DeviceType, Model, Scaling, Tier
from producer.contract.fleet.settings import Settings
from simulator.hardware import Hardware
from simulator.results.clairvoyant import Bound, clairvoyant
from simulator.results.outcome import Fate, RunOutcome
from simulator.run import Simulation
from simulator.service import ServiceModel
from simulator.traces.synthetic import generate
from simulator.traces.trace import Trace, assign

SETTINGS = Settings(
    tiers={"fast": Tier(target_wait_s=10, weight=4), "slow": Tier(target_wait_s=600, weight=1)},
    models={"m": Model(engine="echo", tiers=("fast", "slow"), max_concurrency=1, max_replicas=8)},
    scaling=Scaling(idle_s=20),
)


def hardware(load_s: float = 30.0) -> Hardware:
    return Hardware((DeviceType(type="gpu", count=8),), {"m": ServiceModel(1.0, 0.0, load_s=load_s)})


def done(at: list[float], seconds: list[int], late: tuple[int, ...] = (), tier: int = 0) -> RunOutcome:
    """Requests that take ``seconds`` each, all within their targets but the late ones."""
    count = len(at)
    trace = assign(Trace(at, [1] * count, seconds), SETTINGS, tiers={("fast", "slow")[tier]: 1.0})
    started = [at[n] + (1000 if n in late else 0) for n in range(count)]
    return RunOutcome(trace, started, started, bytearray([Fate.DONE] * count), ends_at=max(at) + 600)


def bound(outcome: RunOutcome, load_s: float = 30.0, whole: bool = True) -> Bound:
    return clairvoyant(SETTINGS, hardware(load_s), outcome, slot_s=1.0, whole=whole)


def test_one_request_needs_one_load_and_its_own_time() -> None:
    assert bound(done([100.0], [20])).device_hours * 3600 == pytest.approx(50, abs=1)


def test_a_burst_that_is_due_at_once_needs_as_many_devices_as_requests_and_one_that_may_wait_needs_one() -> None:
    at, seconds = [100.0] * 4, [60] * 4
    urgent, patient = done(at, seconds), done(at, seconds, tier=1)
    # The fast four may take until 100 + 10 + 60: each device does 70 s of 240 s, so all four are needed.
    assert bound(urgent).device_hours * 3600 == pytest.approx(4 * 30 + 240, abs=5)
    assert max(bound(urgent).serving["m"]) == pytest.approx(4)
    assert bound(patient).device_hours * 3600 == pytest.approx(30 + 240, abs=5)


def test_what_may_miss_its_target_needs_no_device_of_its_own_but_its_work_is_still_done() -> None:
    at, seconds = [100.0] * 4, [60] * 4
    assert bound(done(at, seconds, late=(0, 1, 2))).device_hours * 3600 == pytest.approx(30 + 240, abs=8)


def test_holding_a_device_through_a_gap_is_dearer_than_loading_again_when_the_gap_is_longer() -> None:
    near, far = done([100.0, 140.0], [20, 20]), done([100.0, 300.0], [20, 20])
    assert bound(near).device_hours * 3600 < 2 * 50 - 5
    assert bound(far).device_hours * 3600 == pytest.approx(2 * 50, abs=2)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_run_goes_below_its_bound(seed: int) -> None:
    service = ServiceModel(0.02, 0.0005, 0.0001, load_s=30)
    model = Model(engine="echo", tiers=("fast", "slow"), max_concurrency=16, max_replicas=8)
    settings = SETTINGS.model_copy(update={"models": {"m": model}})
    fleet = Hardware((DeviceType(type="gpu", count=8),), {"m": service})
    outcome = Simulation(settings, fleet, assign(generate(1500, 4.0, seed), settings, seed), BACKLOG, seed=seed).run()
    found = clairvoyant(settings, fleet, outcome)
    assert 0 < found.device_hours <= outcome.device_hours
    assert all(math.isfinite(replicas) and replicas <= 8 + 1e-6 for replicas in found.serving["m"])
