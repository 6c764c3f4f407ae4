"""A client that was used before a fork, as under Gunicorn and Celery's prefork pool, is used in the child as well."""

import os
import subprocess
import sys
from collections.abc import Callable

import pytest
import redis as redis_py

from deploy.machine.server import Server
from processes import Fleet

# A program of its own, for it must have no other thread when it forks.
FORKS = """
import os, sys
from producer import Client

def subscribers(client):
    found = client.redis.client_list()
    return sum(each["name"] == "forks" and each["cmd"] in ("subscribe", "unsubscribe") for each in found)

with Client() as client:
    assert client.result(client.submit("echo", "before"), timeout=60).output == "before"
    assert subscribers(client) == 1
    child = os.fork()
    output = f"of {'parent' if child else 'child'}"
    assert client.result(client.submit("echo", output), timeout=60).output == output
    if child == 0:
        print(subscribers(client), flush=True)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert client.result(client.submit("echo", "after"), timeout=60).output == "after"
"""


@pytest.mark.slow
def test_parent_and_child_each_hear_by_a_connection_of_their_own(
    server: Server, redis: redis_py.Redis, make_fleet: Callable[[str, str], Fleet]
) -> None:
    fleet = make_fleet(server.url, '[models.echo]\nengine = "echo"\n')
    fleet.worker("echo", "w")
    done = subprocess.run(
        [sys.executable, "-c", FORKS],
        env={**os.environ, "STOKER_FLEET": str(fleet.file), "STOKER_REDIS__URL": f"{server.url}?client_name=forks"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "2"), done.stderr
