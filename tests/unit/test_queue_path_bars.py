"""The arithmetic of the queue path's bars: ratios within a round, and only peers that keep their jobs are beaten."""

from benchmarks.queue_path.bars import bars
from benchmarks.queue_path.roster import OURS, STOCK
from benchmarks.queue_path.survival import Survival
from benchmarks.queue_path.turn import Turn

KEPT, LOST = Survival(jobs=60, kills=3, lost=0, waited_s=1.0), Survival(jobs=60, kills=3, lost=2, waited_s=60.0)


def turn(cpu_us: float, heard: float | None = None) -> Turn:
    return Turn(cpu_us / 1e6, 1000.0, {"enqueue": 12_000.0}, heard)


ROUNDS = [{OURS: turn(100, heard=1.0), STOCK: turn(1000), "pops": turn(50)}] * 3
ASKED = {OURS: [0.003], STOCK: [0.006], "pops": [0.001]}


def test_who_loses_jobs_is_named_and_not_raced() -> None:
    found = bars(ROUNDS, ASKED, {OURS: KEPT, STOCK: KEPT, "pops": LOST}, [200_000.0])
    assert all(bar.ok for bar in found)
    assert [bar.value for bar in found] == [10.0, 10.0, 0.5, 1.2, 200_000.0]
    assert "3.00 times pops" in found[2].note


def test_nobody_is_beaten_before_all_were_killed() -> None:
    found = bars(ROUNDS, ASKED, {STOCK: KEPT}, [200_000.0])
    assert [bar.value for bar in found[1:3]] == [None, None]
    assert not any(bar.ok for bar in found[1:3])


def test_without_its_events_our_figure_counts_as_not_measured() -> None:
    deaf = [{**each, OURS: turn(100, heard=0.5)} for each in ROUNDS]
    assert [bar.value for bar in bars(deaf, ASKED, {STOCK: KEPT, "pops": KEPT}, [1.0])[:2]] == [None, None]
