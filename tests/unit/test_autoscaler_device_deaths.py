"""Deaths of workers by their devices."""

from dataclasses import replace

import pytest

from autoscaler.devices.device import Device
from autoscaler.devices.device_deaths import SEEN_WITHIN_S, DeviceDeaths
from autoscaler.devices.quarantine import Fault, Health
from autoscaler.launchers.protocol import Ended

DIED = Ended("m-1", "m", asked=False, lived_s=9.0, cause="exit 4", device_key="GPU-1")
GPU = Device("cuda:0", "cuda", "GPU", 80.0, uuid="GPU-1")


def health(fault: Fault | None) -> dict[str, Health]:
    return {"GPU-1": Health(fault, "XID 79", device="cuda:0"), "GPU-2": Health(Fault.XID, "XID 48", device="cuda:1")}


@pytest.mark.parametrize("fault", [*Fault, None])
def test_a_fault_that_ends_workers_explains_a_death_of_a_moment_ago_once(fault: Fault | None) -> None:
    deaths = DeviceDeaths()
    deaths.add(100.0, DIED)
    explained = [] if fault in (Fault.HOT, None) else [(DIED, "cuda:0: XID 79")]
    assert deaths.explained(100.0, [GPU], health(None)) == []
    assert deaths.explained(100.0 + SEEN_WITHIN_S, [GPU], health(fault)) == explained
    assert deaths.explained(100.0 + SEEN_WITHIN_S, [GPU], health(fault)) == []


def test_a_fault_long_after_a_death_does_not_explain_it() -> None:
    deaths = DeviceDeaths()
    deaths.add(100.0, DIED)
    assert deaths.explained(101.0 + SEEN_WITHIN_S, [GPU], health(None)) == []
    assert deaths.explained(102.0 + SEEN_WITHIN_S, [GPU], health(Fault.XID)) == []


def test_all_gpus_that_are_lost_at_once_explain_a_death_though_none_is_in_quarantine() -> None:
    deaths = DeviceDeaths()
    deaths.add(100.0, DIED)
    lost = replace(GPU, lost=True, fault="NVML: GPU is lost", suspect=True)
    assert deaths.explained(100.0, [lost], {}) == [(DIED, "cuda:0: NVML: GPU is lost")]
