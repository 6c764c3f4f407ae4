"""The tables of the fleet file: their keys, types, limits and defaults. ``docs/configuration.md`` is made from this."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from .engine_options import OPTIONS, PATH, EchoOptions, EngineOptions, OpenAIOptions

NAME = r"^[a-z0-9][a-z0-9._-]{0,63}$"
ALIAS = r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,127}$"
TIER_NAME = r"^[a-z0-9][a-z0-9_-]{0,31}$"
DEVICE_NAME = r"^(cpu|cuda):\d+$"
ALLOWED = {
    NAME: "allowed: lower-case letters, digits, . _ -, and a letter or digit first; 64 at most",
    ALIAS: "allowed: letters, digits, . _ - /, and a letter or digit first; 128 at most",
    TIER_NAME: "allowed: lower-case letters, digits, _ -, and a letter or digit first; 32 at most",
    DEVICE_NAME: "allowed: cpu:N or cuda:N, such as cpu:0, which is what a worker can hold",
    PATH: "allowed: a path that begins with /",
}
"""What each pattern allows, in words."""

Name = Annotated[str, Field(pattern=NAME)]
TierName = Annotated[str, Field(pattern=TIER_NAME)]
Seconds = Annotated[float, Field(gt=0)]
Gigabytes = Annotated[float, Field(ge=0)]
NotNegative = Annotated[float, Field(ge=0)]


PolicyName = Literal["slack", "backlog", "forecast", "target-tracking", "threshold"]
"""The scaling policies (``autoscaler/sizing/policy_registry.py``)."""


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Redis(_Table):
    """The Redis server that holds the queues."""

    url: Annotated[str | None, Field(repr=False)] = None
    """URL of the server (``redis://``, ``rediss://`` or ``sentinel://``). Default: ``REDIS_URL``, or else the server
    that ``stoker up`` starts. Options: ``client_name``, ``health_check_interval``, ``max_connections``,
    ``retry_on_timeout``, ``socket_connect_timeout``, ``socket_keepalive``, ``socket_timeout``, and those of TLS."""
    worker_url: Annotated[str | None, Field(repr=False)] = None
    """URL that the autoscaler hands to its workers, for a Redis user with fewer rights. Default: ``url``."""
    sentinel_master: str | None = None
    """Name of the group whose master is the broker, for a URL ``sentinel://HOST:PORT;sentinel://HOST:PORT``."""
    lease_s: Seconds = 30.0
    """Seconds after which the jobs of a silent worker go back to their queues. Renewed at a third of this."""
    max_losses: Annotated[int, Field(ge=1)] = 3
    """Number of workers that may die while they hold a job before the job becomes a dead letter."""
    result_ttl_s: Seconds = 86_400.0
    """Seconds for which a result is kept."""
    dead_letter_ttl_s: Seconds = 1_209_600.0
    """Seconds for which a dead letter is kept: 14 days."""
    dead_letter_bytes: Annotated[int, Field(ge=4096)] = 64 * 1024 * 1024
    """Most bytes of a model's dead letters. Those of one tenant may be half of what others leave; its oldest are
    deleted first."""
    max_memory_share: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of the machine's memory that the server of ``stoker up`` may use (``maxmemory``). When it is full, jobs are
    refused; nothing is evicted."""


class Tier(_Table):
    """An SLA tier: a service class with a target."""

    target_wait_s: Seconds
    """Seconds within which a job should start."""
    attain: Annotated[float | None, Field(gt=0, lt=1)] = None
    """Share of jobs that should start within ``target_wait_s``. While fewer do, ``slack`` keeps more headroom. Default:
    0.99 for the tier with the shortest target, since whoever waits for each answer meets one in a hundred every day;
    nothing for the others, which fill what that one leaves."""
    weight: Annotated[float, Field(gt=0)]
    """Urgency of each second by which a job is late, relative to other tiers."""
    preemptible: bool = False
    """Whether running jobs of the tier give their slots to other tiers' jobs, and start again later."""


class Limits(_Table):
    """Limits of one job and one queue. Larger jobs are refused at submission."""

    max_input_bytes: Annotated[int, Field(ge=1)] = 1_048_576
    """Largest size of a job's inputs, in bytes of JSON."""
    max_inputs: Annotated[int, Field(ge=1)] = 4096
    """Largest number of inputs in one job."""
    max_queued: Annotated[int, Field(ge=1)] = 1_000_000
    """Largest number of jobs in one queue."""
    time_limit_s: Seconds = 600.0
    """Seconds from its claim after which a job fails, the wait for its batch included."""
    stall_s: Seconds = 300.0
    """Seconds without progress after which an engine that holds jobs is taken for hung, and its worker replaced."""
    max_retries: Annotated[int, Field(ge=0, le=20)] = 3
    """Number of retries of a job whose engine failed through no fault of the job."""


class Model(_Table):
    """One model: its engine, its weights, and how far it scales."""

    engine: Literal["embed", "classify", "rerank", "generate", "openai", "echo"]
    """The engine that runs the model ([engines.md](engines.md))."""
    source: str = ""
    """The model's files: ``package:NAME`` (inside an installed Python package), a path, or a hub id."""
    aliases: tuple[Annotated[str, Field(pattern=ALIAS)], ...] = ()
    """Further names by which requests may name the model, such as its hub id ``Qwen/Qwen2.5-7B-Instruct``."""
    tiers: tuple[TierName, ...] = ("interactive", "standard", "batch")
    """Tiers that the model serves."""
    memory_gb: Gigabytes = 1.0
    """Device memory that a replica needs, in GB (10^9 bytes)."""
    max_concurrency: Annotated[int, Field(ge=1, le=4096)] = 32
    """Inputs that one worker has on its device at the same time."""
    min_replicas: Annotated[int, Field(ge=0)] = 0
    """Replicas that are kept running without any demand."""
    max_replicas: Annotated[int, Field(ge=1)] = 1
    """Most replicas."""
    jobs_per_s: Annotated[float, Field(ge=0)] = 0.0
    """Jobs a second that a full replica is expected to do, until that is measured; 0 if it is not known."""
    replicas_per_gpu: Annotated[int, Field(ge=1)] = 1
    """Most replicas of the model on one GPU. Each fills its batches, so more than one helps only where much of the work
    is done beside the GPU, such as tokenising."""
    limits: Limits = Limits()
    """Limits of jobs and queues."""
    options: EngineOptions = Field(default_factory=dict, validate_default=True)
    """Options of the engine."""

    @property
    def slots(self) -> int:
        """Inputs that each begin and end by themselves on a worker's device; 0 if they do in whole batches."""
        return self.max_concurrency if self.engine in ("generate", "openai") else 0

    @property
    def task(self) -> str | None:
        """Its task in the OpenAI API: ``generate`` or ``embeddings``; None for an echo of any input."""
        if isinstance(self.options, OpenAIOptions | EchoOptions):
            return None if self.options.task == "echo" else self.options.task
        return {"embed": "embeddings", "generate": "generate"}.get(self.engine)

    @field_validator("options", mode="plain")
    @classmethod
    def _of_its_engine(cls, options: Any, known: ValidationInfo) -> Any:
        engine = known.data.get("engine")
        return options if engine is None else OPTIONS[engine].model_validate(options)  # else that is the mistake

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.min_replicas > self.max_replicas:
            raise ValueError(f"min_replicas is {self.min_replicas}, allowed: up to max_replicas ({self.max_replicas})")
        if not self.source and self.engine not in ("openai", "echo"):
            raise ValueError("source is missing; allowed: package:NAME, a path, or a hub id")
        if not self.source and isinstance(self.options, OpenAIOptions) and "{source}" in " ".join(self.options.command):
            raise ValueError("source is missing, and options.command names {source}; allowed: a path, or a hub id")
        if not self.tiers:
            raise ValueError("tiers is empty; allowed: at least one name from [tiers]")
        return self


class DeclaredDevice(_Table):
    """A stand-in for a GPU on a machine without NVML: one slot for one worker."""

    name: Annotated[str, Field(pattern=DEVICE_NAME)]
    """``cpu:N`` or ``cuda:N``."""
    memory_gb: Gigabytes = 4.0
    """Memory that models may take of it, in GB (10^9 bytes)."""


class ThresholdSettings(_Table):
    """Settings of the policy ``threshold``."""

    up: Annotated[float, Field(gt=0, le=1)] = 0.8
    """Share of slots in use above which a replica is added."""
    down: Annotated[float, Field(ge=0, lt=1)] = 0.3
    """Share of slots in use below which a replica is removed."""
    up_cooldown_s: Annotated[float, Field(ge=0)] = 60.0
    """Least time between two additions, in seconds."""
    down_cooldown_s: Annotated[float, Field(ge=0)] = 300.0
    """Least time between two removals, in seconds."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.down >= self.up:
            raise ValueError(f"down is {self.down}, allowed: below up ({self.up})")
        return self


class TargetTrackingSettings(_Table):
    """Settings of the policy ``target-tracking``."""

    utilisation: Annotated[float, Field(gt=0, le=1)] = 0.7
    """Target for the share of slots in use."""
    down_s: Annotated[float, Field(ge=0)] = 300.0
    """Seconds for which fewer replicas must have been enough before some are removed."""


class Scaling(_Table):
    """How the autoscaler starts and drains workers: up fast, down slowly."""

    interval_s: Seconds = 1.0
    """Seconds between two rounds."""
    up_cooldown_s: Annotated[float, Field(ge=0)] = 3.0
    """Least time between two starts for a model that has workers, in seconds."""
    idle_s: Annotated[float, Field(ge=0)] = 30.0
    """Seconds for which a worker must have been surplus before it is drained."""
    drain_s: Seconds = 60.0
    """Seconds that a draining worker may take before its jobs are given back."""
    start_s: Seconds = 300.0
    """Seconds that a worker may take to load, downloads included, before it is replaced. The ``openai`` engine has
    ``options.start_s`` instead."""
    headroom_devices: Annotated[int, Field(ge=0)] = 0
    """Devices kept free for bursts: only a model with jobs queued in a tier that cannot wait for a load gets them."""
    policy: PolicyName = "slack"
    """The policy that turns demand into replicas ([scaling.md](scaling.md))."""
    max_step: Annotated[int, Field(ge=1)] = 16
    """Most replicas of a model that are started, or drained, in one round."""
    headroom: Annotated[float, Field(ge=0, le=10)] = 0.5
    """For ``slack``: capacity beyond the forecast, in standard deviations of the forecast's error."""
    keep_loads: Annotated[float, Field(ge=0, le=100)] = 4.0
    """For ``slack``: how long a surplus replica is kept, in load times; at least ``idle_s``."""
    threshold: ThresholdSettings = ThresholdSettings()
    """Settings of the policy ``threshold``."""
    target_tracking: TargetTrackingSettings = TargetTrackingSettings()
    """Settings of the policy ``target-tracking``."""


class Quarantine(_Table):
    """When a GPU is taken out of use, and when it comes back ([devices.md](devices.md))."""

    hot_c: Annotated[float, Field(gt=0)] = 85.0
    """Temperature in degrees Celsius from which a GPU counts as hot: it throttles and misses targets."""
    hold_s: Seconds = 30.0
    """Seconds for which a GPU that was hot, lost or unreadable stays out at least; doubled at each repetition."""
    severe_hold_s: Seconds = 600.0
    """The same after an uncorrectable memory error or an XID error, unless the GPU was reset meanwhile."""
    ignored_xids: tuple[Annotated[int, Field(ge=1)], ...] = ()
    """XID errors that put no GPU out, besides those that are a program's own fault or informative."""
    counted_xids: tuple[Annotated[int, Field(ge=1)], ...] = ()
    """XID errors that put a GPU out although they are a program's own fault or informative."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if both := sorted({*self.ignored_xids} & {*self.counted_xids}):
            raise ValueError(f"ignored_xids and counted_xids both name {both[0]}; allowed: one of them")
        return self


class Gateway(_Table):
    """Limits of the gateway. Its address is an option of ``stoker gateway``."""

    timeout_s: Seconds = 600.0
    """Seconds that a request may take; also the time to live of its job."""
    max_body_bytes: Annotated[int, Field(ge=1024)] = 4 * 1024 * 1024
    """Largest body of a request, in bytes. Uploads have a limit of their own."""
    max_tokens: Annotated[int, Field(ge=1)] = 512
    """Longest answer, in tokens, of a chat that does not set ``max_completion_tokens``, if the context has room for
    it."""
    files: str | None = None
    """Store of batch files: a folder, relative to the fleet file, or a URL that fsspec knows, such as
    ``s3://bucket/batches``; the same for all gateways and batch processes of a fleet. Default: inside ``state_dir``."""
    max_file_bytes: Annotated[int, Field(ge=1024)] = 200 * 1024 * 1024
    """Largest uploaded file, in bytes."""
    max_file_lines: Annotated[int, Field(ge=1)] = 1_000_000
    """Most requests in one batch."""
    cors_origins: tuple[str, ...] = ()
    """Origins whose web pages may ask the gateway from a browser, such as ``https://app.example.com``; ``*`` for all.
    By default none may."""
    webhook_hosts: tuple[str, ...] = ()
    """Hosts that webhooks may reach although they are private or speak plain HTTP: ``HOST:PORT``, ``HOST`` for port
    443, ``HOST:*`` for all. Others must be public, with TLS."""


class DeviceType(_Table):
    """Simulated devices of one type."""

    type: str
    """Name of the type, in reports."""
    count: Annotated[int, Field(ge=1)]
    """Number of devices. Each holds one worker."""
    memory_gb: Annotated[float, Field(gt=0)] = 80.0
    """Memory of one device, in GB (10^9 bytes)."""
    price_per_hour: Annotated[float, Field(ge=0)] = 1.0
    """Price of one device for an hour, in any currency."""
    speed: Annotated[float, Field(gt=0)] = 1.0
    """Speed relative to the device on which the figures of the models were measured."""
    failures_per_day: Annotated[float, Field(ge=0)] = 0.0
    """Failures of one device in a day, on average."""
    repair_s: Seconds = 600.0
    """Seconds from a failure until the device is replaced."""


class SimulatedSpeed(_Table):
    """Speed of a model on a simulated device. ``benchmarks/simulator/learn.py`` fits it to what workers did."""

    step_s: NotNegative
    """Seconds that a step of the running batch takes, besides ``sequence_s``."""
    sequence_s: NotNegative
    """Seconds that each sequence in the batch adds to a step."""
    prompt_token_s: NotNegative = 0.0
    """Seconds for which one token of a prompt stops the other sequences."""
    batches: bool = False
    """Whether the engine runs whole batches, as encoders do; if false, sequences join and leave a running batch."""
    load_s: NotNegative = 22.7
    """Seconds from the start of a worker until it serves, the median."""
    load_sigma: NotNegative = 0.0
    """Standard deviation of the logarithm of the load time; 0 for always the same."""


class SimulatedHardware(_Table):
    """Devices and speeds that ``stoker simulate`` assumes ([simulator.md](simulator.md)); nothing else reads them."""

    devices: tuple[DeviceType, ...] = ()
    models: dict[Name, SimulatedSpeed] = Field(default_factory=dict)
