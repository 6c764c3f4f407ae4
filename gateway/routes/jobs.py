"""Asynchronous jobs: submitted here, then polled, streamed, cancelled, or announced by a webhook.

Unlike a synchronous request, a job goes on when its client disconnects. It must end within ``deadline_s``.
"""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request, Response
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from producer.async_client import AsyncClient
from producer.contract import keys
from producer.contract.errors import BrokerUnavailable, StokerError
from producer.contract.message import celery_message
from producer.contract.message.job import Item, Job, Result, Status
from producer.estimates.admission import Admission
from producer.submission import instant

from ..access.authentication import Caller
from ..attempt import IdempotencyKey, MayRepeat
from ..availability import waits_for
from ..errors import RESPONSES, Json
from ..http.event_stream import EventStream
from ..http.json_body import JsonRoute
from ..jobs.job_record import JobRecord, Notice, forget, keep, owned, same_as_before
from ..jobs.job_response import ended, job_object
from ..openai.api_error import Problem, problem_of
from ..openai.metadata import Metadata
from ..openai.model_list import permitted
from ..openai.service_tier import tier_of
from ..state import Client
from ..webhooks.target import ForbiddenTarget, check_policy
from ..webhooks.webhook import Webhook

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], responses=RESPONSES, route_class=JsonRoute)


class JobRequest(BaseModel):
    """A job to be left here. What an input and its parameters may be is the engine's to say."""

    model_config = ConfigDict(extra="forbid", strict=True)

    model: str
    input: Item | list[Item]
    tier: str | None = None
    parameters: dict[str, JsonValue] = Field(default_factory=dict)
    stream: bool = False
    deadline_s: Annotated[float, Field(gt=0)] | None = None
    """How long it may take, in seconds; ``redis.result_ttl_s`` at most, and by default."""
    admission: Admission = "accept"
    """What becomes of it when it would miss a ``deadline_s`` that it has: it is accepted all the same, refused (429,
    with ``Retry-After``), or degraded to a lower tier, where it may take as long as by default."""
    metadata: Metadata = Field(default_factory=dict)
    webhook: Webhook | None = None


