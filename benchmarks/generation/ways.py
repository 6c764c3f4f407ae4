"""Three ways to answer the same requests with the same model: our engine, static batches, continuous batching by hand.

Each from texts to texts, in one process and with the same number of places. Continuous batching by hand has the
settings that the engine gives it, cache included.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from producer.contract.fleet.engine_options import GenerateOptions
from producer.contract.fleet.fleet_schema import Model
from workers.engines import sources
from workers.engines.generation.cache_size import CacheSize
from workers.engines.generation.continuous import configuration
from workers.engines.generation.generate import GenerateEngine
from workers.engines.protocol import Outcome, Request
from workers.engines.torch_device import torch_device

from .workload import Ask, Run

STEP_S = 0.5
RESULT_S = 120.0


def _generate_options(settings: Model) -> GenerateOptions:
    assert isinstance(settings.options, GenerateOptions)
    return settings.options


@dataclass(frozen=True, slots=True)
class Peer:
    """The model as transformers gives it."""

    model: Any
    tokenizer: Any

    @classmethod
    def load(cls, settings: Model, device: str) -> Peer:
        """With the precision and the attention that the engine uses."""
        folder = sources.resolve(settings.source)
        dtype = _generate_options(settings).dtype
        model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="sdpa")
        tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
        tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
        return cls(model.to(torch_device(device)).eval(), tokenizer)

    def alone(self, ask: Ask) -> list[int]:
        """The tokens of ``generate`` for one prompt by itself, greedily."""
        features = self.tokenizer(ask.prompt, return_tensors="pt")
        answer = self._generate(features, ask.max_new_tokens)
        return list(answer[0, features["input_ids"].shape[1] :].tolist())

    def static(self, asks: Sequence[Ask], places: int) -> int:
        """Answer in batches of ``places``, in order, each as long as its longest answer; the tokens asked for."""
        tokens = 0
        for start in range(0, len(asks), places):
            batch = asks[start : start + places]
            features = self.tokenizer([ask.prompt for ask in batch], padding=True, return_tensors="pt")
            answers = self._generate(features, max(ask.max_new_tokens for ask in batch))
            for ask, row in zip(batch, answers[:, features["input_ids"].shape[1] :].tolist(), strict=True):
                answer = self._until_eos(row[: ask.max_new_tokens])
                self.tokenizer.decode(answer, skip_special_tokens=True)
                tokens += len(answer)
        return tokens

    def _generate(self, features: Any, max_new_tokens: int) -> torch.Tensor:
        with torch.inference_mode():
            answer: torch.Tensor = self.model.generate(
                **features.to(self.model.device),
                max_new_tokens=max_new_tokens,
                do_sample=False,
                pad_token_id=self.tokenizer.pad_token_id,
            )
        return answer

    def _until_eos(self, tokens: list[int]) -> list[int]:
        eos = self.model.generation_config.eos_token_id
        ends = [at for at, token in enumerate(tokens) if token in (eos if isinstance(eos, list) else [eos])]
        return tokens[: ends[0] + 1] if ends else tokens

    @contextmanager
    def continuous(self, settings: Model) -> Iterator[Callable[[Sequence[Ask]], int]]:
        """Transformers' continuous batching, called by hand: what answers requests, and returns their tokens."""
        context = self.model.config.get_text_config().max_position_embeddings
        size = CacheSize.of(self.model, settings, context)
        manager = self.model.init_continuous_batching(
            generation_config=GenerationConfig(do_sample=False, eos_token_id=self.model.generation_config.eos_token_id),
            continuous_batching_config=configuration(
                size, settings.max_concurrency, _generate_options(settings).max_batch_tokens
            ),
        )
        manager.start()

        def answer(asks: Sequence[Ask]) -> int:
            for ask in asks:
                manager.add_request(self.tokenizer(ask.prompt)["input_ids"], max_new_tokens=ask.max_new_tokens)
            tokens = 0
            for _ in asks:
                output = manager.get_result(timeout=RESULT_S)
                assert output is not None
                assert output.error is None
                self.tokenizer.decode(output.generated_tokens, skip_special_tokens=True)
                tokens += len(output.generated_tokens)
            return tokens

        yield answer
        manager.stop(block=True)


class NotingEngine(GenerateEngine):
    """Our engine, which notes the tokens of each request: its answers are texts."""

    def __init__(self, settings: Model, device: str) -> None:
        super().__init__(settings, device)
        self.tokens: dict[str, list[int]] = {}

    def _read(self, output: Any) -> None:
        if sequence := self._admission.running.get(output.request_id):
            self.tokens[sequence.generation.request.id] = output.generated_tokens
        super()._read(output)


def answer(engine: GenerateEngine, requests: Sequence[Request]) -> list[Outcome]:
    """Through our engine, all at once, as it has room for them."""
    for request in requests:
        engine.submit(request)
    outcomes: list[Outcome] = []
    while len(outcomes) < len(requests):
        outcomes += [report for report in engine.step(STEP_S) if isinstance(report, Outcome)]
    for outcome in outcomes:
        if outcome.error is not None:
            raise outcome.error
    return outcomes


def ours(engine: GenerateEngine, asks: Sequence[Ask]) -> int:
    """Answer through our engine, and return the tokens."""
    requests = [
        Request(str(number), [ask.prompt], {"max_new_tokens": ask.max_new_tokens}) for number, ask in enumerate(asks)
    ]
    return sum(outcome.usage["output_tokens"] for outcome in answer(engine, requests))


def timed(way: Callable[[], int]) -> Run:
    """One run of a way."""
    begun, cpu_begun = time.perf_counter(), time.process_time()
    tokens = way()
    return Run(time.perf_counter() - begun, tokens, time.process_time() - cpu_begun)
