import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.actions.backoff import after
from autoscaler.actions.decide import decide
from autoscaler.actions.decision import Decision, Drain, Hold, Start
from autoscaler.devices.device import Device
from autoscaler.devices.placement import by_device, free_gb, occupants
from autoscaler.observation import Memory, Observation
from autoscaler.roster import Phase, Worker
from autoscaler.sizing.demand import Demand, TierDemand
from producer.contract.fleet.fleet_schema import Model, Scaling
from producer.contract.fleet.settings import Settings

NOW = 10_000.0
SCALING = Scaling(up_cooldown_s=3, idle_s=30, drain_s=60, start_s=300)


def drains(decisions: Sequence[Decision]) -> list[Drain]:
    return [one for one in decisions if isinstance(one, Drain)]


def slots(count: int) -> list[Device]:
    return [Device(f"cpu:{n}", "cpu", "slot", 4) for n in range(count)]


def worker(name: str, model: str = "m", device: str = "cpu:0", phase: Phase = Phase.READY, **more: Any) -> Worker:
    return Worker(name, model, device, phase, more.pop("managed", True), more.pop("started_at", NOW - 100), **more)


class Fleet:
    """An observation in the making: models by bounds, demand by model, and what there is."""

    def __init__(self, devices: Sequence[Device], workers: Sequence[Worker] = (), **models: Model) -> None:
        self.devices, self.workers = list(devices), list(workers)
        self.settings = Settings(models=models or {"m": Model(engine="echo", max_replicas=4)}, scaling=SCALING)
        self.queued: dict[str, int] = {}
        self.running: dict[str, int] = {}
        self.quiet: dict[str, float] = {}
        self.memory = Memory()

    def decide(self, now: float = NOW, per_s: float = 1.0) -> list[Decision]:
        demands = {}
        for name in self.settings.models:
            own = Counter(one.phase for one in self.workers if one.model == name)
            tiers = (TierDemand("standard", 1.0, self.queued.get(name, 0)),)
            quiet = self.quiet.get(name, 0.0)
            demands[name] = Demand(name, tiers, self.running.get(name, 0), quiet, per_s, 0.0, 0, own)
        seen = Observation(now, self.settings, demands, self.devices, self.workers)
        decisions, self.memory = decide(seen, self.memory)
        return decisions


def test_the_first_job_starts_a_worker_and_the_reason_says_why() -> None:
    fleet = Fleet(slots(2))
    fleet.queued["m"] = 1
    (start,) = fleet.decide()
    assert isinstance(start, Start)
    assert (start.model, start.device, start.kind) == ("m", "cpu:0", "cpu")
    assert "1 queued" in start.reason


def test_a_minimum_is_kept_without_any_job() -> None:
    fleet = Fleet(slots(3), m=Model(engine="echo", min_replicas=2, max_replicas=2))
    assert [type(one) for one in fleet.decide()] == [Start, Start]


def test_growing_waits_for_the_cooldown() -> None:
    fleet = Fleet(slots(4))
    fleet.queued["m"] = 1
    assert len(fleet.decide()) == 1
    fleet.workers = [worker("a", phase=Phase.STARTING)]
    fleet.queued["m"] = 3
    assert fleet.decide(NOW + 1) == []
    assert len(fleet.decide(NOW + 3)) == 2


def test_without_an_idle_device_it_says_who_has_them() -> None:
    fleet = Fleet(slots(1), [worker("a", running=1)])
    fleet.queued["m"], fleet.running["m"] = 2, 1
    (hold,) = fleet.decide()
    assert isinstance(hold, Hold)
    assert "no idle device: cpu:0 is held by a" in hold.reason


def test_every_model_gets_its_first_worker_before_any_gets_its_second() -> None:
    fleet = Fleet(slots(3), m=Model(engine="echo", max_replicas=4), n=Model(engine="echo", max_replicas=4))
    fleet.queued.update(m=100, n=1)
    starts = [one.model for one in fleet.decide() if isinstance(one, Start)]
    assert starts == ["m", "n", "m"]