@router.post("", status_code=202)
async def create_job(
    request: Request,
    asked: JobRequest,
    caller: Caller,
    client: Client,
    attempt: MayRepeat,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Submit a job. The answer has its id."""
    # With a key its id is known before it is submitted, and it can be submitted twice.
    key = idempotency_key or uuid.uuid4().hex
    if attempt is not None and not attempt.keyed:
        key = await attempt.claim(client, key)
    job = await _admitted(_job(asked, caller, client, key), asked, caller, client)
    if idempotency_key is not None:
        fingerprint = hashlib.sha256(json.dumps(asked.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()
        await same_as_before(client, caller.tenant, idempotency_key, fingerprint)
    record = JobRecord(
        id=job.id,
        tenant=job.tenant,
        model=job.model,
        tier=job.tier,
        created_at=time.time(),
        metadata=job.metadata,
        notice=Notice(webhook=asked.webhook) if asked.webhook else None,
    )
    new = await keep(client, record)
    try:
        if new:
            await request.app.state.availability.check(client, job.model)
        await client.submit_many([job])  # one that was submitted before is queued only if it is gone
    except BrokerUnavailable:  # it may be queued
        raise
    except StokerError:
        if new:
            await forget(client, record)
        raise
    if not new:  # it is where it was first queued
        record = await owned(client, record.id, caller)
    return await _answer(record, client, 202, {"Location": f"/v1/jobs/{record.id}"})


def _job(asked: JobRequest, caller: Caller, client: AsyncClient, idempotency_key: str) -> Job:
    settings = client.settings
    model = permitted(asked.model, settings, caller)
    longest = settings.redis.result_ttl_s
    if asked.deadline_s is not None and asked.deadline_s > longest:
        message = f"deadline_s = {asked.deadline_s:g}; allowed: up to {longest:g} (redis.result_ttl_s)"
        raise Problem(400, message, param="deadline_s", code="invalid_value")
    if asked.webhook:
        try:
            check_policy(asked.webhook.url, settings.gateway.webhook_hosts)
        except ForbiddenTarget as error:
            raise Problem(400, str(error), param="webhook.url", code="forbidden_webhook") from None
    job = Job.parse(
        {
            "model": model,
            "tier": tier_of(asked.tier, model, settings, caller),
            "input": asked.input,
            "parameters": asked.parameters,
            "tenant": caller.tenant,
            "stream": asked.stream,
            "metadata": asked.metadata,
            "deadline": instant(asked.deadline_s),
            "expires": instant(longest),
            "idempotency_key": idempotency_key,
        }
    )
    celery_message.write(job, settings)  # before anything is kept of it
    return job


async def _admitted(job: Job, asked: JobRequest, caller: Caller, client: AsyncClient) -> Job:
    if asked.deadline_s is None:
        return job
    tiers = [tier for tier in client.settings.model(job.model).tiers if caller.may_ask(tier)]
    return await client.admit(job, asked.admission, tiers)


@router.get("/{job_id}")
async def retrieve_job(job_id: str, caller: Caller, client: Client) -> Response:
    """Retrieve a job: its status, and its output once it has ended."""
    return await _answer(await owned(client, job_id, caller), client)


@router.delete("/{job_id}")
async def delete_job(job_id: str, caller: Caller, client: Client) -> Response:
    """Cancel a job, queued or running; delete one that has ended, with its result and its webhook."""
    record = await owned(client, job_id, caller)
    stored = await client.redis.get(keys.result(job_id))
    if not celery_message.is_final(stored):
        return await _cancelled(record, client)
    await forget(client, record)
    await client.redis.unlink(keys.result(job_id), keys.stream(job_id), keys.submission(job_id))
    return Json(ended(record, stored))


@router.post("/{job_id}/cancel")
async def cancel_job(job_id: str, caller: Caller, client: Client) -> Response:
    """Cancel a job, queued or running. One that has ended stays as it is."""
    return await _cancelled(await owned(client, job_id, caller), client)


async def _cancelled(record: JobRecord, client: AsyncClient) -> Response:
    await client.cancel(record.id, model=record.model, tier=record.tier, tenant=record.tenant)
    return await _answer(record, client)


@router.get("/{job_id}/stream", response_class=Response)
async def stream_job(
    job_id: str,
    request: Request,
    caller: Caller,
    client: Client,
    last_event_id: Annotated[str | None, Header(alias="Last-Event-ID", pattern=r"^(\d{1,18}|end)-\d{1,18}$")] = None,
) -> Response:
    """The output as it is made: ``piece`` events, and at last one ``result`` or ``error``; see ``producer.Piece``.

    A reader that comes back with ``Last-Event-ID``, as browsers do, goes on where it was.
    """
    record = await owned(client, job_id, caller)
    events = _events(client, job_id, last_event_id)
    return await EventStream(events, _error, {}, told=partial(waits_for, client, record.model)).begin(request)


async def _events(client: AsyncClient, job_id: str, after: str | None) -> AsyncGenerator[bytes]:
    try:
        async with aclosing(client.follow(job_id, after)) as following:
            async for news in following:
                if isinstance(news, Result):
                    yield _event("result", {"output": news.output, "usage": news.usage})
                else:
                    piece = {"index": news.index, "at": news.at, "text": news.text, "tokens": news.tokens}
                    yield f"id: {news.id}\n".encode() + _event("piece", piece)
    except StokerError as error:  # how the job ended, not how this request did
        yield _error(error)


def _error(error: StokerError) -> bytes:
    return _event("error", problem_of(error).body["error"])


def _event(kind: str, data: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps(data)}\n\n".encode()


async def _answer(
    record: JobRecord, client: AsyncClient, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    # Asked for first: a job that ends between two questions has a result by the second.
    state = Status.QUEUED if status == 202 else await client.status(record.id)
    stored = await client.redis.get(keys.result(record.id))
    told = ended(record, stored) if celery_message.is_final(stored) else job_object(record, state)
    return Json(told, status, headers)
