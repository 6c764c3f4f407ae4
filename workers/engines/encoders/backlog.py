"""What waits for the device: the inputs of many jobs, oldest first, of which only the nearest are encoded.

A job may bring thousands of inputs. They are encoded a slice at a time, between batches, so that whoever came before
does not wait until all of them are; and in turns, so that a small job does not wait until all of them have run.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median_low
from typing import Any

from producer.contract.errors import InvalidJob

from ..protocol import Request

SLICE_CHARS = 2**18
"""Characters after which a slice ends: encoding them takes about a tenth of a second."""
TURN = 64
"""Texts of one job that are encoded before it is another one's turn."""
LATEST = 15
"""Jobs by which the usual one is told."""

Text = str | tuple[str, str]
"""What goes through the model as one row: a text, or two that are read as a pair."""

Features = dict[str, list[int]]
"""A row as the model reads it, without padding: ``input_ids``, and what else the tokenizer gives for each token."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """In place of the row of a text that the model cannot read, and why it cannot."""

    reason: str


@dataclass(slots=True, eq=False)
class PendingRequest:
    """A request whose rows may be spread over several batches. ``values`` are what the model said of each text."""

    request: Request
    texts: list[Text]
    values: list[Any] = field(init=False)
    missing: int = field(init=False)
    encoded: int = 0
    """How many of its texts are encoded."""
    input_tokens: int = 0
    started_at: float = 0.0
    batch_size: int = 0

    def __post_init__(self) -> None:
        self.missing = len(self.texts)
        self.values = [None] * self.missing

    @property
    def deadline(self) -> float:
        """When its answer is worth nothing any more, on the monotonic clock; never, if it did not say."""
        return math.inf if self.request.deadline is None else self.request.deadline

    def chars(self, index: int) -> int:
        """Characters of one of its texts."""
        text = self.texts[index]
        return len(text) if isinstance(text, str) else sum(map(len, text))


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """One text of a job, ready for the device."""

    job: PendingRequest
    index: int
    features: Features

    @property
    def tokens(self) -> int:
        """Its length."""
        return len(self.features["input_ids"])


class RowBacklog:
    """Rows that are encoded, and behind them jobs that are not yet, or not wholly. Its length counts both.

    Args:
        encode: makes rows of texts.
    """

    def __init__(self, encode: Callable[[Sequence[Text]], list[Features | Unreadable]]) -> None:
        self._encode = encode
        self._refused: list[tuple[PendingRequest, InvalidJob]] = []
        self._rows: list[Row] = []
        self._unread: deque[PendingRequest] = deque()
        self._unread_texts = 0
        self._latest: deque[int] = deque(maxlen=LATEST)
        self.usual = 1
        """Texts that a job brings, of late; a few odd ones change nothing."""

    def __len__(self) -> int:
        return len(self._rows) + self._unread_texts

    def add(self, job: PendingRequest) -> None:
        """A job that has just come."""
        self._unread.append(job)
        self._unread_texts += len(job.texts)
        self._latest.append(len(job.texts))
        self.usual = median_low(self._latest)

    def nearest(self, count: int) -> list[Row]:
        """The oldest rows, so many if there are; one more slice of texts is encoded for it."""
        if places := self._next_slice(count - len(self._rows)):
            encoded = self._encode([job.texts[index] for job, index in places])
            for (job, index), features in zip(places, encoded, strict=True):
                if isinstance(features, Unreadable):
                    self._refused.append((job, InvalidJob(f"text {index} {features.reason}")))
                    continue
                row = Row(job, index, features)
                job.input_tokens += row.tokens
                self._rows.append(row)
            self._unread_texts -= len(places)  # after: whoever asks for the length meanwhile must not find room
        return self._rows[:count]

    def refused(self) -> list[tuple[PendingRequest, InvalidJob]]:
        """Jobs with a text that the model cannot read, since the last call. They are to be dropped."""
        refused, self._refused = self._refused, []
        return refused

    def take(self, positions: Sequence[int]) -> list[Row]:
        """Take out the rows at these positions, oldest first."""
        taken = set(positions)
        batch = [self._rows[position] for position in positions]
        end = max(taken, default=-1) + 1
        self._rows[:end] = [row for position, row in enumerate(self._rows[:end]) if position not in taken]
        return batch

    def drop(self, job: PendingRequest) -> None:
        """Forget what there is of a job."""
        self._rows = [row for row in self._rows if row.job is not job]
        if job.encoded < len(job.texts):
            self._unread.remove(job)
            self._unread_texts -= len(job.texts) - job.encoded

    def clear(self) -> None:
        """Forget all."""
        self._rows.clear()
        self._refused.clear()
        self._unread.clear()
        self._unread_texts = 0

    def _next_slice(self, count: int) -> list[tuple[PendingRequest, int]]:
        places: list[tuple[PendingRequest, int]] = []
        chars = 0
        while self._unread and len(places) < count and chars < SLICE_CHARS:
            job = self._unread.popleft()
            end = min(len(job.texts), job.encoded + TURN)
            while job.encoded < end and len(places) < count and chars < SLICE_CHARS:
                places.append((job, job.encoded))
                chars += job.chars(job.encoded)
                job.encoded += 1
            if job.encoded < len(job.texts):
                self._unread.append(job)
        return places
