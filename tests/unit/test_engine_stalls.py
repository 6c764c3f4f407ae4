"""For how long prompts keep running sequences waiting: by the steps in which they are read."""

from typing import Any

import pytest

from workers.engines.generation.stalls import Stalls
from workers.engines.protocol import Prefilled


def prefilled(request: str, stall_s: float) -> Prefilled:
    """The report of a prompt that stalled others for about that many seconds."""
    about: Any = pytest.approx(stall_s)
    return Prefilled(request, about)


def running(stalls: Stalls, *, usual_s: float = 1.0, steps: int = 10) -> float:
    """One sequence that has got its tokens at the usual pace. Returns what time it is."""
    stalls.join("0", "first", 0.0, alone=True)
    stalls.step(["0"], usual_s)
    for step in range(2, steps):
        assert stalls.step(["0"], step * usual_s) == []
    return (steps - 1) * usual_s


def test_a_prompt_has_stalled_the_others_for_what_its_step_took_longer() -> None:
    stalls = Stalls()
    now = running(stalls)
    stalls.join("1", "second", now + 0.5, alone=False)
    assert stalls.step(["0"], now + 1.0) == [], "it joined too late for this step"
    assert stalls.step(["0", "1"], now + 5.0) == [prefilled("second", 3.0)]
    assert stalls.step(["0", "1"], now + 6.0) == [], "once"


def test_who_joins_an_idle_batch_did_not_stall_anybody_before_it_came() -> None:
    stalls = Stalls()
    running(stalls)
    stalls.join("1", "second", 1000.0, alone=True)
    assert stalls.step(["1"], 1002.0) == [prefilled("second", 1.0)]


def test_a_request_is_told_of_when_the_last_of_its_prompts_is_read() -> None:
    stalls = Stalls()
    now = running(stalls)
    for sequence in ("1", "2", "3"):
        stalls.join(sequence, "second", now, alone=False)
    assert stalls.step(["0", "1"], now + 3.0) == []
    stalls.leave("3")
    assert stalls.step(["0", "1", "2"], now + 5.0) == [prefilled("second", 3.0)]
    stalls.join("4", "second", now + 5.0, alone=False)
    assert stalls.step(["4"], now + 6.0) == [prefilled("second", 0.0)], "of another that began later"


def test_a_prompt_behind_others_is_not_charged_for_theirs() -> None:
    stalls = Stalls()
    now = running(stalls)
    for sequence in ("1", "2", "3", "4"):
        stalls.join(sequence, f"of {sequence}", now, alone=False)
    assert stalls.step(["0", "1"], now + 3.0) == [prefilled("of 1", 2.0)]
    together = stalls.step(["0", "1", "2", "3"], now + 5.0)
    assert together == [prefilled("of 2", 1.0), prefilled("of 3", 1.0)]
    assert stalls.step(["4"], now + 10.0) == [prefilled("of 4", 4.0)]


def test_of_what_is_given_up_unread_nothing_is_told() -> None:
    stalls = Stalls()
    now = running(stalls)
    stalls.join("1", "second", now, alone=False)
    stalls.leave("1")
    assert stalls.step(["0", "1"], now + 3.0) == []
    stalls.join("2", "second", now + 3.0, alone=False)
    assert stalls.step(["2"], now + 8.0)[0].id == "second", "it has begun anew"


def test_a_step_that_is_shorter_than_usual_makes_good_for_nothing() -> None:
    stalls = Stalls()
    now = running(stalls)
    stalls.join("1", "second", now, alone=False)
    stalls.step(["0"], now + 0.1)
    assert stalls.step(["0", "1"], now + 3.1) == [prefilled("second", 2.0)]
