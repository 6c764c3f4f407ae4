"""Log probabilities, held to the model's own log-softmax: of answers and prompts, in company, whole and streamed."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from pydantic import JsonValue
from transformers import AutoModelForCausalLM, AutoTokenizer

import tiny_models
from generating import left_empty, loaded, run, stream
from producer.contract.errors import InvalidJob
from workers.engines.generation.generate import GenerateEngine
from workers.engines.protocol import Request

PROMPTS = ["the capital of france is", "one two three one two three", "water boils at a temperature of " * 6]
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def source() -> str:
    return tiny_models.llama()


@pytest.fixture(scope="module")
def loaded_engine(source: str) -> Iterator[GenerateEngine]:
    with loaded(source=source, options={"max_batch_tokens": 16}) as engine:  # prompts are read in pieces
        yield engine


@pytest.fixture
def engine(loaded_engine: GenerateEngine) -> Iterator[GenerateEngine]:
    with left_empty(loaded_engine) as engine:
        yield engine


@pytest.fixture(scope="module")
def reference(source: str) -> tuple[Any, Any]:
    return AutoTokenizer.from_pretrained(source), AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)


def expected(reference: tuple[Any, Any], ids: list[int]) -> torch.Tensor:
    """The log-softmax (tokens - 1, vocabulary) of what follows each token but the last."""
    with torch.inference_mode():
        logits: torch.Tensor = reference[1](torch.tensor([ids])).logits[0, :-1]
    return logits.log_softmax(-1)


def ids_of(reference: tuple[Any, Any], entries: list[dict[str, Any]]) -> list[int]:
    ids: list[int] = reference[0].convert_tokens_to_ids([entry["token"] for entry in entries])
    return ids


def check(entries: list[dict[str, Any]], ids: list[int], logprobs: torch.Tensor, alternatives: int) -> None:
    assert len(entries) == len(ids) == len(logprobs)
    for entry, token, row in zip(entries, ids, logprobs, strict=True):
        assert entry["logprob"] == pytest.approx(float(row[token]), abs=TOLERANCE)
        assert entry["bytes"] == list(entry["token"].encode())
        found = [each["logprob"] for each in entry["top_logprobs"]]
        assert found == pytest.approx(row.topk(alternatives).values.tolist(), abs=TOLERANCE)


CHOICES: list[dict[str, Any]] = [
    {},
    {"temperature": 1.5, "seed": 4},
    {"repetition_penalty": 0.4},
    {"logit_bias": {"2000": 100}},
]


@pytest.mark.parametrize("prompt", PROMPTS)
def test_they_are_the_model_s_own_whatever_chose_the_token(
    engine: GenerateEngine, reference: tuple[Any, Any], prompt: str
) -> None:
    asked = {"max_new_tokens": 6, "logprobs": 3}
    requests = [Request(str(number), [prompt], {**asked, **each}) for number, each in enumerate(CHOICES)]
    outcomes = run(engine, *requests, Request("none", [prompt], {"max_new_tokens": 6, "logprobs": 0}))
    prompt_ids = reference[0](prompt)["input_ids"]
    for name, outcome in outcomes.items():
        assert outcome.outputs is not None
        entries = outcome.outputs[0]["logprobs"]
        made = ids_of(reference, entries)
        check(entries, made, expected(reference, [*prompt_ids, *made])[-len(made) :], 0 if name == "none" else 3)


def test_the_prompt_s_are_told_too(engine: GenerateEngine, reference: tuple[Any, Any]) -> None:
    for _ in range(2):  # the second time the cache has their beginnings
        parameters = {"max_new_tokens": 3, "prompt_logprobs": 2}
        outcomes = run(engine, *(Request(prompt, [prompt], parameters) for prompt in PROMPTS))
        for prompt, outcome in outcomes.items():
            assert outcome.outputs is not None
            assert "logprobs" not in outcome.outputs[0]
            first, *entries = outcome.outputs[0]["prompt_logprobs"]
            ids = reference[0](prompt)["input_ids"]
            assert (first["token"], first["logprob"], first["top_logprobs"]) == (reference[0].decode(ids[:1]), None, [])
            check(entries, ids[1:], expected(reference, ids), 2)


def test_a_beginning_that_the_cache_has_is_read_again() -> None:
    """A prompt of several pages of the cache, which the batcher shares among sequences that begin alike."""
    ids = [1000 + number % 900 for number in range(700)]
    long = tiny_models.llama(context=1024)
    with loaded(source=long) as engine:
        run(engine, Request("first", [ids], {"max_new_tokens": 1}))
        outcome = run(engine, Request("again", [ids], {"max_new_tokens": 1, "prompt_logprobs": 0}))["again"]
    assert outcome.outputs is not None
    assert len(outcome.outputs[0]["prompt_logprobs"]) == len(ids)
    model = AutoModelForCausalLM.from_pretrained(long, dtype=torch.float32)
    check(outcome.outputs[0]["prompt_logprobs"][1:], ids[1:], expected((None, model), ids), 0)


@pytest.mark.parametrize("most", [0, 1, 3])
def test_echo_tells_the_prompt_then_the_answer(engine: GenerateEngine, reference: tuple[Any, Any], most: int) -> None:
    """As evaluations ask for it: tokens as a prompt, their log probabilities, and one token or none behind."""
    prompt = PROMPTS[0]
    ids = reference[0](prompt)["input_ids"]
    outcome = run(engine, Request("a", [ids, prompt], {"max_tokens": most, "echo": True, "logprobs": 1}))["a"]
    assert outcome.outputs is not None
    tokens, text = outcome.outputs
    assert text["text"].startswith(prompt)
    assert outcome.usage == {"input_tokens": 2 * len(ids), "output_tokens": 2 * most}
    assert tokens["logprobs"] == text["logprobs"]
    assert tokens["finish_reason"] == "length"
    first, *entries = tokens["logprobs"]
    assert first["logprob"] is None
    made = [*ids, *ids_of(reference, entries[len(ids) - 1 :])]
    assert len(made) == len(ids) + most
    check(entries, made[1:], expected(reference, made), 1)


@pytest.mark.parametrize("echo", [False, True])
def test_a_stream_tells_the_same(engine: GenerateEngine, echo: bool) -> None:
    parameters = {"max_new_tokens": 9, "logprobs": 1, "echo": echo, "stop": ["never said"]}
    told = stream(engine, Request("a", [PROMPTS[0], PROMPTS[1]], parameters, stream=True))
    outcome = told.outcomes["a"]
    assert outcome.outputs is not None
    for index, output in enumerate(outcome.outputs):
        pieces = told.pieces["a", index]
        assert told.text("a", index) == output["text"]
        assert [entry for piece in pieces for entry in piece.logprobs] == output["logprobs"]


def test_what_echo_cannot_repeat_is_refused(engine: GenerateEngine) -> None:
    chat: dict[str, JsonValue] = {"messages": [{"role": "user", "content": "hello"}]}
    outcomes = run(engine, Request("a", [chat], {"echo": True}), Request("b", ["x"], {"max_tokens": 0}))
    for name, said in (("a", "input 0 is a chat, which echo cannot repeat"), ("b", "max_new_tokens is 0")):
        error = outcomes[name].error
        assert isinstance(error, InvalidJob)
        assert said in str(error)
