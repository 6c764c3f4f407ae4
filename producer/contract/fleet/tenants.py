"""Tenants: on whose account jobs run, what share of a model each may have, and how much of it.

A tenant is what a producer's backend says it is. Jobs without one are the tenant ``default``'s, as are all jobs of
stock Celery producers. In ``fleet.toml``, ``[tenants.acme]`` is about one tenant, ``[tenants."*"]`` about all that
have no table of their own, but for ``default``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field

DEFAULT = "default"
"""The tenant of jobs that name none."""
OTHERS = "*"
"""The table that holds for tenants without one of their own."""


class Tenant(BaseModel):
    """A tenant's share and quotas. Each quota counts within one model; by default there is none."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    weight: Annotated[float, Field(gt=0)] = 1.0
    """Share of a queue's tokens relative to the other tenants that have jobs waiting in it."""
    max_queued: Annotated[int, Field(ge=1)] | None = None
    """Most jobs in one queue; more are refused at submission."""
    max_in_flight: Annotated[int, Field(ge=1)] | None = None
    """Most jobs held by workers; more stay queued, and other tenants' jobs go first."""
    tokens_per_minute: Annotated[float, Field(gt=0)] | None = None
    """Most tokens a minute, as fairness counts them; a minute's worth may be used at once."""

    @property
    def limited(self) -> bool:
        """Whether any quota is set."""
        return any(quota is not None for quota in (self.max_queued, self.max_in_flight, self.tokens_per_minute))


def tenant(tenants: Mapping[str, Tenant], name: str) -> Tenant:
    """The share and quotas of the tenant of that name."""
    if found := tenants.get(name):
        return found
    return Tenant() if name == DEFAULT else tenants.get(OTHERS, Tenant())


def quoted(name: str) -> str:
    """A tenant's name as it appears in keys and leases: without separators."""
    return quote(name, safe="")


def check(tenants: Mapping[str, Tenant]) -> None:
    """Refuse quotas that cannot be enforced.

    Raises:
        ValueError: for quotas of ``default``.
    """
    if tenants.get(DEFAULT, Tenant()).limited:
        raise ValueError(
            "tenants.default has a quota; allowed: weight only, for stock Celery producers ask nobody before they "
            'push. Give a quota to a tenant that is named, or to all that are: [tenants."*"]'
        )
