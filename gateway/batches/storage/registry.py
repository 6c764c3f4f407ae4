"""The registry of batches and files, in Redis. Records of other tenants count as absent."""

from __future__ import annotations

import time
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from producer.contract import keys
from producer.contract.fleet.tenants import Tenant

from ...openai.api_error import Problem
from .records import CANCELLABLE, ENDED, BatchRecord, BatchSpec, FileRecord, Page, Purpose

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis import Redis

CANCEL_LUA = files(__package__).joinpath("cancel.lua").read_text()


class Registry:
    """Creates, finds and lists the records of one tenant at a time."""

    def __init__(self, redis: Redis) -> None:
        self._redis: Any = redis  # redis-py types every answer as one that may be awaited
        self._cancel = redis.register_script(CANCEL_LUA)

    def add_file(self, record: FileRecord) -> None:
        """Add a file's record; adding it again changes nothing."""
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.set(keys.file(record.id), record.model_dump_json())
            pipe.zadd(keys.files(record.tenant), {record.id: 0})
            pipe.execute()

    def room_for_file(self, tenant: str, account: Tenant) -> int:
        """The bytes that another file of the tenant may have.

        Raises:
            Problem: 429, it has as many files, or bytes, as it may have.
        """
        ids = [each.decode() for each in self._redis.zrangebylex(keys.files(tenant), "-", "+", 0, account.max_files)]
        found = (
            [FileRecord.model_validate_json(each) for each in self._redis.mget(map(keys.file, ids)) if each]
            if ids
            else []
        )
        left = account.max_files_bytes - sum(file.size for file in found)
        if len(ids) < account.max_files and left > 0:
            return left
        kept = f"{len(ids)} files of {account.max_files} allowed (max_files)"
        if left <= 0:
            kept = f"files of more than the {account.max_files_bytes} bytes allowed (max_files_bytes)"
        raise Problem(429, f"tenant {tenant!r} has {kept}: delete some", code="file_quota_exceeded")

    def check_open_batches(self, tenant: str, most: int) -> None:
        """Refuse another batch of a tenant that has as many as it may have.

        Raises:
            Problem: 429.
        """
        if len(self._redis.zrangebylex(keys.open_batches_of(tenant), "-", "+", 0, most)) >= most:
            told = f"tenant {tenant!r} has {most} batches that have not ended, of {most} allowed (max_open_batches)"
            raise Problem(429, f"{told}: wait for one, or cancel it", code="batch_quota_exceeded")

    def remove_batch(self, tenant: str, batch_id: str) -> None:
        """Remove the record of a batch that has ended; its files stay until they are deleted.

        Raises:
            Problem: 404, the tenant has no such batch; 409, it has not ended.
        """
        status = self.batch(tenant, batch_id).status
        if status not in ENDED:
            raise Problem(409, f"the batch is {status}: cancel it, and delete it when it has ended", code="batch_open")
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.zrem(keys.batches(tenant), batch_id)
            pipe.delete(keys.batch(batch_id))
            pipe.execute()

    def file(self, tenant: str, file_id: str) -> FileRecord:
        """A file of the tenant.

        Raises:
            Problem: 404, it has none of that id.
        """
        stored = self._redis.get(keys.file(file_id))
        record = FileRecord.model_validate_json(stored) if stored else None
        if record is None or record.tenant != tenant:
            raise Problem(404, f"no file has the id {file_id!r:.80}", param="file_id", code="file_not_found")
        return record

    def remove_file(self, record: FileRecord) -> None:
        """Remove a file's record."""
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.zrem(keys.files(record.tenant), record.id)
            pipe.delete(keys.file(record.id))
            pipe.execute()

    def files(self, tenant: str, after: str | None, limit: int, newest: bool, purpose: Purpose | None) -> Page:
        """The tenant's files by age, those after the id ``after``."""

        def load(ids: list[str]) -> list[dict[str, Any]]:
            found = [FileRecord.model_validate_json(each) for each in self._redis.mget(map(keys.file, ids)) if each]
            return [each.public() for each in found if purpose in (None, each.purpose)]

        return self._page(keys.files(tenant), after, limit, newest, load)

    def add_batch(self, batch_id: str, asked: BatchSpec) -> BatchRecord:
        """Add a batch to the open ones; a batch process will claim it. Adding it again changes nothing."""
        if self._redis.hgetall(keys.batch(batch_id)):
            return self.batch(asked.caller.tenant, batch_id)
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.hsetnx(keys.batch(batch_id), "asked", asked.model_dump_json())
            pipe.hsetnx(keys.batch(batch_id), "status", "validating")
            pipe.zadd(keys.batches(asked.caller.tenant), {batch_id: 0})
            pipe.zadd(keys.open_batches(), {batch_id: 0})
            pipe.zadd(keys.open_batches_of(asked.caller.tenant), {batch_id: 0})
            pipe.zadd(keys.open_tenants(), {asked.caller.tenant: 0})
            pipe.execute()
        return BatchRecord(id=batch_id, asked=asked)

    def batch(self, tenant: str, batch_id: str) -> BatchRecord:
        """A batch of the tenant.

        Raises:
            Problem: 404, it has none of that id.
        """
        stored = self._redis.hgetall(keys.batch(batch_id))
        record = BatchRecord.stored(batch_id, stored) if stored else None
        if record is None or record.tenant != tenant:
            raise Problem(404, f"no batch has the id {batch_id!r:.80}", param="batch_id", code="batch_not_found")
        return record

    def batches(self, tenant: str, after: str | None, limit: int) -> Page:
        """The tenant's batches, the newest first, those after the id ``after``."""

        def load(ids: list[str]) -> list[dict[str, Any]]:
            with self._redis.pipeline(transaction=False) as pipe:
                for each in ids:
                    pipe.hgetall(keys.batch(each))
                found = zip(ids, pipe.execute(), strict=True)
            return [BatchRecord.stored(batch_id, stored).public() for batch_id, stored in found if stored]

        return self._page(keys.batches(tenant), after, limit, True, load)

    def open(self, tenant: str | None = None, most: int = 1000) -> list[BatchRecord]:
        """The batches that are not over, of one tenant or of all, the oldest first."""
        index = keys.open_batches() if tenant is None else keys.open_batches_of(tenant)
        ids = [each.decode() for each in self._redis.zrangebylex(index, "-", "+", 0, most)]
        found = zip(ids, (self._redis.hgetall(keys.batch(each)) for each in ids), strict=True)
        return [BatchRecord.stored(batch_id, stored) for batch_id, stored in found if stored]

    def find(self, batch_id: str) -> BatchRecord | None:
        """A batch of any tenant: for operators."""
        stored = self._redis.hgetall(keys.batch(batch_id))
        return BatchRecord.stored(batch_id, stored) if stored else None

    def cancel(self, tenant: str, batch_id: str) -> BatchRecord:
        """Have a batch cancelled; finished lines keep their answers.

        Raises:
            Problem: 404, the tenant has no such batch; 409, it has ended, or is about to.
        """
        self.batch(tenant, batch_id)
        status = self._cancel([keys.batch(batch_id)], [int(time.time())]).decode()
        if status not in CANCELLABLE:
            raise Problem(409, f"the batch is {status} and cannot be cancelled any more", code="batch_not_cancellable")
        return self.batch(tenant, batch_id)

    def _page(
        self, index: str, after: str | None, limit: int, newest: bool, load: Callable[[list[str]], list[dict[str, Any]]]
    ) -> Page:
        """Up to ``limit`` of the records that ``load`` finds, in the order of their ids."""
        data: list[dict[str, Any]] = []
        while len(data) <= limit:
            begin = f"({after}" if after else None
            if newest:
                found = self._redis.zrevrangebylex(index, begin or "+", "-", 0, limit + 1)
            else:
                found = self._redis.zrangebylex(index, begin or "-", "+", 0, limit + 1)
            ids = [each.decode() for each in found]
            data += load(ids) if ids else []
            if len(ids) <= limit:
                break
            after = ids[-1]
        return Page(data=data[:limit], has_more=len(data) > limit)
