"""Many streams over one connection, for hundreds of readers in one event loop.

A blocking XREAD for each of them would take a connection each. Here one XREAD waits for all streams with a pending
read. A read that is added while it waits wakes it through a stream of its own, which the XREAD includes.
"""

from __future__ import annotations

import asyncio
import uuid
from asyncio import Future, Task
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError

from .cancel_tasks import end
from .contract import keys
from .contract.fleet.settings import Settings
from .contract.server.connection import block_ms
from .contract.server.redis_errors import cannot_serve
from .outage import RETRY_S, Outage, persist
from .stream import AT_ONCE, Entry, by_stream

if TYPE_CHECKING:
    from redis.asyncio import Redis

WAIT_S = 5.0
"""How long one XREAD waits, in seconds, where the socket timeout allows it; nothing depends on it."""

PACE_S = 20e-6
"""For each stream it reads, the reader rests so long between two reads, in seconds: a read costs by the number of
streams, and what comes meanwhile comes in one."""

SLOWEST_S = 0.02
"""The longest such rest: how late a piece may be for it."""

_BELL_MS = 60_000


@dataclass(slots=True, eq=False)
class _Want:
    """A pending read offset of a stream."""

    after: tuple[int, int]
    entries: Future[list[Entry]] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Multiplex:
    """Reads streams for any number of tasks of one event loop, no further than their pending reads."""

    def __init__(self, redis: Redis, settings: Settings) -> None:
        self._redis = redis
        self._settings = settings
        self._wants: dict[str, list[_Want]] = {}  # by stream
        self._bell, self._rung_at = keys.bell(uuid.uuid4().hex), "0-0"
        self._wanted = asyncio.Event()
        self._waits = False
        self._ringing: Task[None] | None = None
        self._task: Task[None] | None = None

    async def entries(self, job_id: str, after: str) -> list[Entry]:
        """The next entries of a job's stream after the id ``after``, as soon as there are any; not necessarily all.

        Raises:
            BrokerUnavailable: Redis stayed away for ``outage.OUTAGE_S`` seconds.
        """
        stream, want = keys.stream(job_id), _Want(_place(after))
        self._wants.setdefault(stream, []).append(want)
        self._wanted.set()
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        if self._waits and self._ringing is None:
            self._ringing = asyncio.create_task(self._ring())
        try:
            return await want.entries
        finally:
            wants = self._wants.get(stream, [])
            if want in wants:
                wants.remove(want)
            if not wants:
                self._wants.pop(stream, None)

    async def aclose(self) -> None:
        """Stop reading and close the connection."""
        await end(task for task in (self._task, self._ringing) if task is not None)
        self._task = self._ringing = None

    async def _run(self) -> None:
        outage = Outage(self._settings, "reading streams")
        await persist(lambda: self._look(outage), outage, self._fail, RETRY_S)

    async def _look(self, outage: Outage) -> None:
        if not self._wants:
            outage.forget()
            self._wanted.clear()
            await self._wanted.wait()
        await self._read()
        outage.end()
        await asyncio.sleep(min(SLOWEST_S, PACE_S * len(self._wants)))

    async def _read(self) -> None:
        places: dict[Any, Any] = {self._bell: self._rung_at}
        for stream, wants in self._wants.items():
            places[stream] = "{}-{}".format(*min(want.after for want in wants))
        self._waits = True
        try:
            found = await self._redis.xread(places, AT_ONCE, block_ms(self._redis, WAIT_S))
        finally:
            self._waits = False
        for stream, came in by_stream(found):
            if stream == self._bell:
                self._rung_at = came[-1][0].decode()
            else:
                self._hand_out(stream, came)

    def _hand_out(self, stream: str, entries: list[Entry]) -> None:
        for want in self._wants.pop(stream, []):
            behind = [entry for entry in entries if _place(entry[0].decode()) > want.after]
            if want.entries.done():
                continue
            if behind:
                want.entries.set_result(behind)
            else:  # another reads far behind it
                self._wants.setdefault(stream, []).append(want)

    async def _ring(self) -> None:
        """Wake the XREAD, so that it includes the new stream."""
        try:
            async with self._redis.pipeline(transaction=False) as pipe:
                pipe.xadd(self._bell, {"ring": 1}, maxlen=1, approximate=False)
                pipe.pexpire(self._bell, _BELL_MS)
                await pipe.execute()
        except RedisError as error:
            if not cannot_serve(error):
                raise
            # The XREAD has failed as well, and begins anew with all.
        finally:
            self._ringing = None

    def _fail(self, error: Exception) -> None:
        for want in [want for wants in self._wants.values() for want in wants]:
            if not want.entries.done():
                want.entries.set_exception(error)
        self._wants.clear()


def _place(entry_id: str) -> tuple[int, int]:
    time_ms, _, number = entry_id.partition("-")
    return int(time_ms), int(number)
