"""Routing: what is pushed waits for one worker and moves only when that one goes; every policy has its name."""

import math
import random
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaler.sizing.policy_registry import BACKLOG, POLICIES
from deploy.cli.simulate import simulate as command
from producer.contract.errors import ConfigError
from producer.contract.fleet.fleet_schema import DeviceType, Limits, Model, Scaling, Tier
from producer.contract.fleet.settings import Settings
from simulator.hardware import Hardware
from simulator.policy_spec import named
from simulator.queueing.push import PushRouter
from simulator.queueing.queue_policy import LIVE, ORDERS
from simulator.queueing.routing import PULL, ROUTINGS, Routing
from simulator.results.estimates import SimulatedEstimates
from simulator.results.outcome import Fate, RunOutcome
from simulator.run import Simulation
from simulator.service import ServiceModel
from simulator.traces.trace import Trace, assign
from simulator.worker import SimulatedWorker

Fleet = tuple[Settings, Hardware]

PUSHED = [routing for routing in ROUTINGS.values() if routing is not PULL]
ROUND_ROBIN = ROUTINGS["round-robin"]
TIERS = {"fast": Tier(target_wait_s=1, weight=4), "slow": Tier(target_wait_s=60, weight=1)}
PAGE = Path(__file__).parents[2] / "docs/simulator.md"


def fleet(
    replicas: int, *, low: int | None = None, load_s: float = 0.0, failures: float = 0.0, **model: object
) -> Fleet:
    fields: dict[str, object] = {"engine": "echo", "tiers": ("fast", "slow"), "max_replicas": replicas, **model}
    fields["min_replicas"] = replicas if low is None else low
    settings_ = Settings(tiers=TIERS, models={"m": Model(**fields)}, scaling=Scaling(up_cooldown_s=0, idle_s=10))
    kind = DeviceType(type="gpu", count=replicas, failures_per_day=failures, repair_s=30)
    return settings_, Hardware((kind,), {"m": ServiceModel(0.01, 0.001, 0.0001, load_s=load_s)})


def load(count: int, per_s: float, seed: int = 0) -> Trace:
    rng = random.Random(seed)
    at, now = [], 1.0  # by when those that need not load are there
    for _ in range(count):
        now += rng.expovariate(per_s)
        at.append(now)
    return Trace(at, [rng.randint(1, 500) for _ in at], [rng.randint(1, 200) for _ in at])


def with_tenants(trace: Trace, tenants: int) -> Trace:
    return assign(trace, fleet(1)[0], tenants={f"t{n}": 1.0 for n in range(tenants)})


def simulate(fleet_: Fleet, trace: Trace, routing: Routing, tenants: int = 1) -> RunOutcome:
    return Simulation(*fleet_, with_tenants(trace, tenants), BACKLOG, routing=routing).run()


def mean_wait(outcome: RunOutcome) -> float:
    return sum(map(float.__sub__, outcome.started, outcome.trace.at)) / len(outcome.trace)


@settings(max_examples=25, deadline=None)
@given(
    routing=st.sampled_from(PUSHED),
    seed=st.integers(0, 1000),
    per_s=st.floats(0.5, 100),
    replicas=st.integers(1, 6),
    failures=st.sampled_from([0.0, 500.0, 5000.0]),
    room=st.integers(1, 20),
    queue=st.sampled_from([3, 1000]),
    tenants=st.sampled_from([1, 3]),
)
def test_every_request_has_exactly_one_end_whoever_it_waits_for(
    routing: Routing, seed: int, per_s: float, replicas: int, failures: float, room: int, queue: int, tenants: int
) -> None:
    limits = Limits(max_queued=queue)
    given_ = fleet(replicas, low=0, load_s=5, failures=failures, max_concurrency=room, limits=limits)
    outcome = simulate(given_, load(200, per_s, seed), routing, tenants)
    assert Fate.OPEN not in outcome.fate  # ends are asserted to be single where they are made
    for request, at in enumerate(outcome.trace.at):
        if outcome.fate[request] == Fate.DONE:
            assert at <= outcome.started[request] < outcome.ended[request]
        if outcome.fate[request] == Fate.REFUSED:
            assert math.isnan(outcome.started[request])


@pytest.mark.parametrize("routing", PUSHED, ids=lambda routing: routing.name)
def test_the_same_seed_is_the_same_run(routing: Routing) -> None:
    one, same = (simulate(fleet(3, low=0, load_s=5, failures=2000), load(300, 20), routing, 4) for _ in range(2))
    assert (one.started, one.ended, one.device_s) == (same.started, same.ended, same.device_s)


@pytest.mark.parametrize("routing", PUSHED, ids=lambda routing: routing.name)
def test_who_is_pushed_waits_longer_than_who_is_pulled_by_the_same_workers(routing: Routing) -> None:
    given_ = fleet(4, max_concurrency=4)
    pulled, pushed = (simulate(given_, load(3000, 10), one) for one in (PULL, routing))
    assert mean_wait(pushed) > 1.02 * mean_wait(pulled)


def test_with_one_worker_pushing_is_pulling() -> None:
    given_ = fleet(1, max_concurrency=4)
    pulled, *pushed = (simulate(given_, load(500, 5), routing).started for routing in ROUTINGS.values())
    assert all(started == pulled for started in pushed)


