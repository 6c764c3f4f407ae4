"""A synchronous request for a model: submitted, awaited, and cancelled when its client disconnects.

Its job's deadline is ``gateway.timeout_s`` from now, so that jobs end even if their gateway was killed. A request that
is answered with 504 is cancelled, since its result could not be fetched. Longer work belongs into ``/v1/jobs``.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

from fastapi import Request, Response

from producer.async_client import AsyncClient
from producer.contract.errors import JobFailed, StokerError
from producer.contract.job import Result
from producer.submission import instant

from .disconnect import give_up, unless_gone
from .errors import Json
from .event_stream import EventStream
from .openai.chunks import Chunks, broken_off
from .openai.translation import TranslatedRequest


async def serve(request: Request, client: AsyncClient, order: TranslatedRequest) -> Response:
    """Answer a request, at once or as a stream.

    Raises:
        StokerError: it could not be answered.
        ClientGone: the client disconnected.
    """
    created, timeout_s = int(time.time()), client.settings.gateway.timeout_s
    job = order.job.model_copy(update={"deadline": instant(timeout_s)})
    (job_id,) = await client.submit_many([job])
    headers = {"x-stoker-job": job_id}
    if order.ignored:
        headers["x-stoker-ignored"] = ", ".join(order.ignored)
    if order.stream:
        events = _events(client, job_id, Chunks(order, job_id, created))
        return await EventStream(client, job_id, events, broken_off, headers, timeout_s, cancels=job).begin(request)
    try:
        result = await unless_gone(request, client.result(job_id, timeout_s))
    except StokerError as error:
        if not isinstance(error, JobFailed):  # it may go on
            await give_up(client, job_id, job)
        raise
    except BaseException:
        await give_up(client, job_id, job)
        raise
    return Json(order.response(job_id, result, created), headers=headers)


async def _events(client: AsyncClient, job_id: str, chunks: Chunks) -> AsyncGenerator[bytes]:
    begun = False
    async with aclosing(client.follow(job_id)) as following:
        async for news in following:
            event = chunks.end(news) if isinstance(news, Result) else chunks.piece(news.index, news.at, news.text)
            yield event if begun else chunks.begin() + event
            begun = True
