"""The configuration: one frozen object, read from ``fleet.toml`` and ``STOKER_*``.

An environment variable overrides the file: ``STOKER_REDIS__URL``, ``STOKER_MODELS__MINILM__MAX_REPLICAS``.
Two underscores step into a table. ``STOKER_FLEET`` names another file.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from .address import usable
from .errors import ConfigError, UnknownModel, UnknownTier
from .job import explain
from .tenants import Tenant, check, tenant

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
"""The scaling policies (``autoscaler/policy.py``)."""

URL_VARIABLE = "STOKER_REDIS__URL"


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


class Threshold(_Table):
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


class TargetTracking(_Table):
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
    threshold: Threshold = Threshold()
    target_tracking: TargetTracking = TargetTracking()


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


def _default_tiers() -> dict[str, Tier]:
    return {
        "interactive": Tier(target_wait_s=1, weight=4),
        "standard": Tier(target_wait_s=30, weight=2),
        "batch": Tier(target_wait_s=600, weight=1),
    }


class Settings(BaseSettings):
    """The whole configuration. Build it with :meth:`load`."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", env_prefix="STOKER_", env_nested_delimiter="__")

    redis: Redis = Redis()
    tiers: dict[TierName, Tier] = Field(default_factory=_default_tiers)
    models: dict[Name, Model] = Field(default_factory=dict)
    devices: tuple[DeclaredDevice, ...] = ()
    scaling: Scaling = Scaling()
    quarantine: Quarantine = Quarantine()
    tenants: dict[str, Tenant] = Field(default_factory=dict)
    gateway: Gateway = Gateway()
    simulation: dict[str, Any] = Field(default_factory=dict)
    """What ``stoker simulate`` supposes of devices and models (``simulator/hardware.py``); nothing else reads it."""
    state_dir: Path = Path(".stoker")
    """Logs, process records and the embedded server's data; relative to the fleet file."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003  signature is pydantic-settings' own
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Let the environment win over the file, whose tables come in as ``init_settings``."""
        return env_settings, init_settings

    @classmethod
    def load(cls, path: Path | str | None = None) -> Settings:
        """Read the fleet file and the environment.

        Args:
            path: the fleet file; by default ``STOKER_FLEET``, then ``fleet.toml`` here.

        Raises:
            ConfigError: with a line for each mistake: key, value, what is allowed.
        """
        file = _file(path)
        tables = _tables(file)
        tables.setdefault("state_dir", ".stoker")
        try:
            settings = cls(**tables)
        except ValidationError as error:
            raise ConfigError(f"{file}:\n{explain(error, _allowed)}") from None
        except SettingsError as error:  # a table whose variable is not JSON; the text names it, not its value
            raise ConfigError(
                f"the environment: {error}; allowed: JSON, or STOKER_TABLE__KEY for a single key"
            ) from None
        gateway = settings.gateway
        if gateway.files and "://" not in gateway.files:
            gateway = gateway.model_copy(update={"files": str((file.parent / gateway.files).absolute())})
        state_dir = (file.parent / settings.state_dir).absolute()
        return settings.model_copy(update={"state_dir": state_dir, "gateway": gateway})

    @classmethod
    def load_to_stop(cls, path: Path | str | None = None) -> Settings:
        """Defaults with the fleet file's ``state_dir``, as far as it can be read: enough to stop what runs there."""
        file = _file(path)
        state_dir: object = os.environ.get("STOKER_STATE_DIR")
        if not state_dir:
            with contextlib.suppress(ConfigError):
                state_dir = _tables(file).get("state_dir")
        state_dir = state_dir if isinstance(state_dir, str) and state_dir else ".stoker"
        return cls.model_construct(state_dir=(file.parent / state_dir).absolute())

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for name, model in self.models.items():
            for tier in model.tiers:
                if tier not in self.tiers:
                    raise ValueError(f"models.{name}.tiers names {tier!r}; allowed: {', '.join(sorted(self.tiers))}")
        check(self.tenants)
        return self

    def tenant(self, name: str) -> Tenant:
        """The share and the quotas of a tenant, whether or not it has a table."""
        return tenant(self.tenants, name)

    def model(self, name: str) -> Model:
        """The model of that name.

        Raises:
            UnknownModel: naming the models there are.
        """
        try:
            return self.models[name]
        except KeyError:
            known = ", ".join(sorted(self.models)) or "none: add a [models.NAME] table to fleet.toml"
            raise UnknownModel(f"no model {name!r} in the fleet; allowed: {known}") from None

    def tier(self, model: str, tier: str) -> Tier:
        """The tier of that name, if the model serves it.

        Raises:
            UnknownModel, UnknownTier: naming what there is.
        """
        allowed = self.model(model).tiers
        if tier not in allowed:
            raise UnknownTier(f"model {model!r} has no tier {tier!r}; allowed: {', '.join(allowed)}")
        return self.tiers[tier]

    def default_tier(self, model: str) -> str:
        """The model's tier with the shortest target."""
        return min(self.model(model).tiers, key=lambda tier: self.tiers[tier].target_wait_s)

    @property
    def worker_redis_url(self) -> str:
        """The broker, as workers that the autoscaler starts are to connect to it."""
        return usable(self.redis.worker_url) if self.redis.worker_url else self.redis_url

    @property
    def url_file(self) -> Path:
        """Where ``stoker up`` leaves the URL of the server it started, readable by its owner alone."""
        return self.state_dir / "redis.url"

    @property
    def redis_url(self) -> str:
        """The broker: configured, or the one that ``stoker up`` started here.

        Raises:
            ConfigError: when there is neither.
        """
        if url := self.redis.url or os.environ.get("REDIS_URL"):
            return usable(url)
        try:
            return self.url_file.read_text().strip()
        except FileNotFoundError:
            raise ConfigError(
                "no Redis: start one with 'stoker up', or set redis.url in fleet.toml, STOKER_REDIS__URL or REDIS_URL"
            ) from None

    @property
    def redis_url_from(self) -> str | None:
        """The setting or variable that names the broker; None for the one that ``stoker up`` started here."""
        if self.redis.url:
            return URL_VARIABLE if URL_VARIABLE in map(str.upper, os.environ) else "redis.url of the fleet file"
        return "REDIS_URL" if os.environ.get("REDIS_URL") else None


