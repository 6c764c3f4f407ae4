"""Reranking with a cross-encoder that is built here: its own scores, in the order and number that was asked for."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny_models
from deploy.machine.server import Server
from encoding import loaded, run, told
from processes import Fleet
from producer.contract.errors import InvalidJob, ModelNotFound
from workers.engines.protocol import Engine, Request

QUERY = "Which animal jumps?"
DOCUMENTS = [" ".join(["The quick brown fox", *["jumps over"] * words]) for words in (0, 30, 1, 45, 3, 29, 200, 7)]
IDENTITY = "torch.nn.modules.linear.Identity"


def load(source: str) -> Engine:
    return loaded("rerank", source)


@pytest.fixture(scope="module")
def source() -> str:
    return tiny_models.sequence_classifier(1)


@pytest.fixture(scope="module")
def engine(source: str) -> Iterator[Engine]:
    engine = load(source)
    yield engine
    engine.close()


def alone(source: str, query: str, documents: list[str]) -> torch.Tensor:
    """The model's own logit of each document, by itself."""
    return torch.cat([tiny_models.logits_alone(source, query, document) for document in documents])


def assert_ranked(output: dict[str, Any], expected: torch.Tensor) -> None:
    order = expected.argsort(descending=True).tolist()
    assert [result["index"] for result in output["results"]] == order
    found = torch.tensor([result["relevance_score"] for result in output["results"]])
    torch.testing.assert_close(found, expected[order], atol=1e-5, rtol=0)


def test_in_company_of_all_lengths_as_the_model_says_of_each_alone(engine: Engine, source: str) -> None:
    """The last but one is longer than the model reads, and cut."""
    other = "What does the fox do?"
    both: list[Any] = [{"query": QUERY, "documents": DOCUMENTS}, {"query": other, "documents": DOCUMENTS[:3]}]
    outcomes = run(engine, Request("a", both), Request("b", both[1:]))
    assert outcomes["a"].batch_size == 4
    expected = alone(source, QUERY, DOCUMENTS).sigmoid()
    assert expected.std() > 0.01
    assert expected.argsort(descending=True).tolist() != list(range(len(DOCUMENTS)))
    assert_ranked(told(outcomes["a"])[0], expected)
    for output in (told(outcomes["a"])[1], told(outcomes["b"])[0]):
        assert_ranked(output, alone(source, other, DOCUMENTS[:3]).sigmoid())


def test_the_best_documents_alone(engine: Engine) -> None:
    item: Any = {"query": QUERY, "documents": DOCUMENTS}
    outcomes = run(engine, Request("all", [item]), Request("best", [item], {"top_n": 3}))
    [everything], [best] = told(outcomes["all"]), told(outcomes["best"])
    assert [result["index"] for result in best["results"]] == [r["index"] for r in everything["results"]][:3]
    assert outcomes["best"].usage == outcomes["all"].usage


def test_single_pairs_are_scored_in_order(engine: Engine, source: str) -> None:
    outcome = run(engine, Request("a", [{"query": QUERY, "document": document} for document in DOCUMENTS]))["a"]
    found = torch.tensor([output["relevance_score"] for output in told(outcome)])
    torch.testing.assert_close(found, alone(source, QUERY, DOCUMENTS).sigmoid(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("where", ["config.json", "config_sentence_transformers.json", "as before 4.0"])
def test_the_activation_that_the_models_files_name(where: str, tmp_path: Path) -> None:
    plain = Path(tiny_models.sequence_classifier(1))
    for file in plain.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    if where == "config_sentence_transformers.json":
        (tmp_path / where).write_text(json.dumps({"activation_fn": IDENTITY}))
    else:
        config = json.loads((plain / "config.json").read_text())
        if where == "config.json":
            config["sentence_transformers"] = {"activation_fn": IDENTITY}
        else:
            config["sbert_ce_default_activation_function"] = IDENTITY
        (tmp_path / "config.json").write_text(json.dumps(config))
    engine = load(str(tmp_path))
    assert_ranked(
        told(run(engine, Request("a", [{"query": QUERY, "documents": [*DOCUMENTS]}]))["a"])[0],
        alone(str(plain), QUERY, DOCUMENTS),
    )
    engine.close()


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ("a text", "input 1 is of type str; allowed here: {"),
        ({"query": "x"}, "input 1 has keys ['query']; allowed: {"),
        ({"query": "x", "documents": []}, "with at least one document"),
        ({"query": "x", "documents": "y"}, "with at least one document"),
        ({"query": "x", "documents": ["y"], "document": "y"}, "input 1 has keys ['document', 'documents', 'query']"),
        ({"query": None, "documents": ["y"]}, "input 1 is of type NoneType; allowed here: a text"),
        ({"query": "x", "documents": ["y", {"text": "z"}]}, "input 1 is of type dict; allowed here: a text"),
    ],
)
def test_what_is_wrong_is_named(engine: Engine, item: Any, said: str) -> None:
    error = run(engine, Request("a", [{"query": "x", "document": "y"}, item]))["a"].error
    assert isinstance(error, InvalidJob)
    assert said in str(error)


def test_parameters_that_are_wrong_are_named(engine: Engine) -> None:
    error = run(engine, Request("a", [{"query": "x", "document": "y"}], {"top_n": "3"}))["a"].error
    assert isinstance(error, InvalidJob)
    assert "parameters.top_n = '3'" in str(error)


def test_a_model_that_tells_labels_apart_ranks_nothing() -> None:
    with pytest.raises(ModelNotFound, match=r"has 3 labels; .*use engine = 'classify'"):
        load(tiny_models.sequence_classifier(3))


def test_an_activation_that_is_not_known_is_named() -> None:
    with pytest.raises(ModelNotFound, match=r"applies torch\.nn\.Tanh to its scores; allowed: Sigmoid, Identity"):
        load(tiny_models.sequence_classifier(1, activation="torch.nn.Tanh"))


@pytest.mark.slow
def test_through_a_worker(redis: object, server: Server, make_fleet: Callable[[str, str], Fleet], source: str) -> None:
    fleet = make_fleet(server.url, f'[models.m]\nengine = "rerank"\nsource = "{source}"')
    fleet.worker("m", "w")
    item: Any = {"query": QUERY, "documents": DOCUMENTS}
    one = fleet.client.submit("m", item, parameters={"top_n": 2})
    many = fleet.client.submit("m", [item, {"query": QUERY, "document": DOCUMENTS[0]}])
    expected = alone(source, QUERY, DOCUMENTS).sigmoid()
    best = fleet.client.result(one, timeout=60).output["results"]
    assert [result["index"] for result in best] == expected.argsort(descending=True).tolist()[:2]
    outputs = fleet.client.result(many, timeout=60).output
    assert_ranked(outputs[0], expected)
    assert outputs[1]["relevance_score"] == pytest.approx(float(expected[0]), abs=1e-5)
