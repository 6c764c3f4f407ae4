"""Dead letters: messages that cannot be served, kept with their reason until an operator decides."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from producer.contract import keys
from producer.contract.errors import StokerError
from producer.contract.server.lua import script

if TYPE_CHECKING:
    from redis import Redis

REQUEUE = script(__package__, "requeue.lua")


class NoSuchLetter(StokerError):
    """No dead letter has that id."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One message that cannot be served. ``id`` begins with the Unix time in ms at which it was given up."""

    id: str
    model: str
    queue: str
    reason: str
    losses: int
    """Number of workers that died while they held it."""
    history: tuple[str, ...]
    """A line for each of them: server time and worker."""
    message: bytes
    """The message as it was pushed."""

    @property
    def at(self) -> float:
        """When it was given up, in Unix seconds by the server's clock."""
        return int(self.id.partition("-")[0]) / 1000


def letters(redis: Redis, model: str, limit: int | None = None) -> Iterator[DeadLetter]:
    """A model's dead letters, newest first."""
    found: Any = redis.xrevrange(keys.dead(model), count=limit)
    for entry, fields in found:
        yield _letter(model, entry, fields)


def letter(redis: Redis, model: str, entry: str) -> DeadLetter:
    """One dead letter.

    Raises:
        NoSuchLetter: naming the command that lists them.
    """
    found: Any = redis.xrange(keys.dead(model), entry, entry)
    if not found:
        raise _missing(model, entry)
    return _letter(model, *found[0])


def requeue(redis: Redis, model: str, entry: str) -> None:
    """Put a dead letter back at the tail of its queue, as if it had never run.

    Raises:
        NoSuchLetter: naming the command that lists them.
    """
    if not _take_out(redis, model, entry, keys.result("")):
        raise _missing(model, entry)


def purge(redis: Redis, model: str, entry: str | None = None) -> int:
    """Delete one dead letter, or all of a model's; returns how many."""
    if entry is not None:
        return _take_out(redis, model, entry, "")
    count = int(redis.xlen(keys.dead(model)))
    redis.delete(keys.dead(model), keys.letter_sizes(model), keys.letter_bytes(model))
    return count


def _take_out(redis: Redis, model: str, entry: str, results: str) -> int:
    return int(redis.register_script(REQUEUE)([keys.dead(model), keys.losses(model)], [entry, results]))


def _letter(model: str, entry: bytes, fields: dict[bytes, bytes]) -> DeadLetter:
    return DeadLetter(
        id=entry.decode(),
        model=model,
        queue=fields[b"queue"].decode(),
        reason=fields[b"reason"].decode(errors="replace"),
        losses=int(fields[b"losses"]),
        history=tuple(fields.get(b"history", b"").decode(errors="replace").splitlines()),
        message=fields[b"message"],
    )


def _missing(model: str, entry: str) -> NoSuchLetter:
    return NoSuchLetter(f"no dead letter {entry!r} of model {model!r}; 'stoker dead list' shows them")
