"""Estimates for queued jobs: what can be reckoned, why a job waits, and that the intervals learn to hold."""

import math
import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producer.estimates.wait_time import COVERED, ENOUGH, Ahead, Errors, Snapshot, Why, estimate

BUSY = Snapshot(
    tier="standard",
    tiers=(Ahead("interactive", 1, 0), Ahead("standard", 30, 0), Ahead("batch", 600, 1000)),
    ready_in_s=(0.0, 0.0),
    places=4,
    jobs_per_s=2.0,
    run_s=1.5,
)


def ahead(interactive: int = 0, standard: int = 0, per_s: float = 0.0) -> tuple[Ahead, ...]:
    return (Ahead("interactive", 1, interactive, per_s), Ahead("standard", 30, standard), Ahead("batch", 600, 1000))


def test_the_next_starts_when_a_place_is_free_and_those_before_it_come_first() -> None:
    assert estimate(BUSY).starts.expected == pytest.approx(1 / 4)
    assert estimate(replace(BUSY, tiers=ahead(3, 4))).starts.expected == pytest.approx(8 / 4)
    assert estimate(replace(BUSY, tiers=ahead(3, 4))).ends.expected == pytest.approx(8 / 4 + 1.5)
    assert estimate(replace(BUSY, free=1)).starts.expected == 0


def test_suspects_take_a_tenth_of_the_rate_and_may_run_in_each_worker_that_seems_free() -> None:
    assert estimate(replace(BUSY, suspects=1, tiers=ahead(0, 7))).starts.expected == pytest.approx(8 / (0.9 * 4))
    on_trial = estimate(replace(BUSY, suspects=2, free=4))
    assert on_trial.starts.expected == pytest.approx(BUSY.run_s)
    assert on_trial.starts.low == 0
    assert on_trial.starts.high > BUSY.run_s


def test_less_urgent_jobs_are_not_in_front_and_more_urgent_ones_that_come_meanwhile_are() -> None:
    assert estimate(replace(BUSY, tiers=ahead(0, 7, per_s=2.0))).starts.expected == pytest.approx(8 / (4 - 2))
    hopeless = estimate(replace(BUSY, tiers=ahead(0, 7, per_s=100.0))).starts.expected
    assert 8 / 4 < hopeless < math.inf


def test_a_model_that_loads_takes_as_many_as_it_has_places_when_it_is_there() -> None:
    loading = replace(BUSY, ready_in_s=(20.0,), tiers=ahead(standard=3))
    assert estimate(loading).starts.expected == pytest.approx(20)
    assert estimate(replace(loading, tiers=ahead(standard=9))).starts.expected == pytest.approx(20 + 6 / 2)
    both = replace(loading, ready_in_s=(20.0, 0.0), tiers=ahead(standard=99))
    assert estimate(both).starts.expected == pytest.approx(20 + (100 - 40 - 4) / 4)


def test_with_nothing_measured_it_is_not_before_the_model_is_there_and_nobody_knows_by_when() -> None:
    found = estimate(replace(BUSY, ready_in_s=(20.0,), tiers=ahead(standard=9), jobs_per_s=0.0))
    assert found.starts.expected == found.starts.high == math.inf
    assert 0 < found.starts.low <= 20
    assert estimate(replace(BUSY, ready_in_s=(), load_s=12.0)).starts.expected == 12


@pytest.mark.parametrize(
    ("change", "why", "says"),
    [
        ({"ready_in_s": ()}, Why.NO_WORKER, "the autoscaler starts one"),
        ({"ready_in_s": (), "blocker": "no idle device: cpu:0 is held by a"}, Why.NO_WORKER, "cpu:0 is held by a"),
        ({"ready_in_s": (30.0, 9.0), "load_s": 40.0}, Why.LOADING, "loading, for about 9 s"),
        ({"ready_in_s": (9.0,)}, Why.LOADING, "was not measured yet"),
        ({"tiers": ahead(1, 2)}, Why.BEHIND, "behind 1 job of tier interactive and 2 jobs of tier standard"),
        ({"tiers": ahead(0, 2), "over_share": True}, Why.SHARE, "more than its share; behind 2 jobs"),
        ({"free": 3, "batches": True}, Why.BATCH, "batch is worth running"),
        ({}, Why.FULL, "all 2 workers are full"),
        ({"ready_in_s": (0.0,)}, Why.FULL, "the worker is full"),
        ({"free": 3, "suspects": 2}, Why.TRIAL, "2 suspects run one by one, alone"),
    ],
)
def test_every_wait_has_its_reason(change: dict[str, Any], why: Why, says: str) -> None:
    found = estimate(replace(BUSY, **change))
    assert found.why is why
    assert says in found.reason


@given(
    interactive=st.integers(0, 1000),
    standard=st.integers(0, 1000),
    per_s=st.floats(0, 100),
    ready_in_s=st.lists(st.floats(0, 100), max_size=5),
    free=st.integers(0, 8),
    rate=st.sampled_from([0.0, 0.1, 50.0]),
)
def test_whatever_the_snapshot_the_interval_is_one_and_more_in_front_is_never_sooner(
    interactive: int, standard: int, per_s: float, ready_in_s: list[float], free: int, rate: float
) -> None:
    of = replace(BUSY, tiers=ahead(interactive, standard, per_s), ready_in_s=ready_in_s, free=free, jobs_per_s=rate)
    found = estimate(of)
    for interval in (found.starts, found.ends):
        assert 0 <= interval.low <= interval.high
    assert found.reason
    assert estimate(replace(of, tiers=ahead(interactive, standard + 1, per_s))).starts.expected >= found.starts.expected


def test_intervals_learn_to_hold_as_often_as_they_say() -> None:
    rng, errors, held = random.Random(1), Errors(), 0
    for n in range(2000):
        told = estimate(replace(BUSY, tiers=ahead(standard=rng.randint(1, 50))), errors.quantiles())
        took_s = told.starts.expected * rng.lognormvariate(0.5, 0.8)  # later than foretold, and scattered
        held += n >= 500 and told.starts.low <= took_s <= told.starts.high
        errors.started(told, took_s)
        errors.ended(told, took_s + 1.5)
    assert held / 1500 == pytest.approx(COVERED, abs=0.03)


def test_few_errors_teach_nothing_and_those_of_one_moment_count_once() -> None:
    errors = Errors()
    told = estimate(BUSY)
    for _ in range(ENOUGH - 1):
        errors.started(told, 1.0)
    assert not errors.quantiles()
    errors.started(told, 1.0)
    assert [*errors.quantiles()] == [told.kind]
    wanted = [errors.wants(told, now) for now in (100.0, 101.0, 104.9, 105.0, 3.0)]
    assert wanted == [True, False, False, True, True]
    assert errors.wants(estimate(replace(BUSY, ready_in_s=(9.0,))), 3.0)
