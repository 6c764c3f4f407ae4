"""The next batch of an encoder, for any lengths and bounds."""

from hypothesis import given
from hypothesis import strategies as st

from workers.engines.packing import Packing

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
