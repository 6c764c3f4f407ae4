"""What a client's user of Redis may do, as far as its calls go other ways without it (``stoker acl``)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .connection import has_own_user

if TYPE_CHECKING:
    from ..fleet.settings import Settings


@dataclass(frozen=True, slots=True)
class Rights:
    """The rights of a user.

    Args:
        reads: whether it may read what is queued.
        writes: whether it may take jobs out of queues, give tenants their turns, and write results.
    """

    reads: bool
    writes: bool

    @classmethod
    def of(cls, settings: Settings, reads: bool | None) -> Rights:
        """The rights of the user in the URL: all for Redis's default one, a producer's for another, but for what is
        known of it."""
        limited = has_own_user(settings)
        return cls(reads=not limited if reads is None else reads, writes=not limited)


ALL = Rights(reads=True, writes=True)