def push(routing: str, tenants: int = 100) -> tuple[PushRouter, list[SimulatedWorker], Trace]:
    """Three workers that serve, and a thousand requests to send to them."""
    trace = with_tenants(load(1000, 1.0), tenants)
    pushing = Simulation(*fleet(1), trace, BACKLOG, routing=ROUTINGS[routing]).dispatch.router
    assert pushing is not None
    own = [SimulatedWorker(name, 0, 0, ServiceModel(0.1, 0.0), 1, trace, 0.0) for name in "abc"]
    for worker in own:
        worker.ready(0.0)
        pushing.join(worker)
    return pushing, own, trace


def sent(pushing: PushRouter, requests: int = 1000) -> list[str]:
    return [worker.name for request in range(requests) if (worker := pushing.worker_for(request))]


def test_round_robin_gives_each_its_turn() -> None:
    assert sent(push("round-robin")[0], 6) == ["a", "b", "c", "a", "b", "c"]


def test_least_connections_counts_what_runs_and_what_waits() -> None:
    pushing, (a, b, c), _ = push("least-connections")
    a.admit([0], 0.0)
    b.queues.push(1, 0.0)
    assert pushing.worker_for(2) is c
    c.queues.push(2, 0.0)
    c.queues.push(3, 0.0)
    assert pushing.worker_for(4) is a


@pytest.mark.parametrize("tenants", [100, 1])
def test_affinity_moves_only_whom_it_must(tenants: int) -> None:
    pushing, own, _ = push("affinity", tenants)
    three = sent(pushing)
    assert sent(pushing) == three
    assert all(200 < three.count(name) < 500 for name in "abc")
    pushing.leave(own[1], 0.0)
    two = sent(pushing)
    assert all(now == then for now, then in zip(two, three, strict=True) if then != "b")
    pushing.join(own[1])
    assert sent(pushing) == three


def test_affinity_sends_a_tenant_to_one_worker() -> None:
    pushing, _, trace = push("affinity")
    assert len(set(zip(trace.tenant, sent(pushing), strict=True))) == 100


def test_what_waits_for_one_that_goes_is_handed_over_in_its_order_and_it_gets_no_more() -> None:
    pushing, (a, b, c), trace = push("round-robin", tenants=1)
    requests = [request for request, tier in enumerate(trace.tier) if tier == 0][:5]
    for request in requests:
        b.queues.push(request, 0.0)
    assert pushing.leave(b, 1.0) == requests
    assert pushing.leave(b, 1.0) == []
    assert set(sent(pushing)) == {"a", "c"}
    pushing.leave(a, 1.0)
    pushing.leave(c, 1.0)
    assert pushing.worker_for(9) is None


def test_while_nobody_is_ready_requests_wait_and_then_all_are_started() -> None:
    outcome = simulate(fleet(2, load_s=30, max_concurrency=4), load(50, 10), ROUND_ROBIN)
    assert min(outcome.started) >= 30
    assert max(sum(sample.queued) for sample in outcome.samples if sample.at < 30) == 50
    assert outcome.fate.count(Fate.DONE) == 50


def test_what_is_pushed_counts_against_the_limit_and_is_seen_by_the_autoscaler() -> None:
    full = simulate(fleet(2, max_concurrency=1, limits=Limits(max_queued=3)), load(200, 50), ROUND_ROBIN)
    assert full.fate.count(Fate.REFUSED) > 0
    assert max(max(sample.queued) for sample in full.samples) == 3  # over both workers
    scaled = simulate(fleet(4, low=0, load_s=1, max_concurrency=1), load(300, 50), ROUND_ROBIN)
    assert max(sample.serving for sample in scaled.samples) == 4


def test_estimates_are_not_made_up_for_requests_that_are_pushed() -> None:
    trace = with_tenants(load(1, 1.0), 1)
    pushed = Simulation(*fleet(1), trace, BACKLOG, routing=ROUND_ROBIN)
    with pytest.raises(ValueError, match="route by pull, not round-robin"):
        SimulatedEstimates(pushed.state)


def test_a_scheme_names_one_of_each_kind_and_is_otherwise_as_live() -> None:
    one, other = named("fifo+round-robin", "backlog"), named("threshold", "backlog")
    assert (one.scaling, one.order, one.routing) == (BACKLOG, ORDERS["fifo"], ROUND_ROBIN)
    assert (other.scaling, other.order, other.routing) == (POLICIES["threshold"], LIVE, PULL)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("fifo+strict", "fifo and strict are of one kind"),
        ("fifo+fifo", "of one kind"),
        ("fifo+wishful", "no policy 'wishful'; allowed: slack, .*fifo, .*affinity"),
        ("", "no policy ''"),
    ],
)
def test_a_scheme_that_cannot_be_is_said(name: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        named(name, "backlog")


def test_no_two_policies_share_a_name_and_help_and_page_tell_of_each() -> None:
    names = [*POLICIES, *ORDERS, *ROUTINGS]
    assert len(set(names)) == len(names)
    assert command.__doc__ is not None
    assert re.findall(r"^    \[bold\]([a-z-]+)\[/bold\]: ", command.__doc__, re.MULTILINE) == names
    assert re.findall(r"^\| `([a-z-]+)` \|", PAGE.read_text(), re.MULTILINE) == names
