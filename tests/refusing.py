"""A real server made to refuse for a while, in each of the ways in which one does in the field."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress

import redis as redis_py

from deploy.machine.server import Server
from processes import wait_for


@contextmanager
def too_few_replicas(server: Server) -> Iterator[None]:
    """NOREPLICAS for every write."""
    with redis_py.Redis.from_url(server.url) as redis:
        redis.config_set("min-replicas-to-write", "1")
        try:
            yield
        finally:
            redis.config_set("min-replicas-to-write", "0")


@contextmanager
def full_disk(server: Server) -> Iterator[None]:
    """MISCONF for every write, and for PING: the last snapshot could not be saved, as a folder is in its place."""
    (server.data_dir / "dump.rdb").mkdir(exist_ok=True)
    with redis_py.Redis.from_url(server.url) as redis:
        redis.config_set("save", "3600 1")
        redis.bgsave()
        wait_for(lambda: redis.info("persistence")["rdb_last_bgsave_status"] == "err", "a failed snapshot")
        try:
            yield
        finally:
            redis.config_set("save", "")


@contextmanager
def endless_script(server: Server) -> Iterator[None]:
    """BUSY for every command."""

    def loop() -> None:
        with redis_py.Redis.from_url(server.url, socket_timeout=None) as redis, suppress(redis_py.ResponseError):
            redis.eval("while true do end", 0)

    def busy(redis: redis_py.Redis) -> bool:
        try:
            redis.ping()
        except redis_py.ResponseError:
            return True
        return False

    with redis_py.Redis.from_url(server.url) as redis:
        redis.config_set("busy-reply-threshold", "20")
        looping = threading.Thread(target=loop)
        looping.start()
        wait_for(lambda: busy(redis), "a busy server")
        try:
            yield
        finally:
            redis.script_kill()
            looping.join()


Refusing = Callable[[Server], AbstractContextManager[None]]
REFUSALS: dict[str, Refusing] = {"NOREPLICAS": too_few_replicas, "MISCONF": full_disk, "BUSY": endless_script}
"""By the code of the refusal."""
