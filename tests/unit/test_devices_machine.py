"""Ten thousand random operations on a fleet of GPUs and slots, through the live reconciler.

Jobs come and go, workers load, serve and die, strangers take memory, and devices overheat, get lost, err and recover.
After each operation a round is decided and carried out, and these must hold: memory is never oversubscribed, no device
is in two states, nothing goes to a faulty device. At the end, when all is well and quiet, nothing is left over.
"""

import random
from dataclasses import replace

import pytest

from autoscaler.actions.decision import Drain, Start
from autoscaler.devices.device import Device, DeviceState
from autoscaler.devices.placement import free_gb, occupants, summary
from autoscaler.devices.quarantine import FORGET_S, LONGEST_HOLD_S
from autoscaler.observation import Observation
from autoscaler.reconciler import Reconciler
from autoscaler.roster import Phase, Worker
from autoscaler.sizing.policy_registry import BACKLOG
from producer.contract.fleet.fleet_schema import Model, Scaling
from producer.contract.fleet.settings import Settings
from scheduler.queue_lengths import ModelQueues, QueueState

OPERATIONS = 10_000
MODELS = {
    "small": Model(engine="echo", memory_gb=5, max_replicas=8, replicas_per_gpu=2, tiers=("interactive",)),
    "middling": Model(engine="echo", memory_gb=18, max_replicas=4, min_replicas=1, tiers=("standard",)),
    "large": Model(engine="echo", memory_gb=70, max_replicas=2, tiers=("standard",)),
    "offline": Model(engine="echo", memory_gb=10, max_replicas=6, tiers=("batch",)),
    "impossible": Model(engine="echo", memory_gb=100, tiers=("standard",)),
}
HEADROOM = 1
SETTINGS = Settings(models=MODELS, scaling=Scaling(up_cooldown_s=0, idle_s=20, headroom_devices=HEADROOM))
DEVICES = [
    *(Device(f"cuda:{n}", "cuda", "large GPU", 80, temperature_c=50, ecc_errors=0, uuid=f"{n}") for n in range(3)),
    *(Device(f"cuda:{n}", "cuda", "small GPU", 24, temperature_c=50, ecc_errors=0, uuid=f"{n}") for n in range(3, 5)),
    *(Device(f"cpu:{n}", "cpu", f"cpu:{n}", 6) for n in range(2)),
]


def memory_gb(device: Device) -> float:
    """The memory of a device that tells it."""
    assert device.memory_gb is not None
    return device.memory_gb