def test_a_worker_is_drained_after_the_idle_time_and_not_before() -> None:
    fleet = Fleet(slots(1), [worker("a")])
    fleet.quiet["m"] = 29
    assert fleet.decide() == []
    fleet.quiet["m"] = 30
    (drain,) = fleet.decide()
    assert isinstance(drain, Drain)
    assert (drain.worker, drain.grace_s) == ("a", 60)
    assert "for 30 s" in drain.reason


def test_a_surplus_must_last_before_it_is_drained_down_to_the_most_that_was_needed() -> None:
    workers = [worker(name, device=f"cpu:{n}", started_at=NOW - n) for n, name in enumerate("abcd")]
    fleet = Fleet(slots(4), workers)
    fleet.queued["m"] = 1
    assert fleet.decide(NOW) == []
    fleet.queued["m"] = 2
    assert fleet.decide(NOW + 15) == []
    fleet.queued["m"] = 1
    assert fleet.decide(NOW + 29) == []
    drains = [one.worker for one in fleet.decide(NOW + 30) if isinstance(one, Drain)]
    assert drains == ["a", "b"]  # two were needed once; the youngest go


def test_a_surplus_that_was_needed_meanwhile_starts_waiting_anew() -> None:
    fleet = Fleet(slots(2), [worker("a"), worker("b", device="cpu:1")])
    for second in range(0, 100, 20):
        fleet.queued["m"] = 1
        assert fleet.decide(NOW + second) == []
        fleet.queued["m"] = 2
        assert fleet.decide(NOW + second + 10) == []


def test_those_with_least_to_finish_go_first() -> None:
    workers = [
        worker("busy", running=3, started_at=NOW),
        worker("free", device="cpu:1", started_at=NOW - 500),
    ]
    fleet = Fleet(slots(2), workers)
    fleet.running["m"] = 3
    fleet.decide(NOW)
    (drain,) = fleet.decide(NOW + 30)
    assert isinstance(drain, Drain)
    assert drain.worker == "free"


def test_a_draining_worker_holds_its_device_until_it_is_gone() -> None:
    fleet = Fleet(slots(1), [worker("a", phase=Phase.DRAINING, draining_since=NOW - 1)])
    fleet.queued["m"] = 1
    (hold,) = fleet.decide()
    assert isinstance(hold, Hold)
    assert "waits for cpu:0: a drains" in hold.reason
    fleet.workers = []
    (start,) = fleet.decide()
    assert isinstance(start, Start)


TWO = {"m": Model(engine="echo"), "n": Model(engine="echo")}


def test_an_idle_worker_nobody_asks_for_makes_room_early_for_a_model_that_has_none() -> None:
    fleet = Fleet(slots(1), [worker("a", "n")], **TWO)
    fleet.queued["m"], fleet.quiet["n"] = 1, 12
    drain, hold = fleet.decide()
    assert isinstance(drain, Drain)
    assert isinstance(hold, Hold)
    assert drain.worker == "a"
    assert "drained early: m has jobs waiting and no device, n none for 12 s" in drain.reason


@pytest.mark.parametrize(
    "kept",
    ["queued", "running", "holds a job", "minimum", "unmanaged", "other has a worker"],
)
def test_no_early_drain_of_what_is_needed_or_not_ours(kept: str) -> None:
    fleet = Fleet(slots(1), [worker("a", "n")], **TWO)
    fleet.queued["m"], fleet.quiet["n"] = 1, 12
    match kept:
        case "queued":
            fleet.queued["n"] = 1
        case "running":
            fleet.running["n"] = 1
        case "holds a job":
            fleet.workers = [worker("a", "n", running=1)]
        case "minimum":
            fleet = Fleet(slots(1), [worker("a", "n")], m=TWO["m"], n=Model(engine="echo", min_replicas=1))
            fleet.queued["m"] = 1
        case "unmanaged":
            fleet.workers = [worker("a", "n", managed=False)]
        case "other has a worker":
            fleet = Fleet(slots(2), [worker("a", "n"), worker("b", device="cpu:1")], n=TWO["n"])
            fleet.settings = Settings(models={"m": Model(engine="echo", max_replicas=4), **fleet.settings.models})
            fleet.queued["m"] = 9
    assert [type(one) for one in fleet.decide()] == [Hold]


