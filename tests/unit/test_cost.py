"""What a batch costs, learned from batches that ran."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.window.batch_cost import Cost, LearnedCost

POSITIVE = st.floats(1e-5, 0.1)


def learned(per_row: float, fixed: float, sizes: list[int], batches: int = 60) -> LearnedCost:
    cost = LearnedCost()
    for number in range(batches):
        rows = sizes[number % len(sizes)]
        cost.learn(rows, rows, per_row * rows + fixed)
    return cost


def test_nothing_learned_nothing_known() -> None:
    assert LearnedCost().cost == Cost()
    assert LearnedCost().cost.safe(100) == 0


@given(POSITIVE, POSITIVE, st.lists(st.integers(1, 200), min_size=2, max_size=8))
def test_a_line_is_found(per_row: float, fixed: float, sizes: list[int]) -> None:
    if len({size.bit_length() for size in sizes}) < 2:
        sizes = [*sizes, 400]
    cost = learned(per_row, fixed, sizes, batches=200).cost
    for size in sizes:
        assert cost.expected(size) == pytest.approx(per_row * size + fixed, rel=0.35)


def test_one_size_promises_no_saving() -> None:
    cost = learned(0.001, 0.02, [8]).cost
    assert cost.fixed == 0
    assert cost.expected(8) == pytest.approx(0.028)


@given(st.lists(st.tuples(st.integers(1, 64), st.floats(1e-6, 100)), min_size=1, max_size=60))
def test_no_part_is_ever_negative(batches: list[tuple[int, float]]) -> None:
    cost = LearnedCost()
    for rows, seconds in batches:
        cost.learn(1, rows, seconds)
        assert cost.cost.per_job >= 0
        assert cost.cost.fixed >= 0
        assert cost.cost.spread >= 1
        assert cost.cost.expected(1) > 0


@given(st.floats(1, 1e6), st.integers(0, 10))
def test_outliers_do_not_move_the_cost(stall_s: float, first: int) -> None:
    cost = LearnedCost()
    for number in range(400):
        rows = (1, 4, 16, 32)[number % 4]
        cost.learn(rows, rows, stall_s if number % 11 == first else 0.001 * rows + 0.01)
    assert cost.cost.expected(1) == pytest.approx(0.011)
    assert cost.cost.expected(32) == pytest.approx(0.042)


def test_a_warm_up_is_forgotten() -> None:
    cost = learned(0.1, 1.0, [1, 8, 32], batches=9)
    for _ in range(20):
        for rows in (1, 8, 32):
            cost.learn(rows, rows, 0.001 * rows + 0.01)
    assert cost.cost.expected(8) == pytest.approx(0.018, rel=0.01)


@pytest.mark.parametrize(
    "batch", [(0, 1, 1.0), (1, 0, 1.0), (1, 1, 0.0), (1, 1, -1.0), (1, 1, math.inf), (1, 1, math.nan)]
)
def test_what_cannot_be_is_left_out(batch: tuple[int, int, float]) -> None:
    cost = LearnedCost()
    cost.learn(*batch)
    assert cost.cost == Cost()


def test_a_job_of_many_inputs_costs_as_many() -> None:
    cost = LearnedCost()
    for rows in (64, 128, 256) * 30:
        cost.learn(rows // 64, rows, 0.001 * rows + 0.01)
    assert cost.rows_per_job == pytest.approx(64, rel=0.05)
    assert cost.cost.expected(2) == pytest.approx(0.138, rel=0.05)


def test_another_one_begins_with_what_was_learned_and_soon_knows_better() -> None:
    told = learned(0.001, 0.02, [1, 8, 32])
    other = LearnedCost(told.fields)
    assert other.cost.expected(16) == pytest.approx(told.cost.expected(16), rel=0.05)
    for rows in (1, 8, 32) * 3:  # another device, twice as fast
        other.learn(rows, rows, (0.001 * rows + 0.02) / 2)
    assert other.cost.expected(16) == pytest.approx(told.cost.expected(16) / 2, rel=0.05)


@pytest.mark.parametrize(
    "fields", [{"rows.3": -1.0, "seconds.3": 1.0}, {"rows.x": 2.0}, {"rows.3": math.nan}, {"spread": 0.0}]
)
def test_nonsense_is_not_believed(fields: dict[str, float]) -> None:
    assert LearnedCost(fields).cost.expected(8) == 0
