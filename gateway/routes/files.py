"""Files of batches: ``/v1/files`` (https://platform.openai.com/docs/api-reference/files)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Annotated, Any, BinaryIO, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse

from ..access.authentication import Caller
from ..access.key_route import KeyRoute
from ..batches.storage.batch_storage import Storage
from ..batches.storage.records import FileRecord, Purpose, new_id
from ..batches.storage.store import SOURCE
from ..http.upload import Upload
from ..openai.api_error import Problem
from ..state import Client

router = APIRouter(prefix="/v1/files", tags=["files"], route_class=KeyRoute)

CHUNK_BYTES = 256 * 1024

_FORM = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["purpose", "file"],
                    "properties": {
                        "purpose": {"type": "string", "enum": ["batch"]},
                        "file": {"type": "string", "format": "binary"},
                    },
                }
            }
        },
    }
}


@router.post("", openapi_extra=_FORM)
async def upload(request: Request, caller: Caller, storage: Storage, client: Client) -> dict[str, Any]:
    """Upload a file, for a batch to read."""
    account = client.settings.tenant(caller.tenant)
    room = await asyncio.to_thread(storage.registry.room_for_file, caller.tenant, account)
    coming = Upload(request.headers.get("content-type", ""), min(room, storage.limits.max_file_bytes))
    file_id = new_id("file-")
    await coming.save(request.stream(), storage.store, f"{SOURCE}/{file_id}")
    record = FileRecord(
        id=file_id,
        tenant=caller.tenant,
        filename=coming.filename or "",
        purpose="batch",
        size=coming.size,
        created_at=int(time.time()),
    )
    try:
        _refuse(coming, storage)
        await asyncio.to_thread(storage.registry.add_file, record)
    except Exception:
        # Without a record nobody finds the content again. Should the record have been written, its answer being lost:
        # the caller, who was told of no id, uploads anew.
        await asyncio.to_thread(storage.store.delete, f"{SOURCE}/{file_id}")
        raise
    return record.public()


def _refuse(came: Upload, storage: Storage) -> None:
    """Refuse what no batch could use. What its lines say is checked when a batch is made of it."""
    purpose = came.fields.pop("purpose", None)
    if purpose != "batch":
        raise Problem(400, f"purpose = {purpose!r:.80}; allowed: 'batch'", param="purpose", code="invalid_value")
    if came.fields:
        name = min(came.fields)
        raise Problem(400, f"{name!r:.80} is not supported", param=name[:80], code="unsupported_parameter")
    if not came.size:
        raise Problem(400, "the file is empty", param="file", code="empty_file")
    if came.lines > storage.limits.max_file_lines + 1:
        message = f"the file has {came.lines} lines; allowed: {storage.limits.max_file_lines} (gateway.max_file_lines)"
        raise Problem(400, message, param="file", code="too_many_requests")


@router.get("")
def list_files(
    caller: Caller,
    storage: Storage,
    after: Annotated[str | None, Query(max_length=128)] = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 10_000,
    order: Literal["asc", "desc"] = "desc",
    purpose: Purpose | None = None,
) -> dict[str, Any]:
    """The caller's files."""
    return storage.registry.files(caller.tenant, after, limit, order == "desc", purpose).public()


@router.get("/{file_id}")
def retrieve(file_id: str, caller: Caller, storage: Storage) -> dict[str, Any]:
    """Retrieve a file's record."""
    return storage.registry.file(caller.tenant, file_id).public()


@router.get("/{file_id}/content", response_class=StreamingResponse)
def content(file_id: str, caller: Caller, storage: Storage) -> StreamingResponse:
    """Retrieve a file's content."""
    record = storage.registry.file(caller.tenant, file_id)
    try:
        file = storage.store.open(f"{SOURCE}/{record.id}")
    except FileNotFoundError:
        raise Problem(404, f"the content of {file_id} is gone", param="file_id", code="file_not_found") from None
    headers = {"content-length": str(record.size)}
    return StreamingResponse(_pieces(file), media_type="application/octet-stream", headers=headers)


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    with file:
        while piece := file.read(CHUNK_BYTES):
            yield piece


@router.delete("/{file_id}")
def delete(file_id: str, caller: Caller, storage: Storage) -> dict[str, Any]:
    """Delete a file. A batch that has yet to read it fails."""
    record = storage.registry.file(caller.tenant, file_id)
    storage.registry.remove_file(record)
    storage.store.delete(f"{SOURCE}/{record.id}")
    return {"id": record.id, "object": "file", "deleted": True}
