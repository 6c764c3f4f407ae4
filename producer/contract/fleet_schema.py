"""The tables of the fleet file: what each may hold, and what it holds when it says nothing."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

NAME = r"^[a-z0-9][a-z0-9._-]{0,63}$"
TIER_NAME = r"^[a-z0-9][a-z0-9_-]{0,31}$"
DEVICE_NAME = r"^(cpu|cuda):\d+$"
ALLOWED = {
    NAME: "allowed: lower-case letters, digits, . _ -, and a letter or digit first; 64 at most",
    TIER_NAME: "allowed: lower-case letters, digits, _ -, and a letter or digit first; 32 at most",
    DEVICE_NAME: "allowed: cpu:N or cuda:N, such as cpu:0, which is what a worker can hold",
}
"""What each pattern allows, in words."""

Name = Annotated[str, Field(pattern=NAME)]
TierName = Annotated[str, Field(pattern=TIER_NAME)]
Seconds = Annotated[float, Field(gt=0)]
Gigabytes = Annotated[float, Field(ge=0)]


PolicyName = Literal["slack", "backlog", "forecast", "target-tracking", "threshold"]
"""The scaling policies (``autoscaler/sizing/policy.py``)."""


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Redis(_Table):
    """Where the queues live. Without a URL, ``stoker up`` runs a server of its own and says where."""

    url: Annotated[str | None, Field(repr=False)] = None
    worker_url: Annotated[str | None, Field(repr=False)] = None
    """With what the autoscaler's workers connect, when they shall have fewer rights than it; by default its own."""
    sentinel_master: str | None = None
    """With ``sentinel://HOST:PORT;sentinel://HOST:PORT``: the name of the group whose master is the broker."""
    lease_s: Seconds = 30.0
    """How long a silent worker keeps its jobs before others get them. Renewed at a third of this."""
    max_losses: Annotated[int, Field(ge=1)] = 3
    """How many workers a job may take down with it before it becomes a dead letter."""
    result_ttl_s: Seconds = 86_400.0


class Tier(_Table):
    """An SLA tier: ``target_wait_s`` is when a job is due, ``weight`` how much a second counts by which it is late."""

    target_wait_s: Seconds
    weight: Annotated[float, Field(gt=0)]
    preemptible: bool = False
    """Whether its jobs give their slots to those of other tiers, and begin anew (``scheduler/order/preemption.py``)."""


class Limits(_Table):
    """What one job, and one queue, may hold. Anything larger is refused at submission."""

    max_input_bytes: Annotated[int, Field(ge=1)] = 1_048_576
    max_inputs: Annotated[int, Field(ge=1)] = 4096
    max_queued: Annotated[int, Field(ge=1)] = 1_000_000
    time_limit_s: Seconds = 600.0
    """How long a job may take before it fails, from when a worker took it, a wait behind its batch included."""
    stall_s: Seconds = 120.0
    """How long an engine that holds jobs may show no progress before its worker is given up."""
    max_retries: Annotated[int, Field(ge=0, le=20)] = 3
    """How often a job is tried again when the engine failed through no fault of the job."""


class Model(_Table):
    """One model: which engine runs it, where its weights are, and how far it may scale.

    ``source`` is ``package:NAME`` (weights inside an installed Python package), a path, or a hub id.
    """

    engine: Literal["embed", "classify", "rerank", "generate", "openai", "echo"]
    source: str = ""
    tiers: tuple[TierName, ...] = ("interactive", "standard", "batch")
    memory_gb: Gigabytes = 1.0
    max_concurrency: Annotated[int, Field(ge=1, le=4096)] = 32
    """Inputs that one worker has on its device at the same time."""
    min_replicas: Annotated[int, Field(ge=0)] = 0
    max_replicas: Annotated[int, Field(ge=1)] = 1
    replicas_per_gpu: Annotated[int, Field(ge=1)] = 1
    """Its workers that may share one GPU. An engine fills its batches, so that two of them only take turns, unless what
    they do beside the GPU takes long, as reading text into tokens does."""
    limits: Limits = Limits()
    options: dict[str, Any] = Field(default_factory=dict)
    """Handed to the engine as they are; each engine documents its own."""

    @property
    def slots(self) -> int:
        """Inputs that each begin and end by themselves on a worker's device; 0 if they do in whole batches."""
        return self.max_concurrency if self.engine in ("generate", "openai") else 0

    @property
    def task(self) -> str | None:
        """What it does for who speaks the OpenAI API: ``generate`` or ``embeddings``; None for an echo of any input."""
        by_engine = {"embed": "embeddings", "generate": "generate", "openai": "generate"}
        return str(self.options.get("task") or "") or by_engine.get(self.engine)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.min_replicas > self.max_replicas:
            raise ValueError(f"min_replicas is {self.min_replicas}, allowed: up to max_replicas ({self.max_replicas})")
        if not self.source and self.engine not in ("openai", "echo"):
            raise ValueError("source is missing; allowed: package:NAME, a path, or a hub id")
        if not self.tiers:
            raise ValueError("tiers is empty; allowed: at least one name from [tiers]")
        return self


