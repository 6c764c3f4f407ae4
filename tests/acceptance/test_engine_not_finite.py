"""NaN is never an answer: the models here embed one word as NaN, and so every text that has it."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

import tiny_models
from encoding import run
from producer.contract.errors import EngineError
from producer.contract.fleet.fleet_schema import Model
from producer.contract.message.job import Item
from workers.engines.protocol import Engine, Request
from workers.engines.registry import create

WORD = "poison"

CASES: dict[str, tuple[Callable[[], str], Callable[[str], Item], dict[str, Any]]] = {
    "embed": (lambda: tiny_models.sequence_classifier(2), lambda text: text, {}),
    "classify": (lambda: tiny_models.sequence_classifier(2), lambda text: text, {}),
    "rerank": (lambda: tiny_models.sequence_classifier(1), lambda text: {"query": "x", "documents": ["y", text]}, {}),
    "generate": (tiny_models.llama, lambda text: text, {"max_new_tokens": 8}),
    "generate, sampled": (tiny_models.llama, lambda text: text, {"max_new_tokens": 8, "temperature": 1.0, "seed": 1}),
}


def poison(value: float, *, whole: bool) -> Callable[[dict[str, torch.Tensor]], None]:
    word = AutoTokenizer.from_pretrained(tiny_models.llama()).convert_tokens_to_ids(WORD)

    def change(weights: dict[str, torch.Tensor]) -> None:
        [name] = [name for name in weights if name.endswith(("word_embeddings.weight", "embed_tokens.weight"))]
        weights[name][slice(None) if whole else word] = value

    return change


def made(name: str, folder: Path, value: float = math.nan, *, whole: bool = False) -> Engine:
    source = tiny_models.changed_copy(CASES[name][0](), folder / "model", weights=poison(value, whole=whole))
    fields = {"engine": name.partition(",")[0], "source": source, "memory_gb": 0.5, "max_concurrency": 4}
    return create(Model.model_validate(fields), "cpu:0")


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("name", CASES)
def test_a_request_that_makes_no_numbers_is_an_error_and_its_neighbours_are_answered(
    tmp_path: Path, name: str, value: float
) -> None:
    _, item, parameters = CASES[name]
    engine = made(name, tmp_path, value)
    engine.load()
    try:
        fine = [Request(f"fine {number}", [item(f"word {number}")] * 2, parameters) for number in range(3)]
        expected = run(engine, *fine)
        bad = Request("bad", [item("fine"), item(f"a {WORD} is here")], parameters)
        outcomes = run(engine, fine[0], bad, *fine[1:])
        assert type(outcomes["bad"].error) is EngineError
        assert "NaN or infinite" in str(outcomes["bad"].error)
        assert "1" in str(outcomes["bad"].error)
        for request in fine:
            assert outcomes[request.id].error is None
            assert tiny_models.same(outcomes[request.id].outputs, expected[request.id].outputs)
        assert engine.step(0.1) == []
    finally:
        engine.close()


@pytest.mark.parametrize("name", CASES)
def test_a_model_that_makes_no_numbers_of_anything_is_not_loaded(tmp_path: Path, name: str) -> None:
    engine = made(name, tmp_path, whole=True)
    with pytest.raises(EngineError, match=r"for any text .*NaN or infinite"):
        engine.load()
    engine.close()
