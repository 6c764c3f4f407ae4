"""Stock Celery at its most careful: late acknowledgement, task events, results in Redis."""

from __future__ import annotations

import time

from celery import Celery, Task
from given import NAP_S, REDELIVER_S, URL

app = Celery("peer", broker=URL, backend=URL)
app.conf.update(
    broker_transport_options={"visibility_timeout": REDELIVER_S},
    broker_connection_retry_on_startup=True,
    result_expires=3600,
    task_acks_late=True,
    task_reject_on_worker_lost=True,
)


@app.task(name="echo")
def echo(value: str) -> str:
    """Answer with the argument."""
    if NAP_S:
        time.sleep(NAP_S)
    return value


def sent(value: str) -> None:
    """What a sender knows of the task: its name and its argument."""


class Peer:
    """See ``driver``."""

    def __init__(self, app: Celery = app, echo: Task = echo) -> None:
        self.app, self.echo = app, echo
        # With a result backend every apply_async subscribes to its result, which a sender does not need.
        self.sender = Celery("sender", broker=URL, set_as_current=False)
        self.send = self.sender.task(name="echo")(sent).apply_async

    def enqueue(self, jobs: int) -> list[str]:
        """One by one, over one producer."""
        with self.sender.producer_pool.acquire(block=True) as producer:
            return [self.send((f"job {n}",), producer=producer).id for n in range(jobs)]

    def stored(self, tokens: list[str]) -> list[bool]:
        """A result is a string of its own."""
        with self.app.backend.client.pipeline(transaction=False) as pipe:
            for task_id in tokens:
                pipe.exists(self.app.backend.get_key_for_task(task_id))
            return [bool(found) for found in pipe.execute()]

    def ask(self) -> None:
        """Its result is announced."""
        result = self.echo.delay("ask")
        result.get(timeout=10)
        result.forget()