def test_two_models_that_need_room_get_two_devices_not_twice_the_same() -> None:
    workers = [worker("a", "n"), worker("b", "n", device="cpu:1")]
    three = {name: Model(engine="echo", max_replicas=2) for name in "mno"}
    fleet = Fleet(slots(2), workers, **three)
    fleet.queued.update(m=1, o=1)
    drains = [one.worker for one in fleet.decide() if isinstance(one, Drain)]
    assert drains == ["a", "b"]


def test_room_for_two_is_not_made_below_the_minimum() -> None:
    workers = [worker("a", "n"), worker("b", "n", device="cpu:1")]
    models = {name: Model(engine="echo", max_replicas=2) for name in "mo"}
    fleet = Fleet(slots(2), workers, n=Model(engine="echo", min_replicas=1, max_replicas=2), **models)
    fleet.queued.update(m=1, o=1)
    assert len([one for one in fleet.decide() if isinstance(one, Drain)]) == 1


def test_a_worker_on_a_faulty_device_is_drained_and_replaced_elsewhere() -> None:
    fleet = Fleet(slots(2), [worker("a", running=1)], m=Model(engine="echo"))
    fleet.devices[0] = replace(fleet.devices[0], fault="hot: 91 C")
    fleet.running["m"] = 1
    drain, start = fleet.decide()
    assert isinstance(drain, Drain)
    assert isinstance(start, Start)
    assert "cpu:0 is faulty: hot: 91 C" in drain.reason
    assert start.device == "cpu:1"


def test_a_worker_on_a_suspect_device_stays_and_nothing_new_goes_there() -> None:
    fleet = Fleet(slots(1), [worker("a", "n")], **TWO)
    fleet.devices[0] = replace(fleet.devices[0], fault="NVML: Unknown Error", suspect=True)
    fleet.queued["m"] = 1
    (hold,) = fleet.decide()
    assert isinstance(hold, Hold)
    assert "cpu:0 is faulty (NVML: Unknown Error)" in hold.reason


def test_a_worker_on_a_lost_device_hands_back_what_it_can_and_is_killed_soon() -> None:
    lost = replace(slots(1)[0], fault="NVML: GPU is lost", lost=True)
    drain, *_ = Fleet([lost], [worker("a")]).decide()
    assert isinstance(drain, Drain)
    assert drain.grace_s > 0
    going = worker("a", phase=Phase.DRAINING, draining_since=NOW)
    fleet = Fleet([lost], [going])
    assert not drains(fleet.decide(NOW + 1))
    (kill,) = drains(fleet.decide(NOW + 2.5))
    assert (kill.grace_s, "cpu:0 is lost" in kill.reason) == (0, True)
    hot = Fleet([replace(lost, lost=False)], [going])
    assert not drains(hot.decide(NOW + 2.5)), "a worker on a device that is only hot may finish"


def test_a_model_that_fits_on_no_device_is_held_back_with_the_cure() -> None:
    fleet = Fleet(slots(2), [worker("a", "n")], m=Model(engine="echo", memory_gb=9), n=Model(engine="echo"))
    fleet.queued["m"], fleet.quiet["n"] = 1, 20
    (hold,) = fleet.decide()
    assert isinstance(hold, Hold)
    assert hold.cause == "too large"
    assert "9 GB needed, the largest, cpu:0, has 4 GB. lower models.m.memory_gb" in hold.reason


@pytest.mark.parametrize("tier", ["interactive", "batch"])
def test_the_headroom_is_for_models_whose_jobs_cannot_wait(tier: str) -> None:
    scaling = SCALING.model_copy(update={"headroom_devices": 1})
    settings = Settings(models={"m": Model(engine="echo", max_replicas=4)}, scaling=scaling)
    target_s = settings.tiers[tier].target_wait_s
    demand = Demand("m", (TierDemand(tier, target_s, queued=10_000),), jobs_per_s=1.0)
    decisions, _ = decide(Observation(NOW, settings, {"m": demand}, slots(3), []), Memory())
    starts = [one for one in decisions if isinstance(one, Start)]
    holds = [one for one in decisions if isinstance(one, Hold)]
    if tier == "interactive":
        assert len(starts) == 3
    else:
        assert len(starts) == 2
        assert "cpu:2 is kept free for bursts (headroom_devices is 1)" in holds[0].reason


