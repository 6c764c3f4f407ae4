"""The result of a job as stock Celery stores it, so that any backend's ``AsyncResult`` reads it.

The format is Celery's own (https://docs.celeryq.dev/en/stable/internals/protocol.html; ``backends/base.py``,
``_get_result_meta``); ``tests/integration/test_celery_contract.py`` holds the two equal.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pydantic_core import to_json

from producer.contract import errors


def succeeded(job_id: str, value: Any) -> bytes:
    """The result of a job that ended well.

    Raises:
        ValueError: when the value cannot be written as JSON.
    """
    return _result("SUCCESS", job_id, value)


def failed(job_id: str, error: Exception, usage: Mapping[str, int] | None = None) -> bytes:
    """The result of a job that ended with an error, and what it had used until then."""
    module = type(error).__module__
    if module == errors.__name__:
        module = errors.WIRE_MODULE
    return _result("FAILURE", job_id, _exception(type(error).__qualname__, error.args, module), usage)


def revoked(job_id: str, reason: str, usage: Mapping[str, int] | None = None) -> bytes:
    """The result of a job that was cancelled, or expired, and what it had used until then."""
    return _result("REVOKED", job_id, _exception("TaskRevokedError", (reason,), "celery.exceptions"), usage)


def _exception(name: str, arguments: tuple[Any, ...], module: str) -> dict[str, Any]:
    # A message may quote input that is no Unicode, which JSON could not hold; a job that failed must have a result.
    words = [str(argument).encode(errors="replace").decode() for argument in arguments]
    return {"exc_type": name, "exc_message": words, "exc_module": module}


def _result(status: str, job_id: str, result: Any, usage: Mapping[str, int] | None = None) -> bytes:
    return to_json(
        {
            "status": status,  # first, so that Lua can tell a final result by its beginning (finish.lua)
            "result": result,
            "traceback": None,
            "children": [],
            "date_done": datetime.now(UTC).isoformat(),
            "task_id": job_id,
            **({"usage": dict(usage)} if usage else {}),  # last, where fairness.py looks for it; Celery passes it over
        }
    )
