"""ServeGen's clients (Xiang et al., arXiv 2505.09999): what each did over a day, from which requests are drawn.

``chunk-N-trace.csv`` has a row for every 10 minutes of client N: when they begin, requests per second, coefficient of
variation, and the distribution of the time between two requests (Gamma or Weibull) with its shape and scale.
``chunk-N-dataset.json`` has histograms of token counts by time of day. Every client is a tenant.
"""

from __future__ import annotations

import ast
import bisect
import itertools
import json
import math
import random
import re
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from .trace import Trace, TraceError

BIN_S = 600.0
FILES = re.compile(r"^(?P<client>.*chunk-\d+)-(?P<what>trace\.csv|dataset\.json)$")
MEDIA = ("image", "audio", "video")


@dataclass(frozen=True, slots=True)
class Histogram:
    """Token counts and their cumulative shares."""

    values: tuple[int, ...]
    upto: tuple[float, ...]

    def draw(self, rng: random.Random) -> int:
        """One count."""
        return self.values[min(bisect.bisect(self.upto, rng.random() * self.upto[-1]), len(self.values) - 1)]


@dataclass(frozen=True, slots=True)
class Bin:
    """Ten minutes of a client: ``rate`` in requests per second; ``family`` is Gamma or Weibull."""

    begins_s: float
    rate: float
    family: str
    shape: float


def read(path: Path, seed: int, lasts_s: float | None) -> Trace:
    """Requests of all the clients under a folder or in a tar file, from the beginning of their day.

    Raises:
        TraceError: when there are none, or one cannot be read.
    """
    rows: list[tuple[float, int, int, int]] = []
    tenants: list[str] = []
    for client, files in sorted(_clients(path).items()):
        try:
            bins = [*_bins(files["trace.csv"])]
            lengths = {float(begin): _lengths(of) for begin, of in json.loads(files["dataset.json"]).items()}
        except (KeyError, ValueError, SyntaxError) as error:
            raise TraceError(f"{path}, {client}: {type(error).__name__}: {error}") from None
        # A generator for each client, so that one more does not change what the others do.
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
        yield str(file.relative_to(path)), file.read_text()


def _tar(path: Path) -> Iterator[tuple[str, str]]:
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                if member.isfile() and FILES.match(member.name) and (content := archive.extractfile(member)):
                    yield member.name, content.read().decode()
    except (tarfile.TarError, OSError, EOFError) as error:
        raise TraceError(f"{path}: {error}") from None


def _bins(text: str) -> Iterator[Bin]:
    for line in text.splitlines():
        begins, rate, _, family, shape, _ = line.split(",")
        if float(rate) > 0:
            if family and family not in _MEANS:
                raise ValueError(f"distribution {family!r}; known: {', '.join(_MEANS)}")
            # Without a fit, as of a single request, arrivals are taken as random.
            yield Bin(float(begins), float(rate), family or "Gamma", float(shape) if family else 1.0)


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


def _lengths(of: Mapping[str, str]) -> tuple[list[Histogram], Histogram]:
    """Histograms of what goes in, to be added up, and of what comes out."""
    text = "input_tokens" if "input_tokens" in of else "text_tokens"
    inputs = [of[text], *(of[f"{medium}_tokens"] for medium in MEDIA if f"{medium}_tokens" in of)]
    return [_histogram(one) for one in inputs], _histogram(of["output_tokens"])


def _histogram(text: str) -> Histogram:
    found: dict[float, float] = ast.literal_eval(text)
    if not found:
        return Histogram((0,), (1.0,))
    return Histogram(tuple(int(value) for value in found), tuple(itertools.accumulate(found.values())))


def _draw_lengths(
    rng: random.Random, lengths: Mapping[float, tuple[list[Histogram], Histogram]], at: float
) -> tuple[int, int]:
    inputs, outputs = lengths[max((begin for begin in lengths if begin <= at), default=min(lengths))]
    return max(1, sum(one.draw(rng) for one in inputs)), max(1, outputs.draw(rng))
