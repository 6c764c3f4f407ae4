"""Text generation with continuous batching: sequences join and leave the batch at every token."""

from __future__ import annotations

import functools
import itertools
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.generation.continuous_batching.requests import GenerationOutput

from producer.errors import ConfigError, EngineError, InvalidJob, JobCancelled, ModelNotFound, Preempted
from producer.job import explain
from producer.settings import Model

from . import sources
from .cache_size import CacheSize
from .continuous import ContinuousBatch
from .mailbox import Cancellation, Mailbox, Withdrawal
from .parameters import Parameters
from .prompt import Prompts
from .protocol import Outcome, Request
from .sampling import Sampler
from .torch_device import torch_device

_PAGE_TOKENS = 256


class Options(BaseModel):
    """What ``options`` of a generate model may hold.

    ``dtype`` is the checkpoint's own by default; ``max_batch_tokens`` is the longest piece of a
    prompt that one step reads, which is what the others wait for meanwhile.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    max_batch_tokens: Annotated[int, Field(ge=16)] = 512


@dataclass(slots=True, eq=False)
class _Job:
    request: Request
    parameters: Parameters
    outputs: list[dict[str, str] | None]
    input_tokens: int
    output_tokens: int = 0
    started_at: float = 0.0
    batch_size: int = 1
    sequences: list[_Sequence] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class _Sequence:
    """One input on its way. ``id`` is new for every attempt; empty while it waits."""

    job: _Job
    index: int
    token_ids: list[int]
    blocks: int
    id: str = ""
    suspect: bool = False
    """The batch died with it inside: it runs alone the second time, and there is no third."""


class GenerateEngine:
    """``{"text", "finish_reason"}`` per input; usage counts ``input_tokens`` and ``output_tokens``.

    An input is a text to go on from, or ``{"messages": [...]}``. ``parameters.Parameters`` says what
    parameters there are. A sequence is admitted when its prompt and longest answer fit into the
    cache, so that none is ever put out again to make room.
    """

    def __init__(self, settings: Model, device: str) -> None:
        try:
            self._options = Options.model_validate(settings.options)
        except ValidationError as error:
            raise ConfigError(f"options of a generate model:\n{explain(error)}") from None
        self._settings = settings
        self._device = torch_device(device)
        self._mailbox: Mailbox[GenerationOutput] = Mailbox()
        self._jobs: dict[str, _Job] = {}
        self._waiting: deque[_Sequence] = deque()
        self._running: dict[str, _Sequence] = {}
        self._outcomes: list[Outcome] = []
        self._progress = 0
        self._sequence_ids = itertools.count()

    @property
    def capacity(self) -> int:
        """One request for each place in the batch: a place is free again at every step."""
        return self._settings.max_concurrency

    @property
    def progress(self) -> int:
        """Tokens reported."""
        return self._progress

    def load(self) -> None:
        """Load tokenizer and model, size the cache, and generate one token.

        Raises:
            ModelNotFound: when the source does not lead to a model that generates.
            ConfigError: when ``memory_gb`` does not hold it.
        """
        model_dir = sources.resolve(self._settings.source)
        try:
            tokenizer = AutoTokenizer.from_pretrained(model_dir)
            model: Any = AutoModelForCausalLM.from_pretrained(
                model_dir, dtype=self._options.dtype, attn_implementation="sdpa"
            )
        except (OSError, ValueError, KeyError) as error:
            raise ModelNotFound(f"source = {self._settings.source!r}: {model_dir} cannot be loaded: {error}") from error
        model = model.to(self._device).eval()
        context = model.config.get_text_config().max_position_embeddings
        self._size = _cache_size(model, self._settings, context)
        self._prompts = Prompts(
            tokenizer, model.get_input_embeddings().weight.shape[0], min(context, self._size.tokens)
        )
        self._eos = _eos_ids(model)
        self._start = functools.partial(
            ContinuousBatch,
            model,
            self._size,
            self._settings.max_concurrency,
            self._options.max_batch_tokens,
            self._mailbox,
            warm_up_ids=self._prompts.encode("warm up", 0, 1),
        )
        self._batch = self._start()

    def submit(self, request: Request) -> None:
        """See ``protocol``."""
        self._mailbox.put(request)

    def cancel(self, request_id: str) -> None:
        """See ``protocol``."""
        self._mailbox.put(Cancellation(request_id))

    def withdraw(self) -> None:
        """See ``protocol``."""
        self._mailbox.put(Withdrawal())

    def step(self, timeout: float) -> list[Outcome]:
        """Take what one decode step brought. See ``protocol``."""
        messages = self._mailbox.take(timeout)
        for message in messages:
            if isinstance(message, Request):
                self._accept(message)
            elif isinstance(message, Cancellation):
                if job := self._jobs.get(message.request_id):
                    self._end(
                        job,
                        Outcome(job.request.id, error=JobCancelled(f"job {job.request.id} was cancelled")),
                    )
            elif isinstance(message, Withdrawal):
                for job in [job for job in self._jobs.values() if not job.started_at]:
                    self._end(job, Outcome(job.request.id, error=Preempted(f"job {job.request.id} was given back")))
            else:
                self._progress += 1
                self._read(message)
        if not messages and self._running and not self._batch.alive:
            self._restart()  # it died without a word
        self._admit()
        outcomes, self._outcomes = self._outcomes, []
        return outcomes

    def close(self) -> None:
        """End the device thread and free the device."""
        if hasattr(self, "_batch"):
            self._batch.stop()
            del self._batch, self._start
        self._jobs.clear()
        self._waiting.clear()
        self._running.clear()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _accept(self, request: Request) -> None:
        try:
            parameters = Parameters.parse(request.parameters)
            if not request.inputs:
                raise InvalidJob("input = []: give at least one")
            prompts = [
                self._prompts.encode(item, index, parameters.max_new_tokens)
                for index, item in enumerate(request.inputs)
            ]
        except InvalidJob as error:
            self._outcomes.append(Outcome(request.id, error=error))
            return
        job = _Job(request, parameters, [None] * len(prompts), sum(map(len, prompts)))
        job.sequences = [
            _Sequence(job, index, ids, self._size.blocks_for(len(ids) + parameters.max_new_tokens))
            for index, ids in enumerate(prompts)
        ]
        self._jobs[request.id] = job
        self._waiting.extend(job.sequences)

    def _admit(self) -> None:
        while self._waiting and self._has_room_for(self._waiting[0]):
            sequence = self._waiting.popleft()
            job = sequence.job
            sequence.id = str(next(self._sequence_ids))
            sampler = Sampler(job.parameters, sequence.index) if job.parameters.do_sample else None
            self._running[sequence.id] = sequence
            job.started_at = job.started_at or time.monotonic()
            for other in self._running.values():
                other.job.batch_size = max(other.job.batch_size, len(self._running))
            if not self._batch.add(sequence.id, sequence.token_ids, job.parameters.max_new_tokens, sampler):
                del self._running[sequence.id]
                self._waiting.appendleft(sequence)  # it was not inside: no suspect
                self._restart()

    def _has_room_for(self, sequence: _Sequence) -> bool:
        running = self._running.values()
        if sequence.suspect or any(other.suspect for other in running):
            return not running
        reserved = sum(other.blocks for other in running)
        return len(running) < self._settings.max_concurrency and reserved + sequence.blocks <= self._size.usable

    def _read(self, output: GenerationOutput) -> None:
        sequence = self._running.get(output.request_id)
        if sequence is None:
            if not output.is_finished() and self._batch.alive:
                self._batch.cancel(output.request_id)  # its cancellation came too early
            return
        if output.error is not None:
            self._retry(sequence, output.error)
            return
        job = sequence.job
        ended = output.is_finished()
        if not ended and not job.parameters.stop:
            return
        text = self._prompts.tokenizer.decode(output.generated_tokens, skip_special_tokens=True)
        cut = min((at for stop in job.parameters.stop if (at := text.find(stop)) >= 0), default=None)
        if cut is None and not ended:
            return
        stopped = cut is not None or output.generated_tokens[-1] in self._eos
        job.outputs[sequence.index] = {"text": text[:cut], "finish_reason": "stop" if stopped else "length"}
        job.output_tokens += len(output.generated_tokens)
        self._leave(sequence, cancel=not ended)
        job.sequences.remove(sequence)
        if not job.sequences:
            self._end(job, self._answer(job))

    def _answer(self, job: _Job) -> Outcome:
        return Outcome(
            job.request.id,
            outputs=job.outputs,
            usage={"input_tokens": job.input_tokens, "output_tokens": job.output_tokens},
            ran_s=time.monotonic() - job.started_at,
            batch_size=job.batch_size,
        )

    def _retry(self, sequence: _Sequence, reason: str) -> None:
        """Put a sequence whose batch died back in front, to run alone; the second time it is to blame."""
        self._leave(sequence, cancel=False)
        if sequence.suspect:
            job = sequence.job
            error = EngineError(f"input {sequence.index} failed on the device twice: {reason}")
            self._end(job, Outcome(job.request.id, error=error))
        else:
            sequence.suspect = True
            self._waiting.appendleft(sequence)

    def _restart(self) -> None:
        """Start the batch anew. An error here means that the device is lost, and the engine with it."""
        for sequence in list(self._running.values()):
            self._retry(sequence, "the batch died")
        self._batch.stop()
        self._batch = self._start()

    def _leave(self, sequence: _Sequence, *, cancel: bool) -> None:
        if self._running.pop(sequence.id, None) is None:
            return
        if cancel:
            self._batch.cancel(sequence.id)
        self._batch.forget(sequence.id)

    def _end(self, job: _Job, outcome: Outcome) -> None:
        """Forget a job and everything of it that still waits or runs; this is its one outcome."""
        del self._jobs[job.request.id]
        for sequence in job.sequences:
            self._leave(sequence, cancel=True)
        if job.sequences:
            self._waiting = deque(sequence for sequence in self._waiting if sequence.job is not job)
        self._outcomes.append(outcome)


def _cache_size(model: Any, settings: Model, context: int) -> CacheSize:
    config = model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return CacheSize.fit(
        memory_bytes=settings.memory_gb * 1e9,
        weight_bytes=sum(p.numel() * p.element_size() for p in model.parameters()),
        token_bytes=2 * config.num_hidden_layers * heads * head_dim * model.dtype.itemsize,
        page_tokens=_PAGE_TOKENS,
        sequences=settings.max_concurrency,
        context=context,
    )


def _eos_ids(model: Any) -> set[int]:
    eos = model.generation_config.eos_token_id
    return set() if eos is None else {eos} if isinstance(eos, int) else set(eos)
