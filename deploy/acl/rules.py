"""The rules of a role, as ``ACL SETUSER`` takes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

from producer.contract import keys
from producer.contract.errors import ConfigError
from producer.contract.fleet.settings import Settings

from . import producing, serving, watching
from .grants import Grant, GrantScope

CONNECTION = (
    "ping",
    "hello",
    "select",
    "client|setinfo",
    "client|setname",
    "multi",
    "exec",
    "discard",
    "watch",
    "unwatch",
    "time",
    "unsubscribe",
    "punsubscribe",
    "script|load",
    "script|exists",
)
"""Commands of every client that name no key. ``SCRIPT FLUSH``, ``SCRIPT KILL``, ``FUNCTION`` and ``EVAL`` are denied. A
script may be loaded, as is needed after a restart of the server; that runs nothing."""

ROLES: dict[str, Callable[[GrantScope], list[Grant]]] = {
    role.__name__: role
    for role in (
        producing.producer,
        producing.gateway,
        producing.batches,
        producing.stock,
        serving.worker,
        serving.autoscaler,
        watching.monitor,
        watching.operator,
    )
}


def scope(settings: Settings, models: Sequence[str] = ()) -> GrantScope:
    """What the grants of a role are about: some models, or all of the fleet file.

    Raises:
        UnknownModel: a model that is not in the fleet file; names those that are.
    """
    chosen = list(models) or list(settings.models)
    queues = [keys.queue(model, tier) for model in chosen for tier in settings.model(model).tiers]
    return GrantScope(chosen, queues, _db(settings))


def rules(role: str, settings: Settings, models: Sequence[str] = ()) -> list[str]:
    """The rules of a role, to follow ``ACL SETUSER name``; they do not set a password.

    Args:
        models: the models that the role covers; all of the fleet file when empty.

    Raises:
        ConfigError: an unknown role; names the allowed ones.
        UnknownModel: a model that is not in the fleet file; names those that are.
    """
    if role not in ROLES:
        raise ConfigError(f"no role {role!r}; allowed: {', '.join(ROLES)}")
    grants = ROLES[role](scope(settings, models))
    return ["-@all", *(f"+{command}" for command in CONNECTION), *(grant.rule for grant in grants)]


def _db(settings: Settings) -> int:
    """The number of the Redis database, which is part of the names of Celery's channels."""
    try:
        return int(urlsplit(settings.redis_url).path.removeprefix("/") or 0)
    except ConfigError:  # no Redis is configured or running
        return 0
