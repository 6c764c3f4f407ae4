"""The simulation: every request ends once, queues keep their order, a seed is a run, and it is a queue."""

import itertools
import math
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaler.sizing.policy_registry import BACKLOG
from producer.contract.fleet.fleet_schema import DeviceType, Limits, Model, Redis, Scaling, Tier
from producer.contract.fleet.settings import Settings
from scheduler.order.preemption import PACE
from simulator.events import EventKind
from simulator.hardware import Hardware
from simulator.queueing.queue_policy import FIFO, LIVE, STRICT, QueuePolicy
from simulator.results.outcome import Fate, RunOutcome
from simulator.run import Simulation
from simulator.service import ServiceModel
from simulator.traces.trace import Trace, assign

TIERS = {"fast": Tier(target_wait_s=1, weight=4), "slow": Tier(target_wait_s=60, weight=1)}


def fleet(devices: int = 4, load_s: float = 5.0, failures: float = 0.0, **model: object) -> tuple[Settings, Hardware]:
    fields: dict[str, object] = {"engine": "echo", "tiers": ("fast", "slow"), "max_replicas": devices, **model}
    settings_ = Settings(
        tiers=TIERS, models={"m": Model(**fields), "n": Model(**fields)}, scaling=Scaling(up_cooldown_s=0, idle_s=10)
    )
    kind = DeviceType(type="gpu", count=devices, failures_per_day=failures, repair_s=30)
    service = ServiceModel(0.01, 0.001, 0.0001, load_s=load_s)
    return settings_, Hardware((kind,), {"m": service, "n": service})


def load(count: int, per_s: float, seed: int = 0) -> Trace:
    rng = random.Random(seed)
    at, now = [], 0.0
    for _ in range(count):
        now += rng.expovariate(per_s)
        at.append(now)
    return Trace(at, [rng.randint(1, 500) for _ in at], [rng.randint(1, 200) for _ in at])


def simulate(fleet_: tuple[Settings, Hardware], trace: Trace, order: QueuePolicy = LIVE, seed: int = 0) -> RunOutcome:
    settings_, hardware = fleet_
    return Simulation(settings_, hardware, assign(trace, settings_, seed), BACKLOG, order, seed).run()


def check_conservation(outcome: RunOutcome) -> None:
    trace = outcome.trace
    for request, at in enumerate(trace.at):
        fate, started, ended = Fate(outcome.fate[request]), outcome.started[request], outcome.ended[request]
        if fate == Fate.DONE:
            assert at <= started < ended
        if fate == Fate.REFUSED:
            assert ended == at
            assert math.isnan(started)


def test_the_same_seed_is_the_same_run_and_another_is_not() -> None:
    one, same, other = (simulate(fleet(failures=2000), load(500, 20), seed=seed) for seed in (1, 1, 2))
    assert (one.started, one.ended, one.device_s) == (same.started, same.ended, same.device_s)
    assert one.started != other.started


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 1000),
    per_s=st.floats(0.5, 200),
    devices=st.integers(1, 6),
    failures=st.sampled_from([0.0, 500.0, 5000.0]),
    room=st.integers(1, 20),
    queue=st.sampled_from([3, 1000]),
)
def test_every_request_has_exactly_one_end_whatever_fails(
    seed: int, per_s: float, devices: int, failures: float, room: int, queue: int
) -> None:
    given_ = fleet(devices, failures=failures, max_concurrency=room, limits=Limits(max_queued=queue))
    outcome = simulate(given_, load(200, per_s, seed), seed=seed)
    assert Fate.OPEN not in outcome.fate  # ends are asserted to be single where they are made
    check_conservation(outcome)
    assert 0 < sum(outcome.device_s.values()) <= devices * outcome.ends_at


def test_every_kind_of_event_has_a_handler() -> None:
    settings_, hardware = fleet()
    run = Simulation(settings_, hardware, assign(load(1, 1), settings_), BACKLOG)
    assert set(run.handlers) == set(EventKind)


def test_a_full_queue_refuses() -> None:
    outcome = simulate(fleet(1, limits=Limits(max_queued=3)), load(500, 1000))
    assert outcome.fate.count(Fate.REFUSED) > 0
    check_conservation(outcome)


def test_a_request_that_takes_too_many_workers_with_it_is_dead() -> None:
    settings_, hardware = fleet(2, load_s=0.1, failures=40_000)
    settings_ = settings_.model_copy(update={"redis": Redis(max_losses=1, lease_s=1)})
    outcome = simulate((settings_, hardware), load(500, 20))
    assert outcome.fate.count(Fate.DEAD) > 0
    assert outcome.failures > 0


@pytest.mark.parametrize("order", [LIVE, STRICT, FIFO])
def test_a_queue_is_first_in_first_out(order: QueuePolicy) -> None:
    outcome = simulate(fleet(2), load(2000, 100), order)
    by_queue: dict[tuple[int, int], list[float]] = {}
    for request, queue in enumerate(zip(outcome.trace.model, outcome.trace.tier, strict=True)):
        by_queue.setdefault(queue, []).append(outcome.started[request])
    assert len(by_queue) == 4
    assert all(started == sorted(started) for started in by_queue.values())


