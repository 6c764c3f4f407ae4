"""What a tier attained, from the counters of its queue alone, and the headroom that follows from it."""

import random
from collections import deque
from typing import Any

import pytest

from autoscaler.roster import Phase
from autoscaler.sizing import attainment
from autoscaler.sizing.attainment import FEWEST, MOST, Attainment, first, headroom_factor
from autoscaler.sizing.demand import Demand, TierDemand
from autoscaler.sizing.forecast import TICK_S, Forecast
from autoscaler.sizing.history import History, remember
from autoscaler.sizing.policies.slack import needed_per_s
from deploy.cli.explain import attained_lines
from producer.contract.fleet.fleet_schema import Model, Tier
from producer.contract.fleet.settings import ATTAIN, Settings
from producer.contract.published import PublishedDemand, PublishedSize, PublishedTier, ScaleUpConditions


def played(target_s: float, per_s: float, served_per_s: float, lasts_s: float) -> tuple[float, float]:
    """A queue with one server, looked at every second: the share that it attained, and what was found."""
    rng = random.Random(1)
    arrivals: deque[float] = deque()
    now = free_at = 0.0
    found: Attainment = first(0.0, 0, 0)
    arrived = claimed = met = 0
    next_at = rng.expovariate(per_s)
    for look in range(1, round(lasts_s) + 1):
        while next_at <= look:
            arrivals.append(next_at)
            arrived += 1
            next_at += rng.expovariate(per_s)
        while arrivals and max(arrivals[0], free_at) <= look:
            now = max(arrivals[0], free_at)
            met += now - arrivals.popleft() <= target_s
            claimed += 1
            free_at = now + rng.expovariate(served_per_s)
        found = found.after(float(look), arrived, len(arrivals), target_s)
    assert found.share is not None
    return met / claimed, found.share


@pytest.mark.parametrize("target_s", [1.0, 30.0])
@pytest.mark.parametrize("load", [0.7, 0.97])
def test_the_counters_tell_what_was_attained(monkeypatch: pytest.MonkeyPatch, target_s: float, load: float) -> None:
    monkeypatch.setattr(attainment, "MEMORY_S", 1e9)
    true, found = played(target_s, 2.0 * load, 2.0, 20_000.0)
    assert found == pytest.approx(true, abs=0.02)


def test_what_waits_beyond_its_target_counts_before_it_is_claimed() -> None:
    found = first(0.0, 0, 0).after(1.0, 50, 50, 10.0)
    assert found.share is None, "nothing was claimed, and nothing is late"
    assert found.after(60.0, 50, 50, 10.0).share == 0.0


def test_too_few_jobs_tell_nothing_and_a_counter_that_fell_begins_anew() -> None:
    few = first(0.0, 0, 0).after(1.0, int(FEWEST) - 1, 0, 1.0)
    assert few.share is None
    enough = few.after(2.0, int(FEWEST) + 1, 0, 1.0)
    assert enough.share == pytest.approx(1.0)
    assert enough.after(3.0, 0, 0, 1.0).share is None


def test_jobs_that_come_back_are_not_claimed_twice() -> None:
    found = first(0.0, 0, 0).after(1.0, 100, 0, 10.0)
    back = found.after(2.0, 100, 40, 10.0)
    assert back.met == pytest.approx(found.met, rel=1e-3)


def test_what_is_remembered_does_not_grow() -> None:
    found = first(0.0, 0, 0)
    for look in range(1, 5000):
        found = found.after(float(look), 3 * look, 0, 30.0)
    assert len(found.marks) <= 3 * attainment.MARKS


def test_the_headroom_is_raised_by_how_many_times_too_many_are_late_within_a_bound() -> None:
    assert headroom_factor(0.99, 0.995) == headroom_factor(0.99, 0.99) == 1.0
    assert headroom_factor(None, 0.1) == headroom_factor(0.99, None) == 1.0
    assert 1.6 < headroom_factor(0.99, 0.98) < 1.8
    assert headroom_factor(0.99, 0.0) == MOST


def test_slack_keeps_more_headroom_and_says_why() -> None:
    arrivals = Forecast(0.0, 0)
    for tick in range(1, 61):
        arrivals = arrivals.after(tick * TICK_S, 80 * tick + 40 * (tick % 3), 120.0)
    history: History = remember(None, 0.0, Demand("m", jobs_per_s=2.0), [], 10)
    history = History(history.at, history.capacity, {"fast": arrivals})

    def needed(attained: float | None) -> tuple[float, str]:
        tier = TierDemand("fast", 1.0, attain=0.99, attained=attained)
        return needed_per_s(Demand("m", (tier,), running=1, load_s=60.0, phases={Phase.READY: 1}), history, 0.5)

    assert needed(0.9)[0] > needed(0.98)[0] > needed(0.99)[0] == needed(None)[0]
    assert "fast attained 90.0% of 0.99: 3.0 times the headroom" in needed(0.9)[1]
    assert "times the headroom" not in needed(0.99)[1]


def test_of_the_most_urgent_tier_something_is_asked_by_default() -> None:
    settings = Settings(models={"m": Model(engine="echo"), "n": Model(engine="echo", tiers=("batch", "standard"))})
    assert [settings.attain("m", tier) for tier in ("interactive", "standard", "batch")] == [ATTAIN, None, None]
    assert settings.attain("n", "standard") == ATTAIN
    tiers = {"fast": Tier(target_wait_s=1, weight=1, attain=0.9), "slow": Tier(target_wait_s=60, weight=1, attain=0.5)}
    own = Settings(tiers=tiers, models={"m": Model(engine="echo", tiers=("fast", "slow"))})
    assert [own.attain("m", tier) for tier in tiers] == [0.9, 0.5]


@pytest.mark.parametrize(
    ("attained", "more", "says"),
    [
        (0.995, {}, "99.5% lately; 0.99 asked within 1 s"),
        (None, {}, "too few jobs lately"),
        (0.9, {"hold": "no idle device"}, "held back by devices: no idle device"),
        (0.9, {"replicas": 4}, "held back by max_replicas, which is 4"),
        (0.9, {"phases": {"ready": 1, "loading": 2}}, "held back by the load time of 60 s: 2 load now"),
        (0.9, {}, "held back by bursts faster than a load of 60 s"),
    ],
)
def test_it_is_told_what_holds_a_tier_back(attained: float | None, more: dict[str, Any], says: str) -> None:
    tiers = (PublishedTier(tier="fast", target_wait_s=1, attain=0.99, attained=attained),)
    demand = PublishedDemand(model="m", tiers=tiers, load_s=60.0, phases=more.pop("phases", {"ready": 1}))
    one_more = ScaleUpConditions(present=1, tier="fast", queued=None)
    wanted = PublishedSize(**{"replicas": 1, "reason": "", "demand": demand, "one_more": one_more, **more})
    (line,) = attained_lines(wanted, Model(engine="echo", max_replicas=4))
    assert says in line
