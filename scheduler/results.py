"""Celery's result backend of our workers: results wait in the ledger for their acknowledgement."""

from __future__ import annotations

from typing import Any

from celery import states
from celery.backends.redis import RedisBackend

from .ledger import Ledger


class LedgerBackend(RedisBackend):  # type: ignore[misc]  # Celery has no types
    """Celery's own Redis backend, format and keys, except that a result is written with its lease (``finish.lua``).

    Stock ``store_result`` takes two round trips for each result and lets the last one win.
    """

    def _store_result(
        self,
        task_id: str,
        result: Any,
        state: str,
        traceback: str | None = None,
        request: Any = None,
        **_: Any,
    ) -> Any:
        if state == states.RETRY:
            return result  # the job is queued again, and that is how it reads
        meta = self._get_result_meta(result=result, state=state, traceback=traceback, request=request)
        # First, so that Lua can tell a final result by its beginning.
        meta = {"status": meta.pop("status"), **meta, "task_id": task_id}
        if request is not None and request.properties:
            ledger: Ledger = self.app.conf.broker_transport_options["ledger"]
            ledger.keep(request.properties["delivery_tag"], self.encode(meta).encode())
        return result