def test_fifo_is_so_over_the_tiers_and_strict_priority_serves_the_fast_one_first() -> None:
    def median_wait(order: QueuePolicy, tier: int) -> float:
        outcome = simulate(fleet(2), load(2000, 100), order)
        trace = outcome.trace
        waits = sorted(outcome.started[one] - trace.at[one] for one in range(len(trace)) if trace.tier[one] == tier)
        return waits[len(waits) // 2]

    assert median_wait(STRICT, 0) < 0.5 * median_wait(STRICT, 1)
    assert median_wait(FIFO, 0) == pytest.approx(median_wait(FIFO, 1), rel=0.1)


def test_batch_requests_join_one_that_is_held_one_at_a_time_and_with_pauses() -> None:
    tiers = {"fast": TIERS["fast"], "slow": Tier(target_wait_s=600, weight=1, preemptible=True)}
    model = Model(engine="generate", source="m", tiers=("fast", "slow"), min_replicas=1, max_concurrency=16)
    settings_ = Settings(tiers=tiers, models={"m": model})
    service = ServiceModel(0.01, 0.001, 0.001)
    hardware = Hardware((DeviceType(type="gpu", count=1),), {"m": service})
    at, prompt, count = 10.0, 100, 4
    tokens = [10_000] + [10] * count
    trace = Trace([at] + [at + 1] * count, [0] + [prompt] * count, tokens)
    trace = replace(assign(trace, settings_), tier=[0] + [1] * count, tiers=("fast", "slow"))
    outcome = Simulation(settings_, hardware, trace, BACKLOG, LIVE).run()
    stall_s = prompt * service.prompt_token_s
    joined = [at + 1 + n * (1 + PACE) * stall_s for n in range(count)]
    assert outcome.started[1:] == pytest.approx(joined)


def test_batch_requests_that_have_waited_for_their_target_make_no_more_pauses() -> None:
    target_s = 20.0
    tiers = {"fast": TIERS["fast"], "slow": Tier(target_wait_s=target_s, weight=1, preemptible=True)}
    model = Model(engine="generate", source="m", tiers=("fast", "slow"), min_replicas=1, max_concurrency=64)
    settings_ = Settings(tiers=tiers, models={"m": model})
    service = ServiceModel(0.001, 0.0, 0.001)
    hardware = Hardware((DeviceType(type="gpu", count=1),), {"m": service})
    at, prompt, count = 10.0, 500, 30
    trace = Trace([at] + [at + 1] * count, [0] + [prompt] * count, [10_000_000] + [10_000] * count)
    trace = replace(assign(trace, settings_), tier=[0] + [1] * count, tiers=("fast", "slow"))
    outcome = Simulation(settings_, hardware, trace, BACKLOG, LIVE, patience_s=60.0).run()
    started = [one - at - 1 for one in outcome.started[1:] if one == one]
    between = [later - one for one, later in itertools.pairwise(started)]
    stall_s = prompt * service.prompt_token_s
    assert between[0] == pytest.approx((1 + PACE) * stall_s)
    assert [pause for one, pause in zip(started, between, strict=False) if one >= target_s] == pytest.approx(
        [stall_s] * sum(one >= target_s for one in started[:-1])
    )
    assert sum(one >= target_s for one in started[:-1]) > 3


def test_a_tenant_that_asks_for_much_does_not_delay_one_that_asks_for_little() -> None:
    def median_wait(order: QueuePolicy) -> float:
        settings_, hardware = fleet(2)
        trace = assign(load(3000, 100), settings_, tiers={"fast": 1.0}, tenants={"greedy": 19.0, "modest": 1.0})
        outcome = Simulation(settings_, hardware, trace, BACKLOG, order).run()
        check_conservation(outcome)
        assert Fate.OPEN not in outcome.fate
        waits = sorted(outcome.started[one] - trace.at[one] for one, tenant in enumerate(trace.tenant) if tenant == 1)
        return waits[len(waits) // 2]

    assert median_wait(LIVE) < 0.3 * median_wait(FIFO)


def erlang_c(servers: int, load_: float) -> float:
    """Probability of waiting in M/M/c (Erlang, 1917)."""
    last = load_**servers / math.factorial(servers) * servers / (servers - load_)
    return last / (sum(load_**k / math.factorial(k) for k in range(servers)) + last)


@pytest.mark.parametrize(("servers", "utilisation"), [(1, 0.6), (4, 0.8)])
def test_with_random_arrivals_and_lengths_waits_are_those_of_erlang(servers: int, utilisation: float) -> None:
    # A device has one slot, and its time is in proportion to the tokens: M/M/c, but for the rounding to tokens.
    rng = random.Random(5)
    mean_s, count = 1.0, 60_000
    per_s = servers * utilisation / mean_s
    at, now = [], 100.0  # by when all replicas are there
    for _ in range(count):
        now += rng.expovariate(per_s)
        at.append(now)
    outputs = [max(1, round(rng.expovariate(1 / (1000 * mean_s)))) for _ in at]
    model = Model(engine="echo", tiers=("fast",), max_concurrency=1, min_replicas=servers, max_replicas=servers)
    settings_ = Settings(tiers=TIERS, models={"m": model}, scaling=Scaling(interval_s=100))
    hardware = Hardware((DeviceType(type="gpu", count=servers),), {"m": ServiceModel(0.0, 0.001)})
    outcome = simulate((settings_, hardware), Trace(at, [1] * count, outputs))
    wait = sum(map(float.__sub__, outcome.started, at)) / count
    expected = erlang_c(servers, servers * utilisation) * mean_s / (servers * (1 - utilisation))
    assert wait == pytest.approx(expected, rel=0.1)
