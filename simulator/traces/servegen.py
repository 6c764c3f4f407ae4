"""ServeGen's clients (Xiang et al., arXiv 2505.09999): what each did over a day, from which requests are drawn.

``chunk-N-trace.csv`` has a row for every 10 minutes of client N: when they begin, requests per second, coefficient of
variation, and the distribution of the time between two requests (Gamma or Weibull) with its shape and scale.
``chunk-N-dataset.json`` has histograms of token counts by time of day. Every client is a tenant.
"""

from __future__ import annotations

import ast
import bisect
import itertools
import math
import random
import re
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, TypeAdapter, ValidationError

from .trace import Trace, TraceError, mistakes

BIN_S = 600.0
FILES = re.compile(r"^(?P<client>.*chunk-\d+)-(?P<what>trace\.csv|dataset\.json)$")
WHAT = ("trace.csv", "dataset.json")
COLUMNS = ("begin", "rate", "coefficient of variation", "distribution", "shape", "scale")
MEDIA = ("image", "audio", "video")


@dataclass(frozen=True, slots=True)
class Histogram:
    """Token counts and their cumulative shares."""

    values: tuple[int, ...]
    upto: tuple[float, ...]

    def draw(self, rng: random.Random) -> int:
        """One count."""
        return self.values[min(bisect.bisect(self.upto, rng.random() * self.upto[-1]), len(self.values) - 1)]


class Bin(BaseModel):
    """Ten minutes of a client: ``rate`` in requests per second, and how the time between two is distributed."""

    model_config = ConfigDict(frozen=True)

    begins_s: Annotated[FiniteFloat, Field(ge=0)]
    rate: Annotated[FiniteFloat, Field(ge=0)]
    family: Literal["Gamma", "Weibull"]
    shape: Annotated[FiniteFloat, Field(gt=0)]


Lengths = Mapping[float, tuple[list[Histogram], Histogram]]
"""By time of day in seconds: histograms of what goes in, to be added up, and of what comes out."""
_DATASET = TypeAdapter(Annotated[dict[FiniteFloat, dict[str, str]], Field(min_length=1)])
_HISTOGRAM = TypeAdapter(dict[Annotated[int, Field(ge=0)], Annotated[FiniteFloat, Field(ge=0)]])


def read(path: Path, seed: int, lasts_s: float | None) -> Trace:
    """Requests of all the clients under a folder or in a tar file, from the beginning of their day.

    Raises:
        TraceError: when there are none, or one cannot be read: naming its file, and the line or the time of day.
    """
    rows: list[tuple[float, int, int, int]] = []
    tenants: list[str] = []
    for client, files in sorted(_clients(path).items()):
        for what in WHAT:
            if what not in files:
                raise TraceError(f"{path}: {client} has no {client}-{what}: a client is both, {' and '.join(WHAT)}")
        bins = [*_bins(f"{path}, {client}-trace.csv", files["trace.csv"])]
        lengths = _lengths(f"{path}, {client}-dataset.json", files["dataset.json"])
        # A generator for each client, so that adding a client does not change the draws of the others.
        rng = random.Random(f"{seed} {client}")
        tenant = len(tenants)
        tenants.append(client)
        rows += ((at, *_draw_lengths(rng, lengths, at), tenant) for at in _arrivals(rng, bins, lasts_s))
    if not rows:
        raise TraceError(f"{path}: no requests; expected chunk-N-trace.csv beside chunk-N-dataset.json")
    rows.sort()
    at, inputs, outputs, tenant_of = (list(column) for column in zip(*rows, strict=True))
    return Trace(at, inputs, outputs, tenant_of, tenants=tuple(tenants))


