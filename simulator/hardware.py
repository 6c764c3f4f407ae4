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

from producer.contract.errors import ConfigError
from producer.contract.fleet.fleet_schema import DeviceType
from producer.contract.fleet.settings import Settings

from .service import ServiceModel


@dataclass(frozen=True, slots=True)
class Hardware:
    """Devices by type, and the service model of each model on a device of speed 1."""

    devices: tuple[DeviceType, ...]
    services: Mapping[str, ServiceModel]

    @property
    def count(self) -> int:
        """Devices, of all types."""
        return sum(kind.count for kind in self.devices)


MISSING = """the fleet file has no [simulation] table with devices, which says what to simulate and how fast models are:

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
        ConfigError: the fleet file has no devices or no models, or a model has no figures.
    """
    if not settings.models:
        raise ConfigError("the fleet file has no [models.NAME] table: there is nothing to simulate")
    found = settings.simulation
    if not found.devices:
        raise ConfigError(MISSING.format(model=next(iter(settings.models))))
    if missing := sorted(settings.models.keys() - found.models.keys()):
        raise ConfigError(f"[simulation.models] has no figures for {', '.join(missing)}: add step_s and sequence_s")
    services = {name: ServiceModel(**found.models[name].model_dump()) for name in settings.models}
    return Hardware(found.devices, services)
