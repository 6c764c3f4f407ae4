"""The configuration: one frozen object, read from ``fleet.toml`` and ``STOKER_*``.

An environment variable overrides the file: ``STOKER_REDIS__URL``, ``STOKER_MODELS__MINILM__MAX_REPLICAS``.
Two underscores step into a table. ``STOKER_FLEET`` names another file.
"""

from __future__ import annotations

import contextlib
import os
import tomllib
from pathlib import Path
from typing import Any, Self, get_args, get_origin

from pydantic import BaseModel, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from ..errors import ConfigError, UnknownModel, UnknownTier
from ..message.job import explain
from ..server.redis_url import usable
from .engine_options import no_such_key
from .fleet_schema import (
    ALLOWED,
    DeclaredDevice,
    Gateway,
    Model,
    Name,
    Quarantine,
    Redis,
    Scaling,
    SimulatedHardware,
    Tier,
    TierName,
)
from .tenants import OTHERS, Tenant, check, tenant

URL_VARIABLE = "STOKER_REDIS__URL"


def _default_tiers() -> dict[str, Tier]:
    return {
        "interactive": Tier(target_wait_s=1, weight=4),
        "standard": Tier(target_wait_s=30, weight=2),
        "batch": Tier(target_wait_s=600, weight=1, preemptible=True),
    }


ATTAIN = 0.99
"""Share of jobs of a model's most urgent tier that should start within its target, by default."""


class Settings(BaseSettings):
    """The whole configuration. Build it with :meth:`load`."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix="STOKER_",
        env_nested_delimiter="__",
        use_attribute_docstrings=True,
    )

    redis: Redis = Redis()
    tiers: dict[TierName, Tier] = Field(default_factory=_default_tiers)
    models: dict[Name, Model] = Field(default_factory=dict)
    devices: tuple[DeclaredDevice, ...] = ()
    use_gpus: bool = True
    """Whether GPUs are used where there are any; if false, ``devices`` are used even on a machine with GPUs."""
    scaling: Scaling = Scaling()
    quarantine: Quarantine = Quarantine()
    tenants: dict[str, Tenant] = Field(default_factory=dict)
    gateway: Gateway = Gateway()
    simulation: SimulatedHardware = SimulatedHardware()
    state_dir: Path = Path(".stoker")
    """Folder of logs, process records and the embedded server's data, relative to the fleet file."""

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
        file = fleet_path(path)
        tables = _tables(file)
        tables.setdefault("state_dir", ".stoker")
        try:
            settings = cls(**tables)
        except ValidationError as error:
            raise ConfigError(f"{file}:\n{explain(error, allowed=_allowed)}") from None
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
        file = fleet_path(path)
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
        named = set(self.models)
        for name, model in self.models.items():
            for alias in model.aliases:
                if alias in named:
                    raise ValueError(
                        f"models.{name}.aliases names {alias!r}, as another model is named; allowed: others"
                    )
                named.add(alias)
        check(self.tenants)
        return self

    def tenant(self, name: str) -> Tenant:
        """The share and the quotas of a tenant, whether or not it has a table."""
        return tenant(self.tenants, name)

    @property
    def bars_default(self) -> bool:
        """Whether API keys of the tenant ``default`` are refused, because their jobs would escape a quota of ``*``."""
        return tenant(self.tenants, OTHERS).limits_claims

    def named(self, asked: str) -> str:
        """The name of the model that a request names by that name or alias; the same text if there is none."""
        if asked in self.models:
            return asked
        return next((name for name, model in self.models.items() if asked in model.aliases), asked)

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

    def attain(self, model: str, tier: str) -> float | None:
        """The share of the tier's jobs that should start within its target; None if nothing is asked."""
        asked = self.tiers[tier].attain
        return ATTAIN if asked is None and tier == self.default_tier(model) else asked

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


def fleet_path(path: Path | str | None = None) -> Path:
    """The fleet file: that path, or ``STOKER_FLEET``, or ``fleet.toml`` here."""
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
        return no_such_key(str(mistake["loc"][-1]), _keys_beside(mistake["loc"]))
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
