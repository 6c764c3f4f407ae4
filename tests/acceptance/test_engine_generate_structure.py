"""Structured output: the answers of a model with random weights, which says anything, follow what was asked for."""

import json
import re
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest

import tiny_models
from generating import left_empty, loaded, run, stream, text
from producer.contract.errors import InvalidJob
from workers.engines.generation.generate import GenerateEngine
from workers.engines.protocol import Request

SHORT = {"type": "string", "maxLength": 12}
PLACE = {"type": "object", "properties": {"at": SHORT}, "required": ["at"], "additionalProperties": False}
PERSON = {
    "type": "object",
    "properties": {
        "name": SHORT,
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["red", "green", 3, None]}, "maxItems": 3},
        "home": {"anyOf": [{"$ref": "#/$defs/place"}, {"type": "null"}]},
    },
    "required": ["name", "age", "home"],
    "additionalProperties": False,
    "$defs": {"place": PLACE},
}


def schema(fields: Any) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": fields}}}


def regex(pattern: str) -> dict[str, Any]:
    return {"response_format": {"type": "regex", "regex": pattern}}


@pytest.fixture(scope="module")
def loaded_engine() -> Iterator[GenerateEngine]:
    with loaded(source=tiny_models.byte_level_llama()) as engine:
        yield engine


@pytest.fixture
def engine(loaded_engine: GenerateEngine) -> Iterator[GenerateEngine]:
    with left_empty(loaded_engine) as engine:
        yield engine


def test_answers_follow_the_schema_each_of_its_own_beside_free_ones(engine: GenerateEngine) -> None:
    parameters = {"max_tokens": 200, "temperature": 1.0, **schema(PERSON)}
    free = {"max_tokens": 20, "temperature": 1.0, "seed": 1}
    alone = text(run(engine, Request("free", ["hello"], free))["free"])
    requests = [Request(str(seed), ["hello"], {**parameters, "seed": seed}) for seed in range(8)]
    requests += [Request("free", ["hello"], free), Request("date", ["on"], regex(r"\d{4}-\d\d-\d\d"))]
    outcomes = run(engine, *requests)
    assert text(outcomes.pop("free")) == alone
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", text(outcomes.pop("date")))
    validator = jsonschema_rs.validator_for(PERSON)
    for outcome in outcomes.values():
        assert validator.is_valid(json.loads(text(outcome))), text(outcome)
        assert outcome.outputs is not None
        assert outcome.outputs[0]["finish_reason"] == "stop"
    assert len({text(outcome) for outcome in outcomes.values()}) == 8


@pytest.mark.parametrize("greedy", [True, False])
def test_choices(engine: GenerateEngine, greedy: bool) -> None:
    choices = ['say "no"', "yes\n", "größer", "\\"]
    asked = {"response_format": {"type": "choice", "choices": choices}, "max_tokens": 20}
    drawn = {} if greedy else {"temperature": 5}
    outcomes = run(engine, *(Request(str(n), ["x"], {**asked, **drawn, "seed": n}) for n in range(6)))
    assert {text(outcome) for outcome in outcomes.values()} <= set(choices)


def test_a_stream_ends_where_the_grammar_does_and_tells_its_log_probabilities(engine: GenerateEngine) -> None:
    told = stream(engine, Request("a", ["x"], {**regex("(ab){3}"), "logprobs": 1}, stream=True))
    output = told.outcomes["a"].outputs
    assert output is not None
    assert told.text("a") == output[0]["text"] == "ababab"
    assert "".join(entry["token"] for entry in output[0]["logprobs"]) == "ababab"


def test_any_object(engine: GenerateEngine) -> None:
    asked = {"response_format": {"type": "json_object"}, "max_tokens": 30, "temperature": 1.0, "seed": 5}
    assert text(run(engine, Request("a", ["x"], asked))["a"]).startswith("{")


def deep(levels: int) -> dict[str, Any]:
    found: dict[str, Any] = {"type": "integer"}
    for _ in range(levels):
        found = {"type": "array", "items": found}
    return found


FORKED = {"anyOf": [{"properties": {"a": {"type": "integer"}}}, {"properties": {"b": {"type": "string"}}}]}

WIDE = {"properties": {f"k{n}": {"type": "string"} for n in range(1500)}}

HOSTILE: dict[str, tuple[dict[str, Any], str]] = {
    "deep": (schema(deep(60)), "nested 6[01] levels deep; allowed: up to 50"),
    "large": (schema({"enum": ["x" * 70_000]}), "has 70.* characters; allowed: up to 65536"),
    "exponential": (schema({"allOf": [FORKED] * 30}), "cannot be fulfilled here"),
    "endless": (schema({"$ref": "#"}), "no answer|cannot be fulfilled"),
    "elsewhere": (schema({"$ref": "http://example.org/schema.json"}), "not present|retriev"),
    "unsupported": (schema({"not": {"type": "string"}}), 'Unimplemented keys: \\["not"\\]'),
    "nothing": (schema(False), "is a bool; allowed: a JSON schema"),
    "no schema": ({"response_format": {"type": "json_schema"}}, "json_schema.schema is missing"),
    "no type": ({"response_format": {"type": "yaml"}}, "of type 'yaml'; allowed"),
    "look-around": (regex("(?=a)b"), "look-around"),
    "broken": (regex("("), "unclosed group"),
    "long": (regex("a" * 9000), "1 to 8192 characters"),
    "no choice": ({"response_format": {"type": "choice", "choices": []}}, "1 to 1000 texts"),
}


def test_what_cannot_be_followed_is_refused_with_the_reason_and_harms_no_neighbour(engine: GenerateEngine) -> None:
    requests = [Request(name, ["x"], {**fields, "max_tokens": 40}) for name, (fields, _) in HOSTILE.items()]
    requests += [Request("good", ["x"], regex("a{5}")), Request("free", ["x"], {"max_tokens": 5})]
    requests.append(Request("wide", ["x"], {**schema(WIDE), "max_tokens": 5}))
    outcomes = run(engine, *requests)
    wide = outcomes["wide"].error
    assert wide is None or isinstance(wide, InvalidJob), "its limits may end it while it runs"
    assert text(outcomes["good"]) == "aaaaa"
    assert outcomes["free"].error is None
    for name, (_, said) in HOSTILE.items():
        error = outcomes[name].error
        assert isinstance(error, InvalidJob), name
        assert re.search(said, str(error)), (name, str(error))


def test_grammars_are_kept_and_their_number_is_bounded(engine: GenerateEngine) -> None:
    run(engine, *(Request(str(n), ["x"], regex(f"a{{{n}}}")) for n in range(1, 80)))
    assert len(engine._grammars._kept) == 64
    before = list(engine._grammars._kept)
    run(engine, Request("a", ["x"], regex("a{70}")))
    assert sorted(map(str, engine._grammars._kept)) == sorted(map(str, before)), "compiled once"


def test_a_tokenizer_without_bytes_is_told_as_the_reason() -> None:
    with loaded(source=tiny_models.llama()) as engine:
        error = run(engine, Request("a", ["x"], regex("a")))["a"].error
    assert isinstance(error, InvalidJob)
    assert "tokenizer supports no structured output" in str(error)
