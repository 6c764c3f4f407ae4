"""What an error of Redis means: whether Redis cannot serve now, what is wrong with which Redis, and the cure."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import redis
from redis import exceptions

from ..errors import BrokerUnavailable, ConfigError
from ..fleet.settings import Settings
from .redis_url import shown

REFUSALS = {
    "LOADING": "is still loading its data: come back in a while",
    "READONLY": "is a replica, which cannot be written to: name its master, or its sentinels",
    "UNBLOCKED": "has become a replica in a failover: come back in a while, or name its master, or its sentinels",
    "MASTERDOWN": "is a replica that has lost its master, and answers nothing: name the master, or its sentinels",
    "OOM": "has no memory left (maxmemory); nothing was queued by the write that it refused. "
    "What is queued goes on, and frees memory as it ends: come back later",
    "MISCONF": "cannot save its data to disk, and takes no writes until it can: its log says why (often the "
    "disk is full)",
    "NOREPLICAS": "takes no writes while fewer replicas follow it than min-replicas-to-write asks for: "
    "start them again, or lower min-replicas-to-write",
    "BUSY": "is busy with a script that does not end: come back later. SCRIPT KILL ends a script that has written "
    "nothing, SHUTDOWN NOSAVE any",
    "CLUSTERDOWN": "belongs to a Redis Cluster that cannot serve now, and that Stoker cannot use anyway: "
    "use a single Redis, or one with replicas",
    "TRYAGAIN": "belongs to a Redis Cluster that moves its keys now, and that Stoker cannot use anyway: "
    "use a single Redis, or one with replicas",
}
"""The codes with which Redis says that it cannot serve now, though nothing is wrong with what was asked, and for each
what it means and what to do. Source: the errors in server.c and script.c of Redis 7 and Valkey 8."""

_CLASSES: dict[type[Exception], str] = {
    exceptions.BusyLoadingError: "LOADING",
    exceptions.ReadOnlyError: "READONLY",
    exceptions.OutOfMemoryError: "OOM",
    exceptions.MasterDownError: "MASTERDOWN",  # before its base class
    exceptions.ClusterDownError: "CLUSTERDOWN",
    exceptions.TryAgainError: "TRYAGAIN",
}
"""redis-py cuts the code off where it has a class for it; the other codes begin the message of a ResponseError."""

_WRAPPED = (" of pipeline caused error: ", "Transaction discarded because of: ")
"""What redis-py and EXEC put before the error of one command among several."""


def refusal(error: BaseException) -> str:
    """With which of ``REFUSALS`` Redis refuses to serve now; empty when it is another error."""
    for kind, code in _CLASSES.items():
        if isinstance(error, kind):
            return code
    if not isinstance(error, redis.ResponseError):
        return ""
    message = str(error)
    for before in _WRAPPED:
        message = message.rpartition(before)[2]
    code = message.lstrip("('\"").partition(" ")[0]  # asyncio's pipelines tell the error as a tuple
    return code if code in REFUSALS else ""


def cannot_serve(error: BaseException) -> bool:
    """Whether an error says that Redis cannot serve now, though nothing is wrong with what was asked: it is not
    reached, or refuses (``REFUSALS``). Callers that can wait try again."""
    unreached = redis.ConnectionError, redis.TimeoutError, BrokerUnavailable
    return isinstance(error, unreached) or refusal(error) != ""


def unavailable(error: Exception, settings: Settings, doing: str) -> BrokerUnavailable:
    """The error for a Redis that cannot serve now, without the URL's secrets. ``doing`` is what needed it."""
    return BrokerUnavailable(f"{doing}: {trouble(error, settings)}")


@contextmanager
def broker_errors(settings: Settings, doing: str) -> Iterator[None]:
    """What is done inside fails with ``BrokerUnavailable`` when Redis cannot serve now.

    Args:
        doing: what is done, for the message.
    """
    try:
        yield
    except redis.RedisError as error:
        if not cannot_serve(error):
            raise
        raise unavailable(error, settings, doing) from error


@contextmanager
def optional_write() -> Iterator[None]:
    """A write that nothing depends on, such as tidying up by a reader: skipped when Redis takes no writes now, or
    none of this user. An outage is raised: what is read next would fail as well."""
    try:
        yield
    except redis.ResponseError as error:
        if not (isinstance(error, exceptions.NoPermissionError) or refusal(error)):
            raise


def trouble(error: Exception, settings: Settings) -> str:
    """One message that names the broker without its secrets, where it is configured, the cause and the cure."""
    origin = settings.redis_url_from
    at = _shown(settings) + (f", as {origin} says," if origin else "")
    if code := refusal(error):
        return f"{at} {REFUSALS[code]} ({code})"
    if isinstance(error, redis.AuthenticationError | exceptions.AuthorizationError):
        return f"{at} refuses the user or the password ({error}): correct {_place(settings)}"
    if isinstance(error, exceptions.NoPermissionError):
        return f"{at} does not permit that to this user ({error}): 'stoker acl ROLE' prints what each role needs"
    if isinstance(error, redis.ResponseError):
        return f"{at} answers with an error: {error}"
    cure = f"start it, or correct {origin}" if origin else "is the fleet up? 'stoker up' starts it"
    if origin == "REDIS_URL":
        cure += ". Without it ('unset REDIS_URL'), 'stoker up' starts a server of its own"
    return f"{at} does not answer ({error}): {cure}"


def _shown(settings: Settings) -> str:
    try:
        return f"Redis at {shown(settings.redis_url)}"
    except ConfigError:  # the fleet that it was of has been taken down since
        return "Redis"


def _place(settings: Settings) -> str:
    return settings.redis_url_from or str(settings.url_file)
