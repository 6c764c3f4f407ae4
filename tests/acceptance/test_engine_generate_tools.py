"""Tools: shown to the model by its template, called in its form, and forced by grammar, with random weights."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

import tiny_models
from generating import Told, left_empty, loaded, run, stream, text
from producer.contract.errors import InvalidJob
from producer.contract.message.tool_call import call_head
from workers.engines.generation.chat import ChatOptions
from workers.engines.generation.generate import GenerateEngine
from workers.engines.protocol import Request

TEMPLATE = (
    "{% if tools %}{% for tool in tools %}{{ tool.function.name }} {% endfor %}as <tool_call>\n{% endif %}"
    "{% for m in messages %}{{ m.role }}: {{ m.content }}"
    "{% for c in m.tool_calls or [] %}{{ c.function.name }}({{ c.function.arguments.city }}){% endfor %}"
    "{{ '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ mark | default('assistant') }}: {% endif %}"
)
CITY = {"type": "string", "maxLength": 9}
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"$ref": "#/$defs/city"}},
            "required": ["city"],
            "additionalProperties": False,
            "$defs": {"city": CITY},
        },
    },
}
TIME = {"type": "function", "function": {"name": "time"}}
CHAT: Any = {"messages": [{"role": "user", "content": "How is it there?"}]}
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Rome"}}\n</tool_call>'


@pytest.fixture(scope="module", params=["tagged", "bare"])
def loaded_engine(request: pytest.FixtureRequest) -> Iterator[GenerateEngine]:
    template = TEMPLATE if request.param == "tagged" else TEMPLATE.replace("<tool_call>", "<|python_tag|>")
    with loaded(source=tiny_models.byte_level_llama(chat_template=template)) as engine:
        yield engine


@pytest.fixture
def engine(loaded_engine: GenerateEngine) -> Iterator[GenerateEngine]:
    with left_empty(loaded_engine) as engine:
        yield engine


def calls_of(told: Told, name: str) -> list[tuple[str, Any]]:
    """The calls of an answer, which its stream told alike."""
    outputs = told.outcomes[name].outputs
    assert outputs is not None
    assert told.outcomes[name].error is None
    for number, call in enumerate(outputs[0].get("tool_calls", ())):
        pieces = "".join(piece.text for piece in told.pieces[name, 0] if piece.call == number)
        assert call_head(pieces) == (call["id"], call["function"]["name"], call["function"]["arguments"])
    said = "".join(piece.text for piece in told.pieces.get((name, 0), ()) if piece.call is None)
    assert said == outputs[0]["text"]
    calls = [call["function"] for call in outputs[0].get("tool_calls", ())]
    return [(call["name"], json.loads(call["arguments"])) for call in calls]


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "weather"}}])
def test_a_call_is_forced_with_its_parameters(engine: GenerateEngine, choice: Any) -> None:
    asked = {"tools": [WEATHER, TIME], "tool_choice": choice, "parallel_tool_calls": False, "max_tokens": 60}
    if choice == "required":
        asked["tools"] = [WEATHER]
    requests = [Request(str(n), [CHAT], {**asked, "temperature": 1.0, "seed": n}, stream=True) for n in range(4)]
    told = stream(engine, *requests)
    for name, outcome in told.outcomes.items():
        [(called, arguments)] = calls_of(told, name)
        assert called == "weather"
        assert arguments.keys() == {"city"}
        assert len(arguments["city"]) <= 9
        assert outcome.outputs is not None
        assert outcome.outputs[0]["finish_reason"] == "tool_calls"
        assert outcome.outputs[0]["text"] == ""


def test_calls_are_read_out_of_what_the_model_says(engine: GenerateEngine) -> None:
    tagged = engine._prompts.chat.form == "tagged"
    said = f"I look.\n{CALL}\n{CALL}" if tagged else '{"name": "weather", "parameters": {"city": "Rome"}}'
    asked = {
        "tools": [WEATHER, TIME],
        "response_format": {"type": "choice", "choices": [said]},
        "max_tokens": 200,
        "logprobs": 0,
    }
    told = stream(
        engine,
        Request("a", [CHAT], asked, stream=True),
        Request("one", [CHAT], {**asked, "parallel_tool_calls": False}, stream=True),
        Request("none", [CHAT], {**asked, "tool_choice": "none"}, stream=True),
    )
    one = ("weather", {"city": "Rome"})
    assert calls_of(told, "a") == ([one, one] if tagged else [one])
    assert calls_of(told, "one") == [one]
    assert calls_of(told, "none") == []
    assert text(told.outcomes["none"]) == said
    outputs = told.outcomes["a"].outputs
    assert outputs is not None
    assert outputs[0]["text"] == ("I look.\n" if tagged else "")
    assert len({call["id"] for call in outputs[0]["tool_calls"]}) == len(outputs[0]["tool_calls"])
    again = run(engine, Request("b", [CHAT], {**asked, "seed": 3}), Request("c", [CHAT], {**asked, "seed": 3}))
    assert again["b"].outputs == again["c"].outputs, "ids are the same when a job runs again"


def test_the_template_is_given_all_of_a_chat(engine: GenerateEngine) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}
    chat: Any = {
        "messages": [
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "How"}, {"type": "text", "text": "is it?"}]},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
        ]
    }
    render = engine._prompts.chat.render
    body = "system: Be brief.\nuser: How\nis it?\nassistant: weather(Rome)\ntool: sunny\n"
    assert render(chat, 0, ChatOptions()) == f"{body}assistant: "
    assert render(chat, 0, ChatOptions(tools=(TIME,))).startswith("time as <")
    assert render(chat, 0, ChatOptions(arguments={"mark": "bot"})) == f"{body}bot: "
    assert render(chat, 0, ChatOptions(begins_answer=False)) == body
    begun: Any = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Well, I"}]}
    assert render(begun, 0, ChatOptions(continues=True)) == "user: Hi\nassistant: Well, I"


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"chat_template_kwargs": {"chat_template": "x"}}, "chat_template_kwargs.chat_template is no argument"),
        ({"tools": [{"name": "a"}]}, "tools.0 must be"),
        ({"tool_choice": "required"}, "needs tools"),
        (
            {"tools": [{**TIME, "function": {"name": "a", "parameters": {"not": {}}}}], "tool_choice": "required"},
            "Unimplemented keys",
        ),
    ],
)
def test_what_is_wrong_is_refused(engine: GenerateEngine, parameters: dict[str, Any], said: str) -> None:
    error = run(engine, Request("a", [CHAT], parameters))["a"].error
    assert isinstance(error, InvalidJob)
    assert said in str(error)
