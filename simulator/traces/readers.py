"""Reading a trace: whatever public format a path holds, as requests in order from second 0."""

from __future__ import annotations

import csv
import datetime
import gzip
import io
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated, TextIO

from pydantic import BaseModel, BeforeValidator, Field, FiniteFloat, ValidationError

from . import servegen
from .trace import Trace, TraceError, mistakes

AZURE_COLUMNS = ["TIMESTAMP", "ContextTokens", "GeneratedTokens"]
AZURE_LINE = "2023-11-16 18:17:03.9799600,4808,10"
MOONCAKE_LINE = '{"timestamp": 27482, "input_length": 6955, "output_length": 52}'
MOMENT = re.compile(r"(?P<seconds>.*?)(?P<fraction>\.\d+)?(?P<offset>Z|[+-]\d\d:?\d\d)?")

Row = tuple[float, int, int]
"""Seconds from any origin, input tokens, output tokens."""


def moment(stamp: object) -> float:
    """Unix seconds of a time stamp, to more digits than a datetime keeps; UTC where it does not say."""
    parts = MOMENT.fullmatch(str(stamp))
    assert parts is not None  # it matches everything; what is wrong shows in the next line
    at = datetime.datetime.fromisoformat(parts["seconds"] + (parts["offset"] or "+00:00"))
    return at.timestamp() + float(parts["fraction"] or 0)


Moment = Annotated[float, BeforeValidator(moment)]
Count = Annotated[int, Field(ge=0)]


class Azure(BaseModel):
    """A row of the Azure Public Dataset's LLM inference traces (Patel et al., Splitwise, ISCA 2024): times in UTC, in
    those of 2024 with the offset."""

    TIMESTAMP: Moment
    ContextTokens: Count
    GeneratedTokens: Count


class Mooncake(BaseModel):
    """A line of Mooncake's trace (Qin et al., FAST 2025); ``timestamp`` is in milliseconds. The hashes of its blocks,
    which tell of shared prefixes, are not used: a simulated device has no prefix cache."""

    timestamp: FiniteFloat
    input_length: Count
    output_length: Count


def read(path: Path, seed: int = 0, lasts_s: float | None = None) -> Trace:
    """The trace of a file or folder, by what it looks like.

    ``*.csv[.gz]`` is Azure's LLM inference trace, ``*.jsonl[.gz]`` Mooncake's; a folder or ``*.tgz`` holds the clients
    of ServeGen, from which requests are drawn.

    Args:
        seed: of what has to be drawn.
        lasts_s: how much of it, from its beginning.

    Raises:
        TraceError: naming the file, the line and what was expected.
    """
    if not path.exists():
        raise TraceError(f"{path} does not exist: name a trace file, or a folder of ServeGen clients")
    name = path.name.removesuffix(".gz")
    if path.is_dir() or name.endswith((".tgz", ".tar")):
        return servegen.read(path, seed, lasts_s)
    if name.endswith(".csv"):
        return _ordered(path, azure, AZURE_LINE, lasts_s)
    if name.endswith(".jsonl"):
        return _ordered(path, mooncake, MOONCAKE_LINE, lasts_s)
    raise TraceError(f"{path}: no known format; allowed: .csv (Azure), .jsonl (Mooncake), a folder or .tgz (ServeGen)")


def azure(lines: Iterable[str]) -> Iterator[Row]:
    """The requests of a file of :class:`Azure` rows under their header."""
    table = csv.DictReader(lines, restkey="more")
    found = table.fieldnames or []
    if not set(AZURE_COLUMNS) <= {*found}:
        raise ValueError(f"expected the columns {','.join(AZURE_COLUMNS)}, found {','.join(found)[:80]!r}")
    for row in table:
        one = Azure.model_validate(row)
        yield one.TIMESTAMP, one.ContextTokens, one.GeneratedTokens


def mooncake(lines: Iterable[str]) -> Iterator[Row]:
    """The requests of a file with a :class:`Mooncake` object to a line."""
    for line in lines:
        if line.strip():
            one = Mooncake.model_validate_json(line)
            yield one.timestamp / 1000, one.input_length, one.output_length


class _Numbered:
    """The lines of a file, and which of them was read last."""

    def __init__(self, lines: TextIO) -> None:
        self._lines, self.last = lines, 0

    def __iter__(self) -> Iterator[str]:
        for line in self._lines:
            self.last += 1
            yield line


def _ordered(path: Path, parse: Callable[[Iterable[str]], Iterator[Row]], example: str, lasts_s: float | None) -> Trace:
    with _text(path) as file:
        lines = _Numbered(file)
        try:
            rows = sorted(parse(lines))  # of one instant by length: an order, whatever the file's was
        except ValidationError as error:
            told = f"{path}, line {lines.last}: {mistakes(error)}; expected a line such as {example}"
            raise TraceError(told) from None
        except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
            told = f"{path}, after line {lines.last}: {error}; is it whole? Fetch or unpack it again"
            raise TraceError(told) from None
        except (ValueError, csv.Error) as error:
            raise TraceError(f"{path}, line {max(1, lines.last)}: {error}") from None
    if not rows:
        raise TraceError(f"{path} has no requests: expected lines such as {example}")
    origin = rows[0][0]
    kept = [row for row in rows if lasts_s is None or row[0] - origin < lasts_s]
    # No model runs on nothing, or answers with nothing: a length of 0 counts as 1.
    return Trace(
        [at - origin for at, _, _ in kept],
        [max(1, tokens) for _, tokens, _ in kept],
        [max(1, tokens) for _, _, tokens in kept],
    )


def _text(path: Path) -> TextIO:
    try:
        file = gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")  # noqa: SIM115  # the wrapper closes it
    except OSError as error:
        raise TraceError(f"{path} cannot be read: {error.strerror}") from None
    return io.TextIOWrapper(file, encoding="utf-8-sig")  # as spreadsheets save it, too
