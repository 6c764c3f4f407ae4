"""The forecast against streams with a known future, and the line of a replica's capacity."""

import itertools
import math
import random
from collections.abc import Callable

import pytest

from autoscaler.sizing.capacity import Capacity
from autoscaler.sizing.forecast import DAY_S, TICK_S, WAYS, Forecast

HORIZON_S = 120.0


def after(
    rate: Callable[[float], float], until_s: float, seed: int | None = None, start: Forecast | None = None
) -> Forecast:
    """Having seen arrivals at that rate; random (Poisson) with a seed."""
    rng = random.Random(seed)
    found = start or Forecast(0.0, 0)
    arrived, carry = found.arrived, 0.0
    at = found.at
    while at < until_s:
        at += TICK_S
        expected = rate(at) * TICK_S + carry
        came = int(expected) if seed is None else max(0, round(rng.gauss(expected, math.sqrt(expected))))
        carry = expected - came if seed is None else 0.0
        arrived += came
        found = found.after(at, arrived, HORIZON_S)
    return found


def test_a_steady_rate_is_now() -> None:
    outlook = after(lambda _: 5.0, 3600).outlook(HORIZON_S)
    assert outlook.per_s == pytest.approx(5.0, rel=0.02)
    assert outlook.way == "now"


def test_the_spread_of_random_arrivals_is_that_of_their_count() -> None:
    # Two means of 120 s apart: each with a variance of rate / 120.
    outlook = after(lambda _: 5.0, 4 * 3600, seed=1).outlook(HORIZON_S)
    assert 0.5 * math.sqrt(5 / HORIZON_S) < outlook.spread < 2 * math.sqrt(2 * 5 / HORIZON_S)


def test_growth_is_followed() -> None:
    growing = after(lambda at: at / 100, 3600).outlook(HORIZON_S)
    assert growing.way == "trend"
    assert growing.per_s > after(lambda at: at / 100, 3600).ways(12, HORIZON_S)[0]


def test_what_wanders_is_its_newest() -> None:
    rng = random.Random(1)
    rates = [5.0]
    for _ in range(4 * 360):
        rates.append(max(1.0, rates[-1] + rng.gauss(0.0, 0.5)))
    outlook = after(lambda at: rates[int(at / TICK_S)], 4 * 3600 - TICK_S).outlook(HORIZON_S)
    assert outlook.way == "smooth"


def test_bursts_that_come_and_go_are_their_mean() -> None:
    outlook = after(lambda at: 20.0 if at % 300 < 60 else 0.0, 4 * 3600).outlook(HORIZON_S)
    assert outlook.way == "level"
    assert outlook.per_s == pytest.approx(4.0, rel=0.5)


def test_a_day_is_remembered_the_next() -> None:
    def day(at: float) -> float:
        return 100.0 if 9 * 3600 <= at % DAY_S < 17 * 3600 else 1.0

    eve = after(day, 2 * DAY_S + 9 * 3600 - 100)
    season = eve.ways(12, 1800.0)[WAYS.index("season")]
    assert season > 4 * eve.ways(12, 1800.0)[0] * 0.9


def test_an_emptied_server_and_a_long_silence_begin_anew_but_keep_the_day() -> None:
    before = after(lambda _: 5.0, 3600)
    emptied = before.after(before.at + TICK_S, 0, HORIZON_S)
    assert (emptied.rates, emptied.said) == ((), ())
    assert emptied.season == before.season
    assert before.after(before.at + 2 * 3600, before.arrived + 1, HORIZON_S).rates == ()


def test_nothing_seen_is_nothing_expected() -> None:
    assert Forecast(0.0, 0).outlook(HORIZON_S).per_s == 0


def test_what_is_remembered_does_not_grow() -> None:
    one, other = after(lambda _: 5.0, 3600), after(lambda _: 5.0, 7200)
    assert (len(one.rates), len(one.said), len(one.season)) == (len(other.rates), len(other.said), len(other.season))


def test_the_capacity_of_a_full_replica_is_told_from_half_empty_ones() -> None:
    def per_s(shared: float) -> float:
        return shared / (2.0 + 0.5 * shared)

    found = Capacity().after(0, [(shared, per_s(shared)) for shared in (2.0, 3.0, 5.0)])
    assert found.per_s(24) == pytest.approx(per_s(24), rel=1e-6)


def test_noisy_rates_do_not_make_the_capacity_larger() -> None:
    rng = random.Random(5)
    for shared in (8.0, None):  # one size of batch, and many
        points = []
        for _ in range(4000):
            jobs = shared or rng.uniform(4, 20)
            points.append((jobs, jobs / (2.0 + 0.5 * jobs) * rng.choice((0.6, 0.8, 1.2, 1.4))))
        assert Capacity().after(0, points).per_s(8) == pytest.approx(8 / 6, rel=0.02)


def test_of_one_size_a_rate_is_that_rate() -> None:
    found = Capacity().after(0, [(4.0, 2.0)] * 10)
    assert found.per_s(4) == found.per_s(24) == pytest.approx(2.0)


def test_no_capacity_is_negative_or_falls_with_what_runs() -> None:
    rng = random.Random(3)
    for _ in range(300):
        points = [(rng.uniform(1, 24), rng.uniform(0.01, 10)) for _ in range(rng.randint(1, 8))]
        found = [Capacity().after(0, points).per_s(jobs) for jobs in (1, 4, 24)]
        assert all(0 < one <= other * (1 + 1e-9) for one, other in itertools.pairwise(found))


def test_what_is_long_ago_counts_for_little() -> None:
    found = Capacity().after(0, [(4.0, 2.0)])
    for _ in range(100):
        found = found.after(60.0, [(4.0, 1.0)])
    assert found.per_s(4) == pytest.approx(1.0, rel=0.05)
