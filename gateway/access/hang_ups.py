"""Hang-ups: requests whose client leaves before the answer, by API key.

Each costs a gateway the connection, the submission and the cancellation, several times what an answered request costs
its client. A key beyond the limit is refused by its headers alone, without a question to Redis; other keys are not.
"""

from __future__ import annotations

PER_S, AT_ONCE = 20.0, 100.0
"""Hang-ups of one key a second, in the long run, and at once. People who close a page are far below."""
KEY_NAME = "key_name"
"""Where a request's state holds the hash of the key that it brings; empty without one."""


class HangUps:
    """What is counted of each key: a leaky bucket of ``AT_ONCE`` that drains at ``PER_S``."""

    def __init__(self) -> None:
        self._buckets: dict[str, tuple[float, float]] = {}  # by key: content, and when it was that

    def count(self, key: str, now: float) -> None:
        """Count one. ``now`` is in seconds, of any clock."""
        self._buckets[key] = (self._content(key, now) + 1, now)

    def wait_s(self, key: str, now: float) -> float:
        """In how many seconds the key may ask again; 0 if now."""
        return max(0.0, (self._content(key, now) - AT_ONCE) / PER_S)

    def _content(self, key: str, now: float) -> float:
        content, at = self._buckets.get(key, (0.0, now))
        left = max(0.0, content - (now - at) * PER_S)
        if not left:
            self._buckets.pop(key, None)
        return left
