"""The part of a batch that is in flight: lines read, submitted, and not yet answered."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Protocol

from producer.client import Client, outcome
from producer.contract.errors import InvalidJob, QueueFull, StokerError
from producer.contract.job import Result
from producer.contract.settings import Settings

from .line_set import LineSet
from .line_translation import LineRequest, Tell, Terms
from .lines import Line

CHUNK = 64
"""Most jobs in one write."""

MOST_BYTES = 4 * 1024 * 1024
"""How many bytes of lines in flight are enough, whatever their number: it bounds the memory."""


def chunk(settings: Settings, tenant: str) -> int:
    """How many jobs of the tenant to write at once.

    A queue takes a chunk whole or not at all, so a larger one than it may hold would wait for ever.
    """
    quota = settings.tenant(tenant).max_queued or CHUNK
    return min([CHUNK, quota, *(model.limits.max_queued for model in settings.models.values())])


class Sink(Protocol):
    """Where output lines go."""

    def write(self, told: bytes, failed: bool, job_id: str | None) -> None:
        """Take the output line of a line that ended, and whether it is an error."""

    def flush(self) -> None:
        """Several were taken, and nothing more has come for the moment."""


class Flight:
    """Submits lines, collects their answers and writes them; holds no more than its user gives it.

    Args:
        terms: make jobs of lines.
        tell: makes output lines of what ended.
        sink: takes them.
        finished: lines that have an answer; kept up to date.
        chunk: most jobs in one write.
    """

    def __init__(
        self, client: Client, terms: Terms, tell: Tell, sink: Sink, finished: LineSet, chunk: int = CHUNK
    ) -> None:
        self.finished = finished
        self.errors = 0
        self.models: set[str] = set()
        """Of the jobs taken on so far."""
        self._size = 0
        self.chunk = chunk
        self._client = client
        self._terms = terms
        self._tell = tell
        self._sink = sink
        self._collector = client.collector()
        self._unanswered: dict[str, LineRequest] = {}  # by job id
        self._unsent: deque[str] = deque()
        self._retry_at = 0.0

    def __len__(self) -> int:
        """How many lines wait for their answer."""
        return len(self._unanswered)

    @property
    def has_room(self) -> bool:
        """Whether the lines in flight leave room for another one; for one there always is, however large."""
        return not self._unanswered or self._size < MOST_BYTES

    @property
    def waits(self) -> bool:
        """Whether anything that was submitted has no answer yet."""
        return bool(len(self._collector))

    @property
    def job_ids(self) -> list[str]:
        """The jobs in flight."""
        return list(self._unanswered)

    def take(self, lines: Iterable[Line]) -> bool:
        """Take lines on, to be sent; those that ask for nothing sensible are answered. False when there was none."""
        any_taken = False
        for line in lines:
            any_taken = True
            try:
                request = self._terms.read(line)
            except StokerError as error:
                self._answer(line, None, error)
                continue
            job_id = request.job.id
            self._unanswered[job_id] = request
            self._unsent.append(job_id)
            self._size += line.size
            self.models.add(request.job.model)
        return any_taken

    def send(self) -> str:
        """Submit what is unsent; says why when something had to be left for later.

        Raises:
            BrokerUnavailable, redis.RedisError: call ``resend``, then this again.
        """
        while self._unsent:
            if time.monotonic() < self._retry_at:
                return "the queue is full"
            first = list(islice(self._unsent, self.chunk))
            # An answer may have come meanwhile: to what an outage left in doubt, or to a line that is wrong.
            job_ids = [job_id for job_id in first if job_id in self._unanswered]
            try:
                self._submit(job_ids)
            except QueueFull as full:
                self._retry_at = time.monotonic() + full.retry_after_s
            else:
                for _ in first:
                    self._unsent.popleft()
                self._collector.add(job_id for job_id in job_ids if job_id in self._unanswered)
        return ""

    def _submit(self, job_ids: Sequence[str]) -> None:
        try:
            self._client.submit_many(self._unanswered[job_id].job for job_id in job_ids)
        except InvalidJob as error:  # then none of them is queued
            if len(job_ids) == 1:
                self._end(job_ids[0], error)
                return
            for job_id in job_ids:
                self._submit([job_id])

    def resend(self) -> None:
        """After an outage: whatever has no answer is to be sent again.

        What Redis still knows is not queued again; what it has lost with its memory is.
        """
        self._unsent = deque(self._unanswered)
        self._retry_at = 0.0

    def collect(self, timeout: float) -> None:
        """Write the answers that come within ``timeout`` seconds; returns with the first few.

        Raises:
            redis.ConnectionError, redis.TimeoutError: call it again.
        """
        if not len(self._collector):
            time.sleep(timeout if self._unsent else 0.0)  # the queue is full of others' jobs
        else:
            for job_id, stored in self._collector.poll(timeout):
                if job_id in self._unanswered:
                    self._end(job_id, outcome(stored))
        self._sink.flush()

    def give_up(self, error: StokerError) -> None:
        """Answer whatever is in flight with an error."""
        for job_id in self.job_ids:
            self._end(job_id, error)

    def refuse(self, line: Line, error: StokerError) -> None:
        """Answer a line that is not to be taken on."""
        self._answer(line, None, error)

    def _end(self, job_id: str, ended: Result | StokerError) -> None:
        request = self._unanswered.pop(job_id)
        self._size -= request.line.size
        self._answer(request.line, request, ended)

    def _answer(self, line: Line, request: LineRequest | None, ended: Result | StokerError) -> None:
        told, failed = self._tell(line, request, ended)
        self._sink.write(told, failed, request.job.id if request is not None else None)
        self.finished.add(line.number)
        self.errors += failed

    def close(self) -> None:
        """Give up the connection."""
        self._collector.close()