def _file(path: Path | str | None) -> Path:
    return Path(path or os.environ.get("STOKER_FLEET", "fleet.toml"))


def _tables(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_bytes().decode())
    except FileNotFoundError:
        raise ConfigError(f"{file} does not exist: run where your fleet.toml is, or name it in STOKER_FLEET") from None
    except IsADirectoryError:
        raise ConfigError(f"{file} is a folder: name the file in it, such as {file / 'fleet.toml'}") from None
    except OSError as error:
        raise ConfigError(f"{file} cannot be read ({error.strerror}): make it readable, or name another") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file} is not UTF-8 (byte {error.start}): save it as UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file} is not TOML: {error}") from None


def _allowed(mistake: ErrorDetails) -> str:
    """What is allowed where pydantic found a mistake; its own words say so only for some."""
    if mistake["type"] == "string_pattern_mismatch":
        return ALLOWED[mistake["ctx"]["pattern"]]
    if mistake["type"] == "extra_forbidden":
        keys = _keys_beside(mistake["loc"])
        near = difflib.get_close_matches(str(mistake["loc"][-1]), keys, 1)
        return f"no such key{f'; did you mean {near[0]}?' if near else ''}; allowed: {', '.join(keys)}"
    return mistake["msg"]


def _keys_beside(loc: tuple[int | str, ...]) -> list[str]:
    """The keys of the table that holds this one."""
    kind: Any = Settings
    for part in loc[:-1]:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            kind = kind.model_fields[str(part)].annotation
        else:  # dict[name, table] or tuple[table, ...]
            kind = get_args(kind)[get_origin(kind) is dict]
    return list(kind.model_fields)
