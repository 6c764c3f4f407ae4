"""huey: one thread pops a job, runs it and stores its result. What it has popped when it is killed is gone."""

from __future__ import annotations

import time

from given import NAP_S, URL
from huey import RedisHuey

huey = RedisHuey("peer", url=URL, notify_result=True)  # so that waiting is no polling


@huey.task()
def echo(value: str) -> str:
    """Answer with the argument."""
    if NAP_S:
        time.sleep(NAP_S)
    return value


class Peer:
    """See ``driver``."""

    def enqueue(self, jobs: int) -> list[str]:
        """One by one; there is no other way."""
        return [echo(f"job {n}").id for n in range(jobs)]

    def stored(self, tokens: list[str]) -> list[bool]:
        """Results are fields of one hash."""
        found = huey.storage.peek_many(tokens)
        return [token in found for token in tokens]

    def ask(self) -> None:
        """Its end is popped, blocking, then its result."""
        echo("ask").get(blocking=True, timeout=10)
