"""The lines of an input that are still to be run, read as far ahead as their models have room for more.

A line whose model has no room is set aside, so that it does not hold up lines for other models behind it. What is set
aside is its place in the file, not the line: a million take 16 MB.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from typing import BinaryIO

from . import lines
from .line_set import LineSet
from .lines import Line

AHEAD = 1000
"""Most lines read and set aside in one go, so that answers are collected meanwhile."""


class _SetAside:
    """Lines that were set aside, oldest first, each as its number and where it begins in the file."""

    def __init__(self) -> None:
        self._places = array("Q")
        self._next = 0

    def __bool__(self) -> bool:
        return self._next < len(self._places)

    def add(self, number: int, offset: int) -> None:
        self._places.extend((number, offset))

    def pop(self) -> tuple[int, int]:
        number, offset = self._places[self._next : self._next + 2]
        self._next += 2
        if not self:
            self._places, self._next = array("Q"), 0
        return number, offset


class LineSource:
    """The lines of a file that have no answer yet, each once; those of one model in the order of the file.

    Args:
        finished: the lines that had an answer before.
        model_of: the model that a line is for; None if it is not to be run, so that it needs no room.
    """

    def __init__(self, file: BinaryIO, longest: int, finished: LineSet, model_of: Callable[[Line], str | None]) -> None:
        self._file = file
        self._longest = longest
        self._finished = finished
        self._model_of = model_of
        self._reader = lines.read(file, longest)
        self._at_end = False
        self._set_aside: dict[str, _SetAside] = {}
        self.looking = False
        """Whether the last call of :meth:`take` stopped before the end of what it could find."""

    @property
    def more(self) -> bool:
        """Whether there may be more lines."""
        return not self._at_end or any(self._set_aside.values())

    def take(self, has_room: Callable[[str], bool]) -> Iterator[Line]:
        """The next lines whose models have room, which is asked before each line."""
        self.looking = False
        for name, aside in self._set_aside.items():
            while aside and has_room(name):
                yield self._again(*aside.pop())
        for _ in range(AHEAD):
            if (found := self._read()) is None:
                return
            line, offset = found
            model = self._model_of(line)
            if model is None or has_room(model):
                yield line
            else:
                self._set_aside.setdefault(model, _SetAside()).add(line.number, offset)
        self.looking = not self._at_end

    def rest(self) -> Iterator[Line]:
        """All the others."""
        while self.more:
            yield from self.take(lambda _: True)

    def _read(self) -> tuple[Line, int] | None:
        while True:
            offset = self._file.tell()
            number, raw = next(self._reader, (0, b""))
            if not number:
                self._at_end = True
                return None
            if number not in self._finished:
                return lines.parse(number, raw, self._longest), offset

    def _again(self, number: int, offset: int) -> Line:
        here = self._file.tell()
        self._file.seek(offset)
        _, raw = next(lines.read(self._file, self._longest))
        self._file.seek(here)
        return lines.parse(number, raw, self._longest)
