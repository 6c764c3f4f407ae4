"""The forms in which models write tool calls, and the calls in a text, also while it is made.

Which form a model writes is told by its chat template. The forms are those of vLLM's parsers ``hermes`` (Hermes, Qwen)
and ``llama3_json``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Literal

BEGIN, END = "<tool_call>", "</tool_call>"

_HEAD = re.compile(r'\s*\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"(?:arguments|parameters)"\s*:\s*', re.DOTALL)
_SPACE = re.compile(r"\s*")

Form = Literal["tagged", "bare"]
"""``tagged``: each call is JSON between ``BEGIN`` and ``END``; ``bare``: the answer is the JSON of a call, or of
several with semicolons between them."""


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a tool: ``arguments`` is JSON as the model wrote it, the beginning of it while it is made."""

    name: str
    arguments: str


@dataclass(slots=True)
class Answer:
    """A text taken apart: what is said, and the calls."""

    content: str = ""
    calls: list[Call] = field(default_factory=list)


def form_of(template: str | None) -> Form | None:
    """The form that a chat template shows; None for one that takes no tools, or shows another form."""
    if not template or "tools" not in template or "<function=" in template:
        return None
    if BEGIN in template:
        return "tagged"
    return "bare" if "<|python_tag|>" in template or '"parameters"' in template else None


def take_apart(text: str, form: Form, names: Collection[str], *, final: bool) -> Answer:
    """The calls in a text, and the rest.

    Args:
        names: the tools of the request; an answer that is JSON without one of these names is no bare call.
        final: whether the text is complete; until then, what may become a call is held back.
    """
    return _tagged(text, final=final) if form == "tagged" else _bare(text, names, final=final)


def _tagged(text: str, *, final: bool) -> Answer:
    answer, at, said = Answer(), 0, []
    while (begin := text.find(BEGIN, at)) >= 0:
        said.append(text[at:begin])
        end = text.find(END, begin)
        call, _ = _call(text, begin + len(BEGIN), len(text) if end < 0 else end, final=final or end >= 0)
        at = len(text) if end < 0 else end + len(END)
        if call is not None:
            answer.calls.append(call)
        elif final or end >= 0:
            said.append(text[begin:at])  # it is no call
    rest = text[at:]
    said.append(rest if final else rest[: len(rest) - _held(rest, BEGIN)])
    answer.content = "".join(part for part in said if part.strip())
    return answer


def _bare(text: str, names: Collection[str], *, final: bool) -> Answer:
    answer, position = Answer(), _past_space(text, 0)
    if text[position : position + 1] not in ("{", "") or (not text[position:] and final):
        return Answer(text)
    while text[position : position + 1] == "{":
        call, end = _call(text, position, len(text), final=final)
        if call is None or call.name not in names:
            undecided = not final and (call is None and end is None)
            return Answer("" if undecided or answer.calls else text, answer.calls)
        answer.calls.append(call)
        if end is None:
            break
        position = _past_space(text, end)
        if text[position : position + 1] == ";":
            position = _past_space(text, position + 1)
    return answer


def _call(text: str, begin: int, limit: int, *, final: bool) -> tuple[Call | None, int | None]:
    """The call whose JSON begins at ``begin``, and the end of its JSON; None while, or if, either is not there."""
    head = _HEAD.match(text, begin, limit)
    if head is not None:
        name, at = json.loads(head[1], strict=False), head.end()
        end = _end_of_value(text, at, limit)
        arguments = text[at : limit if end is None else end]
        if end is None:
            return Call(name, arguments.rstrip() if final else arguments), None
        close = _end_of_value(text, _past_space(text, begin), limit)
        return Call(name, arguments), end if close is None else close
    start = _past_space(text, begin)
    end = _end_of_value(text, start, limit)
    if end is None:
        return None, None
    try:
        found = json.loads(text[start:end], strict=False)
        arguments = found.get("arguments", found.get("parameters", {}))
        return Call(str(found["name"]), json.dumps(arguments, ensure_ascii=False)), end
    except (ValueError, KeyError, AttributeError):
        return None, end


def _past_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _end_of_value(text: str, begin: int, limit: int) -> int | None:
    """Where the object or array that begins at ``begin`` ends; None while it does not, or if there is none."""
    if text[begin : begin + 1] not in ("{", "["):
        return None
    depth, at = 0, begin
    for found in _STRUCTURE.finditer(text, begin, limit):
        at = found.end()
        if found[0] in "{[":
            depth += 1
        elif found[0] in "}]":
            depth -= 1
            if depth == 0:
                return at
        elif not found[0].endswith('"') or len(found[0]) == 1:
            return None  # a text that is not complete
    return None


_STRUCTURE = re.compile(r'[{}\[\]]|"(?:[^"\\]|\\.)*"?', re.DOTALL)
"""Brackets and texts of JSON; the last text may not have ended."""


def _held(text: str, tag: str) -> int:
    """The length of the ending of a text that may begin a tag."""
    return next((n for n in range(min(len(text), len(tag) - 1), 0, -1) if tag.startswith(text[-n:])), 0)
