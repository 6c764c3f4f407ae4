"""Micro-batching for encoders: rows of many requests share a batch, and each request is answered as a whole.

``packing`` chooses the rows of a batch, from requests of one row or of thousands. Cancellations and deadlines take
effect between batches.
"""

from __future__ import annotations

import logging
import math
import time
from dataclasses import replace
from typing import Any, Protocol

from producer.contract.errors import EngineError, InvalidJob, JobCancelled, JobExpired, Preempted, StokerError
from producer.contract.fleet.fleet_schema import Model
from scheduler.window.batch_cost import LearnedCost

from ..mailbox import MailboxEngine, Withdrawal
from ..protocol import Batch, Outcome, Report, Request
from .backlog import Features, PendingRequest, Row, RowBacklog, Text, Unreadable
from .packing import Packing

logger = logging.getLogger(__name__)

_NOT_FINITE = "NaN or infinite numbers: if options.dtype is float16, try bfloat16 or float32"


class OutOfMemory(Exception):
    """The device has too little memory for a batch."""


class Encoder(Protocol):
    """The part of an encoder engine that depends on its task: the model, and its requests' rows and outputs."""

    max_batch_tokens: int

    def load(self) -> None:
        """Load the model onto the device. See ``protocol.Engine``."""

    def texts(self, request: Request) -> list[Text]:
        """The texts of a request's rows, at least one.

        Raises:
            InvalidJob: naming the invalid input or parameter.
        """

    def warm_up_text(self) -> Text:
        """A short text that the model must be able to process."""

    def encode(self, texts: list[Text]) -> list[Features | Unreadable]:
        """Tokenise texts to one row each, truncated to the model's longest input, with ids that are in its
        embeddings."""

    def forward(self, rows: list[Features]) -> list[Any]:
        """Run the model on a batch. Returns a value for each row, None if its output is not finite.

        Raises:
            OutOfMemory: when the batch is too large.
        """

    def answer(self, request: Request, values: list[Any]) -> list[Any]:
        """The outputs of a request, one for each input, from the values of its rows."""

    def close(self) -> None:
        """Free the device."""


