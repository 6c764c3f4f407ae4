"""Changes to logits, held to transformers' own processors and to OpenAI's formula, token by token."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from transformers import LogitsProcessorList
from transformers.generation.logits_process import (
    MinNewTokensLengthLogitsProcessor,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from workers.engines.generation.choice.generate_parameters import GenerateParameters
from workers.engines.generation.choice.logits import changes
from workers.engines.generation.choice.sampling import TokenSampler

VOCABULARY = 40
PROMPT = [3, 5, 5, 8, 13]
ENDS = [2, 7]
STEPS = 30

Reference = Callable[[list[int], torch.Tensor], torch.Tensor]


def logits_of(step: int) -> torch.Tensor:
    return torch.randn(VOCABULARY, generator=torch.Generator().manual_seed(step)) * 3


def hf(*processors: Any) -> Reference:
    def process(ids: list[int], scores: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = LogitsProcessorList(processors)(torch.LongTensor([ids]), scores[None].clone())
        return found[0]

    return process


def openai(frequency: float, presence: float) -> Reference:
    """``mu[j] -> mu[j] - c[j] * alpha_frequency - float(c[j] > 0) * alpha_presence``, c of the answer alone."""

    def process(ids: list[int], scores: torch.Tensor) -> torch.Tensor:
        count = torch.bincount(torch.tensor(ids[len(PROMPT) :], dtype=torch.int64), minlength=VOCABULARY)
        return scores - count * frequency - (count > 0).float() * presence

    return process


CASES: dict[str, tuple[dict[str, Any], Reference]] = {
    "repetition": ({"repetition_penalty": 1.7}, hf(RepetitionPenaltyLogitsProcessor(1.7))),
    "repetition wanted": ({"repetition_penalty": 0.6}, hf(RepetitionPenaltyLogitsProcessor(0.6))),
    "bias": (
        {"logit_bias": {"4": 2.5, "9": -100}},
        hf(SequenceBiasLogitsProcessor([[[4], 2.5], [[9], -100.0]])),
    ),
    "least length": (
        {"min_tokens": 12},
        hf(MinNewTokensLengthLogitsProcessor(len(PROMPT), 12, ENDS)),
    ),
    "frequency": ({"frequency_penalty": 0.7}, openai(0.7, 0.0)),
    "presence": ({"presence_penalty": -1.3}, openai(0.0, -1.3)),
    "frequency and presence": ({"frequency_penalty": 0.4, "presence_penalty": 1.1}, openai(0.4, 1.1)),
    "several": (
        {"logit_bias": {"4": 2.5}, "repetition_penalty": 1.3, "min_tokens": 5},
        hf(
            SequenceBiasLogitsProcessor([[[4], 2.5]]),
            RepetitionPenaltyLogitsProcessor(1.3),
            MinNewTokensLengthLogitsProcessor(len(PROMPT), 5, ENDS),
        ),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_logits_and_tokens_are_the_reference_s(name: str) -> None:
    fields, reference = CASES[name]
    asked = changes(GenerateParameters.parse(fields), PROMPT, ENDS)
    assert asked
    made: list[int] = []
    for step in range(STEPS):
        scores = logits_of(step)
        expected = reference([*PROMPT, *made], scores)
        for change in asked:
            change(scores, made)
        torch.testing.assert_close(scores, expected, rtol=1e-6, atol=1e-5)
        assert scores.argmax() == expected.argmax()
        made.append(int(scores.argmax()))
    assert len(set(made)) < STEPS, "some token comes twice"


def test_nothing_is_changed_by_default() -> None:
    assert changes(GenerateParameters.parse({"temperature": 0.5, "min_p": 0.1, "ignore_eos": True}), PROMPT, ENDS) == []


@pytest.mark.parametrize("fields", [{"min_p": 0.1}, {"min_p": 0.3, "top_k": 8}, {"min_p": 0.05, "top_p": 0.8}])
def test_tokens_that_may_be_drawn_are_those_of_the_warpers(fields: dict[str, float]) -> None:
    warpers: list[Any] = [TemperatureLogitsWarper(1.5)]
    warpers += [TopKLogitsWarper(int(fields["top_k"]))] if "top_k" in fields else []
    warpers += [TopPLogitsWarper(fields["top_p"])] if "top_p" in fields else []
    logits = logits_of(7)
    expected = hf(*warpers, MinPLogitsWarper(fields["min_p"]))(PROMPT, logits).softmax(-1)
    assert 1 < int((expected > 0).sum()) < VOCABULARY
    sampler = TokenSampler(GenerateParameters.parse({"temperature": 1.5, "seed": 3, **fields}), 0)
    found = torch.bincount(torch.tensor([sampler.draw(logits) for _ in range(3000)]), minlength=VOCABULARY) / 3000
    assert set(found.nonzero().flatten().tolist()) <= set(expected.nonzero().flatten().tolist())
    torch.testing.assert_close(found, expected, rtol=0, atol=0.04)


def test_what_the_batcher_moved_to_the_prompt_is_still_the_answer() -> None:
    """A batch that takes a sequence's cache away reads its answer again as a prompt: the changes must not see that."""
    from types import SimpleNamespace

    from workers.engines.generation.choice.rows import _made

    def made(**state: Any) -> Sequence[int]:
        return list(_made(SimpleNamespace(**state)))

    assert made(initial_tokens=PROMPT, generated_tokens=[1, 2], _true_initial_tokens=0) == [1, 2]
    moved = {"initial_tokens": [*PROMPT, 1, 2], "generated_tokens": [4], "_true_initial_tokens": len(PROMPT)}
    assert made(**moved) == [1, 2, 4]
