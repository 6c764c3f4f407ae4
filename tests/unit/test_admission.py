"""What becomes of a job whose deadline is out of reach: by its estimate alone."""

import math
from datetime import UTC, datetime, timedelta

import pytest

from producer.contract.errors import DeadlineUnreachable, InvalidJob
from producer.contract.fleet.fleet_schema import Model
from producer.contract.fleet.settings import Settings
from producer.contract.message.job import Job
from producer.estimates.admission import Admission, admit, concerns
from producer.estimates.wait_time import Estimate, Interval, Why

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
# Named in no order: what is lower is told by the targets.
SETTINGS = Settings(models={"m": Model(engine="echo", tiers=("batch", "interactive", "standard"))})


def job(left_s: float | None, tier: str = "interactive") -> Job:
    deadline = None if left_s is None else NOW + timedelta(seconds=left_s)
    return Job(model="m", tier=tier, input="x", deadline=deadline, metadata={"of": "me"})


def told(low: float, expected: float) -> Estimate:
    """Of a job that ends then, in seconds."""
    starts = Interval(0.0, 0.0, 0.0)
    return Estimate("interactive", starts, Interval(expected, low, expected * 5), Why.BEHIND, "behind 9 jobs")


@pytest.mark.parametrize("admission", ["accept", "refuse", "degrade"])
def test_a_job_that_may_still_be_in_time_is_queued_as_it_is(admission: Admission) -> None:
    for one, ends in [
        (job(10), told(10, 50)),
        (job(10), told(0, math.inf)),
        (job(10), None),
        (job(None), told(10, 50)),
    ]:
        assert admit(one, ends, admission, NOW, SETTINGS) is one


def test_one_that_is_late_at_best_is_refused_with_when_it_could_be_done_and_what_to_do() -> None:
    with pytest.raises(DeadlineUnreachable) as refused:
        admit(job(10), told(12.5, 50), "refuse", NOW, SETTINGS)
    assert refused.value.earliest == NOW + timedelta(seconds=12.5)
    assert refused.value.retry_after_s == 2.5
    for part in ("03:04:15.000", "03:04:17.500", "in 12.5 s, probably in 50.0 s", "m.interactive", "behind 9 jobs"):
        assert part in str(refused.value)
    assert admit(job(12.5), told(12.5, 50), "refuse", NOW, SETTINGS)  # what it was told to ask for


def test_what_has_passed_and_what_is_endlessly_far_off_is_told_too() -> None:
    with pytest.raises(DeadlineUnreachable, match=r"5\.0 s ago") as passed:
        admit(job(-5), told(0, math.inf), "refuse", NOW, SETTINGS)
    assert (passed.value.earliest, passed.value.retry_after_s) == (NOW, 5.0)
    with pytest.raises(DeadlineUnreachable) as far:
        admit(job(10), told(1e300, math.inf), "refuse", NOW, SETTINGS)
    assert far.value.earliest == NOW + timedelta(days=365)
    assert "probably" not in str(far.value)


def test_degraded_it_goes_to_the_next_lower_tier_and_has_no_deadline() -> None:
    found = [admit(job(1, tier), told(9, 9), "degrade", NOW, SETTINGS) for tier in ("interactive", "standard", "batch")]
    assert [(each.tier, each.deadline) for each in found] == [("standard", None), ("batch", None), ("batch", None)]
    assert found[0] == job(None, "standard")
    allowed = [
        admit(job(1), told(9, 9), "degrade", NOW, SETTINGS, tiers).tier for tiers in (["batch"], ["interactive"])
    ]
    assert allowed == ["batch", "interactive"]


def test_an_estimate_is_asked_for_only_where_it_matters() -> None:
    asked = [concerns(job(left), how) for left in (1, None) for how in ("accept", "refuse", "degrade")]
    assert asked == [False, True, True, False, False, False]
    with pytest.raises(InvalidJob, match=r"'perhaps'; allowed: accept, refuse, degrade"):
        concerns(job(1), "perhaps")  # type: ignore[arg-type]  # that is the test
