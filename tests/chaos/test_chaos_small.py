"""The scenarios of ``python -m benchmarks.chaos``, small: nothing lost, nothing twice, nothing stuck.

Only what has to be none is asserted. How long things take is for the benchmark to say, on a machine of its own.
"""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from benchmarks.bars import Bar
from benchmarks.chaos import drains, hostile, kills
from processes import DEADLINE_S, wait_for


def shortfalls(bars: list[Bar]) -> list[Bar]:
    """Figures that have to be 0 and are not."""
    must_be_none = [bar for bar in bars if bar.bar == 0]
    assert len(must_be_none) >= 3
    return [bar for bar in must_be_none if not bar.ok]


def test_killing_workers_the_autoscaler_and_the_server_loses_nothing(tmp_path: Path) -> None:
    bars, verdict = kills.run(tmp_path / "fleet", seed=3, jobs=300, kills=(4, 1, 1), say=print)
    assert shortfalls(bars) == []
    assert verdict.rerun > 0, "the kills interrupted nothing"


@pytest.mark.slow
def test_scaling_in_under_load_fails_and_repeats_nothing(tmp_path: Path) -> None:
    assert shortfalls(drains.run(tmp_path / "fleet", count=6, say=print)) == []


def test_hostile_messages_harm_nobody(tmp_path: Path) -> None:
    assert shortfalls(hostile.run(tmp_path / "fleet", seed=3, count=100, say=print)) == []


def test_an_interrupted_benchmark_leaves_nothing_behind(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "benchmarks.chaos", "--quick", "--only", "1"],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )

    def left() -> list[str]:
        found = []
        for other in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if str(tmp_path) in f"{other.cwd()} {other.cmdline()} {other.environ().get('STOKER_FLEET')}":
                    found.append(other.name())
        return found

    assert process.stdout is not None
    for line in process.stdout:
        if "done: killed" in line:  # everything is up by then
            assert left()
            process.terminate()
            break
    process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 130

    wait_for(lambda: not left(), "every process to be gone")
