"""A broker that cannot be used is told apart before anything is started on it, with its cure."""

from pathlib import Path

import pytest
import redis as redis_py

from deploy.machine import broker
from deploy.machine.ports import free_port
from deploy.machine.server import Server
from producer import BrokerUnavailable, Settings
from producer.contract.errors import UnsuitableServer
from producer.contract.fleet.fleet_schema import Redis

SECRET = "open-sesame"  # noqa: S105  made up


def check(url: str) -> None:
    broker.check(Settings(redis=Redis(url=url)))


def test_a_broker_that_is_not_there_is_told_without_its_password() -> None:
    with pytest.raises(BrokerUnavailable) as caught:
        check(f"redis://:{SECRET}@127.0.0.1:1/0")
    assert "redis://***@127.0.0.1:1/0, as redis.url of the fleet file says, does not answer" in str(caught.value)
    assert SECRET not in str(caught.value)


def test_a_wrong_password_and_a_cluster_each_have_their_answer(tmp_path: Path) -> None:
    server = Server(tmp_path / "locked", requirepass=SECRET)
    server.start()
    try:
        check(server.url)
        with pytest.raises(BrokerUnavailable, match="refuses the user or the password"):
            check(server.url.replace(SECRET, "guess"))
    finally:
        server.stop()
    # The port of its bus is by default 10,000 above its own, and from 55,536 on there is none.
    config = {"cluster-enabled": "yes", "cluster-port": str(free_port())}
    cluster = Server(tmp_path / "cluster", None, **config)
    cluster.start()
    try:
        with pytest.raises(UnsuitableServer, match="Redis Cluster"):
            check(cluster.url)
    finally:
        cluster.stop()


def test_a_wrong_address_has_its_answer() -> None:
    with pytest.raises(BrokerUnavailable, match="is no address of a Redis"):
        check("http://localhost")


def test_a_user_that_may_not_ask_much_is_let_through(server: Server, redis: redis_py.Redis) -> None:
    redis.execute_command("ACL", "SETUSER", "narrow", "reset", "on", ">narrow", "+ping")
    try:
        check(server.url.replace("redis://", "redis://narrow:narrow@"))
    finally:
        redis.execute_command("ACL", "DELUSER", "narrow")
