"""What the openai engine passes on to a server, and gives back of its answers: ``tests/openai_stub.py``, over HTTP."""

import json
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from producer.contract.errors import InvalidJob, UnsupportedByEngine
from producer.contract.fleet import engine_abilities
from producer.contract.fleet.fleet_schema import Model
from workers.engines.openai.engine import OpenAIEngine
from workers.engines.protocol import Outcome, OutputPiece, Request

STUB = str(Path(__file__).parents[1] / "openai_stub.py")
TOOLS = [
    {
        "type": "function",
        "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
    }
]
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}


def model(**options: Any) -> Model:
    fields = {"command": [sys.executable, STUB, "--port", "{port}"], **options}
    return Model.model_validate({"engine": "openai", "max_concurrency": 4, "options": fields})


@pytest.fixture(scope="module")
def engine() -> Iterator[OpenAIEngine]:
    engine = OpenAIEngine(model(passes=["custom"], contents=["image_url"]), "cpu:0")
    engine.load()
    yield engine
    engine.close()


def chat(*content: Any) -> Any:
    return {"messages": [{"role": "user", "content": content[0] if len(content) == 1 else list(content)}]}


def run(engine: OpenAIEngine, item: Any, stream: bool = False, **parameters: Any) -> tuple[Outcome, list[OutputPiece]]:
    engine.submit(Request("a", [item], parameters, stream=stream))
    pieces: list[OutputPiece] = []
    while True:
        for report in engine.step(1.0):
            if isinstance(report, Outcome):
                return report, pieces
            if isinstance(report, OutputPiece):
                pieces.append(report)


def sent(engine: OpenAIEngine) -> dict[str, Any]:
    with urllib.request.urlopen(f"http://127.0.0.1:{engine._port}/seen") as answer:
        body: dict[str, Any] = json.loads(answer.read())["requests"][-1]["body"]
    return body


def test_parameters_are_passed_on_under_the_names_of_the_api(engine: OpenAIEngine) -> None:
    given: dict[str, Any] = {
        "min_p": 0.1,
        "frequency_penalty": 1,
        "chat_template_kwargs": {"a": 1},
        "custom": [1],
        "seed": 3,
    }
    run(engine, chat("hi"), max_tokens=2, logprobs=2, response_format={"type": "regex", "regex": "a+"}, **given)
    body = sent(engine)
    assert {name: body[name] for name in given} == given
    assert (body["max_tokens"], body["logprobs"], body["top_logprobs"]) == (2, True, 2)
    assert body["structured_outputs"] == {"regex": "a+"}
    assert "response_format" not in body
    run(engine, "hi", max_tokens=2, logprobs=2, echo=True)
    assert (sent(engine)["logprobs"], sent(engine)["echo"]) == (2, True)
    run(engine, [5, 6], max_tokens=2)
    assert sent(engine)["prompt"] == [5, 6]


def test_a_parameter_that_nobody_allowed_is_refused(engine: OpenAIEngine) -> None:
    outcome, _ = run(engine, "hi", priority=-1)
    assert isinstance(outcome.error, InvalidJob)
    assert "parameters.priority: no such parameter" in str(outcome.error)


def test_what_is_the_request_itself_is_never_passed() -> None:
    able = engine_abilities.abilities(model(passes="all"))
    assert able.takes("priority")
    assert not any(map(able.takes, ("model", "stream", "n", "messages")))
    with pytest.raises(ValueError, match="stream is the engine's own to set"):
        model(passes=["stream"])


def test_tool_calls_are_given_back_streamed_and_whole(engine: OpenAIEngine) -> None:
    outcome, pieces = run(engine, chat("Rome?"), stream=True, tools=TOOLS)
    assert outcome.outputs is not None
    (output,) = outcome.outputs
    arguments = '{"city": "w0"}'
    assert output["finish_reason"] == "tool_calls"
    assert output["tool_calls"] == [
        {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": arguments}}
    ]
    assert "".join(piece.text for piece in pieces if piece.call == 0) == f"call_1 weather\n{arguments}"
    assert len([piece for piece in pieces if piece.call == 0]) > 1
    assert outcome.usage == {"input_tokens": 9, "output_tokens": 4, "cached_tokens": 8, "reasoning_tokens": 3}


@pytest.mark.parametrize("item", ["one", chat("one")], ids=["completion", "chat"])
def test_log_probabilities_are_given_back_in_one_form(engine: OpenAIEngine, item: Any) -> None:
    outcome, pieces = run(engine, item, stream=True, max_tokens=2, logprobs=2)
    assert outcome.outputs is not None
    told = outcome.outputs[0]["logprobs"]
    assert [(each["token"], each["logprob"], each["bytes"]) for each in told] == [
        (" w0", -0.25, [32, 119, 48]),
        (" w1", -0.5, [32, 119, 49]),
    ]
    assert [each["token"] for each in told[1]["top_logprobs"]] == [" w1", " x"]
    assert [entry for piece in pieces for entry in piece.logprobs] == told


def test_content_of_the_declared_types_is_passed_on_and_urls_are_not(engine: OpenAIEngine) -> None:
    settings = model(contents=["image_url"])
    item = chat({"type": "text", "text": "What is it?"}, PICTURE)
    engine_abilities.check(settings, "m", [item], {})
    run(engine, item, max_tokens=1)
    assert sent(engine)["messages"] == item["messages"]
    elsewhere = {"type": "image_url", "image_url": {"url": "http://10.0.0.1/x.png"}}
    with pytest.raises(UnsupportedByEngine, match="which the server would fetch"):
        engine_abilities.check(settings, "m", [chat(elsewhere, PICTURE)], {})
    engine_abilities.check(model(contents=["image_url"], fetches=True), "m", [chat(elsewhere, PICTURE)], {})
    with pytest.raises(UnsupportedByEngine, match="is of type 'input_audio'"):
        engine_abilities.check(settings, "m", [chat({"type": "input_audio"}, PICTURE)], {})
