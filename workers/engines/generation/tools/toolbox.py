"""The tools of a request: checked, given to the chat template, and forced by grammar if they must be called."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from producer.contract.errors import InvalidJob
from producer.contract.message.response_format import Structure

from .call_form import BEGIN, END, Answer, Form, take_apart

MOST_TOOLS = 128
"""Most tools of a request; OpenAI's limit."""


@dataclass(frozen=True, slots=True)
class Toolbox:
    """Tools that a model may call in a ``form``. ``forced`` are the names of those of which one must be called; with
    ``single``, only the first call counts."""

    tools: tuple[dict[str, Any], ...]
    form: Form
    forced: tuple[str, ...] = ()
    single: bool = False

    @classmethod
    def of(cls, tools: Any, choice: Any, form: Form | None, *, parallel: bool) -> Toolbox | None:
        """The tools of a request; None if it has none, or they are not to be used.

        Raises:
            InvalidJob: naming what is wrong, or that the model calls no tools.
        """
        named = _named(choice)
        if not tools or choice == "none":
            if named or choice == "required":
                raise InvalidJob(f"tool_choice = {choice!r:.80} needs tools; give them")
            return None
        names = _names(tools)
        if form is None:
            raise InvalidJob("tools: this model's chat template shows no form of tool calls that is known here")
        if named is not None and named not in names:
            raise InvalidJob(f"tool_choice names {named!r:.80}, which is no tool; allowed: {', '.join(names)}")
        forced = names if choice == "required" else () if named is None else [named]
        return cls(tuple(tools), form, tuple(forced), single=not parallel or named is not None)

    def answer(self, text: str, *, final: bool) -> Answer:
        """A text taken apart: see ``call_form.take_apart``."""
        found = take_apart(text, self.form, [tool["function"]["name"] for tool in self.tools], final=final)
        return Answer(found.content, found.calls[:1]) if self.single else found

    def structure(self) -> Structure | None:
        """What an answer must be if tools are forced: one call, or several. None if they are not.

        Raises:
            InvalidJob: when the parameters of a tool are no schema, or too large.
        """
        if not self.forced:
            return None
        key = "arguments" if self.form == "tagged" else "parameters"
        schema = json.loads(Structure.of_schema(self._schema(key), "tools").source)
        call = f"%json {json.dumps(schema)}"
        if self.form == "bare":
            return Structure("lark", f"start: {call}")
        several = "" if self.single else ' ("\\n" call)*'
        return Structure("lark", f'start: call{several}\ncall: "{BEGIN}\\n" body "\\n{END}"\nbody: {call}')

    def _schema(self, key: str) -> dict[str, Any]:
        """The schema of any forced call. References within the parameters of a tool are moved with them."""
        definitions, calls = {}, []
        for number, tool in enumerate(self.tools):
            function = tool["function"]
            if function["name"] in self.forced:
                place = f"tool{number}"
                definitions[place] = _moved(function.get("parameters") or {"type": "object"}, f"#/$defs/{place}")
                calls.append(
                    {
                        "type": "object",
                        "properties": {"name": {"const": function["name"]}, key: {"$ref": f"#/$defs/{place}"}},
                        "required": ["name", key],
                        "additionalProperties": False,
                    }
                )
        guidance = {"whitespace_flexible": False, "key_separator": ": ?", "item_separator": ", ?"}
        return {"anyOf": calls, "$defs": definitions, "x-guidance": guidance}


def _named(choice: Any) -> str | None:
    """The name of the tool that must be called, if one is.

    Raises:
        InvalidJob: when it is no choice of tools.
    """
    if choice in (None, "none", "auto", "required"):
        return None
    function = choice.get("function") if isinstance(choice, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str):
        raise InvalidJob(
            f'tool_choice = {choice!r:.80}; allowed: none, auto, required, or {{"type": "function", "function": '
            '{"name": ...}}'
        )
    return name


def _names(tools: Any) -> list[str]:
    if not isinstance(tools, list) or len(tools) > MOST_TOOLS:
        raise InvalidJob(f"tools must be a list of up to {MOST_TOOLS} tools")
    names = []
    for number, tool in enumerate(tools):
        function = tool.get("function") if isinstance(tool, dict) else None
        name = function.get("name") if isinstance(function, dict) else None
        if not isinstance(name, str) or not name:
            raise InvalidJob(f'tools.{number} must be {{"type": "function", "function": {{"name", "parameters"}}}}')
        names.append(name)
    return names


def _moved(schema: Any, place: str) -> Any:
    """A schema whose references to itself are to ``place``."""
    if isinstance(schema, list):
        return [_moved(each, place) for each in schema]
    if not isinstance(schema, dict):
        return schema
    moved = {key: _moved(value, place) for key, value in schema.items()}
    reference = schema.get("$ref")
    return {**moved, "$ref": place + reference[1:]} if isinstance(reference, str) and reference[:1] == "#" else moved
