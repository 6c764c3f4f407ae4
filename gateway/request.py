"""A synchronous request for a model: submitted, awaited, and cancelled when its client disconnects.

Its job expires ``gateway.timeout_s`` from now, so that jobs end even if their gateway was killed. A request that
is answered with 504 is cancelled, since its result could not be fetched. Longer work belongs into ``/v1/jobs``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from functools import partial

from fastapi import Request, Response

from producer.async_client import AsyncClient
from producer.contract import keys
from producer.contract.errors import JobCancelled, JobFailed, StokerError
from producer.contract.message import celery_message
from producer.contract.message.job import Result, Status
from producer.submission import instant

from .attempt import Attempt
from .availability import waits_for
from .errors import Json
from .forgetting import Forgetting
from .http.disconnect import give_up, unless_gone
from .http.event_stream import EventStream
from .openai.chunks import Chunks, broken_off
from .openai.translation import TranslatedRequest


async def serve(
    request: Request, client: AsyncClient, order: TranslatedRequest, attempt: Attempt | None = None
) -> Response:
    """Answer a request, at once or as a stream.

    A repeated attempt is answered by the job of the one before, whether that runs or has ended, unless it failed. A job
    that is gone (``gone.lua``) is queued anew.

    Raises:
        ModelUnavailable: the workers of its model fail to start.
        StokerError: it could not be answered.
        ClientGone: the client disconnected.
    """
    job = order.job.model_copy(update={"expires": instant(client.settings.gateway.timeout_s)})
    if attempt is not None and attempt.keyed:  # so that two attempts at the same time are one job
        job = job.model_copy(update={"idempotency_key": attempt.name})
    earlier = await attempt.earlier(client) if attempt is not None else None
    if attempt is not None and earlier is not None and not await _failed(client, earlier):
        await attempt.note(client, earlier)
        if job.id == earlier:
            await client.submit_many([job])  # it is queued anew if it is gone
        with suppress(JobCancelled):  # by the attempt before, whose client went away a moment ago
            return await _answer(request, client, order, earlier, attempt)
    await request.app.state.availability.check(client, order.job.model)
    if attempt is not None and attempt.keyed and earlier is not None:
        job = job.model_copy(update={"idempotency_key": f"{attempt.name}.{attempt.token}"})
    (job_id,) = await client.submit_many([job])
    if attempt is not None:
        await attempt.note(client, job_id)
    return await _answer(request, client, order, job_id, attempt)


async def _failed(client: AsyncClient, job_id: str) -> bool:
    stored = await client.redis.get(keys.result(job_id))
    return celery_message.is_final(stored) and celery_message.status(stored) is not Status.SUCCEEDED


async def _answer(
    request: Request, client: AsyncClient, order: TranslatedRequest, job_id: str, attempt: Attempt | None
) -> Response:
    created, timeout_s = int(time.time()), client.settings.gateway.timeout_s
    forgetting: Forgetting = request.app.state.forgetting
    headers = {"x-stoker-job": job_id}
    if order.ignored:
        headers["x-stoker-ignored"] = ", ".join(order.ignored)

    async def abandon() -> None:
        if attempt is None or not await attempt.is_awaited(client):
            await give_up(client, job_id, order.job)
            forgetting.abandoned(job_id, attempt)

    if order.stream:
        told_all = partial(forgetting.answered, job_id, attempt)
        events = _events(client, job_id, Chunks(order, job_id, created), told_all, chat=order.chat)
        told = partial(waits_for, client, order.job.model)
        return await EventStream(events, broken_off, headers, timeout_s, abandon, told).begin(request)
    try:
        result = await unless_gone(request, client.result(job_id, timeout_s))
    except StokerError as error:
        if not isinstance(error, JobFailed):  # it may go on
            await give_up(client, job_id, order.job)
        forgetting.abandoned(job_id, attempt)
        raise
    except BaseException:
        await asyncio.shield(abandon())
        raise
    forgetting.answered(job_id, attempt)
    return Json(order.response(job_id, result, created), headers=headers)


async def _events(
    client: AsyncClient, job_id: str, chunks: Chunks, told_all: Callable[[], None], *, chat: bool
) -> AsyncGenerator[bytes]:
    begun = False
    async with aclosing(client.follow(job_id, reasoning=chat, calls=chat)) as following:
        async for news in following:
            event = chunks.end(news) if isinstance(news, Result) else chunks.piece(news)
            yield event if begun else chunks.begin() + event
            begun = True
    told_all()
