"""The reconciler: the decisions of an autoscaler and its memory, from observation to action. No clock, no I/O.

The live controller and the simulator both use it, so that they decide alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from .actions.decide import decide
from .devices.placement import with_states
from .devices.quarantine import Health, quarantine
from .observation import Memory, Observation
from .sizing.demand import Demand, Traffic, assess, watch

if TYPE_CHECKING:
    from producer.contract.fleet.settings import Settings
    from scheduler.queue_lengths import ModelQueues

    from .actions.decision import Decision
    from .devices.device import Device
    from .roster import Worker
    from .sizing.policy_registry import Policy


class Reconciler:
    """Decides each round with its memory of the rounds before. Losing the memory is safe: it delays decisions."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self._memory = Memory()
        self._traffic: dict[str, Traffic] = {}
        self.before = self._memory
        """The memory at the beginning of the last round."""
        self.health: Mapping[str, Health] = {}
        """The health of the devices that have, or had, a fault, by key."""

    @property
    def memory(self) -> Memory:
        """The memory at the end of the last round."""
        return self._memory

    def forget(self, health: Mapping[str, Health]) -> None:
        """Start with an empty memory, as after another autoscaler led: the old one is out of date.

        Args:
            health: the devices' health as the other autoscaler left it.
        """
        self._memory, self._traffic, self.health = Memory(), {}, health

    def clock_set(self, step_s: float) -> None:
        """Adapt to a step of the clock that ``now`` is read from: forget what was measured by it; keep back-offs and
        quarantines with the time they have left."""
        failures = {name: one.moved(step_s) for name, one in self._memory.failures.items()}
        self._memory, self._traffic = Memory(failures=failures), {}
        self.health = {name: one.moved(step_s) for name, one in self.health.items()}

    def pardon(self, health: Mapping[str, Health]) -> None:
        """Replace the health of devices that an operator released from quarantine."""
        self.health = {**self.health, **health}

    def devices(
        self, now: float, settings: Settings, probed: Sequence[Device], workers: Sequence[Worker]
    ) -> list[Device]:
        """The devices with their states, and those in quarantine with their fault."""
        devices, self.health = quarantine(now, settings.quarantine, probed, self.health)
        return with_states(devices, workers)

    def demand(
        self,
        now: float,
        settings: Settings,
        queues: ModelQueues,
        workers: Sequence[Worker],
        measured: Mapping[str, float],
    ) -> Demand:
        """A model's demand from a new reading of its queues. For the arguments see
        :func:`~autoscaler.sizing.demand.assess`."""
        cold = queues.model in self._memory.needed  # no headroom would have prevented what is late then
        targets = {} if cold else _targets(settings, queues.model)
        traffic = watch(self._traffic.get(queues.model), now, queues, targets)
        self._traffic[queues.model] = traffic
        return assess(now, settings, queues, traffic, workers, measured)

    def decide(self, seen: Observation) -> list[Decision]:
        """The decisions of this round."""
        self.before = self._memory
        decisions, self._memory = decide(seen, self._memory, self.policy)
        return decisions

    def retry(self, model: str) -> None:
        """End the back-off of ``model``."""
        self._memory = self._memory.retried(model)

    def excused(self, model: str) -> None:
        """Note that the last worker of ``model`` that ended unasked did so because of its device."""
        self._memory = self._memory.excused(model)

    def failed(self, now: float, model: str, lived_s: float, cause: str, served: bool = False) -> None:
        """Note that a worker of ``model`` ended unasked or could not be started."""
        self._memory = self._memory.failed(now, model, lived_s, cause, served)


def _targets(settings: Settings, model: str) -> dict[str, float]:
    """The target waits of the model's tiers of which something is asked, in seconds."""
    tiers = [name for name in settings.models[model].tiers if settings.attain(model, name) is not None]
    return {name: settings.tiers[name].target_wait_s for name in tiers}
