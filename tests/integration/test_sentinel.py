"""Failover: the master dies in mid-batch, Sentinel promotes its replica, and every job still ends once."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis as redis_py
from flower.utils.broker import Broker as FlowerBroker

from deploy.machine import broker, flower
from deploy.machine.ports import free_port
from deploy.machine.server import Server, server_binary
from processes import Fleet, succeeded, wait_for
from producer import AsyncClient, BrokerUnavailable, Client, ConfigError, Settings
from producer.contract import keys
from producer.contract.fleet.fleet_schema import Model, Redis
from producer.contract.server.connection import close_async, connect

TABLES = """
sentinel_master = "jobs"
[models.slow]
engine = "echo"
max_concurrency = 4
options = { delay_s = 0.5 }
"""


@dataclass
class Group:
    master: Server
    replica: Server
    port: int

    @property
    def url(self) -> str:
        return f"sentinel://127.0.0.1:{self.port}/0"


@pytest.fixture
def group(tmp_path: Path) -> Iterator[Group]:
    master = Server(tmp_path / "master", appendfsync="always")
    master.start()
    replica = Server(tmp_path / "replica")
    replica.start()
    redis_py.Redis.from_url(replica.url).replicaof("127.0.0.1", master.port)
    port = free_port()
    conf = tmp_path / "sentinel.conf"
    conf.write_text(
        f"port {port}\nbind 127.0.0.1\ndir {tmp_path}\n"
        f"sentinel monitor jobs 127.0.0.1 {master.port} 1\n"
        "sentinel down-after-milliseconds jobs 500\nsentinel failover-timeout jobs 2000\n"
    )
    with (tmp_path / "sentinel.log").open("wb") as log:
        process = subprocess.Popen([server_binary(), str(conf), "--sentinel"], stdout=log, stderr=log)
    sentinel = redis_py.Redis(port=port)

    def watched() -> bool:
        try:
            return len(sentinel.sentinel_slaves("jobs")) == 1
        except redis_py.ConnectionError:
            return False

    try:
        wait_for(watched, "the sentinel to know the replica")
        wait_for(lambda: _linked(replica), "the replica to be in step")
        yield Group(master, replica, port)
    finally:
        sentinel.close()
        process.kill()
        process.wait()
        replica.stop()
        master.stop()


def _linked(replica: Server) -> bool:
    with redis_py.Redis.from_url(replica.url) as client:
        return bool(client.info("replication")["master_link_status"] == "up")


@pytest.mark.slow
def test_jobs_outlive_their_master(group: Group, make_fleet: Callable[[str, str], Fleet], tmp_path: Path) -> None:
    fleet = make_fleet(group.url, TABLES)
    process = fleet.worker("slow", "w")
    ids = fleet.client.submit_many(fleet.client.job("slow", str(n)) for n in range(24))
    wait_for(lambda: fleet.redis.hlen(keys.inflight("slow")) > 0, "a batch to run")
    assert fleet.redis.wait(1, 10_000) == 1  # replication is asynchronous: what it had not sent, a failover loses
    group.master.kill()
    found = succeeded(fleet.client, ids)
    assert sorted(int(result.output) for result in found.values()) == list(range(24))
    assert fleet.redis.connection_pool.get_connection().port == group.replica.port
    assert process.poll() is None


async def _through_asyncio(settings: Settings) -> None:
    async with AsyncClient(settings) as client:
        job = await client.submit("slow", "x")
        assert await client.cancel(job)


def test_every_client_finds_the_master(group: Group, make_fleet: Callable[[str, str], Fleet]) -> None:
    fleet = make_fleet(group.url, TABLES)
    with Client(fleet.settings) as client:
        assert client.cancel(client.submit("slow", "x"))
    asyncio.run(_through_asyncio(fleet.settings))


@pytest.mark.slow
def test_what_up_starts_finds_the_master(group: Group) -> None:
    """The broker is looked at, and Flower's application reaches it; stock Celery needs to be told the group."""
    settings = Settings(redis=Redis(url=group.url, sentinel_master="jobs"), models={"m": Model(engine="echo")})
    broker.check(settings)
    with flower.celery_app(settings) as app:
        app.backend.client.set("stoker:test:flower", "yes")
        with app.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, timeout=5)
        seen = FlowerBroker(
            app.connection().as_uri(include_password=True), broker_options=app.conf.broker_transport_options
        )
    with redis_py.Redis.from_url(group.master.url) as master:
        assert master.get("stoker:test:flower") == b"yes"
        master.lpush("m.batch", "one")
    assert asyncio.run(_lengths(seen)) == [{"name": "m.batch", "messages": 1}]


async def _lengths(seen: FlowerBroker) -> object:
    try:
        return await seen.queues(["m.batch"])
    finally:
        await close_async(seen.redis)


@pytest.mark.slow
def test_sentinels_that_know_no_such_group_are_told(group: Group) -> None:
    settings = Settings(redis=Redis(url=group.url, sentinel_master="other"))
    with pytest.raises(BrokerUnavailable, match=r"sentinel://127.*No master found for 'other'"):
        broker.check(settings)


def test_sentinels_without_a_group_say_what_is_missing() -> None:
    settings = Settings(redis={"url": "sentinel://127.0.0.1:1"})
    with pytest.raises(ConfigError, match=r"set redis\.sentinel_master"):
        connect(settings)
