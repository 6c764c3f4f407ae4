"""The lines of a batch in flight: read, submitted, and not yet answered."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Protocol

from producer.client import Client, outcome
from producer.collect import Collector
from producer.contract.errors import InvalidJob, QueueFull, StokerError
from producer.contract.job import Result
from producer.contract.settings import Settings

from .line_set import LineSet
from .line_translation import LineRequest, Tell, Terms
from .lines import Line

CHUNK = 64
"""Most jobs in one write."""

MOST_BYTES = 4 * 1024 * 1024
"""Most bytes of lines in flight; bounds the memory."""


def chunk(settings: Settings, tenant: str) -> int:
    """Number of jobs of the tenant in one write.

    A queue accepts a chunk whole or not at all, so that one larger than the queue's limit would never be accepted.
    """
    quota = settings.tenant(tenant).max_queued or CHUNK
    return min([CHUNK, quota, *(model.limits.max_queued for model in settings.models.values())])


class OutputSink(Protocol):
    """A consumer of output lines."""

    def write(self, told: bytes, failed: bool, job_id: str | None) -> None:
        """Take an output line, and whether it is an error."""

    def flush(self) -> None:
        """Called after several lines, when no more have come for the moment."""


class Flight:
    """Submits lines, collects their answers and writes them to a sink.

    Args:
        terms: makes jobs of lines.
        tell: makes output lines of jobs that ended.
        sink: takes the output lines.
        finished: the lines that have an answer; kept up to date.
        chunk: most jobs in one write.
    """

    def __init__(
        self, client: Client, terms: Terms, tell: Tell, sink: OutputSink, finished: LineSet, chunk: int = CHUNK
    ) -> None:
        self.finished = finished
        self.errors = 0
        self.models: set[str] = set()
        """The models of the jobs so far."""
        self._size = 0
        self.chunk = chunk
        self._client = client
        self._terms = terms
        self._tell = tell
        self._sink = sink
        self._collector = Collector(client.redis)
        self._unanswered: dict[str, LineRequest] = {}  # by job id
        self._unsent: deque[str] = deque()
        self._retry_at = 0.0

    def __len__(self) -> int:
        """Number of lines without an answer."""
        return len(self._unanswered)

    @property
    def has_room(self) -> bool:
        """Whether another line may be taken. One is always allowed, whatever its size."""
        return not self._unanswered or self._size < MOST_BYTES

    @property
    def waits(self) -> bool:
        """Whether any submitted job has no answer yet."""
        return bool(len(self._collector))

    @property
    def job_ids(self) -> list[str]:
        """Ids of the jobs in flight."""
        return list(self._unanswered)

    def take(self, lines: Iterable[Line]) -> bool:
        """Take lines to be sent; invalid ones are answered at once. False when there was none."""
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
        """Submit unsent lines. Returns the reason when some must be sent later.

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
        """After an outage, mark all lines without an answer to be sent again.

        Jobs that Redis still knows are not queued twice; jobs that it has lost are queued again.
        """
        self._unsent = deque(self._unanswered)
        self._retry_at = 0.0

    def collect(self, timeout: float) -> None:
        """Write the answers that come within ``timeout`` seconds; returns after the first few.

        Raises:
            redis.ConnectionError, redis.TimeoutError: call it again.
        """
        if not len(self._collector):
            time.sleep(timeout if self._unsent else 0.0)  # the queue is full of other submitters' jobs
        else:
            for job_id, stored in self._collector.poll(timeout):
                if job_id in self._unanswered:
                    self._end(job_id, outcome(stored))
        self._sink.flush()

    def give_up(self, error: StokerError) -> None:
        """Answer all lines in flight with an error."""
        for job_id in self.job_ids:
            self._end(job_id, error)

    def refuse(self, line: Line, error: StokerError) -> None:
        """Answer a line that is not submitted, with an error."""
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
        """Close the connection."""
        self._collector.close()
