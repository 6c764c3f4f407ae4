"""The lease of a batch: the batch process that holds it runs the batch, and commits of any other have no effect."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from producer.contract import keys
from producer.contract.errors import StokerError

from .records import BatchRecord

if TYPE_CHECKING:
    from redis import Redis

Field = str | int | float | None

COMMIT_LUA = files(__package__).joinpath("commit.lua").read_text()


class LeaseLost(StokerError):
    """The lease has expired: another process runs the batch, or may."""


class Lease:
    """One claim of one batch. It expires when nothing is committed under it for ``lease_s`` seconds."""

    def __init__(self, redis: Redis, batch_id: str, lease_s: float, name: str) -> None:
        self.batch_id = batch_id
        self.cancelling = False
        """Whether the batch was cancelled, as of the last commit."""
        self._redis: Any = redis
        self._commit = redis.register_script(COMMIT_LUA)
        self._holder = f"{name}:{secrets.token_hex(8)}"
        self._lease_ms = int(lease_s * 1000)

    def claim(self) -> bool:
        """Take the lease, if it is free."""
        return bool(self._redis.set(keys.batch_lease(self.batch_id), self._holder, nx=True, px=self._lease_ms))

    def record(self) -> BatchRecord:
        """The batch's record."""
        return BatchRecord.stored(self.batch_id, self._redis.hgetall(keys.batch(self.batch_id)))

    def parts(self) -> dict[str, tuple[int, int]]:
        """The committed parts, oldest first, with their numbers of completed and failed lines."""
        found = sorted(self._redis.hgetall(keys.batch_parts(self.batch_id)).items())
        return {name.decode(): (int(counts.split()[0]), int(counts.split()[1])) for name, counts in found}

    def commit(
        self,
        part: str = "",
        counts: tuple[int, int] = (0, 0),
        fields: Mapping[str, Field] | None = None,
        *,
        over: bool = False,
        let_go: bool = False,
    ) -> None:
        """Commit progress of the batch and renew the lease. Safe to repeat when the acknowledgement was lost.

        Args:
            part: a written part of the output, with its numbers of completed and failed lines.
            fields: of the batch's record, to set.
            over: the batch has ended.
            let_go: give up the lease as well.

        Raises:
            LeaseLost: nothing was committed.
            redis.RedisError: it may have been committed.
        """
        told = [each for name, value in (fields or {}).items() if value is not None for each in (name, value)]
        tenant = self.record().tenant if over else ""
        lease_ms = 0 if let_go or over else self._lease_ms
        held, cancelling = self._commit(
            [
                keys.batch_lease(self.batch_id),
                keys.batch(self.batch_id),
                keys.batch_parts(self.batch_id),
                keys.open_batches(),
                keys.open_batches_of(tenant),
                keys.open_tenants(),
            ],
            [self._holder, lease_ms, self.batch_id, part, *counts, int(over), tenant, *told],
        )
        if not held:
            raise LeaseLost(f"batch {self.batch_id} is run by another process now")
        self.cancelling = bool(cancelling)

    def forget_parts(self) -> None:
        """Delete the list of parts, which are in the output now."""
        self._redis.delete(keys.batch_parts(self.batch_id))
