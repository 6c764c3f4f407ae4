"""What a job that is given up while it runs is charged: the tokens that it has made until then."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import redis as redis_py

from deploy.machine.server import Server
from processes import Fleet, wait_for
from producer import JobCancelled, JobExpired, JobFailed, StokerError
from producer.contract import keys

TABLES = """
[models.talk]
engine = "echo"
options = { task = "generate", delay_s = 0.01 }

[models.hasty]
engine = "echo"
options = { task = "generate", delay_s = 0.01 }
limits = { time_limit_s = 1.0 }

[tenants.alice]
tokens_per_minute = 1e6
"""

WORDS = "abcdefghijklmnopqrstuvwxyz " * 1000
"""At 10 ms a word this takes ten seconds. By its length it is charged more at its claim than it can be worth."""
SOME = 20


def hung_up(fleet: Fleet, job: str) -> None:
    pieces = fleet.client.stream(job, timeout=30)
    for _ in range(SOME):
        next(pieces)
    assert fleet.client.cancel(job)


def too_late(fleet: Fleet, job: str) -> None:
    """It ends by itself."""


ENDS: dict[str, tuple[str, dict[str, Any], Callable[[Fleet, str], None], type[StokerError]]] = {
    "hung up": ("talk", {}, hung_up, JobCancelled),
    "its deadline passes": ("talk", {"deadline": 1.0}, too_late, JobExpired),
    "its time limit passes": ("hasty", {}, too_late, JobFailed),
}


@pytest.mark.parametrize("end", ENDS)
def test_what_was_made_before_the_end_is_charged(
    redis: redis_py.Redis, server: Server, make_fleet: Callable[[str, str], Fleet], end: str
) -> None:
    model, more, act, error = ENDS[end]
    fleet = make_fleet(server.url, TABLES)
    fleet.worker(model, "w")
    job = fleet.client.submit(model, WORDS, tenant="alice", stream=True, **more)
    act(fleet, job)
    with pytest.raises(error):
        fleet.client.result(job, timeout=30)
    wait_for(lambda: not fleet.redis.exists(keys.inflight(model)), "the lease to be given up")
    charged = fleet.redis.zscore(keys.departed(model, "interactive"), "alice")
    assert charged is not None
    made = (charged - 1000) / 2
    assert SOME <= made < 1000
    debt, _, _ = str(fleet.redis.hget(keys.spent(model), "alice")).removeprefix("b'").partition("@")
    assert float(debt) == charged
