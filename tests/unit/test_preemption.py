"""The slots that preemptible jobs leave to other tiers, and the preemptible jobs that give way."""

import math

from hypothesis import given
from hypothesis import strategies as st

from producer import Settings
from producer.contract.fleet.fleet_schema import Model
from producer.contract.fleet.reserved_slots import left_to_others
from scheduler.order.lanes import Lanes, QueuedJob, claim
from scheduler.order.preemption import GRACE, LATELY_S, PACE, PATIENT, Prefill, Room, patience, room, victims
from scheduler.order.priority import Rank

LONG_AGO_S = math.inf


def test_alone_it_may_have_every_slot() -> None:
    assert room(18, 16, 0, 0, LONG_AGO_S) == Room.of(18)
    assert room(18, 16, 0, 0, LATELY_S) == Room.of(18)


def test_while_others_come_it_leaves_some() -> None:
    assert room(27, 24, 20, 20, 1.0) == Room(4, 0, 20)
    assert room(27, 24, 19, 19, 1.0) == Room(5, 1, 19)
    assert room(5, 5, 4, 4, 1.0) == Room(1, 1, 4), "of fewer than six slots none"


def test_estimates_expect_the_slots_to_be_reserved_that_a_worker_reserves() -> None:
    fleet = Settings(models={"m": Model(engine="echo")})
    for slots in range(1, 100):
        for_others = left_to_others(fleet, "batch", slots, {"interactive": 1.0})
        assert room(2 * slots, slots, slots - for_others - 1, 0, 1.0).preemptible == 1
        if for_others:
            assert room(2 * slots, slots, slots - for_others, 0, 1.0).preemptible == 0


def test_while_others_come_or_run_it_joins_one_at_a_time() -> None:
    assert room(27, 24, 0, 0, 1.0) == Room(27, 1)
    assert room(27, 24, 2, 1, 0.0) == Room(22, 1, 1)
    assert room(27, 24, 2, 2, LONG_AGO_S) == Room(22, 25, 2), "no job of another tier waits for its prompts"


def test_others_are_spared_the_next_prompt_for_a_while() -> None:
    assert room(27, 24, 2, 1, 0.0, pause_s=0.1) == Room(22, 0, 1)
    assert room(27, 24, 2, 1, 1.0, pause_s=math.inf) == Room(22, 0, 1)
    assert room(27, 24, 2, 2, LONG_AGO_S, pause_s=math.inf) == Room(22, 25, 2)
    read = Prefill(100.0, 0.5)
    assert read.next_at(beside_others=False) == 100.0
    assert read.next_at(beside_others=True) == 100.0 + PACE * 0.5
    assert Prefill().next_at(beside_others=True) == -math.inf, "none was read"
    assert Prefill(math.inf).next_at(beside_others=False) == math.inf, "it is being read"


def test_the_pause_gets_shorter_as_the_target_is_used_up() -> None:
    shares = [patience(filled_s, 600.0) for filled_s in (0.0, 600 * PATIENT, 450.0, 600.0, 10_000.0)]
    assert shares == [1.0, 1.0, 0.5, 0.0, 0.0]
    assert Prefill(100.0, 0.5, 0.5).next_at(beside_others=True) == 100.0 + PACE * 0.25
    assert Prefill(100.0, 0.5, 0.0).next_at(beside_others=True) == 100.0


def test_others_may_have_what_it_holds_but_nothing_behind_it() -> None:
    assert room(18, 16, 18, 18, LONG_AGO_S) == Room(0, 0, 16)
    assert room(18, 16, 17, 3, 1.0) == Room(0, -3, 2), "14 of theirs run, and one of its three has no slot yet"


def test_who_takes_nothing_preempts_nobody() -> None:
    assert room(0, 16, 5, 5, 1.0).most <= 0, "it drains, or its device is lost"


def test_an_engine_that_runs_whole_batches_has_nothing_to_leave() -> None:
    assert room(64, 0, 10, 10, 0.0) == Room.of(54)


@given(
    st.integers(1, 64),
    st.integers(0, 8),
    st.integers(0, 80),
    st.integers(0, 80),
    st.floats(0, 1000),
    st.floats(-10, 10),
)
def test_nobody_is_promised_a_slot_that_is_not_there(
    slots: int, ahead: int, others: int, preemptible: int, since_s: float, pause_s: float
) -> None:
    assert room(0, slots, others + preemptible, preemptible, since_s, pause_s).most <= 0
    found = room(slots + ahead, slots, others + preemptible, preemptible, since_s, pause_s)
    assert found.preempting >= 0
    assert found.preemptible <= slots + ahead - others - preemptible
    if preemptible:
        assert found.free >= 0
        assert others + found.of_tier(preemptible=False) <= max(slots, others)
    else:
        assert found.preempting == 0


def test_the_youngest_give_way_first_until_it_is_enough() -> None:
    held = [("a", 1), ("b", 4), ("c", 1)]
    assert victims(held, 0) == []
    assert victims(held, 1) == ["c"]
    assert victims(held, 2) == ["c", "b"]
    assert victims(held, 99) == ["c", "b", "a"]


def waiting(*names: str) -> list[QueuedJob[str]]:
    return [QueuedJob(name, "default", float(number)) for number, name in enumerate(names)]


def queues() -> tuple[Lanes[str], Lanes[str]]:
    interactive = Lanes[str](Rank(-1.0, 1.0, 4.0))
    batch = Lanes[str](Rank(-600.0, 1.0), preemptible=True)
    for one in waiting("i0", "i1", "i2"):
        interactive.push(one, 0.0)
    for one in waiting("b0", "b1", "b2"):
        batch.push(one, 0.0)
    return interactive, batch


def test_a_claim_takes_of_each_what_there_is_room_for() -> None:
    taken = claim(queues(), 0.0, Room(4, 2))
    assert [one.job for one in taken.jobs] == ["i0", "i1", "i2"]
    assert [one.job for one in claim(queues(), 0.0, Room(5, 4)).jobs] == ["i0", "i1", "i2", "b0"]
    assert claim(queues(), GRACE - 0.01, Room(0, 0, 2)).jobs == []
    assert [one.job for one in claim(queues(), GRACE, Room(0, 0, 2)).jobs] == ["i0", "i1"]
    assert [one.job for one in claim(queues(), 0.0, Room(0, 2)).jobs] == ["b0", "b1"]


def test_what_may_come_back_does_not_count_as_served_unless_it_was_overdue() -> None:
    _, batch = queues()
    assert not claim([batch], 599.0, Room.of(1)).overdue
    assert batch.since == 0.0
    assert claim([batch], 601.0, Room.of(1)).overdue
    assert batch.since == 601.0
