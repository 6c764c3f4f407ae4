"""The first line of every custom_id, in little memory: 32 MB for a million of them."""

from __future__ import annotations

from array import array
from hashlib import blake2b

SLOTS = 1 << 10


class FirstLines:
    """A hash table of 64-bit digests to line numbers, with open addressing, at most half full.

    The probability that two of a million different names share a digest, so that one is taken for a repetition, is 1 in
    40 million.
    """

    def __init__(self) -> None:
        self._digests = array("Q", bytes(8 * SLOTS))  # 0 is an empty slot
        self._lines = array("I", bytes(4 * SLOTS))
        self._count = 0

    def add(self, name: str, line: int) -> int:
        """The first line with that name: ``line`` itself when the name is new."""
        digest = int.from_bytes(blake2b(name.encode(errors="surrogatepass"), digest_size=8).digest()) or 1
        slot = self._slot(digest)
        if self._digests[slot]:
            return self._lines[slot]
        self._digests[slot], self._lines[slot] = digest, line
        self._count += 1
        if 2 * self._count > len(self._digests):
            self._grow()
        return line

    def _slot(self, digest: int) -> int:
        last = len(self._digests) - 1
        slot = digest & last
        while self._digests[slot] not in (0, digest):
            slot = (slot + 1) & last
        return slot

    def _grow(self) -> None:
        digests, lines = self._digests, self._lines
        self._digests = array("Q", bytes(16 * len(digests)))
        self._lines = array("I", bytes(8 * len(digests)))
        for digest, line in zip(digests, lines, strict=True):
            if digest:
                slot = self._slot(digest)
                self._digests[slot], self._lines[slot] = digest, line
