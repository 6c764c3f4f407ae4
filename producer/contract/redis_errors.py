"""What an error of Redis means: which Redis, what is wrong with it, and what to do about it."""

from __future__ import annotations

import redis
from redis import exceptions

from .redis_url import shown
from .settings import Settings


def trouble(error: Exception, settings: Settings) -> str:
    """One message that names the broker without its secrets, where it is configured, the cause and the cure."""
    origin = settings.redis_url_from
    at = f"Redis at {shown(settings.redis_url)}" + (f", as {origin} says," if origin else "")
    if isinstance(error, redis.AuthenticationError | exceptions.AuthorizationError):
        return f"{at} refuses the user or the password ({error}): correct {_place(settings)}"
    if isinstance(error, exceptions.NoPermissionError):
        return f"{at} does not permit that to this user ({error}): 'stoker acl ROLE' prints what each role needs"
    if isinstance(error, exceptions.BusyLoadingError):
        return f"{at} is still loading its data: come back in a while"
    if isinstance(error, exceptions.ReadOnlyError):
        return f"{at} is a replica, which cannot be written to ({error}): name its master, or its sentinels"
    if isinstance(error, exceptions.OutOfMemoryError):
        return (
            f"the memory of {at} is full (maxmemory); nothing was queued by the write that it refused. "
            "What is queued goes on, and frees memory as it ends: come back later"
        )
    if isinstance(error, redis.ResponseError):
        return f"{at} answers with an error: {error}"
    cure = f"start it, or correct {origin}" if origin else "is the fleet up? 'stoker up' starts it"
    return f"{at} does not answer ({error}): {cure}"


def _place(settings: Settings) -> str:
    return settings.redis_url_from or str(settings.url_file)