def test_a_decision_keeps_the_numbers_that_it_was_based_on() -> None:
    fleet = Fleet(slots(1))
    fleet.queued["m"] = 7
    (start, *_) = fleet.decide()
    told = {"wanted": 4, "queued": {"standard": 7}, "replicas": 0, "jobs_per_s": 1.0, "needs_gb": 1.0, "device_gb": 4}
    assert told.items() <= start.inputs.items()


def test_a_model_taken_out_of_the_fleet_file_loses_its_workers() -> None:
    (drain,) = Fleet(slots(1), [worker("a", "gone")]).decide()
    assert isinstance(drain, Drain)
    assert "gone is not in fleet.toml" in drain.reason


def test_a_worker_that_drains_for_too_long_is_killed() -> None:
    fleet = Fleet(slots(1), [worker("a", phase=Phase.DRAINING, draining_since=NOW - 61)])
    assert fleet.decide() == []  # it is handing its jobs back
    (kill,) = fleet.decide(NOW + 10)
    assert isinstance(kill, Drain)
    assert kill.grace_s == 0


def test_silence_is_counted_from_when_it_was_first_seen() -> None:
    fleet = Fleet(slots(1), [worker("a", phase=Phase.STARTING, started_at=NOW - 5000)])
    fleet.queued["m"] = 1
    assert fleet.decide(NOW) == []  # an autoscaler that has just come up
    assert fleet.decide(NOW + 300) == []
    (kill, *_) = fleet.decide(NOW + 301)
    assert isinstance(kill, Drain)
    assert kill.grace_s == 0
    assert "no heartbeat for 301 s" in kill.reason


def test_a_worker_that_loads_for_ever_is_killed() -> None:
    fleet = Fleet(slots(1), [worker("a", phase=Phase.LOADING, started_at=NOW - 301)])
    kill, *_ = fleet.decide()
    assert isinstance(kill, Drain)
    assert "loading for 301 s" in kill.reason


def test_an_engine_with_a_limit_for_loading_of_its_own_is_killed_after_that_one() -> None:
    server = Model.model_validate({"engine": "openai", "options": {"command": ["s", "{port}"], "start_s": 900}})
    loading = worker("a", phase=Phase.LOADING, started_at=NOW - 900)
    fleet = Fleet(slots(1), [loading], m=server)
    assert drains(fleet.decide()) == []
    (kill,) = drains(fleet.decide(NOW + 61))
    assert kill.reason == "killed: loading for 961 s (models.m.options.start_s 900; downloads count)"


def test_a_model_that_fails_to_start_is_held_back_with_its_last_words() -> None:
    fleet = Fleet(slots(1))
    fleet.queued["m"] = 1
    fleet.memory = Memory(failures={"m": after(None, NOW, 0.2, "exit 1: ModelNotFound: no such package")})
    (hold,) = fleet.decide(NOW + 0.5)
    assert isinstance(hold, Hold)
    assert "ModelNotFound: no such package" in hold.reason
    assert isinstance(fleet.decide(NOW + 1)[0], Start)


NAMES = ("m", "n", "o")
DEVICES = [
    Device("cpu:0", "cpu", "slot", 4),
    Device("cpu:1", "cpu", "slot", 16),
    Device("cuda:0", "cuda", "GPU", 80),
    Device("cuda:1", "cuda", "GPU", 24, used_gb=10, used_by={3: 5.0}),
]

models = st.builds(
    lambda low, more, gb: Model(engine="echo", min_replicas=low, max_replicas=low + more, memory_gb=gb),
    st.integers(0, 2), st.integers(1, 4), st.floats(0.1, 40),
)  # fmt: skip
workers_ = st.lists(
    st.builds(
        lambda model, device, phase, managed, running, age, pid: Worker(
            "", model, device, phase, managed, NOW - age, pid,
            draining_since=NOW - age if phase is Phase.DRAINING else None, running=running,
        ),
        st.sampled_from((*NAMES, "gone")), st.sampled_from([one.id for one in DEVICES]),
        st.sampled_from(Phase), st.booleans(), st.integers(0, 3), st.floats(0, 400), st.integers(1, 9),
    ),
    max_size=5,
).map(lambda found: [replace(one, name=f"w{n}") for n, one in enumerate(found)])  # fmt: skip


