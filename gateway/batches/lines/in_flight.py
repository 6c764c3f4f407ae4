"""The lines of a batch in flight: read, submitted, and not yet answered."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Protocol

from producer.client import Client
from producer.collect import Collector, outcome
from producer.contract import keys
from producer.contract.errors import InvalidJob, QueueFull, StokerError
from producer.contract.fleet.settings import Settings
from producer.contract.fleet.tenants import most_queued
from producer.contract.message.job import Result

from .line_set import LineSet
from .line_source import LineSource
from .line_translation import LineRequest, Tell, Terms
from .lines import Line

CHUNK = 64
"""Most jobs in one write."""

MOST_BYTES = 4 * 1024 * 1024
"""Most bytes of lines in flight, shared by the models that have any; bounds the memory."""

AGAIN_S = 15.0
"""Seconds without an answer after which a line is sent again, should its job be gone."""


def chunk(settings: Settings, tenant: str) -> int:
    """Number of jobs of the tenant in one write.

    A queue accepts a chunk whole or not at all, so that one larger than the queue's limit would never be accepted.
    """
    account = settings.tenant(tenant)
    return min([CHUNK, *(most_queued(account, model.limits.max_queued, 0) for model in settings.models.values())])


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
        self._lines: Counter[str] = Counter()
        """By model, the lines without an answer; and their bytes:"""
        self._bytes: Counter[str] = Counter()
        self.chunk = chunk
        self._client = client
        self._terms = terms
        self._tell = tell
        self._sink = sink
        self._collector = Collector(client.redis)
        self._unanswered: dict[str, LineRequest] = {}  # by job id
        self._unsent: dict[str, deque[str]] = {}
        """By queue, the ids of jobs that are to be sent; a queue that is full holds up no other."""
        self._retry_at: dict[str, float] = {}
        self._sent_at: dict[str, float] = {}
        """By job id, when it was sent last."""

    def __len__(self) -> int:
        """Number of lines without an answer."""
        return len(self._unanswered)

    @property
    def waits(self) -> bool:
        """Whether any submitted job has no answer yet."""
        return bool(len(self._collector))

    @property
    def job_ids(self) -> list[str]:
        """Ids of the jobs in flight."""
        return list(self._unanswered)

    def take(self, source: LineSource, width: Callable[[str], int]) -> None:
        """Take lines to be sent, as far as their models have room; invalid ones are answered at once.

        Args:
            width: how many lines of a model may be in flight now.
        """
        most: dict[str, int] = {}

        def has_room(model: str) -> bool:
            if model not in most:
                free = width(model) - self._lines[model]
                # Not for each job that ends, a write of its own.
                most[model] = width(model) if free >= self.chunk else 0
            if self._lines[model] >= most[model]:
                return False
            sharing = len({*+self._lines, model})
            return self._bytes[model] < MOST_BYTES // sharing  # one line is always allowed, whatever its size

        for line in source.take(has_room):
            self._take(line)

    def _take(self, line: Line) -> None:
        try:
            request = self._terms.read(line)
        except StokerError as error:
            self._answer(line, None, error)
            return
        self._unanswered[request.job.id] = request
        self._to_send(request)
        self._lines[request.job.model] += 1
        self._bytes[request.job.model] += line.size

    def _to_send(self, request: LineRequest) -> None:
        job = request.job
        self._unsent.setdefault(keys.queue(job.model, job.tier), deque()).append(job.id)

    def send(self) -> str:
        """Submit unsent lines. Returns the reason when some must be sent later.

        Raises:
            BrokerUnavailable, redis.RedisError: call ``resend``, then this again.
        """
        for queue, unsent in self._unsent.items():
            self._send(queue, unsent)
        full = [queue for queue, unsent in self._unsent.items() if unsent]
        return "; ".join(f"the queue {queue} is full" for queue in full)

    def _send(self, queue: str, unsent: deque[str]) -> None:
        while unsent and time.monotonic() >= self._retry_at.get(queue, 0.0):
            first = list(islice(unsent, self.chunk))
            # An answer may have come meanwhile: to what an outage left in doubt, or to a line that is wrong.
            job_ids = [job_id for job_id in first if job_id in self._unanswered]
            try:
                self._submit(job_ids)
            except QueueFull as full:
                self._retry_at[queue] = time.monotonic() + full.retry_after_s
            else:
                for _ in first:
                    unsent.popleft()
                sent = [job_id for job_id in job_ids if job_id in self._unanswered]
                self._collector.add(sent)
                self._sent_at |= dict.fromkeys(sent, time.monotonic())

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
        self._unsent, self._retry_at, self._sent_at = {}, {}, {}
        for request in self._unanswered.values():
            self._to_send(request)

    def send_again(self) -> None:
        """Mark lines without an answer to be sent again, ``AGAIN_S`` after they were sent.

        A job that Redis knows is not queued twice; one that is gone, because its queue was emptied, is queued anew
        (``gone.lua``). Only the holder of a batch's lease may do this: another may have deleted the marks of lines that
        it has answered (``parts``).
        """
        late = [job_id for job_id, at in self._sent_at.items() if at + AGAIN_S <= time.monotonic()]
        for job_id in late:
            del self._sent_at[job_id]
            self._to_send(self._unanswered[job_id])

    def collect(self, timeout: float) -> None:
        """Write the answers that come within ``timeout`` seconds; returns after the first few.

        Raises:
            redis.ConnectionError, redis.TimeoutError: call it again.
        """
        if not len(self._collector):
            time.sleep(timeout if any(self._unsent.values()) else 0.0)  # the queue is full of other submitters' jobs
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
        self._sent_at.pop(job_id, None)
        self._lines[request.job.model] -= 1
        self._bytes[request.job.model] -= request.line.size
        self._answer(request.line, request, ended)

    def _answer(self, line: Line, request: LineRequest | None, ended: Result | StokerError) -> None:
        told, failed = self._tell(line, request, ended)
        self._sink.write(told, failed, request.job.id if request is not None else None)
        self.finished.add(line.number)
        self.errors += failed

    def close(self) -> None:
        """Close the connection."""
        self._collector.close()
