"""The record of an asynchronous job: its owner and its webhook."""

from __future__ import annotations

import hashlib

from pydantic import BaseModel, ConfigDict

from producer.async_client import AsyncClient
from producer.contract import keys

from ..access.api_key import ApiKey
from ..openai.api_error import Problem
from ..webhooks.webhook import Webhook


class Notice(BaseModel):
    """The delivery of a webhook: ``failures`` so far, and how it ended, if it has. Unix times in seconds."""

    model_config = ConfigDict(frozen=True)

    webhook: Webhook | None
    """None once the delivery has ended: its secret is no longer needed."""
    failures: int = 0
    last_error: str = ""
    delivered_at: int | None = None
    given_up_at: int | None = None


class JobRecord(BaseModel):
    """A job without its input, which may be large and is stored with the job."""

    model_config = ConfigDict(frozen=True)

    id: str
    tenant: str
    model: str
    tier: str
    created_at: float
    metadata: dict[str, str] = {}
    notice: Notice | None = None


def ttl_ms(client: AsyncClient) -> int:
    """Time to live of a record: a job ends within ``redis.result_ttl_s``, and its result is kept as long again."""
    return int(2000 * client.settings.redis.result_ttl_s)


async def keep(client: AsyncClient, record: JobRecord) -> bool:
    """Store a record; False when it exists. Its webhook is delivered from now on, by any gateway."""
    async with client.redis.pipeline(transaction=True) as pipe:
        pipe.set(keys.job_record(record.id), record.model_dump_json(), px=ttl_ms(client), nx=True)
        if record.notice:
            pipe.zadd(keys.webhooks(), {record.id: 0}, nx=True)
        return bool((await pipe.execute())[0])


async def forget(client: AsyncClient, record: JobRecord) -> None:
    """Delete a record and its webhook."""
    async with client.redis.pipeline(transaction=True) as pipe:
        pipe.delete(keys.job_record(record.id))
        pipe.zrem(keys.webhooks(), record.id)
        await pipe.execute()


async def owned(client: AsyncClient, job_id: str, caller: ApiKey) -> JobRecord:
    """The record of a job of the caller's tenant.

    Raises:
        Problem: 404, for another tenant's job as for one that does not exist.
    """
    stored = await client.redis.get(keys.job_record(job_id))
    record = JobRecord.model_validate_json(stored) if stored else None
    if record is None or record.tenant != caller.tenant or not caller.may_use(record.model):
        raise Problem(404, f"there is no job {job_id!r} of yours", code="job_not_found")
    return record


async def same_as_before(client: AsyncClient, tenant: str, key: str, fingerprint: str) -> None:
    """Remember the request that a tenant's idempotency key stands for.

    Source: https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/

    Raises:
        Problem: 422, it stands for a different request.
    """
    name = hashlib.sha256(f"{tenant}\0{key}".encode(errors="replace")).hexdigest()
    before = await client.redis.set(keys.idempotency(name), fingerprint, nx=True, get=True, px=ttl_ms(client))
    if before is not None and before != fingerprint.encode():
        message = "this Idempotency-Key was used for a request that asked for something else"
        raise Problem(422, message, param="Idempotency-Key", code="idempotency_key_reused")
