"""When a worker runs suspects, and for how long it then runs others."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producer.estimates.wait_time import TRIAL_SHARE
from scheduler.lease.trials import LOAD_S, Order, Trials


def test_a_new_worker_tries_suspects_when_there_is_nothing_else_to_run() -> None:
    trials = Trials(0.0)
    assert trials.order(10.0) is Order.LAST
    trials.begin(10.0)
    trials.end(13.0)
    assert trials.order(13.0) is Order.LAST


def test_a_new_worker_first_serves_others_for_nine_times_as_long_as_it_loaded() -> None:
    trials = Trials(0.0)
    trials.serve(10.0)
    assert trials.order(99.9) is Order.NONE
    assert trials.order(100.0) is Order.FIRST
    slow = Trials(0.0)
    slow.serve(1000.0)
    assert slow.order(1000.0 + 9 * LOAD_S) is Order.FIRST


def test_a_trial_lasts_from_when_the_worker_begins_to_empty_itself() -> None:
    trials = Trials(0.0)
    trials.serve(1.0)
    trials.begin(20.0)
    trials.begin(22.0)  # it holds none any more, and takes the suspect
    trials.end(23.0)
    trials.serve(24.0)
    assert trials.order(24.0 + 26.9) is Order.NONE
    assert trials.order(24.0 + 27.0) is Order.FIRST


@pytest.mark.slow
@given(
    lasts_s=st.lists(st.floats(0.01, 100), min_size=1, max_size=30),
    serves_s=st.floats(0.01, 10),
)
def test_trials_take_no_more_than_their_share_from_others_that_always_wait(
    lasts_s: list[float], serves_s: float
) -> None:
    trials, now, on_trial_s = Trials(0.0), 0.0, 0.0
    for last_s in lasts_s:
        while trials.order(now) is not Order.FIRST:
            trials.serve(now)
            now += serves_s
        assert on_trial_s <= TRIAL_SHARE * now * (1 + 1e-9)
        trials.begin(now)
        now += last_s
        on_trial_s += last_s
        trials.end(now)
