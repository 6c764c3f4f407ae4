"""Records of batches and their files in Redis: owner and progress, never content."""

from __future__ import annotations

import json
import secrets
import time
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ...access.api_key import ApiKey

Status = Literal["validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelled"]
"""The status as in OpenAI's API, except ``cancelling``: that is a batch with ``cancelling_at``, whatever its status."""

ENDED = ("failed", "completed", "expired", "cancelled")
CANCELLABLE = ("validating", "in_progress")

Purpose = Literal["batch", "batch_output"]


def new_id(prefix: str) -> str:
    """An id that sorts by creation time, to the millisecond, and cannot be guessed."""
    return f"{prefix}{int(time.time() * 1000):011x}{secrets.token_hex(8)}"


class FileRecord(BaseModel):
    """A file of a tenant. Times are Unix times in seconds."""

    model_config = ConfigDict(frozen=True)

    id: str
    tenant: str
    filename: str
    purpose: Purpose
    size: int
    created_at: int

    def public(self) -> dict[str, Any]:
        """The file object of OpenAI's API: https://platform.openai.com/docs/api-reference/files/object."""
        return {
            "id": self.id,
            "object": "file",
            "bytes": self.size,
            "created_at": self.created_at,
            "expires_at": None,
            "filename": self.filename,
            "purpose": self.purpose,
            "status": "processed",
            "status_details": None,
        }


class FileMistake(BaseModel):
    """A mistake in an input file, with its line."""

    model_config = ConfigDict(frozen=True)

    code: str
    message: str
    line: int | None = None
    param: str | None = None


class BatchSpec(BaseModel):
    """The request that made a batch; it does not change. ``caller`` is the API key at that time."""

    model_config = ConfigDict(frozen=True)

    caller: ApiKey
    endpoint: str
    input_file_id: str
    completion_window: str
    created_at: int
    expires_at: int
    model: str | None = None
    metadata: dict[str, str] | None = None


class BatchRecord(BaseModel):
    """A batch at one moment. Times are Unix times in seconds."""

    model_config = ConfigDict(frozen=True)

    id: str
    asked: BatchSpec
    status: Status = "validating"
    total: int = 0
    completed: int = 0
    failed: int = 0
    lines_per_s: float = 0.0
    """Recent rate in lines per second; 0 until it is known."""
    told_at: float = 0.0
    """When its counts were last updated."""
    ending: Status = "completed"
    """Its status once its output is assembled."""
    mistakes: tuple[FileMistake, ...] = ()
    output_file_id: str | None = None
    error_file_id: str | None = None
    in_progress_at: int | None = None
    finalizing_at: int | None = None
    completed_at: int | None = None
    failed_at: int | None = None
    expired_at: int | None = None
    cancelling_at: int | None = None
    cancelled_at: int | None = None

    @classmethod
    def stored(cls, batch_id: str, fields: dict[bytes, bytes]) -> BatchRecord:
        """The record from the fields of its hash."""
        found: dict[str, Any] = {name.decode(): value.decode() for name, value in fields.items()}
        for name in ("asked", "mistakes"):
            if name in found:
                found[name] = json.loads(found[name])
        return cls.model_validate({"id": batch_id, **found})

    @property
    def tenant(self) -> str:
        """The tenant that owns it."""
        return self.asked.caller.tenant

    @property
    def finish_at(self) -> int | None:
        """The estimated Unix time of its end; None when unknown."""
        if self.status != "in_progress" or self.cancelling_at or not self.lines_per_s:
            return None
        return round(self.told_at + (self.total - self.completed - self.failed) / self.lines_per_s)

    def public(self) -> dict[str, Any]:
        """The batch object of OpenAI's API (https://platform.openai.com/docs/api-reference/batch/object), with two
        extensions: ``estimated_finish_at``, and the ``model`` of lines that name none.
        """
        cancelling = self.cancelling_at is not None and self.status not in ENDED
        errors = [mistake.model_dump() for mistake in self.mistakes]
        return {
            "id": self.id,
            "object": "batch",
            "endpoint": self.asked.endpoint,
            "model": self.asked.model,
            "errors": {"object": "list", "data": errors} if errors else None,
            "input_file_id": self.asked.input_file_id,
            "completion_window": self.asked.completion_window,
            "status": "cancelling" if cancelling else self.status,
            "output_file_id": self.output_file_id,
            "error_file_id": self.error_file_id,
            "created_at": self.asked.created_at,
            "expires_at": self.asked.expires_at,
            "estimated_finish_at": self.finish_at,
            "request_counts": {"total": self.total, "completed": self.completed, "failed": self.failed},
            "metadata": self.asked.metadata,
            **{
                name: getattr(self, name)
                for name in (
                    "in_progress_at",
                    "finalizing_at",
                    "completed_at",
                    "failed_at",
                    "expired_at",
                    "cancelling_at",
                    "cancelled_at",
                )
            },
        }


class Page(BaseModel):
    """A page of a tenant's records, and whether there are more."""

    model_config = ConfigDict(frozen=True)

    data: list[dict[str, Any]] = Field(default_factory=list)
    has_more: bool = False

    def public(self) -> dict[str, Any]:
        """The list object of OpenAI's API."""
        ids = [each["id"] for each in self.data]
        return {
            "object": "list",
            "data": self.data,
            "first_id": ids[0] if ids else None,
            "last_id": ids[-1] if ids else None,
            "has_more": self.has_more,
        }
