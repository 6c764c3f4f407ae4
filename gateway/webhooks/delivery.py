"""Delivery of webhooks: at least once, whichever gateway dies.

Pending deliveries are a sorted set in Redis: job id -> time of the next check. Each gateway claims the due ones for
longer than an attempt lasts, and tenants take turns (``turns``). A job that still runs is postponed; one that has ended
is announced until its receiver answers with 2xx or 410, or all attempts have failed. What a gateway remembers of hosts
that fail only paces it, so that any other can continue.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.resources import files
from urllib.parse import urlsplit

import httpcore2

from producer.async_client import AsyncClient
from producer.contract import keys
from producer.contract.errors import StokerError
from producer.contract.message import celery_message
from producer.contract.server.redis_errors import cannot_serve

from ..jobs.job_record import JobRecord, Notice
from ..jobs.job_response import ended
from .target import GuardedNetwork, check_policy
from .turns import AT_ONCE, WAITING, Turn, Turns
from .webhook import TIMEOUT_S, Webhook, again_s, headers, look_s

logger = logging.getLogger(__name__)

POLL_S = 0.25
"""Interval of checks for due deliveries, in seconds."""

CLAIM = 256
"""Most deliveries claimed in one step."""

PUT_OFF_S = 0.5
"""Seconds, at least, for which a delivery is put off when too many of its tenant wait."""

HOLD_S = 2 * TIMEOUT_S
"""Seconds for which a delivery is claimed: it waits for its turn until those of an attempt are left."""

UNREACHED = "no answer from a public address over TLS"
"""What a tenant is told of whatever kept a webhook from its receiver: more would tell it which names and ports there
are in the operator's network. The log has the reason."""

GONE = 410
"""The status by which a receiver refuses the webhook for good (Standard Webhooks)."""


class Delivery:
    """Delivers the webhooks of jobs that have ended."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self._claim = client.redis.register_script(files(__package__).joinpath("webhook_claim.lua").read_text())
        self._turns: Turns[str] = Turns()
        self._exempt = client.settings.gateway.webhook_hosts
        self._http = httpcore2.AsyncConnectionPool(
            network_backend=GuardedNetwork(self._exempt), max_connections=AT_ONCE
        )

    async def run(self) -> None:
        """Deliver until cancelled, waiting through outages of Redis."""
        async with self._http, asyncio.TaskGroup() as self._tasks:
            while True:
                due = 0
                try:
                    due = await self._take()
                except Exception as error:
                    if not cannot_serve(error):
                        logger.exception("webhooks wait")
                self._begin()
                if due < CLAIM:
                    await asyncio.sleep(POLL_S)

    async def _take(self) -> int:
        """Claim due deliveries, and line them up or put them off; returns how many were due."""
        due = [job_id.decode() for job_id in await self._claim([keys.webhooks()], [CLAIM, HOLD_S])]
        if not due:
            return 0
        until = time.monotonic() + HOLD_S - TIMEOUT_S
        kept = await self._client.redis.mget([keys.job_record(job_id) for job_id in due])
        late: Counter[str] = Counter()
        puts_off: dict[str, float] = {}
        gone = []
        for job_id, stored in zip(due, kept, strict=True):
            if (found := _pending(stored)) is None:
                gone.append(job_id)
                continue
            record, _, webhook = found
            host = urlsplit(webhook.url).hostname or ""
            if not self._turns.add(Turn(record.tenant, host, job_id, until)):
                late[record.tenant] += 1
                puts_off[job_id] = PUT_OFF_S + late[record.tenant] / WAITING
        if gone:
            await self._client.redis.zrem(keys.webhooks(), *gone)
        if puts_off:
            await self._put_off(puts_off)
        return len(due)

    def _begin(self) -> None:
        while (turn := self._turns.next(time.monotonic())) is not None:
            self._tasks.create_task(self._run(turn))

    async def _run(self, turn: Turn[str]) -> None:
        succeeded = None
        try:
            succeeded = await self._look(turn.what)
        except Exception as error:  # it is due again when its claim ends
            if not cannot_serve(error):
                logger.exception("the webhook of job %s waits", turn.what)
        finally:
            self._turns.ended(turn, succeeded)
        self._begin()

    async def _look(self, job_id: str) -> bool | None:
        """Deliver one, if its job has ended; whether that succeeded, None if it has not ended."""
        kept, stored = await self._client.redis.mget([keys.job_record(job_id), keys.result(job_id)])
        if (found := _pending(kept)) is None:
            await self._client.redis.zrem(keys.webhooks(), job_id)
            return None
        record, notice, webhook = found
        if not celery_message.is_final(stored):
            await self._put_off({job_id: look_s(time.time() - record.created_at)})
            return None
        return await self._tell(record, notice, webhook, stored)

    async def _tell(self, record: JobRecord, notice: Notice, webhook: Webhook, stored: bytes) -> bool:
        now = int(time.time())
        problem, final = await self._attempt(webhook, record, stored, now)
        if not problem:
            notice = notice.model_copy(update={"webhook": None, "delivered_at": now})
        else:
            failures = notice.failures + 1
            pause_s = None if final else again_s(failures)
            notice = notice.model_copy(update={"failures": failures, "last_error": problem})
            if pause_s is None:
                notice = notice.model_copy(update={"webhook": None, "given_up_at": now})
                logger.warning("the webhook of job %s is given up: %s", record.id, problem)
            else:
                await self._put_off({record.id: pause_s})
        record = record.model_copy(update={"notice": notice})
        await self._client.redis.set(keys.job_record(record.id), record.model_dump_json(), xx=True, keepttl=True)
        if notice.webhook is None:
            await self._client.redis.zrem(keys.webhooks(), record.id)
        return not problem

    async def _attempt(self, webhook: Webhook, record: JobRecord, stored: bytes, now: int) -> tuple[str, bool]:
        """One attempt: the error, empty on success, and whether the failure is final."""
        state = ended(record, stored)
        state.pop("webhook", None)
        told = {
            "type": f"job.{state['status']}",
            "timestamp": datetime.fromtimestamp(now, UTC).isoformat(),
            "data": state,
        }
        body = json.dumps(told).encode()
        try:
            check_policy(webhook.url, self._exempt)
            async with asyncio.timeout(TIMEOUT_S):
                async with self._http.stream(
                    "POST", webhook.url, headers=[*headers(webhook, record.id, now, body).items()], content=body
                ) as response:
                    status = response.status
        except (
            *(StokerError, TimeoutError, OSError),
            *(httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.TimeoutException),
        ) as error:
            logger.info("the webhook of job %s was not delivered: %s: %s", record.id, type(error).__name__, error)
            return UNREACHED, False
        return ("" if 200 <= status < 300 else f"answered with {status}"), status == GONE

    async def _put_off(self, pauses_s: Mapping[str, float]) -> None:
        seconds, microseconds = await self._client.redis.time()
        now = seconds + microseconds / 1e6
        await self._client.redis.zadd(keys.webhooks(), {job: now + pause for job, pause in pauses_s.items()}, xx=True)


def _pending(stored: bytes | str | None) -> tuple[JobRecord, Notice, Webhook] | None:
    """A stored record whose webhook is still to be delivered, if it is."""
    record = JobRecord.model_validate_json(stored) if stored else None
    if record is None or record.notice is None or record.notice.webhook is None:
        return None
    return record, record.notice, record.notice.webhook
