"""Admission of sequences to the running batch: in order of arrival, while there are a free slot and room in the
cache."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable

from .running_batch import Generation, Sequence


class Admission:
    """The waiting and the running sequences. A sequence is admitted when the cache has room for its prompt and its
    longest output, so that no running sequence is ever evicted from the cache.
    """

    def __init__(self, places: int) -> None:
        self.waiting: deque[Sequence] = deque()
        self.running: dict[str, Sequence] = {}  # by the id of the attempt
        self.blocks = 0
        """Cache blocks that running sequences may reserve in total; 0 until there is a cache."""
        self._places = places
        self._ids = itertools.count()

    def wait(self, sequences: Iterable[Sequence]) -> None:
        """Enqueue sequences at the end."""
        self.waiting.extend(sequences)

    def again(self, sequence: Sequence) -> None:
        """Return an incomplete sequence to the front of the queue."""
        self.running.pop(sequence.id, None)
        self.waiting.appendleft(sequence)

    def admit(self) -> tuple[str, Sequence] | None:
        """Admit the next sequence, with a new id for the attempt; None without one, or without room for it."""
        if not self.waiting or not self._has_room_for(self.waiting[0]):
            return None
        sequence, sequence_id = self.waiting.popleft(), str(next(self._ids))
        self.running[sequence_id] = sequence
        for other in self.running.values():
            other.generation.batch_size = max(other.generation.batch_size, len(self.running))
        return sequence_id, sequence

    def leave(self, sequence: Sequence) -> bool:
        """Remove a running sequence; False if it is not running."""
        return self.running.pop(sequence.id, None) is not None

    def drop(self, generation: Generation) -> None:
        """Remove the waiting sequences of a request."""
        self.waiting = deque(each for each in self.waiting if each.generation is not generation)

    def clear(self) -> None:
        """Remove all sequences."""
        self.waiting.clear()
        self.running.clear()

    def _has_room_for(self, sequence: Sequence) -> bool:
        running = self.running.values()
        if sequence.suspect or any(other.suspect for other in running):
            return not running
        reserved = sum(other.blocks for other in running)
        return len(running) < self._places and reserved + sequence.blocks <= self.blocks
