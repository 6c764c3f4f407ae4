"""Messages to the mailbox of remote control, published by hand."""

from __future__ import annotations

import random
import time

from celery import Celery

from producer.contract import keys

from . import drawn
from .stage import ANSWER_S, MODELS, Stage, Tally, chunks

AT_ONCE = 500


def control(stage: Stage, rng: random.Random, count: int, tally: Tally) -> None:
    """Publish; after each few hundred every worker has to answer a ping, which it hears after all before it."""
    url = stage.arena.server.url
    with Celery(broker=url, backend=url, set_as_current=False) as app:
        for size in chunks(count, AT_ONCE):
            tally.sent += size
            unheard = [drawn.control(rng) for _ in range(size)]
            deadline = time.monotonic() + ANSWER_S
            while unheard and time.monotonic() < deadline:
                unheard = _publish(stage, unheard)
            silent = _silent(app)
            if silent:
                tally.lose(f"no answer of {', '.join(sorted(silent))} after {size} messages", size)
            else:
                tally.answered += size - len(unheard)
                tally.lose("nobody listens to the mailbox", len(unheard))


def _publish(stage: Stage, documents: list[bytes]) -> list[bytes]:
    """Publish; returns those that not every worker was there to hear."""
    with stage.arena.redis.pipeline(transaction=False) as pipe:
        for document in documents:
            pipe.publish(keys.pidbox(0), document)
        heard = pipe.execute()
    return [document for document, listeners in zip(documents, heard, strict=True) if listeners < len(MODELS)]


def _silent(app: Celery) -> set[str]:
    """The workers that answer no ping in time."""
    missing, deadline = set(MODELS), time.monotonic() + ANSWER_S
    while missing and time.monotonic() < deadline:
        replies = app.control.broadcast("ping", reply=True, limit=len(MODELS), timeout=2) or []
        missing -= {name.partition("@")[0] for reply in replies for name in reply}
    return missing
