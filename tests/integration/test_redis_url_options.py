"""Options in the URL of Redis, for every part of a fleet."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import redis as redis_py

from deploy.machine.server import Server
from processes import DEADLINE_S, Fleet, wait_for
from producer import AsyncClient, Status

TABLES = """
[models.slow]
engine = "echo"
options = { delay_s = 60 }

[models.echo]
engine = "echo"
"""
MakeFleet = Callable[[str, str], Fleet]


def test_a_fleet_takes_options_in_the_url(server: Server, redis: redis_py.Redis, make_fleet: MakeFleet) -> None:
    fleet = make_fleet(f"{server.url}?client_name=ours&health_check_interval=30&socket_keepalive=true", TABLES)
    fleet.worker("echo", "w")
    client = fleet.client
    assert client.result(client.submit("echo", "x"), timeout=DEADLINE_S).output == "x"
    named = [each for each in redis.client_list() if each["name"] == "ours"]
    assert {each["cmd"] for each in named} & {"evalsha", "psubscribe"}, "the worker's connections, too, have the name"
    fleet.worker("slow", "s")
    job = client.submit("slow", "x")
    wait_for(lambda: client.status(job) is Status.RUNNING, "the job to run")
    assert client.cancel(job)

    async def ask() -> object:
        async with AsyncClient(fleet.settings) as client:
            return (await client.result(await client.submit("echo", "y"), timeout=DEADLINE_S)).output

    assert asyncio.run(ask()) == "y"
