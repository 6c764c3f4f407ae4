"""One fleet, seen by a client, by the autoscaler that learns, and simulated: all make the same snapshot of it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.estimates import estimate_calibration
from autoscaler.estimates.estimate_calibration import PATIENCE, EstimateCalibration
from autoscaler.published_view import demand_view
from autoscaler.sizing.demand import Demand, TierDemand
from autoscaler.sizing.policy_registry import BACKLOG
from producer.contract.fleet.fleet_schema import DeviceType, Model, Scaling
from producer.contract.fleet.settings import Settings
from producer.contract.heartbeat import Heartbeat, WorkerState
from producer.contract.published import PublishedSize, PublishedSizes, ScaleUpConditions
from producer.estimates.snapshot import Place, read_snapshot
from producer.estimates.wait_time import ENOUGH, Errors, Snapshot, Why, estimate
from simulator.hardware import Hardware
from simulator.results import estimates as simulated
from simulator.run import Simulation
from simulator.service import ServiceModel
from simulator.traces.trace import Trace
from simulator.worker import SimulatedWorker

NOW = 1000.0
TIERS = ("interactive", "standard", "batch")
JOBS = 200
"""Requests of the simulated trace, of which those of a fleet are taken."""


@dataclass(frozen=True)
class OneWorker:
    state: WorkerState
    age_s: float
    running: int


@dataclass(frozen=True)
class OneFleet:
    engine: str
    capacity: int
    interval_s: float
    workers: Sequence[OneWorker]
    queued: tuple[int, int, int]
    arrivals_per_s: tuple[float, float, float]
    jobs_per_s: float
    load_s: float
    run_s: float
    hold: str
    tier: str

    @property
    def settings(self) -> Settings:
        model = Model(engine=self.engine, source="m", max_concurrency=self.capacity, max_replicas=9)
        return Settings(models={"m": model}, scaling=Scaling(interval_s=self.interval_s))

    @property
    def demand(self) -> Demand:
        tiers = zip(TIERS, self.queued, self.arrivals_per_s, strict=True)
        return Demand(
            "m",
            tuple(
                TierDemand(tier, self.settings.tiers[tier].target_wait_s, n, 0.0, rate, n) for tier, n, rate in tiers
            ),
            jobs_per_s=self.jobs_per_s,
            load_s=self.load_s,
            run_s=self.run_s,
        )

    @property
    def wanted(self) -> PublishedSize:
        none = ScaleUpConditions(present=1, tier="interactive", queued=None)
        return PublishedSize(replicas=1, reason="", demand=demand_view(self.demand), one_more=none, hold=self.hold)

    @property
    def sizes(self) -> PublishedSizes:
        return PublishedSizes(at=NOW, policy="slack", models={"m": self.wanted})

    @property
    def beats(self) -> list[Heartbeat]:
        return [
            Heartbeat(
                name=f"w{n}", model="m", device="cpu:0", host="h", pid=1, pid_created_at=0.0, state=one.state,
                started_at=NOW - one.age_s, beat_at=NOW,
                capacity=0 if one.state is WorkerState.LOADING else self.capacity,
                running=tuple(f"{n}-{job}" for job in range(one.running)),
            )
            for n, one in enumerate(self.workers)
        ]  # fmt: skip

    def read(self) -> Snapshot:
        place = Place(self.tier, self.queued[TIERS.index(self.tier)] - 1, self.queued)
        return read_snapshot(NOW, self.sizes.model_dump_json(), self.settings, "m", place, self.beats)

    def learned_from(self) -> Snapshot:
        return estimate_calibration.last_in_queue(NOW, self.settings, self.wanted, self.beats, self.tier)

    def simulated(self) -> Snapshot:
        service = ServiceModel(0.02, 0.001, batches=not self.settings.model("m").slots)
        waiting = [tier for tier, jobs in enumerate(self.queued) for _ in range(jobs)]
        tiers = [*waiting, *[0] * (JOBS - len(waiting))]
        trace = Trace([0.0] * JOBS, [10] * JOBS, [100] * JOBS, [0] * JOBS, [0] * JOBS, tiers, ("m",), TIERS)
        sim = Simulation(self.settings, Hardware((DeviceType(type="x", count=9),), {"m": service}), trace, BACKLOG)
        for request in range(len(waiting)):
            sim.state.queues[0].push(request, NOW)
        free = iter(range(len(waiting), JOBS))
        for n, one in enumerate(self.workers):
            worker = SimulatedWorker(f"w{n}", 0, n, service, self.capacity, trace, NOW - one.age_s)
            if one.state is not WorkerState.LOADING:
                worker.ready(NOW)
                if held := [next(free) for _ in range(one.running)]:
                    worker.admit(held, NOW)
            if one.state is WorkerState.DRAINING:
                worker.drain(NOW)
            sim.state.fleet.workers[worker.name] = worker
        sim.state.demands, sim.state.blockers = {"m": self.demand}, {"m": self.hold}
        return simulated.last_in_queue(sim.state, tiers.index(TIERS.index(self.tier)), NOW)


SOME = st.sampled_from([0.0, 0.3, 20.0])


@st.composite
def fleets(draw: st.DrawFn) -> OneFleet:
    capacity = draw(st.integers(1, 13))
    queued = draw(st.tuples(*[st.integers(0, 20)] * 3).filter(any))
    return OneFleet(
        engine=draw(st.sampled_from(["embed", "generate"])),
        capacity=capacity,
        interval_s=draw(st.sampled_from([0.2, 1.0, 5.0])),
        workers=draw(
            st.lists(
                st.sampled_from(WorkerState).flatmap(
                    lambda state: st.builds(
                        OneWorker,
                        state=st.just(state),
                        age_s=st.floats(0.01, 60),
                        running=st.just(0) if state is WorkerState.LOADING else st.integers(0, capacity),
                    )
                ),
                max_size=4,
            )
        ),
        queued=queued,
        arrivals_per_s=draw(st.tuples(SOME, SOME, SOME)),
        jobs_per_s=draw(SOME),
        load_s=draw(SOME),
        run_s=draw(SOME),
        hold=draw(st.sampled_from(["", "no idle device"])),
        tier=draw(st.sampled_from([tier for tier, jobs in zip(TIERS, queued, strict=True) if jobs])),
    )


@given(fleets())
def test_who_reads_who_learns_and_the_simulator_make_the_same_snapshot_of_a_fleet(fleet: OneFleet) -> None:
    read, learned_from, simulated_ = fleet.read(), fleet.learned_from(), fleet.simulated()
    assert read == learned_from
    assert read == simulated_
    assert estimate(read).kind == estimate(learned_from).kind
    assert estimate(read).starts == estimate(simulated_).starts


READY = OneWorker(WorkerState.READY, 100.0, 0)
IDLE = OneFleet("embed", 4, 1.0, [READY], (1, 0, 0), (0.1, 0.0, 0.0), 2.0, 20.0, 0.5, "", "interactive")
"""An encoder with room for the one job that waits, as it does until its batch is worth running."""


def test_what_is_learned_of_a_job_that_waits_for_a_batch_is_found_by_those_who_read() -> None:
    found = estimate(IDLE.read())
    assert found.why is Why.BATCH
    errors = Errors()
    for _ in range(ENOUGH):
        errors.started(estimate(IDLE.learned_from()), 3.0)
    assert found.kind in errors.quantiles()


def test_a_job_of_a_tenant_over_its_share_is_corrected_by_what_was_learned_of_those_behind_others() -> None:
    busy = replace(IDLE, engine="generate", workers=[OneWorker(WorkerState.READY, 100.0, 4)], queued=(5, 0, 0))
    calibration, now = EstimateCalibration(), NOW
    for arrived in range(5, 5 * ENOUGH + 1, 5):
        for queued in (5, 0):
            interactive, *others = busy.demand.tiers
            tiers = (replace(interactive, queued=queued, arrived=arrived), *others)
            wanted = busy.wanted.model_copy(update={"demand": demand_view(replace(busy.demand, tiers=tiers))})
            calibration.learn(now, wanted.demand, {}, time_limit_s=600.0)
            calibration.make(now, busy.settings, wanted, busy.beats)
            now += 9.0
    place = Place("interactive", 4, busy.queued, over_share=True)
    found = estimate(read_snapshot(NOW, busy.sizes.model_dump_json(), busy.settings, "m", place, busy.beats))
    assert found.why is Why.SHARE
    assert calibration.errors.quantiles()[found.kind] == pytest.approx((9.05 / 2.55, 9.05 / 2.55))


def test_a_tier_that_the_reader_does_not_know_is_passed_over() -> None:
    unknown = replace(IDLE.demand, tiers=(TierDemand("urgent", 1.0, arrivals_per_s=9.0),))
    size = IDLE.wanted.model_copy(update={"demand": demand_view(unknown)})
    sizes = IDLE.sizes.model_copy(update={"models": {"m": size}}).model_dump_json()
    found = read_snapshot(NOW, sizes, IDLE.settings, "m", Place("batch", 0, (0, 0, 1)), IDLE.beats)
    assert [tier.arrivals_per_s for tier in found.tiers] == [0.0, 0.0, 0.0]
    assert found.jobs_per_s == 2.0


def queued(tier: str, length: int, arrived: int) -> PublishedSize:
    tiers = (replace(one, queued=0, arrived=0) for one in IDLE.demand.tiers)
    found = tuple(replace(one, queued=length, arrived=arrived) if one.tier == tier else one for one in tiers)
    return IDLE.wanted.model_copy(update={"demand": demand_view(replace(IDLE.demand, tiers=found))})


def calibrated(*jobs: str) -> EstimateCalibration:
    """With an open estimate for each job, 10 s apart, the first at ``NOW``; the n-th job is the n-th of its tier."""
    calibration = EstimateCalibration()
    for nth, job in enumerate(jobs):
        (made,) = calibration.make(NOW + 10 * nth, IDLE.settings, queued("batch", nth + 1, nth + 1), IDLE.beats)
        made.job_id = job
    return calibration


def test_a_jobs_end_is_learned_from_its_own_result_whichever_ends_first() -> None:
    calibration = calibrated("long", "short")
    assert calibration.followed == {"long", "short"}
    assert calibration.learn(NOW + 11, queued("batch", 0, 2).demand, {}, 600.0)
    assert calibration.learn(NOW + 12, queued("batch", 0, 2).demand, {"short": True}, 600.0)
    assert calibration.followed == {"long"}
    assert calibration.learn(NOW + 90, queued("batch", 0, 2).demand, {"long": True}, 600.0)
    ends = {kind: [*found] for kind, found in calibration.errors.ratios.items() if kind.endswith(": end")}
    # There was room for both: they were to start at once, and to run for 0.5 s.
    assert ends == {
        "waiting for a batch, batch: end": [pytest.approx(90.05 / 0.55)],
        "behind others, batch: end": [pytest.approx(2.05 / 0.55)],
    }
    assert not calibration.learn(NOW + 91, queued("batch", 0, 2).demand, {"long": True}, 600.0)


def test_the_end_of_a_job_that_nobody_ran_is_not_learned_and_its_start_is() -> None:
    calibration = calibrated("cancelled")
    assert not calibration.learn(NOW + 1, queued("batch", 1, 1).demand, {"cancelled": False}, 600.0)
    assert calibration.learn(NOW + 2, queued("batch", 0, 1).demand, {}, 600.0)
    assert [kind for kind in calibration.errors.ratios if kind.endswith(": end")] == []
    assert len(calibration.errors.ratios) == 1


def test_a_job_without_a_result_is_given_up_and_one_of_a_deleted_queue_at_once() -> None:
    calibration = calibrated("no result")
    calibration.learn(NOW + 1, queued("batch", 0, 1).demand, {}, 600.0)
    calibration.learn(NOW + 1 + PATIENCE * 600, queued("batch", 0, 1).demand, {}, 600.0)
    assert calibration.followed
    calibration.learn(NOW + 2 + PATIENCE * 600, queued("batch", 0, 1).demand, {}, 600.0)
    assert not calibration.followed
    calibration = calibrated("deleted")
    calibration.learn(NOW + 1, queued("batch", 0, 0).demand, {}, 600.0)
    assert not calibration.followed


def test_no_more_estimates_are_open_than_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate_calibration, "MOST_OPEN", 3)
    calibration = calibrated("a", "b", "c")
    assert not calibration.make(NOW + 100, IDLE.settings, queued("batch", 4, 4), IDLE.beats)
    calibration.learn(NOW + 101, queued("batch", 3, 4).demand, {"a": True}, 600.0)
    assert calibration.make(NOW + 102, IDLE.settings, queued("batch", 3, 4), IDLE.beats)
