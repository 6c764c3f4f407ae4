"""Tool calls in answers: read whole and while they are made, and forced by grammar."""

import json
from typing import Any

import pytest

from producer.contract.errors import InvalidJob
from workers.engines.generation.tools.call_form import Answer, Call, Form, form_of, take_apart
from workers.engines.generation.tools.toolbox import Toolbox

PARIS = '{"city": "Pa\\"}<ris", "days": [1, {"a": 2}]}'
ONE = '<tool_call>\n{"name": "weather", "arguments": ' + PARIS + "}\n</tool_call>"
TWO = '<tool_call>{"name": "time", "arguments": {}}</tool_call>'
SWAPPED = '<tool_call>\n{"arguments": {"city": "Rome"}, "name": "weather"}\n</tool_call>'
BARE = '{"name": "weather", "parameters": ' + PARIS + "}"
BARE_TIME = '{"name": "time", "parameters": {}}'
NAMES = ("weather", "time")

TEXTS: list[tuple[str, Form, Answer]] = [
    ("just words", "tagged", Answer("just words")),
    ("a < b and <tool", "tagged", Answer("a < b and <tool")),
    (ONE, "tagged", Answer("", [Call("weather", PARIS)])),
    (f"Let me look.\n{ONE}\n{TWO}\n", "tagged", Answer("Let me look.\n", [Call("weather", PARIS), Call("time", "{}")])),
    (SWAPPED, "tagged", Answer("", [Call("weather", '{"city": "Rome"}')])),
    ("<tool_call>no JSON</tool_call>", "tagged", Answer("<tool_call>no JSON</tool_call>")),
    ('<tool_call>{"name": "time", "arguments": {"at', "tagged", Answer("", [Call("time", '{"at')])),
    (BARE, "bare", Answer("", [Call("weather", PARIS)])),
    (
        f" {BARE}; {BARE_TIME}",
        "bare",
        Answer("", [Call("weather", PARIS), Call("time", "{}")]),
    ),
    ("just words", "bare", Answer("just words")),
    ('{"answer": 42}', "bare", Answer('{"answer": 42}')),
    ('{"name": "Ada", "arguments": {}}', "bare", Answer('{"name": "Ada", "arguments": {}}')),
    ("", "bare", Answer("")),
]


@pytest.mark.parametrize(("text", "form", "answer"), TEXTS)
def test_a_text_is_taken_apart(text: str, form: Form, answer: Answer) -> None:
    assert take_apart(text, form, NAMES, final=True) == answer


@pytest.mark.parametrize(("text", "form", "answer"), TEXTS)
def test_what_is_told_while_it_is_made_is_never_taken_back(text: str, form: Form, answer: Answer) -> None:
    seen = Answer()
    for length in range(len(text) + 1):
        found = take_apart(text[:length], form, NAMES, final=False)
        assert found.content.startswith(seen.content)
        assert [call.name for call in found.calls[: len(seen.calls)]] == [call.name for call in seen.calls]
        for new, old in zip(found.calls, seen.calls, strict=False):
            assert new.arguments.startswith(old.arguments)
        seen = found
    assert answer.content.startswith(seen.content)
    for final, old in zip(answer.calls, seen.calls, strict=False):
        assert final.arguments.startswith(old.arguments.rstrip())
    if answer.calls and text == ONE:
        middle = take_apart(text[:60], form, NAMES, final=False)
        assert middle.calls[0].arguments, "arguments are told before they are complete"


@pytest.mark.parametrize(
    ("template", "form"),
    [
        (None, None),
        ("{{ messages }}", None),
        ("{% if tools %}<tool_call>{% endif %}", "tagged"),
        ("{% if tools %}<tool_call><function=name>{% endif %}", None),
        ('{% if tools %}{"name": name, "parameters": {}}<|python_tag|>{% endif %}', "bare"),
        ("{% if tools %}[TOOL_CALLS]{% endif %}", None),
    ],
)
def test_the_template_tells_the_form(template: str | None, form: Form | None) -> None:
    assert form_of(template) == form


def tool(name: str, **parameters: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


def test_only_what_may_be_called_is_forced() -> None:
    tools = [tool("a", type="object"), tool("b", type="object", properties={"x": {"$ref": "#/$defs/n"}})]
    assert Toolbox.of(tools, None, "tagged", parallel=True) == Toolbox(tuple(tools), "tagged")
    assert Toolbox.of(tools, "none", "tagged", parallel=True) is None
    assert Toolbox.of([], "auto", None, parallel=True) is None
    named = Toolbox.of(tools, {"type": "function", "function": {"name": "b"}}, "bare", parallel=True)
    assert named is not None
    structure = named.structure()
    assert structure is not None
    schema = json.loads(structure.source.removeprefix("start: %json "))
    assert [call["properties"]["name"] for call in schema["anyOf"]] == [{"const": "b"}]
    assert schema["$defs"]["tool1"]["properties"]["x"] == {"$ref": "#/$defs/tool1/$defs/n"}


@pytest.mark.parametrize(
    ("tools", "choice", "form", "said"),
    [
        ([tool("a")], None, None, "shows no form of tool calls"),
        (None, "required", "tagged", "needs tools"),
        ([tool("a")], {"type": "function", "function": {"name": "b"}}, "tagged", "'b', which is no tool; allowed: a"),
        ([tool("a")], "always", "tagged", "tool_choice = 'always'; allowed"),
        ([{"name": "a"}], None, "tagged", "tools.0 must be"),
        ([tool("a")] * 129, None, "tagged", "up to 128 tools"),
    ],
)
def test_what_is_wrong_is_named(tools: Any, choice: Any, form: Form | None, said: str) -> None:
    with pytest.raises(InvalidJob, match=said):
        Toolbox.of(tools, choice, form, parallel=True)
