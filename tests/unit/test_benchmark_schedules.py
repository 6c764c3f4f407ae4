"""Clairvoyant schedules: they start replicas ahead, meet what they are for."""

import pytest

from autoscaler.observation import Memory, Observation
from autoscaler.sizing.demand import Demand
from benchmarks.simulator import azure, schedules
from benchmarks.simulator.azure import LOAD_S, MODEL
from benchmarks.simulator.schedules import LOADING, SLOT_S, Scheduled
from simulator.traces.trace import Trace, assign


def burst() -> Trace:
    """Nothing but 200 requests in the fifth minute."""
    at = [240 + n * 0.3 for n in range(200)]
    return assign(Trace(at, [1000] * 200, [50] * 200), azure.fleet(), 1)


def wanted(schedule: tuple[int, ...], slot: int) -> int:
    seen = Observation(slot * SLOT_S, azure.fleet(), {MODEL: Demand(MODEL)}, [], [])
    sizes, _ = Scheduled(schedule).sizes(seen, Memory())
    return sizes[MODEL].replicas


def test_replicas_are_started_one_load_time_before_they_shall_serve() -> None:
    schedule = (*[0] * 10, *[3] * 5, *[0] * 10)
    assert wanted(schedule, 10 - LOADING - 1) == 0
    assert wanted(schedule, 10 - LOADING) == wanted(schedule, 14) == 3
    assert wanted(schedule, 15) == 0


@pytest.mark.slow
def test_who_knows_of_a_burst_is_there_when_it_comes_and_not_before() -> None:
    trace = burst()
    found = schedules.cheapest("code", trace, missed=5, cuts=10, seed=1)
    assert found.missed <= 5
    first = next(slot for slot, replicas in enumerate(found.schedule) if replicas)
    assert abs(first * SLOT_S - (240 + LOAD_S)) <= 2 * SLOT_S
    assert schedules.replay("code", trace, found.schedule).hours == pytest.approx(found.hours)
