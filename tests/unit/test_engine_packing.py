"""The next batch of an encoder, for any lengths and bounds."""

import math
import random

from hypothesis import given
from hypothesis import strategies as st

from workers.engines.encoders.packing import Packing

LENGTHS = st.lists(st.integers(1, 512), min_size=1, max_size=80)
PACKINGS = st.builds(
    Packing,
    max_rows=st.integers(1, 40),
    max_tokens=st.integers(1, 4096),
    look_ahead=st.integers(1, 60),
    min_useful=st.floats(0, 1),
)


def test_nothing_waits_nothing_runs() -> None:
    assert Packing(8, 100).next_batch([]) == []


@given(LENGTHS, PACKINGS)
def test_the_oldest_is_always_in_the_batch(lengths: list[int], packing: Packing) -> None:
    assert packing.next_batch(lengths)[0] == 0


@given(LENGTHS, PACKINGS)
def test_a_batch_keeps_within_its_bounds(lengths: list[int], packing: Packing) -> None:
    batch = packing.next_batch(lengths)
    chosen = [lengths[position] for position in batch]
    assert batch == sorted(set(batch))
    assert len(batch) <= packing.max_rows
    assert max(batch) < packing.look_ahead
    if len(batch) > 1:
        padded = len(chosen) * max(chosen)
        assert padded <= packing.max_tokens
        assert sum(chosen) / padded >= packing.min_useful


@given(LENGTHS, PACKINGS)
def test_everything_runs_once_and_it_ends(lengths: list[int], packing: Packing) -> None:
    waiting = list(enumerate(lengths))
    ran: list[int] = []
    while waiting:
        batch = packing.next_batch([length for _, length in waiting])
        ran += [waiting[position][0] for position in batch]
        waiting = [row for position, row in enumerate(waiting) if position not in batch]
    assert sorted(ran) == list(range(len(lengths)))


@given(st.integers(1, 512), st.integers(1, 40), st.integers(1, 40))
def test_inputs_of_one_length_fill_the_batch_in_order(length: int, count: int, max_rows: int) -> None:
    batch = Packing(max_rows, max_tokens=10**6).next_batch([length] * count)
    assert batch == list(range(min(count, max_rows)))


def test_mixed_lengths_are_parted_not_padded() -> None:
    lengths = [10, 250, 11, 240, 10, 245]
    packing = Packing(8, 8192)
    assert packing.next_batch(lengths) == [0, 2, 4]
    assert packing.next_batch(lengths[1:]) == [0, 2, 4]


def test_an_input_over_the_budget_runs_alone() -> None:
    assert Packing(8, 100).next_batch([500, 500, 3]) == [0]


DUE = st.lists(st.just(math.inf) | st.floats(0, 5), min_size=80, max_size=80)
COSTS = st.tuples(st.floats(0, 0.1), st.floats(0, 0.0005))


def late(packing: Packing, lengths: list[int], due_s: list[float], fixed: float, per_token: float) -> int:
    """Run all rows and count the late ones. Rows that are late before they run are dropped, as an engine does."""
    waiting, now, missed = list(zip(lengths, due_s, strict=False)), 0.0, 0
    while waiting:
        missed += sum(due < now for _, due in waiting)
        waiting = [row for row in waiting if row[1] >= now]
        batch = packing.next_batch(
            [length for length, _ in waiting],
            [due - now for _, due in waiting],
            lambda tokens: fixed + per_token * tokens,
        )
        ran = [waiting[position] for position in batch]
        now += fixed + per_token * len(ran) * max((length for length, _ in ran), default=0)
        missed += sum(due < now for _, due in ran)
        waiting = [row for position, row in enumerate(waiting) if position not in batch]
    return missed


@given(LENGTHS, DUE, PACKINGS, COSTS)
def test_deadlines_keep_the_bounds(
    lengths: list[int], due_s: list[float], packing: Packing, cost: tuple[float, float]
) -> None:
    batch = packing.next_batch(lengths, due_s, lambda tokens: cost[0] + cost[1] * tokens)
    chosen = [lengths[position] for position in batch]
    assert batch
    assert batch == sorted(set(batch))
    assert max(batch) < packing.look_ahead
    assert len(batch) == 1 or packing.fits(len(batch), max(chosen))


@given(LENGTHS, PACKINGS, COSTS, st.randoms(use_true_random=False))
def test_nobody_is_late_if_nobody_had_to_be(
    lengths: list[int], packing: Packing, cost: tuple[float, float], chance: random.Random
) -> None:
    fixed, per_token = cost
    packing = Packing(packing.max_rows, packing.max_tokens, len(lengths), packing.min_useful)
    due_s, now = [math.inf] * len(lengths), 0.0
    for i in chance.sample(range(len(lengths)), chance.randint(0, len(lengths))):  # one by one, all are in time
        now += fixed + per_token * lengths[i] + 1e-9
        due_s[i] = now + chance.choice((0.0, 0.01, 0.3))
    assert late(packing, lengths, due_s, fixed, per_token) == 0


def test_a_better_shape_waits_for_a_deadline() -> None:
    def seconds(tokens: int) -> float:
        return tokens / 100

    packing = Packing(8, 8192)
    lengths = [100, 100, 10, 100]
    assert packing.next_batch(lengths, [math.inf, math.inf, 9.0, math.inf], seconds) == [0, 1, 3], "there is time"
    assert packing.next_batch(lengths, [math.inf, math.inf, 3.0, math.inf], seconds) == [2], "there is none"
    assert packing.next_batch(lengths, [math.inf, math.inf, 0.01, math.inf], seconds) == [0, 1, 3], "it is late anyway"


def test_a_batch_does_not_grow_beyond_a_deadline_in_it() -> None:
    packing = Packing(8, 8192)
    assert packing.next_batch([100] * 4, [2.5, *[math.inf] * 3], lambda tokens: tokens / 100) == [0]
    assert packing.next_batch([100] * 4, [4.0, *[math.inf] * 3], lambda tokens: tokens / 100) == [0, 1, 2, 3]
