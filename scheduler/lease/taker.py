"""The taker: what the transport claims jobs for, and passes each claim to. In a worker it is the pool."""

from __future__ import annotations

from typing import Protocol

from ..window.window import HoldLimits
from .queue import NO_HOLD, Claim


class Taker(Protocol):
    """The runner of the claimed jobs."""

    @property
    def capacity(self) -> int:
        """Most jobs that it can hold now; 0 until it is ready, and while it drains."""

    @property
    def slots(self) -> int:
        """See ``scheduler.order.preemption.room``."""

    def hold(self) -> HoldLimits:
        """How long jobs may now be held for a fuller batch."""

    def take(self, claim: Claim) -> None:
        """Run the claimed jobs, if any. They are in the ledger already, and each must be ended there.

        Raises:
            RedisError: after all of them have been ended.
        """


class NoTaker:
    """The taker of a worker without an engine: it has no room."""

    capacity = slots = 0

    def hold(self) -> HoldLimits:
        """No job is held for a fuller batch."""
        return NO_HOLD

    def take(self, claim: Claim) -> None:
        """Never called, because there is no room."""
        raise AssertionError(claim)
