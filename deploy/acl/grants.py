"""Grants: the parts of which the ACL rules of a role consist, and the names of Kombu's keys."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from kombu.transport.redis import REFRESH_BINDING, SWEEP_BINDINGS

from producer.contract import keys
from producer.contract.server.lua import digest

PIDBOX = "celery.pidbox"
REPLIES = "reply.celery.pidbox"
EVENTS = "celeryev"
# Kombu's names: the tables of bindings between queues and exchanges, and of their expiry. They hold no jobs.
TABLES = ("_kombu.binding.", "_kombu.binding_permanent.")
DEADLINES = "_kombu.binding_deadlines"


@dataclass(frozen=True, slots=True)
class Grant:
    """Permission for some commands on some keys and channels, given as Redis patterns."""

    commands: Sequence[str]
    keys: Sequence[str] = ()
    channels: Sequence[str] = ()

    @property
    def rule(self) -> str:
        """The grant as an ACL selector."""
        parts = [f"+{command}" for command in self.commands]
        parts += [f"~{key}" for key in self.keys]
        parts += [f"&{channel}" for channel in self.channels]
        return f"({' '.join(parts)})"


def running(texts: Sequence[str], names: Sequence[str]) -> Grant:
    """Permission to run these Lua scripts, and no others, on some keys. Loading them alone runs nothing."""
    return Grant([f"evalsha|{digest(text)}" for text in texts], names)


RESULT = keys.result("*")
CANCELLED = (keys.cancelled(), keys.withdrawals())


@dataclass(frozen=True, slots=True)
class GrantScope:
    """The keys that the grants of a role cover: those of its models, in one database."""

    models: Sequence[str]
    queues: Sequence[str]
    db: int

    @property
    def state(self) -> list[str]:
        """Patterns of every key of the models except their queues."""
        return [keys.any_of_model(model) for model in self.models]

    def of_models(self, *kinds: Callable[[str], str]) -> list[str]:
        """The keys of some kinds, which are functions of :mod:`producer.contract.keys`, of each model."""
        return [kind(model) for kind in kinds for model in self.models]

    def of_tiers(self, *kinds: Callable[[str, str], str]) -> list[str]:
        """Patterns of the keys of some kinds, of all tiers of each model."""
        return [kind(model, "*") for kind in kinds for model in self.models]

    @property
    def forecasts(self) -> list[str]:
        """Keys of the numbers from which estimates for queued jobs are made; they hold no jobs."""
        return [keys.sizes(), *self.of_models(keys.estimates)]

    @property
    def events(self) -> str:
        """Pattern of the channels of Celery's events."""
        return f"/{self.db}.{EVENTS}/*"

    @property
    def pidbox(self) -> str:
        """The channel of Celery's remote control."""
        return keys.pidbox(self.db)

    @property
    def priorities(self) -> list[str]:
        """Patterns of the lists of Celery's priorities, whose lengths it asks for beside each queue's."""
        return [f"{queue}??[369]" for queue in self.queues]


def tables(exchanges: Iterable[str]) -> list[str]:
    """Kombu's tables of the bindings of exchanges."""
    return [f"{table}{exchange}" for exchange in exchanges for table in TABLES]


def remote_control(fleet: GrantScope, queues: Iterable[str]) -> list[Grant]:
    """A mailbox for Celery's remote control, replies to the mailboxes of others, and Kombu's bookkeeping, for which it
    has scripts of its own."""
    own = tables([PIDBOX, REPLIES, EVENTS])
    return [
        Grant(["sadd", "smembers"], tables(queues)),
        Grant(["sadd", "srem", "smembers", "exists", "del"], own),
        running([REFRESH_BINDING, SWEEP_BINDINGS], [*own, DEADLINES]),
        Grant(["zadd", "zrangebyscore", "zrem"], [DEADLINES]),
        Grant(["llen", "del", "exists", "pexpire"], [f"*.{PIDBOX}*", f"{EVENTS}.*"]),
        Grant(["lpush"], [f"*.{REPLIES}"]),
        Grant(["psubscribe", "subscribe"], channels=[fleet.pidbox]),
    ]
