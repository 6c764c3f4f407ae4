from hypothesis import given
from hypothesis import strategies as st

from producer.contract.fleet.fleet_schema import Tier
from producer.contract.fleet.settings import Settings
from scheduler.order.priority import longest_wait, rank

TIERS = Settings().tiers
tiers = st.builds(Tier, target_wait_s=st.floats(0.1, 3600), weight=st.floats(0.1, 100))


def test_a_fresh_interactive_job_goes_before_a_fresh_batch_job() -> None:
    order = sorted(TIERS, key=lambda name: -rank(TIERS[name]).urgency(0))
    assert order == ["interactive", "standard", "batch"]


def test_the_head_that_is_due_first_goes_first() -> None:
    interactive, batch = rank(TIERS["interactive"]), rank(TIERS["batch"])
    assert batch.urgency(598) < interactive.urgency(0) < batch.urgency(599.5)


def test_a_deadline_of_its_own_counts_if_it_is_earlier() -> None:
    interactive, batch = rank(TIERS["interactive"]), rank(TIERS["batch"])
    assert batch.urgency(0, deadline_s=0.5) > interactive.urgency(0)
    assert batch.urgency(10, deadline_s=1e6) == batch.urgency(10)


def test_of_what_is_late_an_interactive_job_counts_for_more() -> None:
    interactive, batch = rank(TIERS["interactive"]), rank(TIERS["batch"])
    assert interactive.urgency(3) > batch.urgency(606) > interactive.urgency(2)


@given(tier=tiers, other=tiers)
def test_nothing_starves_behind_a_queue_that_is_always_served(tier: Tier, other: Tier) -> None:
    wait = longest_wait(tier, other)
    assert rank(tier).urgency(wait * 1.001 + 1e-3) > rank(other).urgency(0)


def test_the_default_tiers_never_wait_longer_than_their_target_in_vain() -> None:
    assert longest_wait(TIERS["batch"], TIERS["interactive"]) < 600
