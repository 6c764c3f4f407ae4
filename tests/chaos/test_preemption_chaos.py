"""Batch and interactive jobs at two workers that preempt, and one of them is killed: every job is answered once."""

from __future__ import annotations

import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import redis as redis_py

from deploy.machine.server import Server
from processes import DEADLINE_S, Fleet, succeeded, wait_for
from producer.contract import keys

STUB = str(Path(__file__).parents[1] / "openai_stub.py")
SLOTS, WAVES, BATCH, WORDS = 6, 8, 60, 30
TABLES = f"""
[models.stub]
engine = "openai"
max_concurrency = {SLOTS}
options = {{ command = ["{sys.executable}", "{STUB}", "--port", "{{port}}", "--token-s", "0.02"] }}
"""


@pytest.mark.slow
def test_nothing_is_lost_between_preemptions_and_a_kill(
    redis: redis_py.Redis, server: Server, make_fleet: Callable[[str, str], Fleet]
) -> None:
    fleet, rng = make_fleet(server.url, TABLES), random.Random(1)
    killed = fleet.worker("stub", "a")
    fleet.worker("stub", "b")
    client, words = fleet.client, {"max_new_tokens": WORDS}
    batch = client.submit_many(
        client.job("stub", "file", tier="batch", tenant=rng.choice(("default", "acme")), parameters=words)
        for _ in range(BATCH)
    )
    wait_for(lambda: redis.hlen(keys.inflight("stub")) >= 2 * SLOTS, "all slots to be taken")
    urgent: list[str] = []
    for wave in range(WAVES):
        asked = [{"max_new_tokens": rng.randint(1, 6)} for _ in range(SLOTS)]
        urgent += [client.submit("stub", "now", tier="interactive", parameters=parameters) for parameters in asked]
        if wave == WAVES // 2:
            killed.send_signal(signal.SIGKILL)
        for job in urgent[-SLOTS:]:
            client.result(job, timeout=DEADLINE_S)
    found = succeeded(client, [*batch, *urgent])
    assert {len(found[job].output["text"].split()) for job in batch} == {WORDS}
    left = [name("stub") for name in (keys.inflight, keys.leases, keys.losses, keys.suspects)]
    wait_for(lambda: not redis.exists(*left), f"{left} to be empty")
    assert "is preempted" in fleet.log("b").read_text()