def _clients(path: Path) -> Mapping[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for name, text in _folder(path) if path.is_dir() else _tar(path):
        if match := FILES.match(name):
            found.setdefault(match["client"], {})[match["what"]] = text
    return found


def _folder(path: Path) -> Iterator[tuple[str, str]]:
    for file in path.rglob("chunk-*"):
        if FILES.match(name := str(file.relative_to(path))):
            yield name, _decoded(path, name, file.read_bytes())


def _tar(path: Path) -> Iterator[tuple[str, str]]:
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                if member.isfile() and FILES.match(member.name) and (content := archive.extractfile(member)):
                    yield member.name, _decoded(path, member.name, content.read())
    except (tarfile.TarError, OSError, EOFError) as error:
        raise TraceError(f"{path}: {error}; is it whole? Fetch it again") from None


def _decoded(path: Path, name: str, content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise TraceError(f"{path}, {name}: {error}; expected text in UTF-8") from None


def _bins(file: str, text: str) -> Iterator[Bin]:
    for number, line in enumerate(text.splitlines(), 1):
        fields = line.split(",")
        if len(fields) != len(COLUMNS):
            raise TraceError(f"{file}, line {number}: {len(fields)} values; expected {', '.join(COLUMNS)}")
        begins, rate, _, family, shape, _ = fields
        # Without a fit, as of a single request, arrivals are taken as random.
        fit = {"family": family, "shape": shape} if family else {"family": "Gamma", "shape": 1.0}
        try:
            one = Bin.model_validate({"begins_s": begins, "rate": rate, **fit})
        except ValidationError as error:
            raise TraceError(f"{file}, line {number}: {mistakes(error)}") from None
        if one.rate:
            yield one


_MEANS: dict[str, Callable[[float], float]] = {
    "Gamma": lambda shape: shape,
    "Weibull": lambda shape: math.gamma(1 + 1 / shape),
}
"""Mean of each family at scale 1. The scale comes from the rate, not from the fit, whose mean need not be the same."""


def _arrivals(rng: random.Random, bins: list[Bin], lasts_s: float | None) -> Iterator[float]:
    for one in bins:
        end = min(one.begins_s + BIN_S, math.inf if lasts_s is None else lasts_s)
        scale = 1 / (one.rate * _MEANS[one.family](one.shape))
        # The first waits a random part of its interval, or every client would begin every bin with one.
        at = one.begins_s + rng.random() * _interval(rng, one, scale)
        while at < end:
            yield at
            at += _interval(rng, one, scale)


def _interval(rng: random.Random, one: Bin, scale: float) -> float:
    if one.family == "Gamma":
        return rng.gammavariate(one.shape, scale)
    return rng.weibullvariate(scale, one.shape)


def _lengths(file: str, text: str) -> Lengths:
    found: dict[float, tuple[list[Histogram], Histogram]] = {}
    try:
        for begin, of in _DATASET.validate_json(text).items():
            name = "input_tokens" if "input_tokens" in of else "text_tokens"
            names = [name, *(f"{medium}_tokens" for medium in MEDIA if f"{medium}_tokens" in of)]
            found[begin] = [_histogram(of, begin, one) for one in names], _histogram(of, begin, "output_tokens")
    except ValidationError as error:
        raise TraceError(f"{file}: {mistakes(error)}") from None
    except ValueError as error:
        raise TraceError(f"{file}: {error}") from None
    return found


def _histogram(of: Mapping[str, str], begin: float, name: str) -> Histogram:
    try:
        found = _HISTOGRAM.validate_python(ast.literal_eval(of[name]))
        if found and not any(found.values()):
            raise ValueError("its shares add up to nothing")
    except KeyError:
        raise ValueError(f"no {name} at {begin:g} s") from None
    except (ValueError, SyntaxError) as error:  # pydantic's are ValueErrors, too
        raise ValueError(
            f"{name} at {begin:g} s: expected shares by count, as in {{100: 0.5, 120: 0.5}}, found {of[name][:60]!r}"
        ) from error
    if not found:
        return Histogram((0,), (1.0,))
    return Histogram(tuple(found), tuple(itertools.accumulate(found.values())))


def _draw_lengths(rng: random.Random, lengths: Lengths, at: float) -> tuple[int, int]:
    inputs, outputs = lengths[max((begin for begin in lengths if begin <= at), default=min(lengths))]
    return max(1, sum(one.draw(rng) for one in inputs)), max(1, outputs.draw(rng))
