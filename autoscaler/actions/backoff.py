"""Back-off: a growing pause before a model is started again whose workers ended unexpectedly."""

from __future__ import annotations

from dataclasses import dataclass, replace

FIRST_S = 1.0
LONGEST_S = 300.0
STABLE_S = 60.0
"""A worker that lived for this long did not fail to start; the count of failures is reset."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """Consecutive failures of one model, the cause of the last, and the Unix time of the next start."""

    failures: int
    until: float
    cause: str

    @property
    def reason(self) -> str:
        """The back-off in words; constant while it lasts."""
        times = "once" if self.failures == 1 else f"{self.failures} times in a row"
        pause = pause_s(self.failures)
        return f"a worker ended unasked {times}; next start after {pause:g} s. Last: {self.cause}"

    @property
    def excused(self) -> Backoff | None:
        """The back-off without its last failure, which was no fault of the model; None when there was no other."""
        if self.failures == 1:
            return None
        fewer = self.failures - 1
        return Backoff(fewer, self.until - pause_s(self.failures) + pause_s(fewer), self.cause)

    def moved(self, step_s: float) -> Backoff:
        """The same after a step of the clock that its time was read from."""
        return replace(self, until=self.until + step_s)


def after(before: Backoff | None, now: float, lived_s: float, cause: str, served: bool = False) -> Backoff:
    """The back-off after a worker that lived ``lived_s`` seconds ended unasked.

    A worker that ``served`` had started, so its end resets the count: delaying its model would only reduce capacity.
    """
    anew = before is None or served or lived_s >= STABLE_S or now >= before.until + LONGEST_S
    failures = 1 if before is None or anew else before.failures + 1
    return Backoff(failures, now + pause_s(failures), cause)


def pause_s(failures: int) -> float:
    """The pause in seconds after consecutive failures: it doubles, up to a limit."""
    return min(LONGEST_S, FIRST_S * 2.0 ** min(failures - 1, 20))
