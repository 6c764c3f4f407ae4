"""Quarantine, look by look."""

import random
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.devices.device import Device
from autoscaler.devices.quarantine import (
    FORGET_S,
    HYSTERESIS_C,
    LONGEST_HOLD_S,
    STABLE_LOOKS,
    WELL,
    Fault,
    Health,
    hold_s,
    quarantine,
)
from producer.contract.fleet.fleet_schema import Quarantine

LIMITS = Quarantine(hot_c=85, hold_s=30, severe_hold_s=600)
HOT, COOL = LIMITS.hot_c, LIMITS.hot_c - HYSTERESIS_C
GPU = Device("cuda:0", "cuda", "GPU", 80, temperature_c=45, ecc_errors=0, uuid="GPU-0")
NEIGHBOUR = replace(GPU, id="cuda:1", uuid="GPU-1")
LOST = replace(GPU, fault="NVML: GPU is lost", lost=True, temperature_c=None, ecc_errors=None)
UNREADABLE = replace(GPU, fault="NVML: Unknown Error", temperature_c=None, ecc_errors=None)


class Looks:
    """Looks at one device, a second apart, beside another that is always well."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.known: Mapping[str, Health] = {}

    def __call__(self, device: Device = GPU, passed: float = 1.0, **measured: Any) -> Device:
        self.now += passed
        (seen, other), self.known = quarantine(self.now, LIMITS, [replace(device, **measured), NEIGHBOUR], self.known)
        assert other is NEIGHBOUR
        return seen

    @property
    def health(self) -> Health:
        return self.known.get("GPU-0", WELL)

    @property
    def out(self) -> bool:
        return self.health.fault is not None

    def until_back(self, limit: int = 100_000) -> int:
        """Looks at the device, well, until it is taken back."""
        for count in range(1, limit):
            self()
            if not self.out:
                return count
        raise AssertionError("never taken back")


def test_a_hot_gpu_is_out_at_once_and_back_when_it_was_cool_for_long_enough() -> None:
    look = Looks()
    assert not look(temperature_c=HOT - 1).fault
    assert look(temperature_c=HOT).fault.startswith("hot: 85 C; out for 30 s more")
    for _ in range(100):
        assert look(temperature_c=COOL).fault  # its hold is over, but it is not cool
    assert look.until_back() == STABLE_LOOKS


def test_a_gpu_that_was_hot_for_a_moment_stays_out_for_its_hold() -> None:
    look = Looks()
    look(temperature_c=HOT)
    assert look.until_back() == LIMITS.hold_s


def test_one_look_that_is_not_well_begins_the_count_anew() -> None:
    look = Looks()
    look(temperature_c=HOT)
    look(passed=100)
    for _ in range(STABLE_LOOKS - 2):
        look()
    assert look(temperature_c=COOL + 1).fault
    assert look.until_back() == STABLE_LOOKS


def test_a_hot_gpu_whose_temperature_cannot_be_read_stays_out() -> None:
    look = Looks()
    look(temperature_c=HOT)
    for _ in range(100):
        assert look(temperature_c=None).fault


def test_each_repetition_is_held_twice_as_long_up_to_a_limit_until_all_is_forgotten() -> None:
    look = Looks()
    waited = []
    for _ in range(12):
        look(temperature_c=HOT)
        waited.append(look.until_back())
    assert waited == [min(LIMITS.hold_s * 2**n, LONGEST_HOLD_S) for n in range(12)]
    look(passed=FORGET_S)
    assert look.known == {}
    look(temperature_c=HOT)
    assert look.until_back() == LIMITS.hold_s


def test_a_lost_gpu_is_out_at_once_and_its_workers_are_not_waited_for() -> None:
    look = Looks()
    seen = look(LOST)
    assert (look.health.fault, seen.lost, seen.suspect) == (Fault.LOST, True, False)
    assert look.until_back() == LIMITS.hold_s


def test_a_gpu_that_cannot_be_read_once_is_suspect_and_faulty_the_second_time_in_a_row() -> None:
    look = Looks()
    assert look(UNREADABLE).suspect
    assert not look.out
    assert not look().fault
    assert look(UNREADABLE).suspect
    seen = look(UNREADABLE)
    assert (look.health.fault, seen.suspect) == (Fault.UNREADABLE, False)
    assert seen.fault.startswith("NVML: Unknown Error")


@pytest.mark.parametrize("xid", [48, 64, 74, 79, 94, 95, 119, 140, 999])
def test_an_xid_of_the_gpu_puts_it_out_for_long(xid: int) -> None:
    look = Looks()
    assert f"XID {xid}" in look(xids=(xid,)).fault
    assert look.until_back() == LIMITS.severe_hold_s


@pytest.mark.parametrize("xid", [13, 31, 43, 45, 68, 109, 63, 92, 154])
def test_an_xid_that_is_the_programs_fault_or_told_for_the_record_is_none_of_the_gpu(xid: int) -> None:
    look = Looks()
    assert not look(xids=(xid,)).fault
    assert look.known == {}


def test_the_fleet_file_says_which_xids_count_besides() -> None:
    device = replace(GPU, xids=(13, 79))
    cases = [((), (), "XID 79"), ((79,), (), ""), ((79,), (13,), "XID 13")]
    for ignored, counted, fault in cases:
        limits = Quarantine(ignored_xids=ignored, counted_xids=counted)
        (seen,), _ = quarantine(0.0, limits, [device], {})
        assert seen.fault.partition(" (")[0].partition(";")[0] == fault
    with pytest.raises(ValueError, match="both name 79"):
        Quarantine(ignored_xids=(79,), counted_xids=(79,))


def test_another_xid_while_it_is_out_counts_from_then() -> None:
    look = Looks()
    look(xids=(48,))
    for _ in range(500):
        look()
    assert "XID 95" in look(xids=(95,)).fault
    assert look.until_back() == LIMITS.severe_hold_s
    assert look.health.strikes == 1


def test_memory_errors_put_a_gpu_out_once_for_each_new_one() -> None:
    look = Looks()
    assert "2 uncorrectable memory errors" in look(ecc_errors=2).fault
    after = replace(GPU, ecc_errors=2)
    while look.out:
        look(after)
    assert look.now == 1001 + LIMITS.severe_hold_s
    look(after, passed=FORGET_S)
    assert not look(after).fault  # old ones stay counted until the GPU is reset
    assert "1 uncorrectable memory error " in look(ecc_errors=3).fault


def test_a_reset_ends_the_hold_after_memory_errors_and_what_comes_after_it_is_new() -> None:
    look = Looks()
    look(ecc_errors=5)
    assert look.until_back() == STABLE_LOOKS
    assert look(ecc_errors=1).fault


def test_errors_from_before_the_first_look_count_as_new_ones() -> None:
    assert Looks()(ecc_errors=7).fault


def test_an_xid_on_a_hot_gpu_outweighs_the_heat() -> None:
    look = Looks()
    look(temperature_c=HOT)
    assert "XID 79" in look(temperature_c=HOT, xids=(79,)).fault
    assert look.until_back() == LIMITS.severe_hold_s


def test_another_card_in_its_place_has_no_history() -> None:
    look = Looks()
    look(xids=(79,))
    assert not look(uuid="GPU-9").fault
    assert look.out  # the card itself, wherever it is


def test_a_fault_follows_its_gpu_through_every_name_and_never_hits_a_neighbour() -> None:
    look = Looks()
    look(xids=(79,))
    moved = [replace(NEIGHBOUR, id="cuda:0"), replace(GPU, id="cuda:1")]
    (other, card), _ = quarantine(look.now, LIMITS, moved, look.known)
    assert (other.fault, card.fault[:6]) == ("", "XID 79")


@pytest.mark.parametrize("failing", [UNREADABLE, LOST])
def test_when_no_gpu_can_be_read_none_is_put_out_and_none_is_used(failing: Device) -> None:
    here = [failing, replace(failing, id="cuda:1", uuid="GPU-1")]
    known: Mapping[str, Health] = {}
    for second in range(100):
        seen, known = quarantine(float(second), LIMITS, here, known)
        assert [(one.suspect, bool(one.fault)) for one in seen] == [(True, True)] * 2
    assert known == {}
    seen, known = quarantine(101.0, LIMITS, [GPU, NEIGHBOUR], known)
    assert [one.fault for one in seen] == ["", ""]


def test_a_gpu_that_is_alone_and_cannot_be_read_is_not_put_out() -> None:
    known: Mapping[str, Health] = {}
    for second in range(100):
        (seen,), known = quarantine(float(second), LIMITS, [UNREADABLE], known)
        assert seen.suspect
    assert known == {}


def test_a_gpu_that_was_out_already_says_nothing_of_whether_the_others_can_be_read() -> None:
    look = Looks()
    look(LOST)
    unreadable = replace(UNREADABLE, id="cuda:1", uuid="GPU-1")
    for _ in range(100):
        (lost, other), look.known = quarantine(look.now, LIMITS, [LOST, unreadable], look.known)
        assert (lost.suspect, other.suspect) == (False, True)


def test_what_is_written_down_is_all_that_a_successor_needs() -> None:
    look = Looks()
    look(xids=(79,))
    for _ in range(30):
        look()
    successor = Looks()
    successor.now, successor.known = look.now, {"GPU-0": look.health.lasting}
    assert look.until_back() == successor.until_back()


def test_holds_never_shrink_below_their_first() -> None:
    long = Quarantine(severe_hold_s=10 * LONGEST_HOLD_S)
    assert hold_s(long, Fault.XID, 1) == hold_s(long, Fault.XID, 9) == 10 * LONGEST_HOLD_S


def random_looks(rng: random.Random, count: int) -> Iterable[Device]:
    """A device at the edge: every measure wanders about its limit."""
    ecc = 0
    for _ in range(count):
        ecc = 0 if rng.random() < 0.01 else ecc + (rng.random() < 0.01)
        yield rng.choices(
            [replace(GPU, temperature_c=rng.uniform(COOL - 5, HOT + 5), ecc_errors=ecc), LOST, UNREADABLE,
             replace(GPU, xids=(rng.choice([13, 48, 79]),), ecc_errors=ecc)],
            [90, 2, 2, 1],
        )[0]  # fmt: skip


@given(seed=st.integers(0, 2**32))
def test_at_the_edge_a_gpu_never_comes_back_early_and_ever_later(seed: int) -> None:
    look = Looks()
    outs: list[tuple[float, float]] = []
    before = WELL
    for device in random_looks(random.Random(seed), 400):
        seen = look(device)
        now_out = look.health.fault is not None
        assert bool(seen.fault) == (now_out or bool(device.fault))
        if now_out and before.fault is None:
            outs.append((look.now, look.health.until))
        if before.fault is not None and not now_out:
            assert look.now >= before.until or device.ecc_errors is not None
            assert before.well >= STABLE_LOOKS - 1
        before = look.health
    # Within an hour nothing is forgotten: the n-th time is held twice as long as the one before.
    for nth, (at, until) in enumerate(outs):
        assert until - at >= LIMITS.hold_s * 2**nth
