"""Reading a trace: whatever public format a path holds, as requests in order from second 0."""

from __future__ import annotations

import csv
import datetime
import gzip
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

from . import servegen
from .trace import Trace, TraceError

AZURE_COLUMNS = ["TIMESTAMP", "ContextTokens", "GeneratedTokens"]
Row = tuple[float, int, int]
"""Seconds from any origin, input tokens, output tokens."""


def read(path: Path, seed: int = 0, lasts_s: float | None = None) -> Trace:
    """The trace of a file or folder, by what it looks like.

    ``*.csv[.gz]`` is Azure's LLM inference trace, ``*.jsonl[.gz]`` Mooncake's; a folder or ``*.tgz`` holds the clients
    of ServeGen, from which requests are drawn.

    Args:
        seed: of what has to be drawn.
        lasts_s: how much of it, from its beginning.

    Raises:
        TraceError: naming the file and what was expected.
    """
    if not path.exists():
        raise TraceError(f"{path} does not exist: name a trace file, or a folder of ServeGen clients")
    name = path.name.removesuffix(".gz")
    if path.is_dir() or name.endswith((".tgz", ".tar")):
        return servegen.read(path, seed, lasts_s)
    if name.endswith(".csv"):
        return _ordered(path, azure, lasts_s)
    if name.endswith(".jsonl"):
        return _ordered(path, mooncake, lasts_s)
    raise TraceError(f"{path}: no known format; allowed: .csv (Azure), .jsonl (Mooncake), a folder or .tgz (ServeGen)")


def azure(lines: TextIO) -> Iterator[Row]:
    """The Azure Public Dataset's LLM inference trace (Patel et al., Splitwise, ISCA 2024): UTC to 100 ns."""
    rows = csv.reader(lines)
    header = next(rows, [])
    if header != AZURE_COLUMNS:
        raise ValueError(f"expected the columns {','.join(AZURE_COLUMNS)}, found {','.join(header)[:80]!r}")
    for stamp, context, generated in rows:
        whole, _, fraction = stamp.partition(".")
        moment = datetime.datetime.fromisoformat(whole).replace(tzinfo=datetime.UTC).timestamp()
        yield moment + float(f"0.{fraction or 0}"), int(context), int(generated)


def mooncake(lines: TextIO) -> Iterator[Row]:
    """Mooncake's trace (Qin et al., FAST 2025): a JSON object to a line, its ``timestamp`` in milliseconds. The hashes
    of its blocks, which tell of shared prefixes, are not used: a simulated device has no prefix cache."""
    for line in lines:
        if line.strip():
            row = json.loads(line)
            yield row["timestamp"] / 1000, int(row["input_length"]), int(row["output_length"])


def _ordered(path: Path, parse: Callable[[TextIO], Iterator[Row]], lasts_s: float | None) -> Trace:
    rows: list[Row] = []
    try:
        with _text(path) as lines:
            rows.extend(parse(lines))
    except (ValueError, KeyError, TypeError, OSError, EOFError) as error:
        raise TraceError(f"{path}, after {len(rows)} requests: {type(error).__name__}: {error}") from None
    if not rows:
        raise TraceError(f"{path} has no requests")
    rows.sort()  # of one instant by length: an order, whatever the file's was
    origin = rows[0][0]
    kept = [row for row in rows if lasts_s is None or row[0] - origin < lasts_s]
    # No model runs on nothing, or answers with nothing: a length of 0 counts as 1.
    return Trace(
        [at - origin for at, _, _ in kept],
        [max(1, tokens) for _, tokens, _ in kept],
        [max(1, tokens) for _, _, tokens in kept],
    )


def _text(path: Path) -> TextIO:
    if path.suffix == ".gz":
        return io.TextIOWrapper(gzip.open(path, "rb"), encoding="utf-8")
    return path.open(encoding="utf-8")
