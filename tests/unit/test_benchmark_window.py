"""Cells of the window's benchmark: as many jobs as their answer needs, the same for all policies."""

import math

import pytest

from benchmarks.window.cell import BAR, CLEAR, precise
from benchmarks.window.grid import LINES, MOST, Cell, Line
from benchmarks.window.play import TURN, play, play_in_turns
from benchmarks.window.policies import Greedy, View

GPU, _, HEAVY = LINES


def cell(load: float, uneven: float, target: float, line: Line = GPU) -> Cell:
    return Cell(line, load, uneven, target * line.seconds(MOST))


def test_a_cell_in_which_nothing_varies_has_as_many_jobs_as_it_began_with() -> None:
    measured = precise(cell(0.1, 1.0, 10.0), 600, 1, 0.1)
    assert measured.jobs == 600
    assert measured.error == 0


@pytest.mark.slow
def test_a_cell_in_which_much_varies_has_more_until_its_standard_error_is_what_was_asked() -> None:
    short = precise(cell(0.9, 2.0, 1.5, HEAVY), 2000, 1, math.inf)
    long = precise(cell(0.9, 2.0, 1.5, HEAVY), 2000, 1, 1.0)
    assert short.jobs == 2000
    assert short.error > 1.0
    assert long.jobs > 2000
    assert long.error <= max(1.0, abs(long.behind - BAR) / CLEAR)


def test_a_cell_far_from_its_bar_needs_no_more_than_to_be_sure_of_that() -> None:
    measured = precise(cell(0.1, 2.0, 0.75), 1000, 1, 0.01)
    assert measured.behind < BAR - 10
    assert 0.01 < measured.error <= abs(measured.behind - BAR) / CLEAR


class Noting(Greedy):
    """Takes what is there, and notes since when it was seen waiting."""

    def __init__(self, most: int) -> None:
        super().__init__(most)
        self.seen: list[float] = []

    def wait(self, view: View) -> float:
        self.seen.append(view.seen)
        return super().wait(view)


def test_what_a_batch_leaves_behind_has_waited_since_its_queue_was_empty_as_the_claim_counts() -> None:
    policy = Noting(2)
    played = play([0.0, 0.001, 0.002, 0.003, 0.1], policy, lambda first, last: GPU.seconds(last - first))
    assert played.batches == 4
    assert policy.seen == [0.0, 0.001, 0.001, 0.1]


def test_in_turns_every_policy_serves_as_it_does_alone() -> None:
    came = [0.002 * number for number in range(2 * TURN + 3)]
    ran: list[tuple[int, int]] = []

    def seconds(first: int, last: int) -> float:
        ran.append((first, last))
        return GPU.seconds(last - first)

    found = play_in_turns(came, {"four": Greedy(4), "one": Greedy(1)}, seconds)
    assert ran.index((0, 1), 1) < TURN  # the second began before the first had ended
    for name, most in (("four", 4), ("one", 1)):
        assert found[name].latencies == play(came, Greedy(most), seconds).latencies
