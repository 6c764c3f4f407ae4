"""Text generation with continuous batching: sequences join and leave the batch at every token."""

from __future__ import annotations

import functools
import time
from collections import deque
from typing import Any

import torch
from transformers import AutoModelForCausalLM
from transformers.generation.continuous_batching.requests import GenerationOutput

from producer.contract.errors import (
    EngineError,
    InvalidJob,
    JobCancelled,
    JobExpired,
    Preempted,
    StokerError,
)
from producer.contract.fleet.engine_options import GenerateOptions
from producer.contract.fleet.fleet_schema import Model

from .. import sources
from ..checkpoint import load_model, load_tokenizer
from ..mailbox import Cancellation, MailboxEngine, Withdrawal
from ..protocol import Outcome, Report, Request
from ..torch_device import torch_device
from .admission import Admission
from .cache_size import CacheSize
from .continuous import NOT_FINITE, ContinuousBatch
from .grammar.grammars import Grammars
from .prompt import Prompts
from .running_batch import Generation, Sequence
from .stalls import Stalls
from .vocabulary import Vocabulary

_AHEAD = 8
"""Slots for each request that is held ahead: few, so that jobs stay in the queue, but enough to refill a free slot."""

_SLICE = 64
"""Inputs encoded in one step: a job may have thousands, whose encoding must not delay the reports of others."""


