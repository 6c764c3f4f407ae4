"""The breaker of a replica."""

from hypothesis import given
from hypothesis import strategies as st

from workers.breaker import FIRST_S, HOPELESS, LATEST, LEAST, LONGEST_S, SOUND, Breaker, BreakerState


def opened(now: float = 0.0) -> Breaker:
    breaker = Breaker()
    breaker.ended(now, 0, LEAST, "HTTP 500")
    return breaker


def test_a_replica_whose_failures_stand_out_gets_one_job_at_a_time_after_a_pause() -> None:
    breaker = opened(10.0)
    assert breaker.why == "5 of its last 5 requests failed, the last with: HTTP 500"
    assert breaker.state(10.0) is BreakerState.OPEN
    assert breaker.capacity(10.0, 0, 64) == 0
    assert breaker.wait_s(10.0) == FIRST_S
    assert breaker.state(10.0 + FIRST_S) is BreakerState.HALF_OPEN
    assert breaker.capacity(10.0 + FIRST_S, 0, 64) == 1
    assert breaker.capacity(10.0 + FIRST_S, 1, 64) == 0
    assert breaker.capacity(10.0 + FIRST_S, 0, 0) == 0, "it drains"


def test_few_failures_and_a_minority_of_failures_leave_it_closed() -> None:
    few, minority = Breaker(), Breaker()
    few.ended(0.0, 0, LEAST - 1)
    minority.ended(0.0, LATEST, LEAST)
    for breaker in (few, minority):
        assert breaker.state(0.0) is BreakerState.CLOSED
        assert breaker.capacity(0.0, 3, 64) == 64


def test_successes_in_a_row_close_it_and_its_past_is_forgotten() -> None:
    breaker = opened()
    for nth in range(SOUND):
        assert breaker.state(50.0) is BreakerState.HALF_OPEN, nth
        breaker.ended(50.0, 1, 0)
    assert (breaker.state(50.0), breaker.why) == (BreakerState.CLOSED, "")
    breaker.ended(51.0, 0, LEAST - 1)
    assert breaker.state(51.0) is BreakerState.CLOSED


def test_each_failure_doubles_the_pause_and_several_ask_for_another_replica() -> None:
    breaker, now, pauses = opened(), 0.0, []
    while not breaker.hopeless:
        pauses.append(breaker.wait_s(now))
        now += pauses[-1]
        breaker.ended(now, 0, 1)
    assert pauses == [min(LONGEST_S, FIRST_S * 2**nth) for nth in range(HOPELESS)]


def test_requests_that_were_in_the_engine_when_it_opened_are_no_tests() -> None:
    breaker = opened()
    for _ in range(3 * HOPELESS):
        breaker.ended(FIRST_S / 2, 0, 1)
    assert breaker.wait_s(0.0) == FIRST_S
    assert not breaker.hopeless


def test_a_success_between_failures_asks_for_no_other_replica() -> None:
    breaker, now = opened(), 0.0
    for nth in range(3 * HOPELESS):
        now += breaker.wait_s(now)
        breaker.ended(now, nth % 2, 1 - nth % 2)
    assert breaker.state(now) is not BreakerState.CLOSED
    assert not breaker.hopeless


@given(st.lists(st.booleans(), max_size=200))
def test_of_any_outcomes_an_open_replica_holds_one_job_at_most(outcomes: list[bool]) -> None:
    breaker, now = Breaker(), 0.0
    for failed in outcomes:
        now += breaker.wait_s(now)
        assert breaker.capacity(now, 0, 8) in ((8,) if breaker.state(now) is BreakerState.CLOSED else (1,))
        breaker.ended(now, int(not failed), int(failed))
        assert bool(breaker.why) == (breaker.state(now) is not BreakerState.CLOSED)
