"""The breaker of a replica."""

from hypothesis import given
from hypothesis import strategies as st

from workers.breaker import (
    COMPARED_S,
    FIRST_S,
    HOPELESS,
    LATEST,
    LEAST,
    LONGEST_S,
    SOUND,
    TENANTS,
    Breaker,
    BreakerState,
)


def of(tenant: str, succeeded: int, failed: int) -> list[tuple[str, bool]]:
    return [(tenant, False)] * succeeded + [(tenant, True)] * failed


def opened(now: float = 0.0) -> Breaker:
    breaker = Breaker()
    breaker.ended(now, of("default", 0, LEAST), "HTTP 500")
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
    few.ended(0.0, of("default", 0, LEAST - 1))
    minority.ended(0.0, of("default", LATEST, LEAST))
    for breaker in (few, minority):
        assert breaker.state(0.0) is BreakerState.CLOSED
        assert breaker.capacity(0.0, 3, 64) == 64


def test_successes_in_a_row_close_it_and_its_past_is_forgotten() -> None:
    breaker = opened()
    for nth in range(SOUND):
        assert breaker.state(50.0) is BreakerState.HALF_OPEN, nth
        breaker.ended(50.0, of("default", 1, 0))
    assert (breaker.state(50.0), breaker.why) == (BreakerState.CLOSED, "")
    breaker.ended(51.0, of("default", 0, LEAST - 1))
    assert breaker.state(51.0) is BreakerState.CLOSED


def test_each_failure_doubles_the_pause_and_several_ask_for_another_replica() -> None:
    breaker, now, pauses = opened(), 0.0, []
    while not breaker.hopeless:
        pauses.append(breaker.wait_s(now))
        now += pauses[-1]
        breaker.ended(now, of("default", 0, 1))
    assert pauses == [min(LONGEST_S, FIRST_S * 2**nth) for nth in range(HOPELESS)]


def test_requests_that_were_in_the_engine_when_it_opened_are_no_tests() -> None:
    breaker = opened()
    for _ in range(3 * HOPELESS):
        breaker.ended(FIRST_S / 2, of("default", 0, 1))
    assert breaker.wait_s(0.0) == FIRST_S
    assert not breaker.hopeless


def test_a_success_between_failures_asks_for_no_other_replica() -> None:
    breaker, now = opened(), 0.0
    for nth in range(3 * HOPELESS):
        now += breaker.wait_s(now)
        breaker.ended(now, of("default", nth % 2, 1 - nth % 2))
    assert breaker.state(now) is not BreakerState.CLOSED
    assert not breaker.hopeless


@given(st.lists(st.booleans(), max_size=200))
def test_of_any_outcomes_an_open_replica_holds_one_job_at_most(outcomes: list[bool]) -> None:
    breaker, now = Breaker(), 0.0
    for failed in outcomes:
        now += breaker.wait_s(now)
        assert breaker.capacity(now, 0, 8) in ((8,) if breaker.state(now) is BreakerState.CLOSED else (1,))
        breaker.ended(now, of("default", int(not failed), int(failed)))
        assert bool(breaker.why) == (breaker.state(now) is not BreakerState.CLOSED)


def test_failures_of_one_tenant_open_nothing_for_others() -> None:
    breaker = Breaker()
    for nth in range(200):
        breaker.ended(float(nth), of("good", 1, 0))
        breaker.ended(float(nth), of("hostile", 0, 8))
        assert breaker.state(float(nth)) is BreakerState.CLOSED, nth
        assert breaker.capacity(float(nth), 0, 64) == 64


def test_a_flood_of_one_tenant_does_not_push_out_what_succeeded_for_another() -> None:
    breaker = Breaker()
    breaker.ended(0.0, of("good", 1, 0))
    breaker.ended(1.0, of("hostile", 0, 50 * LATEST))
    assert breaker.state(1.0) is BreakerState.CLOSED


def test_failures_of_most_tenants_open_it() -> None:
    breaker = Breaker()
    breaker.ended(0.0, of("lucky", 1, 0))
    breaker.ended(1.0, of("a", 0, 3) + of("b", 0, 2), "HTTP 500")
    assert breaker.state(1.0) is BreakerState.OPEN
    assert breaker.why == "5 of its last 6 requests failed, the last with: HTTP 500"


def test_a_tenant_that_went_away_is_compared_no_more() -> None:
    breaker = Breaker()
    breaker.ended(0.0, of("gone", LATEST, 0))
    breaker.ended(COMPARED_S + 1, of("left", 0, LEAST))
    assert breaker.state(COMPARED_S + 1) is BreakerState.OPEN


def test_an_open_one_closes_at_once_when_it_serves_a_tenant_that_had_no_part_in_the_failures() -> None:
    breaker = Breaker()
    breaker.ended(0.0, of("hostile", 0, LEAST))
    now = FIRST_S
    breaker.ended(now, of("good", 1, 0))
    assert (breaker.state(now), breaker.why) == (BreakerState.CLOSED, "")
    breaker.ended(now, of("hostile", 0, 8 * LATEST))
    assert breaker.state(now) is BreakerState.CLOSED


def test_the_tenants_that_are_remembered_are_bounded() -> None:
    breaker = Breaker()
    for nth in range(10 * TENANTS):
        breaker.ended(0.0, of(f"tenant-{nth}", 1, 0))
    assert len(breaker._tenants) == TENANTS
