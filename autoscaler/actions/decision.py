"""Decisions: the actions of one round, each with its reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Inputs = Mapping[str, object]
"""The numbers that a decision was based on, by name; values go into JSON as they are."""


@dataclass(frozen=True, slots=True)
class Start:
    """Start a replica of ``model`` on ``device`` (its ``uuid``), of ``kind`` ``cpu`` or ``cuda``, and of ``type``."""

    model: str
    device: str
    kind: str
    reason: str
    type: str = ""
    inputs: Inputs = field(default_factory=dict)
    uuid: str = ""


@dataclass(frozen=True, slots=True)
class Drain:
    """Let a worker finish what it runs and end; with ``grace_s`` 0, end it at once."""

    model: str
    worker: str
    device: str
    grace_s: float
    reason: str
    inputs: Inputs = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Hold:
    """A start that is wanted and blocked. ``cause`` is constant while the blocker is the same; the numbers in
    ``reason`` change."""

    model: str
    cause: str
    reason: str
    inputs: Inputs = field(default_factory=dict)


Decision = Start | Drain | Hold
