"""The workload zoo: two halves that share nothing, families that are what they say, and the judgement of policies."""

import random

import pytest

from simulator import policy_spec
from simulator.results.outcome import Fate
from simulator.zoo import arrivals
from simulator.zoo.judgement import Judged, Score, judge, run
from simulator.zoo.registry import FAMILIES
from simulator.zoo.workload import FIRST_HELD_OUT, Half


def test_there_are_at_least_sixteen_families_each_with_its_reason() -> None:
    assert len(FAMILIES) >= 16
    reasons = [family.reason for family in FAMILIES.values()]
    assert all(reasons)
    assert len(set(reasons)) == len(reasons)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_halves_share_no_value_of_a_parameter_and_no_seed(name: str) -> None:
    for parameter in FAMILIES[name].parameters.values():
        (low, high), (other_low, other_high) = parameter.development, parameter.held_out
        assert low < high
        assert other_low < other_high
        assert high < other_low or other_high < low
    assert FAMILIES[name].parameters, "a family without one would be the same in both halves"
    assert Half.DEVELOPMENT.seed(999) < FIRST_HELD_OUT <= Half.HELD_OUT.seed(0)


@pytest.mark.parametrize("half", Half)
@pytest.mark.parametrize("name", FAMILIES)
def test_a_workload_is_drawn_again_alike_and_its_requests_are_in_order(name: str, half: Half) -> None:
    one, again, other = (FAMILIES[name].workload(half, nth) for nth in (0, 0, 1))
    assert one.trace == again.trace
    assert one.trace.at != other.trace.at
    assert [*one.trace.at] == sorted(one.trace.at)
    assert 100 < len(one.trace) < 200_000
    assert len(one.trace.tier) == len(one.trace.model) == len(one.trace.tenant) == len(one.trace)
    assert all(one.settings.models[model] for model in one.trace.models)


def test_arrivals_follow_their_shape() -> None:
    found = arrivals.arrivals(random.Random(1), 10.0, 1000.0, arrivals.step(400.0, 600.0, 3.0), 3.0)
    inside = sum(400 <= at < 600 for at in found)
    assert inside == pytest.approx(6000, rel=0.05)
    assert len(found) - inside == pytest.approx(8000, rel=0.05)
    crowd = arrivals.crowd(60.0, 30.0, 600.0)
    assert [crowd(59.0), crowd(90.0)] == [0.0, 1.0]
    bursts = arrivals.bursts(random.Random(1), 10_000.0, 60.0, 300.0, 4.0)
    high = sum(bursts(float(at)) == 4.0 for at in range(10_000)) / 10_000
    assert high == pytest.approx(60 / 360, abs=0.06)


def test_every_request_of_the_zoo_ends() -> None:
    workload = FAMILIES["long prompts"].workload(Half.DEVELOPMENT)
    outcome = run(workload, policy_spec.named("slack", "slack"))
    assert set(outcome.fate) == {Fate.DONE}


def test_a_policy_is_dominated_by_one_that_needs_less_and_misses_less_clearly() -> None:
    def score(hours: float, missed: int) -> Score:
        return Score(hours, missed, 1000, {"fast": 1 - missed / 1000})

    own = score(10.0, 100)
    assert score(9.8, 98).dominates(own)
    assert not score(9.81, 50).dominates(own)
    assert not score(5.0, 99).dominates(own)
    assert not score(5.0, 0).dominates(score(10.0, 0)), "nothing missed is nothing to better"
    judged = Judged("a family", "why", {"slack": own, "better": score(1.0, 1), "dear": score(20.0, 1)})
    assert judged.dominating("slack") == ["better"]
    assert judged.dominating("better") == []


def test_judging_adds_up_workloads_and_bounds_the_first_policy() -> None:
    policies = [policy_spec.named(name, "slack") for name in ("slack", "threshold")]
    once = judge(FAMILIES["long prompts"], Half.DEVELOPMENT, policies)
    assert once.bound_hours is not None
    assert 0 < once.bound_hours <= once.scores["slack"].hours
    assert set(once.scores) == {"slack", "threshold"}
    twice = judge(FAMILIES["long prompts"], Half.DEVELOPMENT, policies[:1], 2, bound=False)
    assert twice.bound_hours is None
    assert twice.scores["slack"].requests > once.scores["slack"].requests
    assert twice.scores["slack"].hours > once.scores["slack"].hours
