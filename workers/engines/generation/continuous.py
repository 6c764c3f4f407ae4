"""transformers' continuous batching, kept alive: everything that touches its internals is here.

Its background thread runs the device. What it reports goes straight into the engine's mailbox.
``tests/acceptance/test_engine_generate.py`` covers each point that is touched.
"""

from __future__ import annotations

import threading
from dataclasses import fields
from typing import Any

from transformers import GenerationConfig, LogitsProcessorList
from transformers.generation.configuration_utils import ContinuousBatchingConfig
from transformers.generation.continuous_batching.cb_logits_processors import (
    ContinuousBatchingLogitsProcessorList,
)
from transformers.generation.continuous_batching.requests import GenerationOutput

from producer.contract.errors import EngineError

from ..mailbox import Mailbox
from . import sequence_attention
from .cache_size import CacheSize
from .sampling import RowSampling, Sampler

START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 30.0
NOT_FINITE = "logits that are NaN or infinite"


class ContinuousBatch:
    """One batch, running, that sequences join and leave at every decode step."""

    def __init__(
        self,
        model: Any,
        size: CacheSize,
        max_sequences: int,
        max_batch_tokens: int,
        mailbox: Mailbox[list[GenerationOutput]],
        *,
        warm_up_ids: list[int],
    ) -> None:
        """Start the background thread and generate one token.

        Raises:
            EngineError: when that does not work, with the reason in the log.
        """
        self._ids: set[str] = set()
        settings: Any = GenerationConfig
        model.set_attn_implementation("sdpa")  # the batcher refuses to begin with one that is not its own
        manager: Any = model.init_continuous_batching(
            generation_config=settings(do_sample=False, eos_token_id=model.generation_config.eos_token_id),
            continuous_batching_config=configuration(size, max_sequences, max_batch_tokens),
        )
        if sequence_attention.serves(model):
            model.set_attn_implementation(sequence_attention.NAME)
        self._sampling = RowSampling()
        manager.logit_processor = ContinuousBatchingLogitsProcessorList(LogitsProcessorList([self._sampling]))
        manager.logit_processor.tensors_required = 1  # it counts only processors that it converted itself
        # A thread is a daemon when its creator is: a worker that fails must not hang on this one.
        starter = threading.Thread(target=manager.start, daemon=True)
        starter.start()
        starter.join()
        manager.add_request(warm_up_ids, max_new_tokens=1)
        output = manager.get_result(timeout=START_TIMEOUT_S)
        if output is None or output.error is not None:
            manager.stop(block=True, timeout=STOP_TIMEOUT_S)
            raise EngineError(
                f"continuous batching does not start: {output.error if output else 'no answer'}; "
                "see the worker's log, and check memory_gb and the device"
            )
        if self._sampling.not_finite:
            manager.stop(block=True, timeout=STOP_TIMEOUT_S)
            raise EngineError(
                f"for any text the model outputs {NOT_FINITE}: if options.dtype is float16, try bfloat16 or float32, "
                "else copy its files again"
            )
        # Its own queue can be waited at for one request only by taking out and putting back the others' outputs.
        manager.output_router.deliver = lambda output: mailbox.put([output])
        manager.output_router.deliver_batch = mailbox.put  # one message for each step wakes the engine once
        self._manager = manager

    @property
    def alive(self) -> bool:
        """Whether the background thread runs."""
        return bool(self._manager.is_running())

    def add(self, sequence_id: str, token_ids: list[int], max_new_tokens: int, sampler: Sampler | None) -> bool:
        """Let a sequence join; False when the batch is dead and a new one is needed.

        ``sequence_id`` was never used before: late reports of an earlier batch carry the ids of that.
        """
        choice = {} if sampler is None else {"sampler": sampler}
        if not self.alive or not self._manager.add_request(
            token_ids, request_id=sequence_id, max_new_tokens=max_new_tokens, streaming=True, **choice
        ):
            return False
        self._ids.add(sequence_id)
        return True

    def cancel(self, sequence_id: str) -> None:
        """Take a sequence out at the next step. It reports nothing more, as a rule: a cancellation may
        overtake its sequence and be lost, so cancel again what still reports."""
        self._manager.cancel_request(sequence_id)

    def is_finite(self, sequence_id: str) -> bool:
        """Whether all logits of a sequence were, so that its tokens mean something."""
        return sequence_id not in self._sampling.not_finite

    def forget(self, sequence_id: str) -> None:
        """A sequence has ended."""
        self._ids.discard(sequence_id)
        self._sampling.not_finite.discard(sequence_id)

    def stop(self) -> None:
        """End the background thread, and free its cache."""
        for sequence_id in self._ids:
            self._manager.cancel_request(sequence_id)  # it would finish them first
        self._manager.stop(block=True, timeout=STOP_TIMEOUT_S)


def configuration(size: CacheSize, max_sequences: int, max_batch_tokens: int) -> ContinuousBatchingConfig:
    """The batcher's settings. Without limits of our own it would take nine tenths of the machine's memory."""
    known = {field.name for field in fields(ContinuousBatchingConfig)}
    options: dict[str, Any] = {
        "page_size" if "page_size" in known else "block_size": size.page_tokens,  # renamed after 5.17
        "num_blocks": size.blocks,
        "max_batch_tokens": max(max_batch_tokens, max_sequences),
        "max_requests_per_batch": max_sequences,
        "use_cuda_graph": False,  # a graph cannot hold the choice of tokens row by row
        "use_async_batching": False,  # see RowSampling.prepare_tensor_args
    }
    if "auto_switch_to_flash" in known:  # newer versions change the attention that the model was loaded with
        options["auto_switch_to_flash"] = False
    return ContinuousBatchingConfig(**options)
