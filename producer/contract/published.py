"""What the autoscaler publishes: one schema, by which it writes and everybody else reads.

:class:`PublishedSizes` is stored at ``keys.sizes`` and :class:`PublishedNode` at ``keys.devices``, both as JSON;
:class:`JournalEntry` is an entry of the stream at ``keys.decisions``. Names of fields are on the wire and in the JSON
of ``stoker status`` and ``stoker explain``: they stay. A new field gets a default, so that records of another version
can be read; one that cannot counts as not published. Times are Unix seconds, durations seconds, memory GB (10^9 bytes).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, allow_inf_nan=False, from_attributes=True)

    @classmethod
    def parse(cls, stored: object) -> Self | None:
        """The stored record; None when none is, or one of another version."""
        if not isinstance(stored, bytes | str):
            return None
        try:
            return cls.model_validate_json(stored)
        except ValidationError:
            return None


class PublishedTier(_Record):
    """The demand for one tier of a model. ``waited_s`` is how long its next job has been passed over."""

    tier: str
    target_wait_s: float
    queued: int = 0
    waited_s: float = 0.0
    arrivals_per_s: float = 0.0
    arrived: int = 0
    """Jobs that ever arrived."""
    attain: float | None = None
    """Share of jobs that should start within the target; None if nothing is asked."""
    attained: float | None = None
    """Share that did lately; None if it is not known."""


class PublishedDemand(_Record):
    """The demand for one model, and what its replicas were measured to do: 0 where nothing was measured yet."""

    model: str
    tiers: tuple[PublishedTier, ...] = ()
    running: int = 0
    quiet_s: float = 0.0
    """For how long nothing was queued, running or arriving."""
    jobs_per_s: float = 0.0
    """The rate of one replica."""
    load_s: float = 0.0
    """How long a replica takes to load."""
    free_slots: int = 0
    phases: dict[str, int] = {}
    """Workers by phase: starting, loading, ready, draining."""
    suspects: int = 0
    suspects_waited_s: float = 0.0
    speeds: dict[str, float] = {}
    """The rate of one replica by device type."""
    left: int = 0
    """Reserved slots of each replica."""
    run_s: float = 0.0
    """How long a job runs, from its claim to its end."""


class ScaleUpConditions(_Record):
    """What one replica more than the ``present`` ones needs.

    ``queued`` is how many jobs must wait in ``tier``, the other tiers unchanged, for the policy to want it; None when
    no number is enough. ``device`` is where it would go, with ``free_gb`` free now; when it fits nowhere,
    ``hindrance`` says why, device by device.
    """

    present: int
    tier: str
    queued: int | None
    device: str = ""
    free_gb: float = 0.0
    hindrance: str = ""


class PublishedSize(_Record):
    """How many replicas a model should have, with the ``reason`` and the demand behind it.

    ``hold`` says what keeps more from being started; a start waits for ``cooled_at`` when the model has workers, and
    for ``backed_off_until`` in any case.
    """

    replicas: int
    reason: str
    demand: PublishedDemand
    one_more: ScaleUpConditions
    hold: str = ""
    cooled_at: float = 0.0
    backed_off_until: float = 0.0
    backed_off_for: str = ""
    failed_starts: int = 0
    """Workers that ended unasked, one after the other, since one last served."""
    surplus_since: float | None = None


class PublishedSizes(_Record):
    """Every model whose demand could be read, as ``policy`` sized it at ``at``."""

    at: float
    policy: str
    models: dict[str, PublishedSize]


class PublishedDevice(_Record):
    """One device; see ``autoscaler/devices/device.py``. ``workers`` are the names of those that hold it."""

    id: str
    kind: str
    name: str
    memory_gb: float | None
    used_gb: float | None = 0.0
    used_by: dict[int, float] = {}
    temperature_c: float | None = None
    utilisation: float | None = None
    fault: str = ""
    state: str = "idle"
    uuid: str = ""
    ecc_errors: int | None = None
    xids: tuple[int, ...] = ()
    lost: bool = False
    suspect: bool = False
    others: dict[int, str] = {}
    others_gb: float = 0.0
    """Memory that is used by something else than its workers."""
    untold: dict[str, str] = {}
    source: str = ""
    workers: tuple[str, ...] = ()


class NodeSummary(_Record):
    """A machine: its devices by state, and their memory as far as it is known. ``free_gb`` is what a new worker could
    have.

    ``trouble`` says which devices are in doubt and so not used, ``failing`` why the autoscaler's rounds fail; each is
    empty when there is nothing to say.
    """

    host: str
    at: float
    source: str
    total: int
    idle: int
    reserved: int
    allocated: int
    faulty: int
    memory_gb: float
    used_gb: float
    free_gb: float
    trouble: str = ""
    failing: str = ""


class PublishedNode(NodeSummary):
    """A machine and its devices, as the leading autoscaler last saw them."""

    devices: tuple[PublishedDevice, ...] = ()


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """One decision of the autoscaler, with its reason and the numbers that it was based on.

    ``action`` is start, drain, hold, lost, retry, quarantine or release. ``model``, ``worker`` and ``device`` are empty
    where it is about none.
    """

    at: float
    model: str
    action: str
    reason: str
    worker: str = ""
    device: str = ""
    inputs: Mapping[str, Any] = field(default_factory=dict)

    def fields(self) -> dict[str, str]:
        """The entry as it is added to the stream; ``inputs`` are JSON, empty when there are none."""
        return {
            "at": f"{self.at:.3f}",
            "action": self.action,
            "model": self.model,
            "worker": self.worker,
            "device": self.device,
            "reason": self.reason,
            "inputs": json.dumps(self.inputs) if self.inputs else "",
        }

    @classmethod
    def of_fields(cls, fields: Mapping[bytes, bytes]) -> JournalEntry:
        """An entry as the stream returns it."""
        text = {name.decode(): value.decode() for name, value in fields.items()}
        return cls(
            float(text["at"]),
            text.get("model", ""),
            text["action"],
            text["reason"],
            text.get("worker", ""),
            text.get("device", ""),
            json.loads(text.get("inputs") or "{}"),
        )
