from hypothesis import given
from hypothesis import strategies as st

from producer.settings import Settings, Tier
from scheduler.priority import longest_wait, rank

TIERS = Settings().tiers
tiers = st.builds(Tier, target_wait_s=st.floats(0.1, 3600), weight=st.floats(0.1, 100))


def test_a_fresh_interactive_job_goes_before_a_fresh_batch_job() -> None:
    order = sorted(TIERS, key=lambda name: -rank(TIERS[name]).urgency(0))
    assert order == ["interactive", "standard", "batch"]


@given(tier=tiers, other=tiers)
def test_nothing_starves_behind_a_queue_that_is_always_served(tier: Tier, other: Tier) -> None:
    wait = longest_wait(tier, other)
    assert rank(tier).urgency(wait * 1.001 + 1e-6) > rank(other).urgency(0) * (1 - 1e-9)


def test_the_default_tiers_never_wait_longer_than_half_an_hour_in_vain() -> None:
    assert longest_wait(TIERS["batch"], TIERS["interactive"]) <= 1800
