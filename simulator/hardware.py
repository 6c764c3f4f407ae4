"""The hardware of a simulation: which devices there are, and how fast each model is on them.

Read from the table ``[simulation]`` of the fleet file::

    [[simulation.devices]]
    type = "h100"
    count = 16
    memory_gb = 80
    price_per_hour = 3.0

    [simulation.models.smollm2]
    step_s = 0.02
    sequence_s = 0.0005
    prompt_token_s = 0.0001
    load_s = 60

A simulated device holds one worker, as a CPU slot does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from producer.contract.errors import ConfigError
from producer.contract.job import explain
from producer.contract.settings import Settings

from .service import ServiceModel

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]


class _HardwareTable(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DeviceType(_HardwareTable):
    """``count`` devices of one type. ``speed`` is relative to the device on which the models' figures were taken.

    ``failures_per_day`` is of one device; it comes back after ``repair_s``.
    """

    type: str
    count: Annotated[int, Field(ge=1)]
    memory_gb: Positive = 80.0
    price_per_hour: NotNegative = 1.0
    speed: Positive = 1.0
    failures_per_day: NotNegative = 0.0
    repair_s: Positive = 600.0


class Speed(_HardwareTable):
    """How fast a model is: the fields of :class:`~simulator.service.ServiceModel`."""

    step_s: NotNegative
    sequence_s: NotNegative
    prompt_token_s: NotNegative = 0.0
    batches: bool = False
    load_s: NotNegative = 22.7
    load_sigma: NotNegative = 0.0


class _Simulation(_HardwareTable):
    devices: tuple[DeviceType, ...] = Field(min_length=1)
    models: Mapping[str, Speed]


@dataclass(frozen=True, slots=True)
class Hardware:
    """Devices by type, and the service model of each model on a device of speed 1."""

    devices: tuple[DeviceType, ...]
    services: Mapping[str, ServiceModel]

    @property
    def count(self) -> int:
        """Devices, of all types."""
        return sum(kind.count for kind in self.devices)


MISSING = """the fleet file has no [simulation] table, which says what devices to simulate and how fast models are:

[[simulation.devices]]
type = "h100"
count = 16

[simulation.models.{model}]
step_s = 0.02          # a step of the running batch takes step_s, and sequence_s more for each that runs
sequence_s = 0.0005
prompt_token_s = 0.0002
load_s = 60"""


def read(settings: Settings) -> Hardware:
    """The hardware as the fleet file has it.

    Raises:
        ConfigError: with a line for each mistake; also when a model of the fleet has no figures.
    """
    if not settings.models:
        raise ConfigError("the fleet file has no [models.NAME] table: there is nothing to simulate")
    if not settings.simulation:
        raise ConfigError(MISSING.format(model=next(iter(settings.models))))
    try:
        found = _Simulation.model_validate(settings.simulation)
    except ValidationError as error:
        raise ConfigError(f"[simulation]:\n{explain(error)}") from None
    if missing := sorted(settings.models.keys() - found.models.keys()):
        raise ConfigError(f"[simulation.models] has no figures for {', '.join(missing)}: add step_s and sequence_s")
    services = {name: ServiceModel(**dict(found.models[name])) for name in settings.models}
    return Hardware(found.devices, services)