class GenerateEngine(MailboxEngine[list[GenerationOutput]]):
    """Returns ``{"text", "finish_reason"}`` for each input, and log probabilities if they are asked for; usage counts
    ``input_tokens`` and ``output_tokens``.

    An input is a text to complete, its token ids, or ``{"messages": [...]}``; ``choice.generate_parameters`` lists the
    parameters. A sequence is admitted when the cache has room for its prompt and its longest output, so that no running
    sequence is ever evicted.
    """

    def __init__(self, settings: Model, device: str) -> None:
        super().__init__()
        assert isinstance(settings.options, GenerateOptions)
        self._options = settings.options
        self._settings = settings
        self._device = torch_device(device)
        self._generations: dict[str, Generation] = {}
        self._admission = Admission(settings.max_concurrency)
        self._unread: deque[Generation] = deque()
        self._compiling: list[Generation] = []
        self._unread_inputs = 0
        self._reports: list[Report] = []
        self._stalls = Stalls()

    @property
    def capacity(self) -> int:
        """A request for each slot, and a few ahead, so that a free slot is taken in the next step.

        No further requests while the waiting inputs of those it holds fill all slots.
        """
        places = self._settings.max_concurrency
        if len(self._admission.waiting) + self._unread_inputs >= places:
            return len(self._generations)
        return places + max(1, places // _AHEAD)

    @property
    def slots(self) -> int:
        """The most sequences in the running batch."""
        return self._settings.max_concurrency

    def load(self) -> None:
        """Load tokenizer and model, size the cache, and generate one token.

        Raises:
            ModelNotFound: when the source holds no model for text generation.
            ConfigError: when the model does not fit into ``memory_gb``.
        """
        model_dir = sources.resolve(self._settings.source)
        model = load_model(
            AutoModelForCausalLM, model_dir, self._settings, dtype=self._options.dtype, attn_implementation="sdpa"
        )
        tokenizer = load_tokenizer(model_dir, self._settings)
        model = model.to(self._device).eval()
        context = model.config.get_text_config().max_position_embeddings
        self._size = CacheSize.of(model, self._settings, context)
        self._eos = _eos_ids(model)
        vocabulary = Vocabulary(tokenizer, model.get_input_embeddings().weight.shape[0], sorted(self._eos))
        self._prompts = Prompts(tokenizer, vocabulary, min(context, self._size.tokens))
        self._grammars = Grammars(vocabulary)
        self._admission.blocks = self._size.usable
        self._start = functools.partial(
            ContinuousBatch,
            model,
            self._size,
            self._settings.max_concurrency,
            self._options.max_batch_tokens,
            self._mailbox,
            warm_up_ids=self._prompts.encode("warm up", 0),
        )
        self._batch = self._start()

    def step(self, timeout: float) -> list[Report]:
        """Process the outputs of a decode step. See ``protocol``."""
        messages = self._mailbox.take(0.0 if self._unread else self._patience(timeout))
        for message in messages:
            if isinstance(message, Request):
                self._accept(message)
            elif isinstance(message, Cancellation):
                if generation := self._generations.get(message.request_id):
                    self._end(generation, JobCancelled(f"job {message.request_id} was cancelled"))
            elif isinstance(message, Withdrawal):
                for generation in [each for each in self._generations.values() if not each.started_at]:
                    self._end(generation, Preempted(f"job {generation.request.id} was given back"))
            elif message:
                self._progress += len(message)
                alive = [output.request_id for output in message if output.error is None]
                self._reports += self._stalls.step(alive, time.monotonic())
                for output in message:
                    self._read(output)
        self._expire()
        self._encode()
        if not messages and self._admission.running and not self._batch.alive:
            self._restart()  # it died without an error
        self._admit()
        reports, self._reports = self._reports, []
        return reports

    def close(self) -> None:
        """Stop the device thread and free the device."""
        if hasattr(self, "_batch"):
            self._batch.stop()
            del self._batch, self._start
            self._grammars.close()
        self._generations.clear()
        self._compiling.clear()
        self._unread.clear()
        self._admission.clear()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _accept(self, request: Request) -> None:
        try:
            generation = Generation.of(request, self._prompts, self._size, self._eos, self._grammars)
        except InvalidJob as error:
            self._reports.append(Outcome(request.id, error=error))
            return
        self._generations[request.id] = generation
        if generation.grammar is None:
            self._unread.append(generation)
        else:
            self._compiling.append(generation)
            generation.grammar.add_done_callback(lambda _: self._mailbox.put([]))  # wakes the engine

    def _encode(self) -> None:
        """Encode a slice of the inputs, round-robin among requests, so that a small job does not wait for a large
        one."""
        compiling, self._compiling = self._compiling, []
        for generation in compiling:
            done = generation.grammar is None or generation.grammar.done()
            (self._unread if done else self._compiling).append(generation)
        room = _SLICE
        while self._unread and room > 0:
            generation = self._unread.popleft()
            if self._generations.get(generation.request.id) is not generation:
                continue  # it has ended meanwhile
            room -= generation.unread
            try:
                generation.encode(_SLICE)
            except InvalidJob as error:
                self._end(generation, error)
                continue
            if generation.unread:
                self._unread.append(generation)
            else:
                self._admission.wait(generation.sequences)
        self._unread_inputs = sum(generation.unread for generation in (*self._unread, *self._compiling))

    def _patience(self, timeout: float) -> float:
        """The time to wait for messages, in seconds: ``timeout``, or less if a deadline comes first."""
        deadlines = [each.request.deadline for each in self._generations.values() if each.request.deadline is not None]
        return min(timeout, max(0.0, min(deadlines) - time.monotonic())) if deadlines else timeout

    def _expire(self) -> None:
        now = time.monotonic()
        for generation in list(self._generations.values()):
            deadline = generation.request.deadline
            if deadline is not None and deadline <= now:
                self._end(generation, JobExpired(f"job {generation.request.id} was not done by its deadline"))

    def _admit(self) -> None:
        while (admitted := self._admission.admit()) is not None:
            sequence_id, sequence = admitted
            choice = sequence.begin(sequence_id)
            ends = sequence.generation.ends
            if not self._batch.add(sequence_id, sequence.token_ids, sequence.max_new_tokens, ends, choice):
                self._admission.again(sequence)  # it did not run, so it is not a suspect
                self._restart()
            else:
                alone = len(self._admission.running) == 1
                self._stalls.join(sequence_id, sequence.generation.request.id, time.monotonic(), alone=alone)

    def _read(self, output: GenerationOutput) -> None:
        sequence = self._admission.running.get(output.request_id)
        ended = output.is_finished()
        if sequence is None:
            if not ended and self._batch.alive:
                self._batch.cancel(output.request_id)  # the cancellation had overtaken its sequence
            return
        if output.error is not None:
            self._retry(sequence, output.error)
            return
        if not self._batch.is_finite(sequence.id):
            self._batch.cancel(sequence.id)
            sequence.suspect |= (
                len(self._admission.running) == 1
            )  # else the cause may be another sequence: 0 times NaN is NaN
            self._retry(sequence, f"the model outputs {NOT_FINITE}")
            return
        generation = sequence.generation
        if sequence.grammar_error:
            self._end(generation, InvalidJob(f"structured output became too complex: {sequence.grammar_error}"))
            return
        complete = sequence.read(output.generated_tokens, ended=ended)
        try:
            pieces = sequence.tell() if generation.request.stream else []
        except EngineError as error:
            self._end(generation, error)
            return
        self._reports += pieces
        if complete:
            self._leave(sequence, cancel=not ended)
            sequence.end(output.generated_tokens[-1])
            if not generation.sequences:
                del self._generations[generation.request.id]
                self._reports.append(generation.outcome())

    def _retry(self, sequence: Sequence, reason: str) -> None:
        """Return a sequence of a failed batch to the front, to run alone; if it was a suspect already, fail it."""
        self._batch.forget(sequence.id)
        self._stalls.leave(sequence.id)
        self._admission.again(sequence)
        if sequence.suspect:
            error = EngineError(f"input {sequence.index} failed on the device, also alone: {reason}")
            self._end(sequence.generation, error)
        sequence.suspect = True

    def _restart(self) -> None:
        """Replace the batch. An error here means that the device, and so the engine, is lost."""
        for sequence in list(self._admission.running.values()):
            self._retry(sequence, "the batch died")
        self._batch.stop()
        self._batch = self._start()

    def _leave(self, sequence: Sequence, *, cancel: bool) -> None:
        self._stalls.leave(sequence.id)
        if self._admission.leave(sequence):
            if cancel:
                self._batch.cancel(sequence.id)
            self._batch.forget(sequence.id)

    def _end(self, generation: Generation, error: StokerError) -> None:
        """End a request with ``error`` as its outcome, and remove its waiting and running sequences."""
        del self._generations[generation.request.id]
        for sequence in generation.sequences:
            self._leave(sequence, cancel=True)
        self._admission.drop(generation)
        self._reports.append(generation.given_up(error))


def _eos_ids(model: Any) -> set[int]:
    eos = model.generation_config.eos_token_id
    return set() if eos is None else {eos} if isinstance(eos, int) else set(eos)