class MicroBatchEngine(MailboxEngine[Request]):
    """An engine that runs an encoder in micro-batches of at most ``max_concurrency`` rows.

    Usage counts ``input_tokens`` after truncation.
    """

    def __init__(self, settings: Model, encoder: Encoder) -> None:
        super().__init__()
        self._encoder = encoder
        self._packing = Packing(settings.max_concurrency, encoder.max_batch_tokens)
        self._jobs: dict[str, PendingRequest] = {}
        self._backlog = RowBacklog(lambda texts: encoder.encode(list(texts)), settings.max_concurrency)
        self._reports: list[Report] = []
        self._token_cost = LearnedCost()  # seconds of a batch by its tokens: the cost of a row depends on its length

    @property
    def capacity(self) -> int:
        """Requests held, and those that fill two batches: one running and one ahead.

        Batches are counted in rows, of each job held one batch at most, so that a large one leaves room for others.
        The rows of a job are not known before it is claimed, so jobs to come are taken to have the median number of
        the recent ones.
        """
        ahead = 2 * self._packing.max_rows - self._backlog.near
        return len(self._jobs) + math.ceil(ahead / self._backlog.usual) if ahead > 0 else 0

    @property
    def slots(self) -> int:
        """0: batches begin and end as a whole."""
        return 0

    def load(self) -> None:
        """Load the model and run a warm-up batch. See ``protocol``.

        Raises:
            EngineError: when its output is not finite.
        """
        self._encoder.load()
        if self._warm_up() is None:
            raise EngineError(f"for any text the model outputs {_NOT_FINITE}, or its files are damaged")

    def step(self, timeout: float) -> list[Report]:
        """Run one batch. See ``protocol``."""
        self._hear(0 if self._backlog else timeout)
        if batch := self._next_batch():
            self._run(batch)
            self._hear(0)  # cancellations and deadlines during the batch, before its requests end
            self._finish(batch)
        reports, self._reports = self._reports, []
        return reports

    def close(self) -> None:
        """Free the device."""
        self._encoder.close()
        self._jobs.clear()
        self._backlog.clear()

    def _hear(self, timeout: float) -> None:
        for message in self._mailbox.take(timeout):
            if isinstance(message, Request):
                self._accept(message)
            elif isinstance(message, Withdrawal):
                for job in [job for job in self._jobs.values() if not job.started_at]:
                    self._drop(job, Preempted(f"job {job.request.id} was given back"))
            elif message.request_id in self._jobs:
                self._drop(self._jobs[message.request_id], JobCancelled(f"job {message.request_id} was cancelled"))
        now = time.monotonic()
        for job in [job for job in self._jobs.values() if job.deadline <= now]:
            self._drop(job, JobExpired(f"job {job.request.id} was not done by its deadline"))

    def _accept(self, request: Request) -> None:
        try:
            job = PendingRequest(request, self._encoder.texts(request))
        except InvalidJob as error:
            self._reports.append(Outcome(request.id, error=error))
            return
        self._jobs[request.id] = job
        self._backlog.add(job)

    def _next_batch(self) -> list[Row]:
        near = self._backlog.nearest(self._packing.look_ahead)
        while refused := self._backlog.refused():
            for job, refusal in refused:
                if self._holds(job):
                    self._drop(job, refusal)
            near = self._backlog.nearest(self._packing.look_ahead)
        now = time.monotonic()
        positions = self._packing.next_batch(
            [row.tokens for row in near],
            [row.job.deadline - now for row in near],
            self._token_cost.cost.safe,
        )
        return self._backlog.take(positions)

    def _run(self, batch: list[Row]) -> None:
        """Run a batch.

        If memory runs out, run its halves and lower the bound on tokens. After another failure, run each row alone, so
        that only the rows that cause it fail.
        """
        now = time.monotonic()
        for row in batch:
            row.job.started_at = row.job.started_at or now
        error = self._attempt(batch)
        if error is None:
            return
        if len(batch) == 1:
            self._blame(batch[0], error)
        elif isinstance(error, OutOfMemory):
            self._learn_limit(batch)
            for half in (batch[: len(batch) // 2], batch[len(batch) // 2 :]):
                self._run(half)
        else:
            for row in batch:
                self._run([row])

    def _attempt(self, batch: list[Row]) -> Exception | None:
        """Run a batch and store its values. Returns its error, if any, without the traceback, which would keep the
        tensors of the failed pass in memory."""
        begun = time.monotonic()
        try:
            values = self._encoder.forward([row.features for row in batch])
        except Exception as error:  # kernels raise RuntimeError, IndexError and others
            return error.with_traceback(None)
        self._learn_cost(batch, time.monotonic() - begun)
        self._progress += 1
        for row, value in zip(batch, values, strict=True):
            row.job.values[row.index] = value
            row.job.missing -= 1
            row.job.batch_size = max(row.job.batch_size, len(batch))
            if value is None and self._holds(row.job):
                self._drop(row.job, EngineError(f"for text {row.index} the model outputs {_NOT_FINITE}"))
        return None

    def _blame(self, row: Row, error: Exception) -> None:
        self._warm_up()  # raises if the device is lost, which is not the row's fault
        if self._holds(row.job):
            self._drop(row.job, EngineError(f"text {row.index} failed on the device: {error}"))

    def _warm_up(self) -> Any:
        [row] = self._encoder.encode([self._encoder.warm_up_text()])
        if isinstance(row, Unreadable):
            raise EngineError(f"the model cannot read any text: a short one {row.reason}")
        [value] = self._encoder.forward([row])
        return value

    def _learn_cost(self, batch: list[Row], ran_s: float) -> None:
        tokens = _padded(batch)
        self._token_cost.learn(tokens, tokens, ran_s)
        self._reports.append(Batch(len({row.job.request.id for row in batch}), len(batch), tokens, ran_s))

    def _learn_limit(self, batch: list[Row]) -> None:
        tokens = _padded(batch)
        limit = min(self._packing.max_tokens, max(1, tokens // 2))
        logger.warning("out of memory at %d tokens a batch; from now on at most %d", tokens, limit)
        self._packing = replace(self._packing, max_tokens=limit)

    def _finish(self, batch: list[Row]) -> None:
        for job in dict.fromkeys(row.job for row in batch):
            if job.missing or not self._holds(job):
                continue
            del self._jobs[job.request.id]
            self._reports.append(
                Outcome(
                    job.request.id,
                    outputs=self._encoder.answer(job.request, job.values),
                    usage={"input_tokens": job.input_tokens},
                    ran_s=time.monotonic() - job.started_at,
                    batch_size=job.batch_size,
                )
            )

    def _holds(self, job: PendingRequest) -> bool:
        """Whether the request has no outcome yet."""
        return self._jobs.get(job.request.id) is job

    def _drop(self, job: PendingRequest, error: StokerError) -> None:
        del self._jobs[job.request.id]
        self._backlog.drop(job)
        self._reports.append(Outcome(job.request.id, error=error))


def _padded(batch: list[Row]) -> int:
    """The tokens of a batch, padding included."""
    return len(batch) * max(row.tokens for row in batch)
