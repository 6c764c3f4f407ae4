"""Live fleet and simulator decide by the same code: the same objects, and the same functions when they run."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import attrgetter
from pathlib import Path
from types import CodeType, FrameType, ModuleType

import pytest
import redis as redis_py

import autoscaler
from autoscaler import controller as live
from autoscaler.controller import Controller
from autoscaler.devices.device import Device
from autoscaler.launchers.protocol import Ended, Launched, Placement
from autoscaler.reconciler import Reconciler
from autoscaler.sizing import policy_registry as policies
from deploy.machine.server import Server
from producer.contract import keys
from producer.contract.fleet.fleet_schema import DeviceType, Model, Scaling
from producer.contract.fleet.settings import Settings
from producer.contract.heartbeat import Heartbeat
from scheduler.lease import ledger, queue
from scheduler.order import priority
from simulator import worker
from simulator.hardware import Hardware
from simulator.queueing import preemption
from simulator.queueing.queue_policy import LIVE
from simulator.run import Simulation
from simulator.service import ServiceModel
from simulator.traces.trace import Trace, assign

SETTINGS = Settings(
    models={"m": Model(engine="echo", max_replicas=2), "n": Model(engine="echo")},
    scaling=Scaling(interval_s=1, up_cooldown_s=0, idle_s=0),
)
DECIDES = {Reconciler.decide.__code__, Reconciler.demand.__code__, Reconciler.devices.__code__}
"""What either of them asks the reconciler."""


class Slots:
    source = "memory"

    def devices(self) -> list[Device]:
        return [Device(f"cpu:{n}", "cpu", "slot", 80) for n in range(2)]


class Workers:
    """A launcher with workers that are no more than names."""

    id = "memory"

    def __init__(self) -> None:
        self.living: dict[str, Launched] = {}

    def start(self, placement: Placement) -> str:
        name = f"{placement.model}-{len(self.living)}"
        self.living[name] = Launched(name, placement.model, placement.device, 1, 0.0)
        return name

    def drain(self, name: str, _: float) -> None:
        self.living.pop(name, None)

    def ended(self) -> Sequence[Ended]:
        return []

    def list(self) -> list[Launched]:
        return list(self.living.values())

    def adopt(self, beats: Iterable[Heartbeat]) -> None:
        pass


@pytest.fixture
def redis(server: Server) -> Iterator[redis_py.Redis]:
    client = redis_py.Redis.from_url(server.url)
    client.flushall()
    yield client
    client.close()


def used(module: ModuleType, name: str) -> object:
    """What a module means by a name that it has from elsewhere, which it does not export."""
    found: object = attrgetter(name)(module)
    return found


def deciding(run: Callable[[], object]) -> set[CodeType]:
    """The autoscaler's functions that are called meanwhile, from within the reconciler."""
    found: set[CodeType] = set()
    folder = str(Path(autoscaler.__file__).parent)

    def note(frame: FrameType | None, event: str, _: object) -> None:
        if event != "call" or frame is None or not frame.f_code.co_filename.startswith(folder):
            return
        code = frame.f_code
        while frame is not None and frame.f_code not in DECIDES:
            frame = frame.f_back
        if frame is not None:
            found.add(code)

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        run()
    finally:
        sys.setprofile(before)
    return found


def simulation(policy: policies.Policy) -> Simulation:
    trace = assign(Trace([0.0, 0.1, 0.2, 5.0, 200.0], [1] * 5, [1] * 5), SETTINGS, models={"m": 1.0})
    hardware = Hardware((DeviceType(type="slot", count=2),), {"m": ServiceModel(0.1, 0.0), "n": ServiceModel(0.1, 0.0)})
    return Simulation(SETTINGS, hardware, trace, policy)


def test_both_hold_the_same_reconciler_with_the_same_policy_object(redis: redis_py.Redis) -> None:
    for policy in policies.POLICIES.values():
        one = Controller(SETTINGS, redis, Slots(), Workers(), policy=policy).reconciler
        other = simulation(policy).rounds.reconciler
        assert type(one) is type(other) is Reconciler is used(live, "Reconciler")
        assert one.policy is other.policy is policies.named(policy.name)


def test_both_ask_the_same_function_what_batch_work_leaves_to_the_others() -> None:
    assert used(ledger, "preemption.room") is used(preemption, "preemption.room")
    assert used(ledger, "Prefill") is used(worker, "Prefill")


def test_both_order_queues_by_the_same_function() -> None:
    assert LIVE.rank is priority.rank is used(queue, "rank")


def test_both_run_the_same_functions_to_decide(redis: redis_py.Redis) -> None:
    clock = iter(range(1000, 2000, 10))
    controller = Controller(SETTINGS, redis, Slots(), Workers(), clock=lambda: float(next(clock)))

    controller.round()  # takes the lead, which a simulation has from the beginning

    def rounds() -> None:
        redis.lpush(keys.queue("m", "interactive"), "job")
        controller.round()
        redis.delete(keys.queue("m", "interactive"))
        for _ in range(10):
            controller.round()

    in_the_fleet = deciding(rounds)
    in_the_simulator = deciding(simulation(controller.reconciler.policy).run)
    names = {code.co_qualname for code in in_the_fleet}
    assert {"decide", "Reconciler.demand", "watch", "assess", "grow", "shrink", "remove", "place", "size"} <= names
    # Whatever the live fleet called to decide is, object by object, what the simulator called.
    assert in_the_fleet <= in_the_simulator, {code.co_qualname for code in in_the_fleet - in_the_simulator}
