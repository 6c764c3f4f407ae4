"""The reconciler: what one autoscaler thinks, from what it saw to what it does. No clock, no I/O.

The live controller and the simulator both hold one and feed it; whatever is decided, is decided here.
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
    from producer.contract.settings import Settings
    from scheduler.queue_lengths import ModelQueues

    from .actions.decision import Decision
    from .devices.device import Device
    from .roster import Worker
    from .sizing.policy_registry import Policy


class Reconciler:
    """Remembers the rounds before, and decides the next. Everything it remembers can be lost: it then waits."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self._memory = Memory()
        self._traffic: dict[str, Traffic] = {}
        self.before = self._memory
        """What the last round began with."""
        self.health: Mapping[str, Health] = {}
        """Of the devices that have, or had, a fault."""

    @property
    def memory(self) -> Memory:
        """What the last round left."""
        return self._memory

    def forget(self, health: Mapping[str, Health]) -> None:
        """Begin anew, as after a reign of somebody else: what was remembered says nothing about now.

        Args:
            health: of the devices, as that reign left it.
        """
        self._memory, self._traffic, self.health = Memory(), {}, health

    def clock_set(self, step_s: float) -> None:
        """The clock that ``now`` is read from was set: forget what was measured by it, keep what is out of use, and how
        long still."""
        failures = {name: one.moved(step_s) for name, one in self._memory.failures.items()}
        self._memory, self._traffic = Memory(failures=failures), {}
        self.health = {name: one.moved(step_s) for name, one in self.health.items()}

    def pardon(self, health: Mapping[str, Health]) -> None:
        """Take somebody's word that these devices are well."""
        self.health = {**self.health, **health}

    def devices(
        self, now: float, settings: Settings, probed: Sequence[Device], workers: Sequence[Worker]
    ) -> list[Device]:
        """The devices with what they are used for, and those in quarantine with their fault."""
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
        """A model's demand, after another look at its queues. Arguments as of
        :func:`~autoscaler.sizing.demand.assess`."""
        traffic = watch(self._traffic.get(queues.model), now, queues)
        self._traffic[queues.model] = traffic
        return assess(now, settings, queues, traffic, workers, measured)

    def decide(self, seen: Observation) -> list[Decision]:
        """What to do in this round."""
        self.before = self._memory
        decisions, self._memory = decide(seen, self._memory, self.policy)
        return decisions

    def failed(self, now: float, model: str, lived_s: float, cause: str, served: bool = False) -> None:
        """A worker of ``model`` ended unasked, or could not be started."""
        self._memory = self._memory.failed(now, model, lived_s, cause, served)
