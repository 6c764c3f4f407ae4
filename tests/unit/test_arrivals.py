"""How fast jobs arrive, and when, as far as looks at a counter tell."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.window.arrivals import LATEST, ArrivalRates


def steady(per_s: float, seconds: float, look_s: float = 0.05, occupied: bool = True) -> ArrivalRates:
    arrivals = ArrivalRates()
    for look in range(int(seconds / look_s) + 1):
        arrivals.see(look * look_s, round(look * look_s * per_s), occupied=occupied, waiting=occupied)
    return arrivals


@pytest.mark.parametrize("per_s", [1, 40, 5000])
def test_a_steady_stream_has_its_rate(per_s: float) -> None:
    rate = steady(per_s, 60).rate
    assert rate.per_s == pytest.approx(per_s, rel=0.05)
    assert rate.joining_per_s == pytest.approx(per_s, rel=0.05)


def test_bursts_join_faster_than_they_come() -> None:
    arrivals, arrived = ArrivalRates(), 0
    for second in range(30):  # one job ends the idle time, nine join within 50 ms, then nothing
        for after_s, more, occupied in ((0.0, 1, False), (0.05, 9, True), (0.1, 0, True)):
            arrived += more
            arrivals.see(second + after_s, arrived, occupied=occupied, waiting=occupied)
    assert arrivals.rate.per_s == pytest.approx(10, rel=0.1)
    assert arrivals.rate.joining_per_s == pytest.approx(90, rel=0.1)


def test_what_is_long_ago_is_forgotten() -> None:
    arrivals = steady(100, 30)
    arrivals.see(90.0, 3000, occupied=False, waiting=False)
    assert arrivals.rate.per_s < 1


def test_one_job_is_no_rate_of_a_thousand() -> None:
    arrivals = ArrivalRates()
    arrivals.see(0.0, 0, occupied=False, waiting=False)
    arrivals.see(0.001, 1, occupied=False, waiting=False)
    assert arrivals.rate.per_s < 10


@given(st.lists(st.tuples(st.floats(-1, 10), st.integers(-50, 5000), st.booleans()), max_size=20))
def test_whatever_a_look_finds_rates_are_no_less_than_none(looks: list[tuple[float, int, bool]]) -> None:
    arrivals, now, arrived = ArrivalRates(), 0.0, 0
    for passed_s, came, occupied in looks:  # servers are emptied, clocks are set back
        now, arrived = now + passed_s, max(0, arrived + came)
        arrivals.see(now, arrived, occupied=occupied, waiting=occupied)
        assert arrivals.rate.per_s >= 0
        assert arrivals.rate.joining_per_s >= 0
        assert len(arrivals) <= LATEST


@given(st.lists(st.tuples(st.floats(0.001, 10), st.integers(0, 100), st.booleans()), min_size=1, max_size=20))
def test_each_arrival_is_told_once_in_order_and_between_its_looks(looks: list[tuple[float, int, bool]]) -> None:
    arrivals, now, arrived = ArrivalRates(), 0.0, 0
    arrivals.see(now, arrived, occupied=False, waiting=False)
    for passed_s, came, occupied in looks:
        before, now, arrived = now, now + passed_s, arrived + came
        arrivals.see(now, arrived, occupied=occupied, waiting=occupied)
        told = arrivals.take()
        assert len(told) == came
        assert told == sorted(told)
        assert all(before < at <= now for at in told)
        assert occupied or set(told) <= {now}
    assert arrivals.take() == []


def test_what_came_between_two_looks_lies_around_their_middle_and_a_push_to_nothing_where_it_was_seen() -> None:
    arrivals = ArrivalRates()
    arrivals.see(0.0, 0, occupied=False, waiting=False)
    arrivals.see(1.0, 2, occupied=True, waiting=True)
    assert arrivals.take() == [0.25, 0.75]
    arrivals.see(2.0, 3, occupied=True, waiting=False)
    assert arrivals.take() == [2.0]
