"""The queue length that starts a further replica: the answer comes true under each policy, with its memory."""

import pytest

from autoscaler.actions.decide import decide
from autoscaler.actions.decision import Start
from autoscaler.actions.whatif import one_more
from autoscaler.devices.device import Device
from autoscaler.observation import Memory, Observation
from autoscaler.published_view import sizes_view
from autoscaler.roster import Phase, Worker
from autoscaler.sizing.demand import Demand, TierDemand
from autoscaler.sizing.policy_registry import POLICIES, Policy
from producer.contract.fleet.fleet_schema import Model, Scaling
from producer.contract.fleet.settings import Settings
from producer.contract.published import PublishedSizes

SETTINGS = Settings(
    models={"m": Model(engine="echo", max_replicas=3, max_concurrency=4), "whale": Model(engine="echo", memory_gb=99)},
    scaling=Scaling(up_cooldown_s=0),
)
DEVICES = [Device(f"cpu:{n}", "cpu", f"cpu:{n}", 4) for n in range(3)]


def look(second: int, queued: int = 0, model: str = "m") -> Observation:
    worker = Worker("m-0", "m", "cpu:0", Phase.READY, True, 0.0, running=2, free_slots=6, jobs_per_s=5.0)
    tiers = (TierDemand("interactive", 1.0, queued, arrivals_per_s=2.0), TierDemand("batch", 600.0))
    demand = Demand(model, tiers, 2, 0.0, 5.0, 2.0, 6, {Phase.READY: 1})
    return Observation(1000.0 + second, SETTINGS, {model: demand}, DEVICES, [worker])


def remembered(policy: Policy) -> Memory:
    memory = Memory()
    for second in range(30):
        _, memory = decide(look(second), memory, policy)
    return memory


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
def test_so_many_jobs_start_one_more_and_one_less_does_not(policy: Policy) -> None:
    memory = remembered(policy)
    told = one_more(look(30), policy, memory, "m")
    assert (told.present, told.tier, told.device, told.free_gb, told.hindrance) == (1, "interactive", "cpu:1", 4, "")

    def starts(queued: int) -> bool:
        decisions, _ = decide(look(30, queued), memory, policy)
        return any(isinstance(one, Start) for one in decisions)

    if told.queued is None:  # a policy that goes by utilisation alone
        assert not starts(1_000_000)
    else:
        assert starts(told.queued)
        assert not starts(told.queued - 1)


def test_a_model_that_fits_nowhere_says_so_and_the_view_goes_through_json() -> None:
    policy, seen = POLICIES["backlog"], look(0, 5, "whale")
    decisions, memory = decide(seen, Memory(), policy)
    view = sizes_view(policy, seen, Memory(), memory, decisions)
    assert "fits on no device" in view.models["whale"].one_more.hindrance
    assert "fits on no device" in view.models["whale"].hold
    assert PublishedSizes.parse(view.model_dump_json()) == view