@given(
    fleet_models=st.fixed_dictionaries(dict.fromkeys(NAMES, models)),
    workers=workers_,
    faulty=st.sets(st.sampled_from([one.id for one in DEVICES])),
    queued=st.fixed_dictionaries(dict.fromkeys(NAMES, st.integers(0, 50))),
    running=st.fixed_dictionaries(dict.fromkeys(NAMES, st.integers(0, 3))),
    quiet=st.fixed_dictionaries(dict.fromkeys(NAMES, st.sampled_from([0.0, 12.0, 40.0]))),
)
def test_no_round_breaks_a_rule(
    fleet_models: dict[str, Model],
    workers: list[Worker],
    faulty: set[str],
    queued: dict[str, int],
    running: dict[str, int],
    quiet: dict[str, float],
) -> None:
    devices = [replace(one, fault="hot") if one.id in faulty else one for one in DEVICES]
    fleet = Fleet(devices, workers, **fleet_models)
    fleet.queued, fleet.running, fleet.quiet = queued, running, quiet
    for now in (NOW, NOW + 31):
        decisions = fleet.decide(now)
        check(fleet, decisions)


def check(fleet: Fleet, decisions: Sequence[Decision]) -> None:
    by_name = {one.name: one for one in fleet.workers}
    starts = [one for one in decisions if isinstance(one, Start)]
    drains = [one for one in decisions if isinstance(one, Drain)]
    assert all(by_name[one.worker].managed for one in drains)
    assert len({one.worker for one in drains}) == len(drains)
    assert all(one.reason for one in decisions)
    check_devices(fleet, starts)
    going = {one.worker for one in drains}
    forced = {one.worker for one in drains if "faulty" in one.reason or "killed" in one.reason}
    for name, model in fleet.settings.models.items():
        own = [one for one in fleet.workers if one.model == name and one.serves]
        stay = sum(one.name not in going for one in own)
        new = sum(one.model == name for one in starts)
        assert new == 0 or stay + new <= model.max_replicas
        unforced = any(one.name in going - forced for one in own)
        assert not unforced or stay >= model.min_replicas


def check_devices(fleet: Fleet, starts: Sequence[Start]) -> None:
    held = by_device(occupants(fleet.workers, fleet.devices, fleet.settings.models))
    for device in fleet.devices:
        new = [fleet.settings.models[one.model] for one in starts if one.device == device.id]
        if not new:
            continue
        assert not device.fault
        assert sum(model.memory_gb for model in new) <= free_gb(device, held.get(device.id, ())) + 1e-6
        if device.kind == "cpu":
            assert len(new) == 1
            assert not any(one.device == device.id for one in fleet.workers)


def test_a_fleet_left_to_itself_follows_its_jobs_up_and_goes_back_to_zero() -> None:
    """Two models, two slots, a virtual clock: workers take 5 s to load and do 2 jobs a second."""
    fleet = Fleet(slots(2), (), **TWO)
    fleet.queued.update(m=40, n=40)
    names = (f"w{n}" for n in itertools.count())
    empty_since = {"m": NOW, "n": NOW}
    most = 0
    for second in range(200):
        now = NOW + second
        for name in TWO:
            if fleet.queued[name]:
                empty_since[name] = now
            fleet.quiet[name] = now - empty_since[name]
        for decision in fleet.decide(now, per_s=2.0):
            if isinstance(decision, Start):
                started = worker(next(names), decision.model, decision.device, Phase.STARTING, started_at=now)
                fleet.workers.append(started)
            elif isinstance(decision, Drain):
                fleet.workers = [one for one in fleet.workers if one.name != decision.worker]
        fleet.workers = [replace(one, phase=Phase.READY) if now - one.started_at >= 5 else one for one in fleet.workers]
        for one in fleet.workers:
            if one.phase is Phase.READY:
                fleet.queued[one.model] = max(0, fleet.queued[one.model] - 2)
        assert len({one.device for one in fleet.workers}) == len(fleet.workers)
        most = max(most, len(fleet.workers))
    assert most == 2
    assert fleet.queued == {"m": 0, "n": 0}
    assert fleet.workers == []
