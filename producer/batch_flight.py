"""The part of a batch that is in flight: lines read, submitted, and not yet answered."""

from __future__ import annotations

import time
from collections import deque
from itertools import islice
from typing import BinaryIO

from . import batch_lines
from .batch_resume import LineSet
from .client import Client, outcome
from .errors import InvalidJob, QueueFull, StokerError
from .job import Job, Result


class Flight:
    """Submits lines, collects their answers and writes them; holds no more than its user gives it.

    Args:
        file: the output, at its end.
        finished: lines that have an answer; kept up to date.
        chunk: most jobs in one write.
    """

    def __init__(self, client: Client, file: BinaryIO, finished: LineSet, chunk: int) -> None:
        self.finished = finished
        self.errors = 0
        self._client = client
        self._collector = client.collector()
        self._file = file
        self._chunk = chunk
        self._unanswered: dict[str, tuple[int, str, Job]] = {}  # job id -> line, custom id, job
        self._unsent: deque[str] = deque()
        self._retry_at = 0.0

    def __len__(self) -> int:
        """How many lines wait for their answer."""
        return len(self._unanswered)

    def add(self, number: int, custom_id: str, job: Job) -> None:
        """Take a line on, to be sent."""
        self._unanswered[job.id] = (number, custom_id, job)
        self._unsent.append(job.id)

    def send(self) -> str:
        """Submit what is unsent; says why when something had to be left for later.

        Raises:
            BrokerUnavailable, redis.RedisError: call ``resend``, then this again.
        """
        while self._unsent:
            if time.monotonic() < self._retry_at:
                return "the queue is full"
            first = list(islice(self._unsent, self._chunk))
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

    def _submit(self, job_ids: list[str]) -> None:
        try:
            self._client.submit_many(self._unanswered[job_id][2] for job_id in job_ids)
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
            return
        for job_id, stored in self._collector.poll(timeout):
            if job_id in self._unanswered:
                self._end(job_id, outcome(stored))
        self._file.flush()

    def _end(self, job_id: str, ended: Result | StokerError) -> None:
        number, custom_id, _ = self._unanswered.pop(job_id)
        self.answer(number, custom_id, ended)

    def answer(self, number: int, custom_id: str, ended: Result | StokerError) -> None:
        """Write the answer of a line."""
        self._file.write(batch_lines.write(number, custom_id, ended))
        self.finished.add(number)
        self.errors += isinstance(ended, StokerError)

    def close(self) -> None:
        """Give up the connection."""
        self._collector.close()
