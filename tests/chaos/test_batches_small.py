"""The measurements of ``python -m benchmarks.batches``, small: nothing lost, nothing twice, and not much memory."""

from pathlib import Path

import pytest

from benchmarks.bars import Bar
from benchmarks.batches import kills, million

AMOUNTS = ("lines", "kills: lines", "kills")
"""How much was done, which is less here."""


def shortfalls(bars: list[Bar]) -> list[Bar]:
    return [bar for bar in bars if bar.name not in AMOUNTS and not bar.ok]


@pytest.mark.slow
def test_killing_gateway_batch_process_worker_and_server_loses_and_repeats_no_line(tmp_path: Path) -> None:
    bars = kills.run(tmp_path / "fleet", seed=3, lines=1500, kills=4, say=print)
    assert shortfalls(bars) == []
    assert next(bar.value for bar in bars if bar.name == "kills") == 4


@pytest.mark.slow
def test_memory_stays_small_and_every_line_runs_once(tmp_path: Path) -> None:
    assert shortfalls(million.run(tmp_path / "fleet", lines=5000, say=print)) == []
