"""Batches: ``/v1/batches`` (https://platform.openai.com/docs/api-reference/batch). ``stoker batches`` runs them."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from ..access.authentication import Caller
from ..attempt import MayRepeat
from ..batches import completion_window
from ..batches.lines.line_translation import JOBS
from ..batches.storage.batch_storage import Storage
from ..batches.storage.records import BatchSpec, new_id
from ..http.json_body import JsonRoute
from ..openai.api_error import Problem
from ..openai.endpoints import ENDPOINTS
from ..openai.metadata import Metadata
from ..openai.model_list import permitted
from ..state import Client

router = APIRouter(prefix="/v1/batches", tags=["batches"], route_class=JsonRoute)


class BatchRequest(BaseModel):
    """A batch to be run. ``model`` is an extension: the model of lines that name none."""

    model_config = ConfigDict(extra="forbid", strict=True)

    input_file_id: Annotated[str, Field(max_length=128)]
    endpoint: str
    completion_window: Annotated[str, Field(description="'24h', or a shorter time, such as '90m'")]
    metadata: Metadata | None = None
    model: str | None = None


@router.post("")
async def create(
    asked: BatchRequest, caller: Caller, storage: Storage, client: Client, attempt: MayRepeat
) -> dict[str, Any]:
    """Create a batch from an uploaded file. Its lines are validated first: see ``status`` and ``errors``."""
    allowed = [*ENDPOINTS, JOBS]
    if asked.endpoint not in allowed:
        message = f"endpoint = {asked.endpoint!r:.80}; allowed: {', '.join(allowed)}"
        raise Problem(400, message, param="endpoint", code="invalid_value")
    try:
        length = completion_window.seconds(asked.completion_window)
    except ValueError as error:
        message = f"completion_window = {asked.completion_window!r:.80}; {error}"
        raise Problem(400, message, param="completion_window", code="invalid_value") from None
    if asked.model is not None:
        permitted(asked.model, client.settings, caller)
    await asyncio.to_thread(storage.registry.file, caller.tenant, asked.input_file_id)
    now = int(time.time())
    made = BatchSpec(
        caller=caller,
        endpoint=asked.endpoint,
        input_file_id=asked.input_file_id,
        completion_window=asked.completion_window,
        created_at=now,
        expires_at=now + length,
        model=asked.model,
        metadata=asked.metadata,
    )
    batch_id = new_id("batch_")
    if attempt is not None:
        batch_id = await attempt.claim(client, batch_id)
    if await asyncio.to_thread(storage.registry.find, batch_id) is None:
        most = client.settings.tenant(caller.tenant).max_open_batches
        await asyncio.to_thread(storage.registry.check_open_batches, caller.tenant, most)
    return (await asyncio.to_thread(storage.registry.add_batch, batch_id, made)).public()


@router.get("")
def list_batches(
    caller: Caller,
    storage: Storage,
    after: Annotated[str | None, Query(max_length=128)] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> dict[str, Any]:
    """The caller's batches, the newest first."""
    return storage.registry.batches(caller.tenant, after, limit).public()


@router.get("/{batch_id}")
def retrieve(batch_id: str, caller: Caller, storage: Storage) -> dict[str, Any]:
    """Retrieve a batch, with its progress."""
    return storage.registry.batch(caller.tenant, batch_id).public()


@router.post("/{batch_id}/cancel")
def cancel(batch_id: str, caller: Caller, storage: Storage) -> dict[str, Any]:
    """Cancel a batch. Lines that are finished by then are in its output."""
    return storage.registry.cancel(caller.tenant, batch_id).public()


@router.delete("/{batch_id}")
def delete(batch_id: str, caller: Caller, storage: Storage) -> dict[str, Any]:
    """Delete the record of a batch that has ended. Its files are deleted by themselves."""
    storage.registry.remove_batch(caller.tenant, batch_id)
    return {"id": batch_id, "object": "batch", "deleted": True}
