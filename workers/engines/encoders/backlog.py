"""The backlog of an encoder: the texts of waiting jobs in turns, encoded only as far as the packing looks ahead.

A job may have thousands of texts. Jobs take turns of a few texts each: a job that comes joins the turn that the oldest
waiting text is in, so that a small job does not wait for the end of a large one (start-time fair queueing; P. Goyal et
al., SIGCOMM 1996). Texts are encoded in slices between batches, so that earlier jobs are not delayed by the encoding.
"""

from __future__ import annotations

import bisect
import heapq
import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from statistics import median_low
from typing import Any

from producer.contract.errors import InvalidJob

from ..protocol import Request

SLICE_CHARS = 2**18
"""Characters in a slice; encoding them takes about 0.1 s."""
LATEST = 15
"""Number of recent jobs whose median size is the expected size of the next."""

Text = str | tuple[str, str] | list[int]
"""The text of a row, the two texts that a row encodes as a pair, or the token ids of a text."""

Features = dict[str, list[int]]
"""The model's inputs for a row, without padding: ``input_ids`` and the tokenizer's other values for each token."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Stands for the row of a text that cannot be encoded; ``reason`` says why."""

    reason: str


@dataclass(slots=True, eq=False)
class PendingRequest:
    """A request whose rows may run in several batches. ``values`` holds the model's output for each text."""

    request: Request
    texts: list[Text]
    values: list[Any] = field(init=False)
    missing: int = field(init=False)
    waiting: int = field(init=False)
    """The number of texts that no batch has taken."""
    encoded: int = 0
    """The number of encoded texts."""
    joined: int = 0
    """The turn of its first texts."""
    input_tokens: int = 0
    started_at: float = 0.0
    batch_size: int = 0

    def __post_init__(self) -> None:
        self.missing = self.waiting = len(self.texts)
        self.values = [None] * self.missing

    @property
    def deadline(self) -> float:
        """The request's deadline, in seconds of the monotonic clock; infinite without one."""
        return math.inf if self.request.deadline is None else self.request.deadline

    def chars(self, index: int) -> int:
        """The length in characters of the text, or pair of texts, ``index``; of token ids, their number."""
        text = self.texts[index]
        return sum(map(len, text)) if isinstance(text, tuple) else len(text)


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """An encoded text of a job."""

    job: PendingRequest
    index: int
    features: Features
    turn: int

    @property
    def tokens(self) -> int:
        """The length in tokens."""
        return len(self.features["input_ids"])


class RowBacklog:
    """A queue of encoded rows, and the jobs with texts yet to be encoded. Its length counts rows and texts.

    Args:
        encode: encodes texts to the features of rows.
        batch: rows in a batch. A turn is a quarter of them.
    """

    def __init__(self, encode: Callable[[Sequence[Text]], list[Features | Unreadable]], batch: int) -> None:
        self._encode = encode
        self._batch = batch
        self._turn = max(1, batch // 4)
        self._refused: list[tuple[PendingRequest, InvalidJob]] = []
        self._rows: list[Row] = []
        self._unread: list[tuple[int, int, PendingRequest]] = []  # a heap: turn of the next text, when it came, job
        self._came = count()
        self._unread_texts = 0
        self.near = 0
        """Waiting texts, of each job a batch at most: a large job leaves room for others."""
        self._latest: deque[int] = deque(maxlen=LATEST)
        self.usual = 1
        """The median number of texts of the last ``LATEST`` jobs."""

    def __len__(self) -> int:
        return len(self._rows) + self._unread_texts

    def add(self, job: PendingRequest) -> None:
        """Enqueue a job."""
        turns = [row.turn for row in self._rows[:1]] + [turn for turn, _, _ in self._unread[:1]]
        job.joined = min(turns, default=0)
        heapq.heappush(self._unread, (job.joined, next(self._came), job))
        self._unread_texts += len(job.texts)
        self.near += min(len(job.texts), self._batch)
        self._latest.append(len(job.texts))
        self.usual = median_low(self._latest)

    def nearest(self, most: int) -> list[Row]:
        """The next rows, at most ``most``. At most one slice of texts is encoded per call, so there may be fewer."""
        if places := self._next_slice(most):
            encoded = self._encode([job.texts[index] for job, index in places])
            for (job, index), features in zip(places, encoded, strict=True):
                if isinstance(features, Unreadable):
                    self._refused.append((job, InvalidJob(f"text {index} {features.reason}")))
                    continue
                row = Row(job, index, features, self._turn_of(job, index))
                job.input_tokens += row.tokens
                bisect.insort(self._rows, row, key=_turn)
            self._unread_texts -= len(places)  # last: a concurrent read of the length must not find room
        return self._rows[:most]

    def refused(self) -> list[tuple[PendingRequest, InvalidJob]]:
        """Jobs with an unreadable text, found since the last call, and their errors. The caller drops them."""
        refused, self._refused = self._refused, []
        return refused

    def take(self, positions: Sequence[int]) -> list[Row]:
        """Remove and return the rows at ``positions``, in that order; 0 is the next row."""
        taken = set(positions)
        batch = [self._rows[position] for position in positions]
        for row in batch:
            row.job.waiting -= 1
            self.near -= row.job.waiting < self._batch
        end = max(taken, default=-1) + 1
        self._rows[:end] = [row for position, row in enumerate(self._rows[:end]) if position not in taken]
        return batch

    def drop(self, job: PendingRequest) -> None:
        """Remove the rows and texts of a job."""
        self._rows = [row for row in self._rows if row.job is not job]
        self.near -= min(job.waiting, self._batch)
        job.waiting = 0
        if job.encoded < len(job.texts):
            self._unread = [entry for entry in self._unread if entry[2] is not job]
            heapq.heapify(self._unread)
            self._unread_texts -= len(job.texts) - job.encoded

    def clear(self) -> None:
        """Remove all jobs."""
        self._rows.clear()
        self._refused.clear()
        self._unread.clear()
        self._unread_texts = self.near = 0

    def _turn_of(self, job: PendingRequest, index: int) -> int:
        return job.joined + index // self._turn

    def _next_slice(self, most: int) -> list[tuple[PendingRequest, int]]:
        """Texts to encode: as many as lack of ``most`` rows, and those that come before one of these."""
        places: list[tuple[PendingRequest, int]] = []
        missing = most - len(self._rows)
        last = self._rows[most - 1].turn if missing <= 0 else math.inf
        chars = 0
        while self._unread and chars < SLICE_CHARS:
            turn, came, job = self._unread[0]
            if len(places) >= missing and turn >= last:
                break
            places.append((job, job.encoded))
            chars += job.chars(job.encoded)
            job.encoded += 1
            if job.encoded < len(job.texts):
                heapq.heapreplace(self._unread, (self._turn_of(job, job.encoded), came, job))
            else:
                heapq.heappop(self._unread)
            if missing > 0 and len(places) >= missing:
                break
        return places


def _turn(row: Row) -> int:
    return row.turn
