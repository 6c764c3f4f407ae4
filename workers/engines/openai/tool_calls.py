"""Tool calls as servers tell them, whole or in pieces, as texts that can be told while they are made
(``producer.contract.message.tool_call``).
"""

from __future__ import annotations

import json
import uuid
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, PlainValidator

from producer.contract.errors import EngineError
from producer.contract.message.tool_call import call_head, call_of, call_text

from .text_assembly import TextAssembly, whole_characters

MOST_CALLS = 128
"""Most tool calls in an answer; OpenAI takes as many tools."""


def _arguments(found: Any) -> str:
    """Arguments as JSON, which some servers send as the object itself."""
    if found is None or isinstance(found, str):
        return found or ""
    return json.dumps(found)


class CalledFunction(BaseModel):
    """The function of a call: its name comes with the first piece, its arguments with any."""

    model_config = ConfigDict(frozen=True)

    name: str | None = None
    arguments: Annotated[str, PlainValidator(_arguments)] = ""


class CallPiece(BaseModel):
    """A tool call, or the next piece of one."""

    model_config = ConfigDict(frozen=True)

    index: Annotated[int, Field(ge=0, lt=MOST_CALLS)] | None = None
    id: str | None = None
    function: CalledFunction | None = None


class CallAssembly:
    """The tool calls of one answer, from their pieces."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._pieces: list[TextAssembly] = []
        self._numbers: dict[int, int] = {}
        """The number of a call by the server's index: some begin at 1."""

    def add(self, pieces: list[CallPiece]) -> list[tuple[int, str]]:
        """Add pieces. Returns the numbers of the calls that went on, with what is complete of each text.

        Raises:
            EngineError: a call has no name, or there are too many.
        """
        return [self._add(piece, place) for place, piece in enumerate(pieces)]

    def _add(self, piece: CallPiece, place: int) -> tuple[int, str]:
        function = piece.function or CalledFunction()
        index = place if piece.index is None else piece.index
        head = ""
        if index not in self._numbers:
            head = _head(piece.id, function.name)
            self._numbers[index] = len(self._texts)
            self._texts.append("")
            self._pieces.append(TextAssembly())
        number = self._numbers[index]
        text = head + self._pieces[number].add(function.arguments)
        self._texts[number] += text
        return number, text

    def end(self) -> list[tuple[int, str]]:
        """What the end of the answer completes."""
        rest = [(number, pieces.add("", last=True)) for number, pieces in enumerate(self._pieces)]
        for number, text in rest:
            self._texts[number] += text
        return [(number, text) for number, text in rest if text]

    @property
    def calls(self) -> list[dict[str, Any]]:
        """The calls in OpenAI's form."""
        return [call_of(*call_head(text)) for text in self._texts]


def _head(ident: str | None, name: str | None) -> str:
    if not name or name.split() != [name]:
        raise EngineError(f"the server sent a tool call with the name {name!r:.80}; allowed: a word")
    if not ident or ident.split() != [ident]:
        ident = f"call_{uuid.uuid4().hex[:24]}"
    return call_text(call_of(whole_characters(ident), whole_characters(name), ""))
