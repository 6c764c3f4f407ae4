"""Embeddings from an encoder, in micro-batches packed from the inputs of many requests."""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from transformers import AutoModel, AutoTokenizer

from producer.errors import (
    ConfigError,
    EngineError,
    InvalidJob,
    JobCancelled,
    JobExpired,
    ModelNotFound,
    Preempted,
    StokerError,
)
from producer.job import explain
from producer.settings import Model
from scheduler.cost import LearnedCost

from . import sources
from .mailbox import Cancellation, Mailbox, Withdrawal
from .packing import Packing
from .pooling import Pooling
from .protocol import Batch, Outcome, Report, Request
from .text import require_text
from .torch_device import torch_device

logger = logging.getLogger(__name__)

_MAX_LENGTH_UNKNOWN = 512  # tokenizers without a limit answer 10**30


class Options(BaseModel):
    """What ``options`` of an embed model may hold. ``max_batch_tokens`` counts padding."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_batch_tokens: Annotated[int, Field(ge=1)] = 4096


@dataclass(slots=True, eq=False)
class _Job:
    """A request whose rows may be spread over several batches."""

    request: Request
    outputs: list[list[float] | None]
    input_tokens: int = 0
    started_at: float = 0.0
    batch_size: int = 0
    missing: int = field(init=False)

    def __post_init__(self) -> None:
        self.missing = len(self.outputs)

    @property
    def deadline(self) -> float:
        """When its answer is worth nothing any more, on the monotonic clock; never, if it did not say."""
        return math.inf if self.request.deadline is None else self.request.deadline


@dataclass(frozen=True, slots=True, eq=False)
class _Row:
    job: _Job
    index: int
    token_ids: list[int]


class EmbedEngine:
    """One vector (``list[float]``) per input text; usage counts ``input_tokens`` after truncation."""

    def __init__(self, settings: Model, device: str) -> None:
        try:
            options = Options.model_validate(settings.options)
        except ValidationError as error:
            raise ConfigError(f"options of an embed model:\n{explain(error)}") from None
        self._source = settings.source
        self._device = torch_device(device)
        self._packing = Packing(settings.max_concurrency, options.max_batch_tokens)
        self._mailbox: Mailbox[Request] = Mailbox()
        self._jobs: dict[str, _Job] = {}
        self._rows: list[_Row] = []
        self._reports: list[Report] = []
        self._token_cost = LearnedCost()  # of a batch, by its tokens: what rows cost depends on their length
        self._progress = 0
        self._tokenizer: Any = None
        self._model: Any = None

    @property
    def capacity(self) -> int:
        """One batch on the device and one ahead, counted in inputs: a job may bring thousands."""
        ahead = 2 * self._packing.max_rows - len(self._rows)
        return len(self._jobs) + ahead if ahead > 0 else 0

    @property
    def progress(self) -> int:
        """Batches run."""
        return self._progress

    def load(self) -> None:
        """Load tokenizer, encoder and pooling, and run one batch.

        Raises:
            ModelNotFound: when the source does not lead to an encoder.
        """
        model_dir = sources.resolve(self._source)
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(model_dir)
            model = AutoModel.from_pretrained(model_dir, dtype=torch.float32)
        except (OSError, ValueError, KeyError) as error:
            raise ModelNotFound(f"source = {self._source!r}: {model_dir} cannot be loaded: {error}") from error
        self._model = model.to(self._device).eval()
        self._pooling = Pooling.read(model_dir)
        known = min(self._tokenizer.model_max_length, model.config.max_position_embeddings)
        self._max_length = self._pooling.max_length or min(known, _MAX_LENGTH_UNKNOWN)
        self._warm_up()

    def submit(self, request: Request) -> None:
        """See ``protocol``."""
        self._mailbox.put(request)

    def cancel(self, request_id: str) -> None:
        """See ``protocol``."""
        self._mailbox.put(Cancellation(request_id))

    def withdraw(self) -> None:
        """See ``protocol``."""
        self._mailbox.put(Withdrawal())

    def step(self, timeout: float) -> list[Report]:
        """Run one batch. See ``protocol``."""
        self._read_mail(0 if self._rows else timeout)
        self._expire()
        near = self._rows[: self._packing.look_ahead]
        now = time.monotonic()
        positions = self._packing.next_batch(
            [len(row.token_ids) for row in near],
            [row.job.deadline - now for row in near],
            self._token_cost.cost.safe,
        )
        if positions:
            taken = set(positions)
            batch = [near[position] for position in positions]
            self._rows[: len(near)] = [row for position, row in enumerate(near) if position not in taken]
            self._run(batch)
            self._read_mail(0)  # a request cancelled while its last rows ran is cancelled
            self._finish(batch)
        reports, self._reports = self._reports, []
        return reports

    def close(self) -> None:
        """Free the device."""
        self._model = self._tokenizer = None
        self._jobs.clear()
        self._rows.clear()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _read_mail(self, timeout: float) -> None:
        for message in self._mailbox.take(timeout):
            if isinstance(message, Request):
                try:
                    self._accept(message)
                except InvalidJob as error:
                    self._reports.append(Outcome(message.id, error=error))
            elif isinstance(message, Withdrawal):
                for job in [job for job in self._jobs.values() if not job.started_at]:
                    self._drop(job, Preempted(f"job {job.request.id} was given back"))
            elif message.request_id in self._jobs:
                self._drop(self._jobs[message.request_id], JobCancelled(f"job {message.request_id} was cancelled"))

    def _accept(self, request: Request) -> None:
        if request.parameters:
            raise InvalidJob(f"parameters = {request.parameters!r}: an embedding takes none")
        if not request.inputs:
            raise InvalidJob("input = []: give at least one text")
        texts = [require_text(item, index) for index, item in enumerate(request.inputs)]
        encoded = self._tokenizer(texts, truncation=True, max_length=self._max_length)["input_ids"]
        job = _Job(request, [None] * len(texts), sum(map(len, encoded)))
        self._jobs[request.id] = job
        self._rows.extend(_Row(job, index, ids) for index, ids in enumerate(encoded))

    def _run(self, batch: list[_Row]) -> None:
        """Run a batch. If the device is out of memory, its halves, and never again so much at once; if it fails
        otherwise, each row by itself, so that it fails alone."""
        now = time.monotonic()
        for row in batch:
            row.job.started_at = row.job.started_at or now
        try:
            begun = time.monotonic()
            vectors = self._forward([row.token_ids for row in batch])
            self._learn_cost(batch, time.monotonic() - begun)
        except torch.OutOfMemoryError as error:
            if len(batch) > 1:
                self._learn_limit(batch)
                for half in (batch[: len(batch) // 2], batch[len(batch) // 2 :]):
                    self._run(half)
                return
            self._blame(batch[0], error)
            return
        except Exception as error:  # whatever else a kernel raises: RuntimeError, IndexError
            if len(batch) > 1:
                for row in batch:
                    self._run([row])
                return
            self._blame(batch[0], error)
            return
        self._progress += 1
        for row, vector in zip(batch, vectors, strict=True):
            row.job.outputs[row.index] = vector
            row.job.missing -= 1
            row.job.batch_size = max(row.job.batch_size, len(batch))

    def _blame(self, row: _Row, error: Exception) -> None:
        self._warm_up()  # raises when it is the device that is lost, and not this row that is bad
        if row.job.request.id in self._jobs:
            self._drop(row.job, EngineError(f"input {row.index} failed on the device: {error}"))

    def _learn_cost(self, batch: list[_Row], ran_s: float) -> None:
        tokens = _padded(batch)
        self._token_cost.learn(tokens, tokens, ran_s)
        self._reports.append(Batch(len({row.job.request.id for row in batch}), len(batch), tokens, ran_s))

    def _expire(self) -> None:
        now = time.monotonic()
        for job in [job for job in self._jobs.values() if job.deadline <= now]:
            self._drop(job, JobExpired(f"job {job.request.id} was not done by its deadline"))

    def _learn_limit(self, batch: list[_Row]) -> None:
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        tokens = _padded(batch)
        limit = min(self._packing.max_tokens, max(1, tokens // 2))
        logger.warning("out of memory at %d tokens a batch; from now on at most %d", tokens, limit)
        self._packing = replace(self._packing, max_tokens=limit)

    @torch.inference_mode()
    def _forward(self, token_ids: list[list[int]]) -> list[list[float]]:
        features = self._tokenizer.pad({"input_ids": token_ids}, return_tensors="pt").to(self._device)
        hidden = self._model(**features).last_hidden_state
        vectors: list[list[float]] = self._pooling.apply(hidden, features["attention_mask"]).float().tolist()
        return vectors

    def _warm_up(self) -> None:
        self._forward(self._tokenizer(["warm up"])["input_ids"])

    def _finish(self, batch: list[_Row]) -> None:
        for job in dict.fromkeys(row.job for row in batch):
            if job.missing or job.request.id not in self._jobs:
                continue
            del self._jobs[job.request.id]
            self._reports.append(
                Outcome(
                    job.request.id,
                    outputs=job.outputs,
                    usage={"input_tokens": job.input_tokens},
                    ran_s=time.monotonic() - job.started_at,
                    batch_size=job.batch_size,
                )
            )

    def _drop(self, job: _Job, error: StokerError) -> None:
        del self._jobs[job.request.id]
        self._rows = [row for row in self._rows if row.job is not job]
        self._reports.append(Outcome(job.request.id, error=error))


def _padded(batch: list[_Row]) -> int:
    """Tokens of a batch, padding counted."""
    return len(batch) * max(len(row.token_ids) for row in batch)
