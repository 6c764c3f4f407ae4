"""Tenants: on whose account jobs run, what share of a model each may have, and how much of it.

A tenant is what a producer's backend says it is. Jobs without one are the tenant ``default``'s, as are all jobs of
stock Celery producers. In ``fleet.toml``, ``[tenants.acme]`` is about one tenant, ``[tenants."*"]`` about all that
have no table of their own, ``default`` included as far as jobs can be refused at submission: what stock producers push
waits in a list that workers take from whoever it belongs to, so that no claim can pass it over.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Annotated
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field

DEFAULT = "default"
"""The tenant of jobs that name none."""
LONGEST = 2048
"""Most bytes of a quoted name: more than any of a job."""
_QUOTED = re.compile(rb"[A-Za-z0-9%_.~-]+")

OTHERS = "*"
"""The table that holds for tenants without one of their own."""


class Tenant(BaseModel):
    """A tenant's share and quotas. Each quota counts within one model. A quota without a default is none unless it is
    set."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    weight: Annotated[float, Field(gt=0)] = 1.0
    """Share of a queue's tokens relative to the other tenants that have jobs waiting in it."""
    max_queued: Annotated[int, Field(ge=1)] | None = None
    """Most jobs in one queue; more are refused at submission."""
    queue_share: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Most of a queue that the tenant may fill, as a share of what other tenants leave of ``limits.max_queued``; more
    are refused at submission. 1 for a fleet of one tenant."""
    max_in_flight: Annotated[int, Field(ge=1)] | None = None
    """Most jobs held by workers; more stay queued, and other tenants' jobs go first."""
    tokens_per_minute: Annotated[float, Field(gt=0)] | None = None
    """Most tokens a minute, as fairness counts them, also those of requests that were hung up on; a minute's worth may
    be used at once."""

    max_files: Annotated[int, Field(ge=1)] = 1000
    """Most files of batches, outputs included; further uploads are refused."""
    max_files_bytes: Annotated[int, Field(ge=1)] = 10 * 1024**3
    """Most bytes of these files; further uploads are refused."""
    max_open_batches: Annotated[int, Field(ge=1)] = 100
    """Most batches that have not ended; further ones are refused."""

    @property
    def limits_claims(self) -> bool:
        """Whether any quota is set that makes jobs wait."""
        return self.max_in_flight is not None or self.tokens_per_minute is not None


def tenant(tenants: Mapping[str, Tenant], name: str) -> Tenant:
    """The share and quotas of the tenant of that name."""
    return tenants.get(name) or tenants.get(OTHERS, Tenant())


def most_queued(account: Tenant, limit: int, of_others: int) -> int:
    """The most jobs that a tenant may have in a queue, as ``submit.lua`` counts them: of what others leave its share,
    and at least one job.

    Args:
        limit: of the queue (``limits.max_queued``).
        of_others: other tenants' jobs in it.
    """
    share = max(1, math.floor(account.queue_share * (limit - of_others)))
    return share if account.max_queued is None else min(share, account.max_queued)


def quoted(name: str) -> str:
    """A tenant's name as it appears in keys and leases: without separators."""
    return quote(name, safe="")


def is_quoted(name: bytes) -> bool:
    """Whether that is what :func:`quoted` makes of a name; producers may write anything where names are kept."""
    return len(name) <= LONGEST and _QUOTED.fullmatch(name) is not None


def check(tenants: Mapping[str, Tenant]) -> None:
    """Refuse quotas that cannot be enforced.

    Raises:
        ValueError: for quotas of ``default``.
    """
    if tenants.get(DEFAULT, Tenant()).limits_claims:
        raise ValueError(
            "tenants.default has max_in_flight or tokens_per_minute; allowed: what is looked at when jobs are "
            "submitted, for workers take what stock Celery producers push from whoever it is. Give such a quota to a "
            'tenant that is named, or to all that are: [tenants."*"]'
        )
