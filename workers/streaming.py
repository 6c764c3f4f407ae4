"""Streaming: the output of streaming jobs on its way to Redis, in one write for all jobs.

How the pool uses it, all on the event loop's thread, with ``streams = Streams(queue, result_ttl_s)``:

- for each ``OutputPiece`` that the engine reports and whose job still runs, ``streams.add(job_id, piece)``;
- when a job has ended or was given up, ``streams.end(lease)``, whether it streamed or not;
- after it has processed all reports, and before the ledger writes results, ``streams.flush()``.

A flush is one round trip on the event loop's thread; the device's thread does not wait for it. Output that is produced
meanwhile is appended and goes with the next flush, so that a slow Redis leads to longer pieces rather than more of
them, and the memory is bounded by the jobs' outputs.
"""

from __future__ import annotations

import json
import logging
import time
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

import redis

from producer.contract import keys
from scheduler.lease.queue import Queue

from .engines.protocol import OutputPiece

logger = logging.getLogger(__name__)

MOST_ENTRIES = 100_000
"""Approximate number of entries that a stream keeps. Late readers miss the beginning of a longer one; the result has
all."""

REFUSED_S = 1.0
"""Pause after a write that Redis refused, in seconds."""

_END = (-1, 0, b"", 0, "", "")


@dataclass(slots=True)
class _Made:
    """One output, its reasoning or a tool call: its length so far, and what is not written yet."""

    characters: int = 0
    tokens: int = 0
    logprobs: int = 0
    unwritten: list[str] = field(default_factory=list)
    unwritten_logprobs: list[Any] = field(default_factory=list)


@dataclass(slots=True)
class _Stream:
    job_id: str
    outputs: dict[tuple[int, str], _Made] = field(default_factory=dict)
    """By index, and what it is of: nothing for the text, ``reasoning``, or the number of a tool call."""


class Streams:
    """The streams of the jobs that one worker runs. Fenced: a lost lease writes nothing (``streaming.lua``)."""

    def __init__(self, queue: Queue, result_ttl_s: float) -> None:
        self._inflight = keys.inflight(queue.model)
        self._write = queue.redis.register_script(files(__package__).joinpath("streaming.lua").read_text())
        self._limits = (int(result_ttl_s * 1000), MOST_ENTRIES)
        self._streams: dict[str, _Stream] = {}  # by lease
        self._ended: list[str] = []
        self._refused_until = 0.0

    def add(self, job_id: str, piece: OutputPiece) -> None:
        """Add output of a job; ``piece.id`` is the job's lease.

        Raises:
            TypeError: the output is no text.
        """
        if not isinstance(piece.text, str):
            raise TypeError(f"output {piece.index} is a {type(piece.text).__name__}, not text")
        stream = self._streams.setdefault(piece.id, _Stream(job_id))
        part = "reasoning" if piece.reasoning else "" if piece.call is None else str(piece.call)
        made = stream.outputs.setdefault((piece.index, part), _Made())
        made.characters += len(piece.text)
        made.tokens += piece.tokens
        made.logprobs += len(piece.logprobs)
        made.unwritten.append(piece.text)
        made.unwritten_logprobs += piece.logprobs

    def end(self, lease: str) -> None:
        """Mark the end of a job's run, so that readers hear of it at once. Without effect for a job that does not
        stream."""
        if lease in self._streams:
            self._ended.append(lease)

    def flush(self) -> None:
        """Write the added output. Never raises: output that Redis refuses is kept for a later flush."""
        if time.monotonic() < self._refused_until:
            return
        names: list[str] = [self._inflight]
        arguments: list[Any] = list(self._limits)
        for lease, stream in self._streams.items():
            if entries := self._entries(lease, stream):
                names.append(keys.stream(stream.job_id))
                arguments += (lease, len(entries), *(value for entry in entries for value in entry))
        if len(names) == 1:
            return
        try:
            lost = self._write(names, arguments)
        except redis.RedisError as error:
            logger.warning("%d streams are not written now: %s", len(names) - 1, error)
            self._refused_until = time.monotonic() + REFUSED_S
            return
        for made in (made for stream in self._streams.values() for made in stream.outputs.values()):
            if any(made.unwritten):  # log probabilities wait for a text to go with
                made.unwritten.clear()
                made.unwritten_logprobs.clear()
        for lease in (*self._ended, *(lease.decode() for lease in lost)):
            self._streams.pop(lease, None)
        self._ended.clear()

    def _entries(self, lease: str, stream: _Stream) -> list[tuple[Any, ...]]:
        entries: list[tuple[Any, ...]] = []
        for (index, part), made in stream.outputs.items():
            if text := "".join(made.unwritten):
                # Half a surrogate pair has no place in UTF-8; a question mark keeps the count of characters.
                said = text.encode(errors="replace")
                fresh = made.unwritten_logprobs
                logprobs = json.dumps([made.logprobs - len(fresh), fresh]) if fresh else ""
                entries.append((index, made.characters - len(text), said, made.tokens, part, logprobs))
        return [*entries, _END] if lease in self._ended else entries
