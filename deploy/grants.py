"""Grants: the parts of which the ACL rules of a role consist, and the names of Kombu's keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from producer.contract import keys

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

    @property
    def waiting(self) -> list[str]:
        """Keys in which submissions record since when a queue has been waiting."""
        return [keys.waiting(model) for model in self.models]

    @property
    def forecasts(self) -> list[str]:
        """Keys of the numbers from which estimates for queued jobs are made; they hold no jobs."""
        return [keys.sizes(), *(keys.estimates(model) for model in self.models)]

    @property
    def events(self) -> str:
        """Pattern of the channels of Celery's events."""
        return f"/{self.db}.{EVENTS}/*"

    @property
    def pidbox(self) -> str:
        """The channel of Celery's remote control."""
        return keys.pidbox(self.db)
