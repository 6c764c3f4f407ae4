"""The output of a batch while it is made, in parts: why no crash repeats a line or loses one.

The order of writes, for every line. Each step is whole or not done at all, and each is safe to do again.

1. **Submit** (``submit.lua``): the job's message is queued and its id marked, in one step. The id is made of the
   batch's and the line's number, so submitting a line again, in doubt or by another process, queues nothing while it
   is marked. Only a job that is gone, because its queue was emptied, is queued anew (``gone.lua``, in the same step).
2. **End** (``finish.lua``): a worker stores the result and gives up its lease of the job, in one step; the first wins.
3. **Write**: output lines go into a part, a file with a new name. It is on disk before its name is published.
4. **Commit** (``commit.lua``): the part's name is listed and its lines are counted, in one step, and only while the
   batch's lease is held. *From here on, and not before, the line has its answer.*
5. **Forget**: the results and marks of the part's lines are deleted. They are not needed again.

Killed between 1 and 2, or before the result was read: the next process reads which lines the listed parts answer,
submits the others again, and collects the same jobs. Between 2 and 3: the results are still stored, and are collected
without running again. Between 3 and 4: the part is in no list, as if it was never written; its lines are written again,
from their results, into a new part. Between 4 and 5: the remaining results and marks expire.

A process that only seemed dead still has its own memory of the batch when it wakes up. It can submit (1), which changes
nothing, and write a part (3), which it cannot list (4): the lease is gone, and no step from 4 on is done without it.
The new process reads the list after it has taken the lease, so no part can be added without its knowledge.

Redis may be killed at any time, too. With ``appendfsync always`` it loses no write that it has acknowledged; after an
acknowledgement that was lost on the way, the step is repeated (4 lists a part once). With ``everysec`` it may lose the
last second, in the order of its writes: 5 never survives without 4, nor 2 without 1. A lost 4 is collected again; a
lost 2 runs again.

At the end, lines that were never run (expiry, cancellation) are answered in a part as well. Then:

6. **Finalize**: the batch's status says so, committed as in 4. Every line has its answer.
7. **Assemble**: the listed parts, one after the other, become the output and errors files. Their names follow from the
   batch's, and a file replaces the previous one whole: assembling twice, even concurrently, gives the same files.
8. **End the batch**: its status names the files' ids. Only then are the parts deleted (9), and only then is the batch
   removed from the list of open ones (10), so that another process finishes if this one is killed.

A line runs again in two cases only: a worker was killed, or Redis lost writes, while the line was in flight; or no
process ran the batch for so long that its results expired (``redis.result_ttl_s``, a day by default).
"""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from producer.client import Client
from producer.contract.errors import BrokerUnavailable

from ..lines.line_set import LineSet
from ..resume import number_of
from .lease import Field, Lease
from .store import PARTS, SOURCE, Store

EVERY_S = 1.0
"""Longest time in seconds before a part with answers is written."""

ENOUGH_BYTES = 4 * 1024 * 1024
"""Size from which a part is written at once."""

ID_BYTES = 256
"""The prefix of an output line that holds its id, in bytes."""


@dataclass(slots=True)
class _Part:
    """A part that is written and not yet committed."""

    name: str
    counts: tuple[int, int]
    job_ids: list[str]


class OutputParts:
    """The parts of one batch, written by the holder of its lease: a sink for a flight."""

    def __init__(self, store: Store, lease: Lease, client: Client) -> None:
        self._store = store
        self._lease = lease
        self._client = client
        self._folder = f"{PARTS}/{lease.batch_id}"
        self._lines: tuple[list[bytes], list[bytes]] = ([], [])  # completed, failed
        self._job_ids: list[str] = []
        self._size = 0
        self._written: _Part | None = None
        self._committed_at = time.monotonic()

    def write(self, told: bytes, failed: bool, job_id: str | None) -> None:
        """Add an output line to the next part."""
        self._lines[failed].append(told)
        self._size += len(told)
        if job_id is not None:
            self._job_ids.append(job_id)

    def flush(self) -> None:
        """Nothing: waiting makes larger parts."""

    @property
    def due(self) -> bool:
        """Whether it is time to commit; also without output, so that the lease is renewed."""
        return self._size >= ENOUGH_BYTES or time.monotonic() - self._committed_at >= EVERY_S

    def commit(self, fields: Mapping[str, Field] | None = None, *, over: bool = False, let_go: bool = False) -> None:
        """Write the part, commit it, and forget the results: steps 3 to 5. ``fields`` are of the batch's record.

        Raises:
            LeaseLost: nothing was committed.
            OSError: the part could not be written; nothing has changed.
            redis.RedisError: call it again.
        """
        if self._written is None and self._job_ids + self._lines[0] + self._lines[1]:
            self._written = self._write_part()
        part = self._written
        name, counts = (part.name, part.counts) if part else ("", (0, 0))
        self._lease.commit(name, counts, fields, over=over, let_go=let_go)
        self._written, self._committed_at = None, time.monotonic()
        if part is not None:
            with suppress(BrokerUnavailable):  # then they expire
                self._client.forget(part.job_ids)

    def _write_part(self) -> _Part:
        name = f"{time.time():017.6f}-{secrets.token_hex(8)}"
        for suffix, told in zip(SUFFIXES, self._lines, strict=True):
            if told:
                with self._store.writing(f"{self._folder}/{name}{suffix}") as file:
                    file.writelines(told)
        part = _Part(name, (len(self._lines[0]), len(self._lines[1])), self._job_ids)
        self._lines, self._job_ids, self._size = ([], []), [], 0
        return part

    def survey(self, alive: Callable[[], None]) -> LineSet:
        """The lines that the listed parts answer. ``alive`` is called now and then, to renew the lease.

        Raises:
            OSError: a part cannot be read.
        """
        finished = LineSet()
        for name, counts in self._lease.parts().items():
            for suffix, count in zip(SUFFIXES, counts, strict=True):
                if count:
                    with self._store.open(f"{self._folder}/{name}{suffix}") as file:
                        for told in file:
                            finished.add(number_of(told[:ID_BYTES]))
            alive()
        return finished

    def put_together(self, failed: bool, file_id: str, alive: Callable[[], None]) -> int:
        """Assemble the output file, or the errors file, from the listed parts (step 7). Returns its size; 0 without a
        file."""
        names = [name + SUFFIXES[failed] for name, counts in self._lease.parts().items() if counts[failed]]
        if not names:
            return 0
        with self._store.writing(f"{SOURCE}/{file_id}") as file:
            for name in names:
                with self._store.open(f"{self._folder}/{name}") as part:
                    shutil.copyfileobj(part, file)
                alive()
            return file.tell()

    def delete(self) -> None:
        """Delete the parts (step 9)."""
        self._store.delete(self._folder)
        self._lease.forget_parts()


SUFFIXES = (".out", ".err")
