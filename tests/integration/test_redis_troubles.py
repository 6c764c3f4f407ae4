"""What Redis itself can do to a fleet: run out of memory, and forget what a job was."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import redis as redis_py

from deploy.machine.server import Server
from processes import DEADLINE_S, Fleet, succeeded, wait_for
from producer import BrokerUnavailable, Client
from producer.contract import keys
from redis_replies import entries

TABLES = """
[models.slow]
engine = "echo"
max_concurrency = 4
options = { delay_s = 0.5 }
"""
MakeFleet = Callable[[str, str], Fleet]


def outputs(client: Client, job_ids: list[str]) -> list[str]:
    return sorted(result.output for result in succeeded(client, job_ids).values())


def test_full_memory_refuses_producers_and_finishes_what_is_there(own_server: Server, make_fleet: MakeFleet) -> None:
    fleet = make_fleet(own_server.url, TABLES)
    process = fleet.worker("slow", "w")
    ids = fleet.client.submit_many(fleet.client.job("slow", f"{n:02}") for n in range(24))
    fleet.redis.config_set("maxmemory-policy", "noeviction")
    fleet.redis.config_set("maxmemory", "1mb")  # less than it holds already
    with pytest.raises(BrokerUnavailable, match=r"Redis at .* has no memory left .*nothing was queued"):
        fleet.client.submit("slow", "one more")
    assert outputs(fleet.client, ids) == [f"{n:02}" for n in range(24)]
    fleet.redis.config_set("maxmemory", "0")
    later = fleet.client.submit("slow", "later")
    assert fleet.client.result(later, timeout=DEADLINE_S).output == "later"
    assert process.poll() is None


def test_a_worker_that_starts_while_memory_is_full_finishes_what_is_there(
    own_server: Server, make_fleet: MakeFleet
) -> None:
    fleet = make_fleet(own_server.url, TABLES)
    ids = fleet.client.submit_many(fleet.client.job("slow", f"{n:02}") for n in range(8))
    fleet.redis.config_set("maxmemory-policy", "noeviction")
    fleet.redis.config_set("maxmemory", "1mb")  # less than it holds already
    fleet.start("slow", "w")
    assert outputs(fleet.client, ids) == [f"{n:02}" for n in range(8)]


def test_the_same_idempotency_key_runs_once_and_answers_both(
    redis: redis_py.Redis, server: Server, make_fleet: MakeFleet
) -> None:
    fleet = make_fleet(server.url, TABLES)
    fleet.worker("slow", "w")
    first, second = (fleet.client.submit("slow", "x", idempotency_key="k") for _ in range(2))
    results = [fleet.client.result(job, timeout=DEADLINE_S) for job in (first, second)]
    assert results[0] == results[1]
    again = fleet.client.submit("slow", "x", idempotency_key="k")
    assert fleet.client.result(again, timeout=DEADLINE_S) == results[0]
    beat = wait_for(lambda: _beat_after(fleet, 1), "a heartbeat that counts it")
    assert beat == 1


def _beat_after(fleet: Fleet, jobs: int) -> int:
    from producer.contract import heartbeat

    done = [beat.jobs_done for beat in heartbeat.read_all(fleet.redis)]
    return sum(done) if sum(done) >= jobs else 0


@pytest.mark.slow
def test_a_killer_is_isolated_and_its_neighbours_are_unharmed(
    redis: redis_py.Redis, server: Server, make_fleet: MakeFleet
) -> None:
    fleet = make_fleet(server.url, TABLES)
    good = fleet.client.submit_many(fleet.client.job("slow", f"{n}", tier="batch") for n in range(3))
    fleet.client.submit("slow", "killer", tier="batch", parameters={"crash": True})
    for n in range(fleet.settings.redis.max_losses):
        process = fleet.start("slow", f"victim-{n}")
        assert process.wait(DEADLINE_S) == 4
    fleet.start("slow", "survivor")
    assert outputs(fleet.client, good) == ["0", "1", "2"]
    letters = wait_for(lambda: entries(fleet.redis, keys.dead("slow")), "the dead letter")
    assert [fields[b"losses"] for _, fields in letters] == [b"3"]