class DeclaredDevice(_Table):
    """A stand-in for a GPU on a machine without NVML: one slot that one worker may hold."""

    name: Annotated[str, Field(pattern=DEVICE_NAME)]
    memory_gb: Gigabytes = 4.0


class ThresholdSettings(_Table):
    """The policy ``threshold``: shares of the slots in use beyond which one replica comes or goes, and how long ago the
    last such step must be."""

    up: Annotated[float, Field(gt=0, le=1)] = 0.8
    down: Annotated[float, Field(ge=0, lt=1)] = 0.3
    up_cooldown_s: Annotated[float, Field(ge=0)] = 60.0
    down_cooldown_s: Annotated[float, Field(ge=0)] = 300.0

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.down >= self.up:
            raise ValueError(f"down is {self.down}, allowed: below up ({self.up})")
        return self


class TargetTrackingSettings(_Table):
    """The policy ``target-tracking``: the share of the slots in use that is aimed at, and for how long fewer replicas
    must have been enough."""

    utilisation: Annotated[float, Field(gt=0, le=1)] = 0.7
    down_s: Annotated[float, Field(ge=0)] = 300.0


class Scaling(_Table):
    """How the autoscaler moves. Up is fast, down is slow."""

    interval_s: Seconds = 1.0
    up_cooldown_s: Annotated[float, Field(ge=0)] = 3.0
    idle_s: Annotated[float, Field(ge=0)] = 30.0
    """How long a worker must have been superfluous before it is drained."""
    drain_s: Seconds = 60.0
    """How long a draining worker may take before its jobs are handed back."""
    start_s: Seconds = 300.0
    """How long a worker may take to load before it is given up."""
    headroom_devices: Annotated[int, Field(ge=0)] = 0
    """Devices that are kept free for bursts: only a model with jobs waiting in a tier that cannot wait gets them."""
    policy: PolicyName = "slack"
    """Who says how many replicas a model should have."""
    max_step: Annotated[int, Field(ge=1)] = 16
    """How many replicas of a model are started, or drained, at once at most."""
    headroom: Annotated[float, Field(ge=0, le=10)] = 0.5
    """Of ``slack``: how many standard deviations of its forecast's error are kept free for bursts."""
    keep_loads: Annotated[float, Field(ge=0, le=100)] = 4.0
    """Of ``slack``: for how many times as long as a replica loads a superfluous one is kept; ``idle_s`` at least."""
    threshold: ThresholdSettings = ThresholdSettings()
    target_tracking: TargetTrackingSettings = TargetTrackingSettings()


class Quarantine(_Table):
    """When a GPU is taken out of use, and how soon it may come back."""

    hot_c: Annotated[float, Field(gt=0)] = 85.0
    """From this temperature on, in degrees Celsius, a GPU throttles, and every worker on it misses its targets."""
    hold_s: Seconds = 30.0
    """How long a GPU that was hot, lost or unreadable stays out at least; twice as long at each repetition."""
    severe_hold_s: Seconds = 600.0
    """The same after an uncorrectable memory error or an XID error, unless the GPU was reset meanwhile."""


class Gateway(_Table):
    """What the gateway allows. Where it listens is said when it is started."""

    timeout_s: Seconds = 600.0
    """How long a request may take. The deadline of its job, too: what nobody waits for is not run to its end."""
    max_body_bytes: Annotated[int, Field(ge=1024)] = 4 * 1024 * 1024
    """The largest request but for uploads, which have a limit of their own."""
    max_tokens: Annotated[int, Field(ge=1)] = 512
    """The longest answer of a chat that does not say ``max_completion_tokens``."""
    files: str | None = None
    """Where the files of batches are: a folder, relative to the fleet file, or a URL that fsspec knows, such as
    ``s3://bucket/batches``. All gateways and batch processes of a fleet need the same. By default in ``state_dir``."""
    max_file_bytes: Annotated[int, Field(ge=1024)] = 200 * 1024 * 1024
    """The largest file that can be uploaded."""
    max_file_lines: Annotated[int, Field(ge=1)] = 1_000_000
    """The most requests in one batch."""
    webhook_hosts: tuple[str, ...] = ()
    """Hosts that webhooks may go to though they are private, or speak plain HTTP. Others must be public, with TLS."""
