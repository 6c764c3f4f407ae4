"""One decision of the autoscaler, as its journal has it (``autoscaler/journal.py``)."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Decision:
    """One decision of the autoscaler, with its reason and the numbers that it was based on. ``at`` is Unix time in
    seconds; ``worker`` and ``device`` are empty where it is about none."""

    at: float
    model: str
    action: str
    reason: str
    worker: str = ""
    device: str = ""
    inputs: dict[str, Any] = field(default_factory=dict)


def decision(fields: dict[bytes, bytes]) -> Decision:
    """An entry of the journal."""
    text = {key.decode(): value.decode() for key, value in fields.items()}
    return Decision(
        float(text["at"]),
        text.get("model", ""),
        text["action"],
        text["reason"],
        text.get("worker", ""),
        text.get("device", ""),
        json.loads(text.get("inputs") or "{}"),
    )
