"""celery-batches: one task call for many messages, which stores the results itself."""

from __future__ import annotations

import time

import celery_app
from celery import Celery
from celery_batches import Batches, SimpleRequest
from given import NAP_S, URL

app = Celery("peer", broker=URL, backend=URL)
app.conf.update(celery_app.app.conf.changes, worker_prefetch_multiplier=64)


@app.task(name="echo", base=Batches, flush_every=64, flush_interval=0.01)
def echo(requests: list[SimpleRequest]) -> None:
    """Answer each with its argument."""
    if NAP_S:
        time.sleep(NAP_S)
    for request in requests:
        app.backend.mark_as_done(request.id, request.args[0], request=request)


class Peer(celery_app.Peer):
    """See ``driver``. Sent as any other Celery task."""

    def __init__(self) -> None:
        super().__init__(app, echo)
