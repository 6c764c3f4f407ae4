"""What each engine is declared to take, against the engines' own parameters, and how a job is refused for the rest."""

from __future__ import annotations

from typing import Any

import pytest

from producer import Job, Settings
from producer.contract.errors import InvalidJob, UnsupportedByEngine
from producer.contract.fleet.engine_abilities import ENGINES, SAMPLING, abilities, input_kind
from producer.contract.fleet.fleet_schema import Model
from producer.contract.message import celery_message
from workers.engines.encoders.classify import ClassifyParameters
from workers.engines.encoders.embed import EmbedParameters
from workers.engines.encoders.rerank import RerankParameters
from workers.engines.generation.choice.generate_parameters import GenerateParameters
from workers.engines.parameters import GenerationParameters

SETTINGS = Settings(
    models={
        "vectors": {"engine": "embed", "source": "x"},
        "labels": {"engine": "classify", "source": "x"},
        "scores": {"engine": "rerank", "source": "x"},
        "talk": {"engine": "generate", "source": "x"},
        "parrot": {"engine": "echo"},
    }
)
CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}]}


def refused(model: str, input: Any, **parameters: Any) -> UnsupportedByEngine:
    job = Job(model=model, tier="batch", input=input, parameters=parameters)
    with pytest.raises(UnsupportedByEngine) as error:
        celery_message.check(job, SETTINGS)
    return error.value


def test_the_table_has_the_parameters_that_the_engines_read() -> None:
    assert ENGINES["embed"].parameters == EmbedParameters.model_fields.keys()
    assert ENGINES["classify"].parameters == ClassifyParameters.model_fields.keys()
    assert ENGINES["rerank"].parameters == RerankParameters.model_fields.keys()
    assert ENGINES["generate"].parameters == GenerateParameters.model_fields.keys() | {"max_tokens"}
    assert GenerationParameters.model_fields.keys() | {"max_tokens"} == SAMPLING


@pytest.mark.parametrize(
    ("model", "input", "parameters"),
    [
        ("vectors", ["a", [1, 2]], {"dimensions": 64}),
        ("labels", {"text": "a", "text_pair": "b"}, {"top_k": 1}),
        ("scores", {"query": "a", "documents": ["b"]}, {"top_n": 1}),
        ("talk", [1, 2], {"logit_bias": {"1": 2}}),
        ("talk", CHAT, {"temperature": 0.5}),
        ("parrot", {"any": "thing"}, {"whatever": 1}),
    ],
)
def test_a_job_that_its_engine_takes_passes(model: str, input: Any, parameters: dict[str, Any]) -> None:
    celery_message.check(Job(model=model, tier="batch", input=input, parameters=parameters), SETTINGS)


def test_a_parameter_is_refused_by_name_with_the_engine_that_would_take_it() -> None:
    error = refused("vectors", "a", echo=True)
    assert error.param == "echo"
    assert "the engine 'embed' of the model 'vectors' takes no parameter 'echo'" in str(error)
    assert "(the engines generate, openai would)" in str(error)
    assert str(error).endswith("allowed: dimensions, prompt_name")
    assert "would)" not in str(refused("talk", "a", tmperature=1))


def test_a_structure_that_no_worker_would_compile_is_refused_at_submission() -> None:
    deep: dict[str, Any] = {"type": "integer"}
    for _ in range(60):
        deep = {"type": "array", "items": deep}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": deep}}
    job = Job(model="talk", tier="batch", input="a", parameters={"response_format": form})
    with pytest.raises(InvalidJob, match="levels deep; allowed: up to 50"):
        celery_message.check(job, SETTINGS)


def test_an_input_is_refused_by_its_kind() -> None:
    assert "input 1 is of kind messages" in str(refused("labels", ["a", CHAT]))
    assert "kind object" in str(refused("talk", {"text": "a"}))
    assert refused("talk", CHAT, top_n=1).param == "top_n"
    picture = {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]}
    error = refused("talk", picture)
    assert error.param == "messages.0.content.0"
    assert "is of type 'image_url'" in str(error)
    kinds: tuple[Any, ...] = ([], {}, None, 7)
    for kind in kinds:
        assert "allowed: text" in str(refused("talk", {"messages": [{"role": "user", "content": [{"type": kind}]}]}))


@pytest.mark.parametrize(
    ("item", "kind"),
    [("a", "text"), ([1], "token_ids"), (CHAT, "messages"), ({"query": "a"}, "documents"), ({"x": 1}, "object")],
)
def test_the_kind_of_an_input_is_told_by_its_keys(item: Any, kind: str) -> None:
    assert input_kind(item) == kind


def test_an_echo_takes_what_the_engine_that_it_imitates_takes() -> None:
    assert abilities(Model(engine="echo")).takes("whatever")
    imitation = abilities(Model.model_validate({"engine": "echo", "options": {"task": "generate"}}))
    assert imitation.takes("temperature")
    assert not imitation.takes("tools")
