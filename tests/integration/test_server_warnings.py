"""A server that would drop accepted jobs is noticed by the operator's tools, at the start and later."""

from __future__ import annotations

import io
import logging
from pathlib import Path

import pytest
import redis as redis_py
from rich.console import Console

from autoscaler.upkeep.server_watch import LOOK_S, ServerWatch
from deploy.cli.status import screen_of
from deploy.machine import broker
from deploy.machine.server import Server
from deploy.status import read_status
from producer.contract.fleet.fleet_schema import Model
from producer.contract.fleet.fleet_schema import Redis as RedisTable
from producer.contract.fleet.settings import Settings
from producer.contract.server.server_warnings import server_warnings


@pytest.mark.parametrize(
    ("info", "said"),
    [
        ({}, []),
        ({"maxmemory": 0, "maxmemory_policy": "allkeys-lru"}, []),
        ({"maxmemory": 10**8, "maxmemory_policy": "noeviction"}, []),
        ({"maxmemory": 10**8, "maxmemory_policy": "allkeys-lru"}, ["drops accepted jobs"]),
        ({"maxmemory": 10**8, "maxmemory_policy": "allkeys-lru", "evicted_keys": 8}, ["dropped 8 keys so far"]),
        ({"maxmemory": 10**8, "maxmemory_policy": "volatile-ttl"}, ["drops results"]),
        ({"rdb_last_bgsave_status": "err", "aof_last_write_status": "ok"}, ["could not save its data"]),
    ],
)
def test_what_is_risky_is_said(info: dict[str, object], said: list[str]) -> None:
    found = server_warnings(info)
    assert len(found) == len(said)
    assert all(words in warning for words, warning in zip(said, found, strict=True))


def test_a_server_that_evicts_is_noticed_at_the_start_and_later(
    server: Server, redis: redis_py.Redis, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings(redis=RedisTable(url=server.url), models={"a": Model(engine="echo")}, state_dir=tmp_path)
    assert broker.check(settings) == []
    watch = ServerWatch(redis)
    watch.look(0.0)
    redis.config_set("maxmemory", "100mb")
    redis.config_set("maxmemory-policy", "allkeys-lru")
    try:
        assert "drops accepted jobs" in broker.check(settings)[0]
        screen = io.StringIO()
        Console(file=screen, width=200).print(screen_of(read_status(redis, settings)))
        assert "! Redis drops accepted jobs" in screen.getvalue()
        with caplog.at_level(logging.WARNING):
            watch.look(LOOK_S - 1)
            assert caplog.messages == []
            watch.look(LOOK_S + 1)
            watch.look(2 * LOOK_S + 2)
        assert len(caplog.messages) == 1
        assert "drops accepted jobs" in caplog.messages[0]
    finally:
        redis.config_set("maxmemory", "0")
        redis.config_set("maxmemory-policy", "noeviction")
