"""The assignment of a worker process: one model, one device, one engine."""

from __future__ import annotations

from dataclasses import dataclass

from producer.contract.fleet.settings import Settings
from scheduler.lease.ledger import Ledger

from .engines.protocol import Engine


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a worker process is for. The pool finds it as ``app.assignment``."""

    name: str
    model: str
    device: str
    settings: Settings
    engine: Engine
    ledger: Ledger
    device_type: str = ""
    device_uuid: str = ""
