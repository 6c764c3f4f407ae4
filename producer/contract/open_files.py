"""The limit of open files of a process."""

from __future__ import annotations

import resource

MOST = 2**20
"""The limit is not raised beyond this: programs that a process starts may look at every possible descriptor."""


def raise_limit() -> None:
    """Raise the soft limit of this process, which its children inherit, to the hard one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MOST if hard == resource.RLIM_INFINITY else min(hard, MOST)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def limit() -> int:
    """The soft limit."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST if soft == resource.RLIM_INFINITY else soft
