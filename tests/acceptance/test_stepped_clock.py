"""``stoker up`` while the machine's clock is set and jobs run: by NTP, by hand, or because it was asleep."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis as redis_py

from benchmarks.field.stage import await_rounds
from benchmarks.field.stepped_clock import SteppedClock
from home import FLEET, Home
from producer import Client

BUSY = FLEET.replace('engine = "echo"', 'engine = "echo"\nmax_concurrency = 1\noptions = { delay_s = 0.2 }')
STEPS = (3, -3, 10, -10, 3600, -3600)
"""Seconds by which the clock is set on, or back."""


@pytest.fixture
def clock(tmp_path: Path) -> SteppedClock:
    return SteppedClock(tmp_path / "clock")


@pytest.fixture
def home(tmp_path: Path, clock: SteppedClock) -> Iterator[Home]:
    home = Home(tmp_path, BUSY)
    home.environment |= clock.environment
    yield home
    home.end()


@pytest.mark.slow
def test_a_clock_that_is_set_starts_nothing_twice_loses_nothing_and_leaves_nothing(
    home: Home, clock: SteppedClock
) -> None:
    home.stoker("up", "--detach")
    home.serves()
    with Client(home.settings) as client, redis_py.Redis.from_url(home.settings.redis_url) as redis:
        before = home.processes()
        offset = 0
        for step in STEPS:
            jobs = [client.submit("parrot", f"{step}: {n}") for n in range(8)]
            offset += step
            clock.set(offset)
            await_rounds(redis, 3)
            assert home.processes() == before, f"after a step of {step} s"
            answers = [client.result(job, timeout=60).output for job in jobs]
            assert answers == [f"{step}: {n}" for n in range(8)]
        assert [one["action"] for one in home.status()["decisions"]] == ["start"]
        assert "already running" in home.stoker("up")
        clock.set(offset + 60)
    home.stoker("down")
    home.assert_nothing_is_left()
