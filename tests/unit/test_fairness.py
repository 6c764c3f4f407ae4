"""The order of tenants, on the pure model that ``claim.lua`` is compared with."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.fairness.gap import Fifo, Model, measure, published_bound, workload
from scheduler.order.fairness import Counters, expected, price, quantum, used
from scheduler.order.lanes import Lanes, QueuedJob, claim
from scheduler.order.preemption import Room
from scheduler.order.priority import Rank


def lanes(**weights: float) -> Lanes[str]:
    return Lanes(Rank(-1.0, 1.0), weights)


def push(queue: Lanes[str], tenant: str, *dues: float, cost: float = 1.0, own: bool = False) -> None:
    for due in dues:
        queue.push(QueuedJob(f"{tenant}{due:g}", tenant, due, cost, own), 0.0)


def names(taken: list[QueuedJob[str]]) -> list[str]:
    return [each.job for each in taken]


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**9),
    tenants=st.integers(2, 64),
    workers=st.integers(1, 8),
    room=st.integers(1, 16),
    weighted=st.booleans(),
)
def test_the_gap_stays_within_the_published_bound(
    seed: int, tenants: int, workers: int, room: int, weighted: bool
) -> None:
    rng = random.Random(seed)
    jobs = workload(rng, tenants, 20)
    weights = {f"t{tenant}": rng.choice([1.0, 2.0, 4.0]) for tenant in range(tenants)} if weighted else {}
    gap = measure(Model(jobs, weights), jobs, weights, workers, room, rng)
    assert gap.largest <= published_bound(workers, room)


def test_first_in_first_out_lets_the_gap_grow() -> None:
    rng = random.Random(1)
    jobs = workload(rng, 64, 60)
    fifo = measure(Fifo(jobs), jobs, {}, 8, 8, rng)
    fair = measure(Model(jobs, {}), jobs, {}, 8, 8, rng)
    assert fifo.growth > 1.5
    assert fair.growth < 1.5
    assert fifo.largest > 3 * fair.largest


def test_within_a_tenant_the_earliest_deadline_goes_first() -> None:
    queue = lanes()
    push(queue, "a", 3.0, 1.0, own=True)
    push(queue, "a", 2.0, 4.0)
    assert names(claim([queue], 0.0, Room.of(4)).jobs) == ["a1", "a2", "a3", "a4"]


def test_what_is_given_back_goes_first_again_and_is_not_charged() -> None:
    queue = lanes()
    push(queue, "a", 1.0, 2.0, 3.0)
    push(queue, "b", 1.0)
    taken = claim([queue], 0.0, Room.of(3)).jobs
    assert names(taken) == ["a1", "b1", "a2"]
    queue.give_back([one for one in taken if one.tenant == "a"], 0.0)
    assert queue.counters.active == {"a": 0.0}
    assert names(claim([queue], 0.0, Room.of(3)).jobs) == ["a1", "a2", "a3"]


def test_a_tenants_deadlines_are_its_own() -> None:
    queue = lanes()
    push(queue, "noisy", *(0.01 * n for n in range(100)), cost=10)
    push(queue, "quiet", 50.0, 60.0, cost=10)
    assert sum(name.startswith("quiet") for name in names(claim([queue], 0.0, Room.of(4)).jobs)) == 2


def test_a_share_follows_the_weight() -> None:
    queue = lanes(big=3.0)
    push(queue, "big", *range(100))
    push(queue, "small", *range(100))
    taken = [name for _ in range(40) for name in names(claim([queue], 0.0, Room.of(1)).jobs)]
    assert sum(name.startswith("big") for name in taken) == 30


def test_nobody_saves_up_service_by_not_asking_for_it() -> None:
    counters = Counters()
    counters.enter("busy")
    counters.charge("busy", 100)
    counters.enter("late")
    assert counters.active["late"] == 100
    counters.leave("busy")
    counters.charge("late", 50)
    counters.leave("late")
    counters.enter("new")
    assert counters.active["new"] == 150


def test_a_debt_is_remembered_while_others_wait() -> None:
    counters = Counters()
    counters.enter("patient")
    counters.enter("greedy")
    counters.charge("greedy", 100)
    counters.leave("greedy")
    counters.charge("greedy", 20)
    counters.enter("greedy")
    assert counters.active == {"patient": 0, "greedy": 120}


def test_a_late_tier_is_served_but_does_not_push_the_others_aside() -> None:
    interactive, batch = Lanes[str](Rank(-1.0, 1.0, 4.0)), Lanes[str](Rank(-600.0, 1.0))
    for n in range(100):
        interactive.push(QueuedJob(f"i{n}", "a", 601.0), 600.0)
        batch.push(QueuedJob(f"b{n}", "a", 600.0), 0.0)
    assert names(claim([interactive, batch], 601.0 - 1e-6, Room.of(16)).jobs) == [
        "b0",
        "b1",
        "b2",
        "b3",
        *(f"i{n}" for n in range(12)),
    ]
    assert names(claim([interactive, batch], 603.0, Room.of(2)).jobs) == ["i12", "i13"]


def test_what_interactive_work_leaves_goes_to_batch() -> None:
    interactive, batch = Lanes[str](Rank(-1.0, 1.0, 4.0)), Lanes[str](Rank(-600.0, 1.0))
    push(batch, "b", *range(100))
    push(interactive, "i", 1.0)
    assert names(claim([interactive, batch], 0.0, Room.of(3)).jobs) == ["i1", "b0", "b1"]


@pytest.mark.parametrize(
    ("result", "tokens"),
    [
        (b'{"status": "SUCCESS", "result": {"output": {}, "usage": {"input_tokens": 7, "output_tokens": 9}}}', (7, 9)),
        (b'{"status":"SUCCESS","result":{"output":"","usage":{"input_tokens":7},"timing":{}}}', (7, 0)),
        (b'{"result":{"output":{"usage":{"input_tokens":1}},"usage":{"output_tokens":5,"input_tokens":2}}}', (2, 5)),
        (b'{"status": "FAILURE", "result": null}', None),
        (b'{"result":{"usage":{}}}', None),
        (b"", None),
    ],
)
def test_a_result_says_what_was_used(result: bytes, tokens: tuple[int, int] | None) -> None:
    assert used(result) == tokens


def test_what_is_charged() -> None:
    assert price(10, 5) == 20
    assert expected(900 + 16 * 100 // 3, 5) == pytest.approx(110, abs=1)
    assert expected(3, 0) == 1
    assert [quantum(room) for room in (1, 8, 9, 32)] == [1, 2, 3, 8]