class Machine:
    """A fleet in memory, and what a launcher and its workers would do to it."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.now = 1_000_000.0
        self.devices = {device.id: device for device in DEVICES}
        self.strangers = dict.fromkeys(self.devices, 0.0)
        self.workers: dict[str, Worker] = {}
        self.queued = dict.fromkeys(MODELS, 0)
        self.arrived = dict.fromkeys(MODELS, 0)
        self.reconciler = Reconciler(BACKLOG)
        self.started = self.drained = self.killed = 0
        self.worst = 0.0

    # What happens to it.

    def jobs(self) -> None:
        model = self.rng.choice([*MODELS])
        count = self.rng.choice([1, 5, 50])
        self.queued[model] += count
        self.arrived[model] += count

    def served(self) -> None:
        for worker in self.workers.values():
            if worker.phase is Phase.READY:
                self.queued[worker.model] = max(0, self.queued[worker.model] - 20)

    def loaded(self) -> None:
        for name, worker in self.workers.items():
            steps = {Phase.STARTING: Phase.LOADING, Phase.LOADING: Phase.READY}
            self.workers[name] = replace(worker, phase=steps.get(worker.phase, worker.phase))

    def dies(self) -> None:
        if self.workers:
            gone = self.workers.pop(self.rng.choice([*self.workers]))
            if gone.phase is not Phase.DRAINING:
                self.reconciler.failed(self.now, gone.model, 100.0, "killed", served=True)

    def drains_end(self) -> None:
        self.workers = {name: one for name, one in self.workers.items() if one.phase is not Phase.DRAINING}

    def stranger(self) -> None:
        """A process of another user takes some of the free memory, or ends."""
        where = self.rng.choice([*self.devices])
        own = sum(MODELS[one.model].memory_gb for one in self.workers.values() if one.device == where)
        room = memory_gb(self.devices[where]) - own
        self.strangers[where] = self.rng.uniform(0, room) if self.rng.random() < 0.3 else 0.0

    def fault(self) -> None:
        where = self.rng.choice([name for name, device in self.devices.items() if device.kind == "cuda"])
        faults: list[dict[str, object]] = [
            {"temperature_c": 90.0}, {"temperature_c": 80.0}, {"fault": "lost", "lost": True}, {"fault": "unreadable"},
            {"ecc_errors": (self.devices[where].ecc_errors or 0) + 1}, {"xids": (79,)}, {"xids": (13,)},
        ]  # fmt: skip
        self.devices[where] = replace(self.devices[where], **self.rng.choice(faults))  # type: ignore[arg-type]  # by name

    def repair(self) -> None:
        where = self.rng.choice([*self.devices])
        self.devices[where] = replace(self.devices[where], temperature_c=50, fault="", lost=False)

    def successor(self) -> None:
        """Another autoscaler comes, with what was written down."""
        kept = {name: health.lasting for name, health in self.reconciler.health.items()}
        self.reconciler = Reconciler(BACKLOG)
        self.reconciler.forget(kept)

    def pass_time(self) -> None:
        self.now += self.rng.choice([1.0, 5.0, 25.0, 700.0])

    # What the autoscaler does about it.

    def round(self) -> None:
        self.now += 1.0
        seen = self.look()
        before = dict(self.workers)
        for decision in self.reconciler.decide(seen):
            if isinstance(decision, Start):
                self.started += 1
                name = f"{decision.model}-{self.started}"
                self.workers[name] = Worker(
                    name, decision.model, decision.device, Phase.STARTING, True, self.now, self.started
                )
            elif isinstance(decision, Drain) and decision.grace_s == 0:
                del self.workers[decision.worker]
                self.killed += 1
            elif isinstance(decision, Drain):
                self.drained += 1
                told = replace(self.workers[decision.worker], phase=Phase.DRAINING, draining_since=self.now)
                self.workers[decision.worker] = told
        self.check(seen, before)

    def look(self) -> Observation:
        workers = [*self.workers.values()]
        probed = [self.measured(device) for device in self.devices.values()]
        self.devices = {name: replace(device, xids=()) for name, device in self.devices.items()}
        devices = self.reconciler.devices(self.now, SETTINGS, probed, workers)
        demands = {}
        for name, model in MODELS.items():
            waited = 5.0 if self.queued[name] else 0.0
            tier = QueueState(name, model.tiers[0], self.queued[name], waited, waited, self.arrived[name])
            queues = ModelQueues(name, (tier,), 0, 0)
            demands[name] = self.reconciler.demand(self.now, SETTINGS, queues, workers, {"jobs_per_s": 5.0})
        return Observation(self.now, SETTINGS, demands, devices, workers)

    def measured(self, device: Device) -> Device:
        """What NVML would tell: a worker that has loaded uses what it declared, and half of it while it loads."""
        own = {
            one.pid: MODELS[one.model].memory_gb * (0.5 if one.phase is Phase.LOADING else 1.0)
            for one in self.workers.values()
            if one.device == device.id and one.phase is not Phase.STARTING and one.pid is not None
        }
        return replace(device, used_gb=self.strangers[device.id] + sum(own.values()), used_by=own)

    def check(self, seen: Observation, before: dict[str, Worker]) -> None:
        new = [one for name, one in self.workers.items() if name not in before]
        for device in seen.devices:
            here = [one for one in self.workers.values() if one.device == device.id]
            taken = self.strangers[device.id] + sum(MODELS[one.model].memory_gb for one in here)
            if any(one.device == device.id for one in new):
                assert taken <= memory_gb(device) + 1e-6, f"{device.id} oversubscribed: {taken:.1f} GB"
                assert not device.fault, f"{device.id} is used though {device.fault}"
            if device.kind == "cpu":
                assert len(here) <= 1
            serving = [one.model for one in here if one.serves]
            assert all(serving.count(model) <= MODELS[model].replicas_per_gpu for model in {*serving})
            self.worst = max(self.worst, taken / memory_gb(device))
            # A device has one state, which follows from its workers and its health.
            was_here = {one.phase for one in before.values() if one.device == device.id}
            busy = bool(was_here - {Phase.STARTING, Phase.LOADING})
            states = {
                DeviceState.FAULTY: bool(device.fault),
                DeviceState.IDLE: not device.fault and not was_here,
                DeviceState.RESERVED: not device.fault and bool(was_here) and not busy,
                DeviceState.ALLOCATED: not device.fault and busy,
            }
            assert [state for state, holds in states.items() if holds] == [device.state]
            health = self.reconciler.health.get(device.key)
            out = health is not None and health.fault is not None
            assert bool(device.fault) == (out or device.suspect)
        found = summary(seen.devices, occupants(seen.workers, seen.devices, MODELS))
        assert found.total == found.idle + found.reserved + found.allocated + found.faulty
        idle = {device.id for device in seen.devices if device.state is DeviceState.IDLE}
        for one in new:  # in the order in which they were placed
            patient = not seen.demands[one.model].pressing
            assert not (patient and one.device in idle and len(idle) <= HEADROOM), (
                "the headroom went to a model that can wait"
            )
            idle.discard(one.device)


@pytest.mark.slow
def test_nothing_is_oversubscribed_doubly_used_or_leaked_in_10_000_operations() -> None:
    machine = Machine(seed=7)
    operations = [
        (machine.jobs, 20), (machine.served, 25), (machine.loaded, 25), (machine.dies, 3), (machine.drains_end, 10),
        (machine.stranger, 6), (machine.fault, 4), (machine.repair, 12), (machine.successor, 1), (machine.pass_time, 8),
    ]  # fmt: skip
    for operation in machine.rng.choices(
        [one for one, _ in operations], [often for _, often in operations], k=OPERATIONS
    ):
        operation()
        machine.round()
    assert machine.started > 500
    assert machine.drained > 300
    assert machine.killed > 0
    assert machine.worst > 0.9, "memory was never scarce"

    machine.queued = dict.fromkeys(MODELS, 0)
    machine.strangers = dict.fromkeys(machine.devices, 0.0)
    machine.devices = {device.id: device for device in DEVICES}
    for _ in range(100):
        machine.drains_end()
        machine.loaded()
        machine.round()
    machine.now += LONGEST_HOLD_S + FORGET_S
    for _ in range(100):
        machine.drains_end()
        machine.loaded()
        machine.round()
    machine.now += FORGET_S
    machine.round()
    seen = machine.look()
    assert [one.model for one in machine.workers.values()] == ["middling"]  # its minimum
    assert machine.reconciler.health == {}
    held = occupants(seen.workers, seen.devices, MODELS)
    free = sum(free_gb(device, [one for one in held if one.device == device.id]) for device in seen.devices)
    assert free == sum(memory_gb(device) for device in DEVICES) - MODELS["middling"].memory_gb
