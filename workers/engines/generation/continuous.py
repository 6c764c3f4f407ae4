"""The continuous batching of transformers as a permanent batch; the only module that depends on its internals.

Its background thread runs the device and puts its outputs into the engine's mailbox.
``tests/acceptance/test_engine_generate.py`` covers every internal that is used.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import fields
from typing import Any

from transformers import GenerationConfig, LogitsProcessorList
from transformers.generation.configuration_utils import ContinuousBatchingConfig
from transformers.generation.continuous_batching.requests import GenerationOutput

from producer.contract.errors import EngineError

from ..mailbox import Mailbox
from . import sequence_attention
from .cache_size import CacheSize
from .choice.rows import RowChoice, TokenChoice
from .prompt_logprobs import PromptReading

START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 30.0
NOT_FINITE = "logits that are NaN or infinite"


class ContinuousBatch:
    """A running batch, which sequences join and leave at every decode step."""

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
            EngineError: when that fails; the log has the cause.
        """
        self._ids: set[str] = set()
        settings: Any = GenerationConfig
        model.set_attn_implementation("sdpa")  # the batcher starts only with an attention that it knows
        manager: Any = model.init_continuous_batching(
            generation_config=settings(do_sample=False, eos_token_id=-1),  # each sequence has its own ends
            continuous_batching_config=configuration(size, max_sequences, max_batch_tokens),
        )
        if sequence_attention.serves(model):
            model.set_attn_implementation(sequence_attention.NAME)
        self._rows = RowChoice()
        self._reading = manager.logit_processor = PromptReading(LogitsProcessorList([self._rows]))
        manager.logit_processor.tensors_required = 1  # it counts only the processors that it has converted
        self._reading.follow(model)
        # The batcher's thread inherits "daemon" from this one: it must not keep a failed worker from exiting.
        starter = threading.Thread(target=manager.start, daemon=True)
        starter.start()
        starter.join()
        _warm_up(manager, warm_up_ids, self._rows)
        self._reading.read_whole(manager.batch_processor.cache)
        # The batcher's own queue has no wait for all requests: waiting for one moves the outputs of the others.
        manager.output_router.deliver = lambda output: mailbox.put([output])
        manager.output_router.deliver_batch = mailbox.put  # one message a step wakes the engine once
        self._manager = manager

    @property
    def alive(self) -> bool:
        """Whether the background thread is running."""
        return bool(self._manager.is_running())

    def add(
        self,
        sequence_id: str,
        token_ids: list[int],
        max_new_tokens: int,
        ends: Iterable[int],
        choice: TokenChoice | None,
    ) -> bool:
        """Add a sequence, which ends after any of the tokens ``ends``; False if the batch is dead, so that a new one is
        needed.

        ``sequence_id`` must be new: late outputs of an earlier batch have the ids of that batch.
        """
        if choice is not None and choice.recorder is not None and choice.recorder.prompt_alternatives is not None:
            self._reading.whole.add(sequence_id)
        if not self.alive or not self._manager.add_request(
            token_ids,
            request_id=sequence_id,
            max_new_tokens=max_new_tokens,
            streaming=True,
            eos_token_id=list(ends),
            **({} if choice is None else {"choice": choice}),
        ):
            return False
        self._ids.add(sequence_id)
        return True

    def cancel(self, sequence_id: str) -> None:
        """Remove a sequence at the next step. A cancellation that overtakes its sequence is lost: if outputs of the
        sequence still arrive, cancel it again."""
        self._manager.cancel_request(sequence_id)

    def is_finite(self, sequence_id: str) -> bool:
        """Whether all logits of a sequence were finite; its tokens are meaningless otherwise."""
        return sequence_id not in self._rows.not_finite

    def forget(self, sequence_id: str) -> None:
        """Drop the state of a sequence that has ended."""
        self._ids.discard(sequence_id)
        self._rows.not_finite.discard(sequence_id)
        self._reading.whole.discard(sequence_id)

    def stop(self) -> None:
        """Stop the background thread and free the cache."""
        for sequence_id in self._ids:
            self._manager.cancel_request(sequence_id)  # the thread would complete them before it stops
        self._manager.stop(block=True, timeout=STOP_TIMEOUT_S)
        self._reading.end()


def configuration(size: CacheSize, max_sequences: int, max_batch_tokens: int) -> ContinuousBatchingConfig:
    """The batcher's configuration, with explicit limits: by default its cache takes 90% of the machine's memory."""
    known = {field.name for field in fields(ContinuousBatchingConfig)}
    options: dict[str, Any] = {
        "page_size" if "page_size" in known else "block_size": size.page_tokens,  # renamed after 5.17
        "num_blocks": size.blocks,
        "max_batch_tokens": max(max_batch_tokens, max_sequences),
        "max_requests_per_batch": max_sequences,
        "use_cuda_graph": False,  # sampling row by row cannot be captured in a graph
        "use_async_batching": False,  # see RowChoice.prepare_tensor_args
    }
    if "auto_switch_to_flash" in known:  # newer versions replace the model's attention
        options["auto_switch_to_flash"] = False
    return ContinuousBatchingConfig(**options)


def _warm_up(manager: Any, token_ids: list[int], rows: RowChoice) -> None:
    """Generate one token after a prompt; stops the manager when that fails.

    Raises:
        EngineError: it failed, or the model's outputs are not finite.
    """
    manager.add_request(token_ids, max_new_tokens=1)
    output = manager.get_result(timeout=START_TIMEOUT_S)
    if output is None or output.error is not None:
        manager.stop(block=True, timeout=STOP_TIMEOUT_S)
        raise EngineError(
            f"continuous batching does not start: {output.error if output else 'no answer'}; "
            "see the worker's log, and check memory_gb and the device"
        )
    if rows.not_finite:
        manager.stop(block=True, timeout=STOP_TIMEOUT_S)
        raise EngineError(
            f"for any text the model outputs {NOT_FINITE}: if options.dtype is float16, try bfloat16 or float32, "
            "else copy its files again"
        )
