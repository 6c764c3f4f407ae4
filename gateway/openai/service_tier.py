"""From ``service_tier`` to a tier of the model."""

from __future__ import annotations

from producer.contract.fleet.settings import Settings

from ..access.api_key import ApiKey
from .api_error import Problem

FASTEST = (None, "auto", "default", "priority", "scale")
"""OpenAI's values for the fastest tier. A tier of the fleet file with such a name takes precedence."""

SLOWEST = "flex"
"""OpenAI's value for the slowest and cheapest tier."""


def tier_of(asked: str | None, model: str, settings: Settings, caller: ApiKey) -> str:
    """The tier that a request gets, of those that the model has and its caller may use.

    Raises:
        Problem: 403 for a tier that the caller may not use, 400 for an unknown one.
    """
    there = settings.model(model).tiers
    if asked in there and not caller.may_ask(asked):
        raise Problem(
            403, f"this API key may not use the tier {asked!r}", param="service_tier", code="tier_not_allowed"
        )
    may = sorted(filter(caller.may_ask, there), key=lambda tier: settings.tiers[tier].target_wait_s)
    if not may:
        raise Problem(403, f"this API key may use no tier of {model!r}", param="service_tier", code="tier_not_allowed")
    if asked in may:
        return asked
    if asked in FASTEST:
        return may[0]
    if asked == SLOWEST:
        return may[-1]
    allowed = ", ".join(dict.fromkeys([*may, *(each for each in FASTEST if each), SLOWEST]))
    raise Problem(
        400, f"service_tier = {asked!r}; allowed: {allowed}", param="service_tier", code="invalid_service_tier"
    )
