"""How long jobs are held: the law, what hindsight leaves of it, and the rule on what waits."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.window.arrivals import Rate
from scheduler.window.batch_cost import Cost
from scheduler.window.hindsight import Hindsight, windows
from scheduler.window.learned_window import LearnedWindow
from scheduler.window.window import HoldLimits, TierQueue, hold, law, look_again, no_hold, slack

COSTS = st.builds(Cost, st.floats(0, 0.1), st.floats(0, 0.5), st.floats(1, 3))
RATES = st.floats(0, 1e4).flatmap(lambda r: st.builds(Rate, st.just(r), st.floats(r, 2e4)))
SECONDS = st.floats(0, 100)
HOLDS = st.integers(1, 3).flatmap(
    lambda tiers: st.builds(
        HoldLimits,
        st.integers(1, 64),
        st.tuples(*[SECONDS] * tiers),
        st.just(0.0) | SECONDS,
        SECONDS,
        st.floats(1e-4, 100) | st.just(math.inf),
    )
)


def waiting_in(tiers: int) -> st.SearchStrategy[tuple[TierQueue, ...]]:
    tier = st.builds(TierQueue, st.integers(0, 40), SECONDS, SECONDS | st.just(math.inf))
    return st.tuples(*[tier] * tiers)


@given(HOLDS, st.data())
def test_a_full_batch_never_waits(hold: HoldLimits, data: st.DataObject) -> None:
    waiting = data.draw(waiting_in(len(hold.hold_s)))
    missing = hold.full - sum(tier.jobs for tier in waiting)
    filled = (TierQueue(waiting[0].jobs + max(0, missing)), *waiting[1:])
    assert look_again(hold, filled) == 0


@given(HOLDS, st.data())
def test_nobody_is_held_longer_than_the_hold_says_nor_past_a_deadline(hold: HoldLimits, data: st.DataObject) -> None:
    waiting = data.draw(waiting_in(len(hold.hold_s)))
    left = look_again(hold, waiting)
    assert left >= 0
    for hold_s, tier in zip(hold.hold_s, waiting, strict=True):
        if tier.jobs:
            assert left <= max(0.0, hold.busy_s, min(hold_s - tier.waited_s, tier.deadline_s - hold.run_s))


@given(HOLDS)
def test_nothing_waits_nothing_to_look_at(hold: HoldLimits) -> None:
    assert look_again(hold, [TierQueue(0)] * len(hold.hold_s)) == math.inf


def test_engines_that_take_jobs_into_a_running_batch_hold_nobody() -> None:
    assert look_again(no_hold(2), [TierQueue(0), TierQueue(1)]) == 0


def test_looks_come_when_twice_as_much_time_has_passed() -> None:
    hold = HoldLimits(full=32, hold_s=(1.0,))
    assert look_again(hold, [TierQueue(1)]) == 0.001
    assert look_again(hold, [TierQueue(1, 0.1)]) == 0.1
    assert look_again(hold, [TierQueue(1, 0.9)]) == pytest.approx(0.1)


@given(COSTS, RATES, st.floats(0.001, 1000), st.integers(1, 256))
def test_nobody_is_held_beyond_the_slack_of_the_target(cost: Cost, rate: Rate, target_s: float, full: int) -> None:
    slack_s = slack(cost, rate, target_s, full)
    held_s = law(cost, rate, slack_s, full)
    assert 0 <= held_s <= slack_s
    assert slack_s == 0 or slack_s + cost.safe(1) <= target_s * (1 + 1e-9)
    with_company = min(full, 1 + rate.joining_per_s * slack_s)
    assert slack_s == 0 or slack_s + cost.safe(with_company) <= target_s * (1 + 1e-9)


def test_the_law() -> None:
    rate = Rate(40.0, 40.0)
    cheap, dear = Cost(0.001, 0.002), Cost(0.001, 0.02)
    assert law(cheap, rate, 0.5, 32) < law(dear, rate, 0.5, 32), "cheap batches mean less wait"
    assert law(dear, rate, 0.1, 32) < law(dear, rate, 0.5, 32), "so do near targets"
    assert law(dear, Rate(3.0, 3.0), 0.5, 32) == 0, "and few arrivals"
    assert law(dear, Rate(700.0, 700.0), 0.5, 32) == 0, "and a device without spare time"
    assert law(Cost(), rate, 0.5, 32) == 0, "and nothing that is known"


def test_whoever_cannot_be_held_is_not_kept_waiting_by_who_can() -> None:
    assert hold(Cost(0.001, 0.01), [0.0, 5.0], 8, Rate(10, 10)).hold_s == (0.0, 0.0)


@given(st.floats(0, 1e4))
def test_windows_that_are_tried(longest_s: float) -> None:
    tried = windows(longest_s)
    assert tried[0] == 0
    assert tried == sorted(set(tried))
    assert tried[-1] <= longest_s * (1 + 1e-9)


def test_hindsight_forbids_a_window_that_would_have_been_late() -> None:
    cost = Cost(0.0, 0.010, spread=1.5)
    hindsight = Hindsight(target_s=0.030)
    assert hindsight.within(0.02) == 0, "nothing was seen yet"
    hindsight.look([0.1 * n for n in range(100)], 10.0, cost, 32, 0.025)
    assert 0.0125 <= hindsight.within(1.0) <= 0.015, "a slow batch takes 15 ms"
    assert hindsight.within(0.004) == 0.004, "no longer than it is worth"
    steady = Hindsight(target_s=0.030)
    steady.look([0.1 * n for n in range(100)], 10.0, Cost(0.0, 0.010, spread=1.0), 32, 0.025)
    assert 0.015 < steady.within(1.0) <= 0.020, "where no batch is slow, nothing has to be kept back for one"


def test_hindsight_finds_that_a_short_window_helps() -> None:
    """Pairs 2 ms apart, a batch of 20 ms, 30 ms to answer: alone, the first makes the second late."""
    hindsight = Hindsight(target_s=0.030)
    pairs = [0.1 * n + after for n in range(100) for after in (0.0, 0.002)]
    hindsight.look(pairs, 10.0, Cost(0.0, 0.020), 32, 0.008)
    assert 0.002 <= hindsight.within(0.0) <= 0.004


def seen(window: LearnedWindow, per_s: float, seconds: float) -> LearnedWindow:
    for look in range(int(seconds * 100)):
        window.see(look / 100, round(look / 100 * per_s), occupied=True, waiting=True)
    return window


def test_nothing_learned_nobody_held() -> None:
    window = seen(LearnedWindow([1.0], 32), 40, 20)
    assert window.hold().hold_s == (0.0,)
    window = LearnedWindow([1.0], 32)
    for rows in (1, 8, 32) * 9:
        window.cost.learn(rows, rows, 0.001 * rows + 0.01)
    assert window.hold().hold_s == (0.0,), "of arrivals nothing is known"


def test_what_was_learned_is_a_hold() -> None:
    window = LearnedWindow([1.0, 30.0], 32)
    for rows in (1, 8, 32) * 9:
        window.cost.learn(rows, rows, 0.001 * rows + 0.01)
    seen(window, 40, 20)
    first, second = window.hold(busy_s=0.5).hold_s
    assert 0 < first < second
    assert window.hold(busy_s=0.5).busy_s == 0.5
    assert window.hold().full == 32


def test_a_lone_job_on_an_idle_device_is_not_delayed() -> None:
    window = LearnedWindow([1.0], 32)
    for rows in (1, 8, 32) * 9:
        window.cost.learn(rows, rows, 0.001 * rows + 0.01)
    seen(window, 2, 100)
    assert look_again(window.hold(), [TierQueue(1)]) == 0


def test_inputs_fill_a_batch_not_jobs() -> None:
    window = LearnedWindow([1.0], 32)
    for _ in range(60):
        window.cost.learn(2, 32, 0.03)
    assert window.hold().full == 2


def test_impossible_bounds_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one each"):
        LearnedWindow([], 32)
    with pytest.raises(ValueError, match="at least one each"):
        LearnedWindow([1.0], 0)
