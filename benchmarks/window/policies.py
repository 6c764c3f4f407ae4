"""The policies that are compared. Each sees what a worker could see, and nothing of what is to come."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from scheduler.window.learned_window import LearnedWindow
from scheduler.window.window import TierQueue, look_again


@dataclass(frozen=True, slots=True)
class View:
    """What a worker sees when it looks and its device is free. Seconds by one clock."""

    now: float
    waiting: int
    oldest: float
    """When the oldest job arrived."""
    seen: float
    """Since when a head was seen waiting."""
    arrived: int
    """Jobs that had ever arrived."""
    occupied: bool
    """Whether there was something to do since the look before."""
    running: int = 0
    """Jobs in the batch that runs."""
    begun: float = 0.0
    """When it began."""


class Policy(Protocol):
    """Decides when a batch runs."""

    most: int
    """Jobs in a batch."""
    watches: bool
    """Whether it wakes when a batch has become full; one that does not sleeps for as long as it said."""

    def wait(self, view: View) -> float:
        """In how many seconds to look again; 0 runs what waits."""

    def ran(self, jobs: int, seconds: float) -> None:
        """A batch ran."""


class Greedy:
    """Takes what is there; with ``most`` 1 this is no batching."""

    watches = True

    def __init__(self, most: int) -> None:
        self.most = most

    def wait(self, view: View) -> float:  # noqa: ARG002  the protocol's
        """See ``Policy``."""
        return 0.0

    def ran(self, jobs: int, seconds: float) -> None:
        """See ``Policy``."""


class FromArrival(Greedy):
    """A fixed window that begins when the oldest job arrives."""

    def __init__(self, most: int, window_s: float) -> None:
        super().__init__(most)
        self.window_s = window_s

    def wait(self, view: View) -> float:
        """See ``Policy``."""
        return 0.0 if view.waiting >= self.most else view.oldest + self.window_s - view.now


class FromPickup(Greedy):
    """A fixed window that begins when the device, being free, first sees a job: what most batchers do."""

    def __init__(self, most: int, window_s: float) -> None:
        super().__init__(most)
        self.window_s = window_s
        self._begun: float | None = None

    def wait(self, view: View) -> float:
        """See ``Policy``."""
        if self._begun is None:
            self._begun = view.now
        return 0.0 if view.waiting >= self.most else self._begun + self.window_s - view.now

    def ran(self, jobs: int, seconds: float) -> None:  # noqa: ARG002  the protocol's
        """See ``Policy``."""
        self._begun = None


class Learned:
    """The fleet's own window. It begins knowing nothing, and learns cost and arrivals as it goes."""

    watches = False

    def __init__(self, most: int, target_s: float) -> None:
        self.most = most
        self._window = LearnedWindow([target_s], most)
        self._waiting = False

    def wait(self, view: View) -> float:
        """See ``Policy``."""
        self._window.see(view.now, view.arrived, occupied=view.occupied, waiting=self._waiting)
        busy_s = view.begun + self._window.cost.cost.expected(view.running) - view.now if view.running else 0.0
        hold = self._window.hold(max(0.0, busy_s))
        wait_s = look_again(hold, (TierQueue(view.waiting, view.now - view.seen),))
        self._waiting = wait_s > 0 or view.waiting > self.most
        return wait_s

    def ran(self, jobs: int, seconds: float) -> None:
        """See ``Policy``."""
        self._window.cost.learn(jobs, jobs, seconds)


OURS, GREEDY, ALONE = "ours", "greedy", "no batching"
WINDOWS_S = (0.005, 0.010, 0.020, 0.050)


def ways(most: int, target_s: float) -> dict[str, Policy]:
    """All that are compared, each new, by name."""
    fixed: dict[str, Policy] = {}
    for window_s in WINDOWS_S:
        fixed[f"{1000 * window_s:.0f} ms from arrival"] = FromArrival(most, window_s)
        fixed[f"{1000 * window_s:.0f} ms from pickup"] = FromPickup(most, window_s)
    return {OURS: Learned(most, target_s), GREEDY: Greedy(most), ALONE: Greedy(1), **fixed}
