"""The comparison's application: stock Celery at its most careful (``acks_late``), on its own Redis transport."""

from __future__ import annotations

import os
import time
from pathlib import Path

from celery import Celery

VISIBILITY_S = 5
"""As low as sensible: the batches take a fraction of it. Celery's default is an hour."""

app = Celery("stock", broker=os.environ["STOCK_URL"], backend=os.environ["STOCK_URL"], set_as_current=False)
app.conf.update(
    broker_transport_options={"visibility_timeout": VISIBILITY_S},
    result_backend_transport_options={"visibility_timeout": VISIBILITY_S},
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    worker_cancel_long_running_tasks_on_connection_loss=True,
)


@app.task(name="stock.echo")  # type: ignore[untyped-decorator]  # Celery has no types
def echo(value: str) -> str:
    """Do what the echo engine does: write the journal, take a while, answer."""
    with Path(os.environ["STOCK_JOURNAL"]).open("a") as journal:
        journal.write(f'["{value}"]\n')
    time.sleep(float(os.environ["STOCK_DELAY_S"]))
    return value
