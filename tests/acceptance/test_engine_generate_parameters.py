"""The parameters of generation in the running batch: in company they give, token by token, what transformers'
``generate`` gives with its own processors."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import tiny_models
from generating import left_empty, loaded, run, text
from producer.contract.errors import InvalidJob
from workers.engines.generation.generate import GenerateEngine
from workers.engines.protocol import Request

PROMPTS = ["the capital of france is", "one two three one two three", "water boils at a temperature of"]
LENGTH = 16


@pytest.fixture(scope="module")
def source() -> str:
    return tiny_models.llama()


@pytest.fixture(scope="module")
def loaded_engine(source: str) -> Iterator[GenerateEngine]:
    with loaded(source=source) as engine:
        yield engine


@pytest.fixture
def engine(loaded_engine: GenerateEngine) -> Iterator[GenerateEngine]:
    with left_empty(loaded_engine) as engine:
        yield engine


@pytest.fixture(scope="module")
def reference(source: str) -> tuple[Any, Any]:
    return AutoTokenizer.from_pretrained(source), AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)


def alone(reference: tuple[Any, Any], prompt: str, **arguments: Any) -> str:
    tokenizer, model = reference
    ids = tokenizer(prompt, return_tensors="pt").input_ids
    made = model.generate(ids, max_new_tokens=LENGTH, do_sample=False, pad_token_id=0, **arguments)[0, ids.shape[1] :]
    return str(tokenizer.decode(made, skip_special_tokens=True))


CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({}, {}),
    "repetition": ({"repetition_penalty": 0.3}, {"repetition_penalty": 0.3}),
    "bias": ({"logit_bias": {"2000": 50, "2001": -3}}, {"sequence_bias": [[[2000], 50.0], [[2001], -3.0]]}),
    "least length": (
        {"min_tokens": 9, "stop_token_ids": [2000], "logit_bias": {"2000": 100}},
        {"min_new_tokens": 9, "eos_token_id": 2000, "sequence_bias": [[[2000], 100.0]]},
    ),
}


def test_in_company_it_is_what_transformers_generates(engine: GenerateEngine, reference: tuple[Any, Any]) -> None:
    requests = [
        Request(f"{name} {number}", [prompt], {"max_new_tokens": LENGTH, **fields})
        for number, prompt in enumerate(PROMPTS)
        for name, (fields, _) in CASES.items()
    ]
    outcomes = run(engine, *requests)
    for name, (_, arguments) in CASES.items():
        for number, prompt in enumerate(PROMPTS):
            assert text(outcomes[f"{name} {number}"]) == alone(reference, prompt, **arguments), (name, prompt)
    texts = {name: [text(outcomes[f"{name} {number}"]) for number in range(len(PROMPTS))] for name in CASES}
    assert len({str(each) for each in texts.values()}) == len(CASES), "every case changes something"


def test_penalties_of_the_answer_keep_it_from_repeating_itself(engine: GenerateEngine) -> None:
    bias = {"logit_bias": {"2000": 20, "2001": 19.5}, "max_new_tokens": 12}
    outcomes = run(
        engine,
        Request("a", ["one"], bias),
        Request("b", ["one"], {**bias, "presence_penalty": 2, "frequency_penalty": 2}),
    )
    assert len(set(text(outcomes["a"]).split())) < len(set(text(outcomes["b"]).split()))


def test_tokens_are_a_prompt(engine: GenerateEngine, reference: tuple[Any, Any]) -> None:
    ids = reference[0](PROMPTS[0])["input_ids"]
    outcomes = run(engine, Request("a", [PROMPTS[0]]), Request("b", [ids, PROMPTS[0]]))
    assert text(outcomes["a"]) == text(outcomes["b"]) == text(outcomes["b"], 1)
    assert outcomes["b"].usage["input_tokens"] == 2 * len(ids)


@pytest.mark.parametrize(
    ("inputs", "parameters", "said"),
    [
        ([[5, 10**6]], {}, r"input 0 holds token id 1000000; this model knows 0 to 30521"),
        ([[]], {}, r"input 0 is empty"),
        ([[1, "x"]], {}, r"input 0 holds 'x'"),
        (["a"], {"logit_bias": {"99999": 1}}, r"parameters holds token id 99999; this model knows 0 to 30521"),
        (["a"], {"stop_token_ids": [30522]}, r"parameters holds token id 30522"),
    ],
)
def test_what_is_no_token_of_the_model_is_refused(
    engine: GenerateEngine, inputs: list[Any], parameters: dict[str, Any], said: str
) -> None:
    outcomes = run(engine, Request("a", inputs, parameters), Request("b", ["one"], {"max_new_tokens": 2}))
    assert isinstance(outcomes["a"].error, InvalidJob)
    assert outcomes["b"].error is None
    with pytest.raises(InvalidJob, match=said):
        raise outcomes["a"].error


def test_the_model_s_end_can_be_ignored_and_other_ends_given(tmp_path: Any, source: str) -> None:
    """The tiny model has no end of its own; here it has one that comes at once."""
    ends = tiny_models.changed_copy(source, tmp_path)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": 2000}')
    bias = {"logit_bias": {"2000": 100}, "max_new_tokens": 5}
    with loaded(source=ends) as engine:
        outcomes = run(
            engine,
            Request("ended", ["one"], bias),
            Request("ignored", ["one"], {**bias, "ignore_eos": True}),
            Request("stopped", ["one"], {**bias, "ignore_eos": True, "stop_token_ids": [2000]}),
            Request("least", ["one"], {**bias, "min_tokens": 3}),
            Request(
                "word", ["one"], {"logit_bias": {"2001": 100}, "max_new_tokens": 5, "min_tokens": 3, "stop": [" "]}
            ),
        )
    made = {name: outcome.usage["output_tokens"] for name, outcome in outcomes.items()}
    reasons = {name: outcome.outputs[0]["finish_reason"] for name, outcome in outcomes.items() if outcome.outputs}
    assert made == {"ended": 1, "ignored": 5, "stopped": 1, "least": 4, "word": 4}
    assert reasons == {"ended": "stop", "ignored": "length", "stopped": "stop", "least": "stop", "word": "stop"}
