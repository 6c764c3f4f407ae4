"""The real pynvml on three GPUs that a small library in C makes up."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.devices.fake_nvml import (
    ITSELF,
    LOST,
    NO_PERMISSION,
    UNKNOWN,
    VERSION_MISMATCH,
    FakeGpus,
    NoCompilerError,
)

# Told on stdin when to look again.
SHOW = """
import dataclasses, json, os, sys
from autoscaler.devices.nvml import choose_probe
from producer.contract.fleet.settings import Settings

slots = json.loads(os.environ.get("SLOTS", "[]"))
probe = choose_probe(Settings(devices=slots))
for line in sys.stdin:
    if line.strip():
        probe.expect(json.loads(line))
    print(json.dumps([dataclasses.asdict(device) for device in probe.devices()]), flush=True)
"""

Gpu = dict[str, Any]
SLOTS = json.dumps([{"name": "cpu:0"}])


@pytest.fixture
def gpus(tmp_path: Path) -> FakeGpus:
    try:
        return FakeGpus(tmp_path)
    except NoCompilerError as error:
        if "CI" in os.environ:
            pytest.fail(f"the NVML probe goes untested: {error}")
        pytest.skip(str(error))


class Probe:
    """A process with the real probe on the made-up GPUs."""

    def __init__(self, gpus: FakeGpus, **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", SHOW],
            env={**gpus.environment(), **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def look(self, **held: str) -> list[Gpu]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{json.dumps(held) if held else ''}\n")
        self.process.stdin.flush()
        found: list[Gpu] = json.loads(self.process.stdout.readline())
        return found

    def __enter__(self) -> "Probe":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()


def test_gpus_are_measured_and_what_one_does_not_tell_is_left_open(gpus: FakeGpus) -> None:
    gpus.set(1, temperature=91, mute=1)
    with Probe(gpus) as probe:
        well, hot, _ = probe.look()
    expected = {
        "id": "cuda:0",
        "kind": "cuda",
        "name": "Fake GPU 0",
        "uuid": "GPU-00000000-fake",
        "memory_gb": 80,
        "used_gb": 20,
        "ecc_errors": 0,
        "fault": "",
    }
    assert expected.items() <= well.items()
    assert (well["used_by"], well["temperature_c"], well["utilisation"]) == ({"4711": 15}, 45, 0.5)
    assert (hot["name"], hot["used_by"], hot["utilisation"], hot["temperature_c"]) == ("GPU", {}, None, 91)


def test_a_lost_gpu_is_faulty_keeps_its_place_and_comes_back(gpus: FakeGpus) -> None:
    with Probe(gpus) as probe:
        probe.look()
        gpus.set(2, error=LOST)
        lost = probe.look()[2]
        gpus.set(2, error=0)
        back = probe.look()[2]
    assert (lost["id"], lost["name"], lost["memory_gb"]) == ("cuda:2", "Fake GPU 2", 80)
    assert (lost["fault"], lost["lost"]) == ("NVML: GPU is lost", True)
    assert (back["fault"], back["lost"]) == ("", False)


def test_a_gpu_that_cannot_be_read_is_not_lost(gpus: FakeGpus) -> None:
    gpus.set(0, error=UNKNOWN)
    with Probe(gpus) as probe:
        first = probe.look()[0]
    assert (first["fault"], first["lost"], first["memory_gb"]) == ("NVML: Unknown Error", False, None)


def test_xid_errors_are_told_once_of_the_gpu_that_had_them(gpus: FakeGpus) -> None:
    with Probe(gpus) as probe:
        probe.look()
        gpus.xid(1, 79)
        gpus.xid(1, 13)
        gpus.xid(2, 48)
        assert [gpu["xids"] for gpu in probe.look()] == [[], [79, 13], [48]]
        assert [gpu["xids"] for gpu in probe.look()] == [[], [], []]


def test_a_gpu_that_was_lost_is_heard_again_when_it_is_back(gpus: FakeGpus) -> None:
    with Probe(gpus) as probe:
        gpus.set(1, error=LOST)
        for _ in range(31):  # so long that NVML is opened anew
            probe.look()
        gpus.set(1, error=0)
        probe.look()
        gpus.xid(1, 79)
        assert probe.look()[1]["xids"] == [79]


def test_memory_errors_are_counted(gpus: FakeGpus) -> None:
    gpus.set(2, ecc=3)
    with Probe(gpus) as probe:
        assert [gpu["ecc_errors"] for gpu in probe.look()] == [0, 0, 3]


def test_another_gpu_in_the_place_of_one_is_not_taken_for_it(gpus: FakeGpus) -> None:
    with Probe(gpus) as probe:
        probe.look()
        gpus.set(1, uuid=7)
        *_, fresh, _, gone = probe.look()
    assert (fresh["id"], fresh["uuid"], fresh["fault"]) == ("cuda:1", "GPU-70000000-fake", "")
    assert (gone["id"], gone["uuid"], gone["lost"]) == ("GPU-10000000-fake", "GPU-10000000-fake", True)


@pytest.mark.parametrize(("visible", "expected"), [("2,0", ["cuda:0", "cuda:2"]), ("GPU-10000000", ["cuda:1"])])
def test_only_the_gpus_that_we_were_given_are_used(gpus: FakeGpus, visible: str, expected: list[str]) -> None:
    with Probe(gpus, CUDA_VISIBLE_DEVICES=visible) as probe:
        assert [device["id"] for device in probe.look()] == expected


def test_no_gpu_given_and_none_declared_is_an_error(gpus: FakeGpus) -> None:
    with Probe(gpus, CUDA_VISIBLE_DEVICES="") as probe:
        _, error = probe.process.communicate(timeout=60)
    assert probe.process.returncode == 1
    assert "no device to run on: NVML shows no GPU (CUDA_VISIBLE_DEVICES is '')" in error


def test_a_gpu_that_leaves_the_enumeration_is_lost_and_renames_no_other(gpus: FakeGpus) -> None:
    with Probe(gpus) as probe:
        probe.look()
        gpus.set(1, gone=1)
        found = probe.look()
        gpus.set(1, gone=0)
        back = probe.look()
    assert [(one["id"], one["uuid"][4], one["lost"]) for one in found] == [
        ("cuda:0", "0", False),
        ("cuda:1", "1", True),
        ("cuda:2", "2", False),
    ]
    assert [(one["id"], one["uuid"][4], one["fault"]) for one in back] == [(f"cuda:{n}", str(n), "") for n in range(3)]


def test_an_order_that_is_shuffled_moves_no_measure_and_no_error_to_a_neighbour(gpus: FakeGpus) -> None:
    gpus.set(2, temperature=91)
    with Probe(gpus) as probe:
        probe.look()
        gpus.set(2, place=-1)
        gpus.xid(2, 79)
        found = probe.look()
    measured = [(one["id"], one["uuid"][4], one["temperature_c"], one["xids"]) for one in found]
    assert measured == [("cuda:0", "0", 45, []), ("cuda:1", "1", 45, []), ("cuda:2", "2", 91, [79])]


def test_what_a_worker_holds_keeps_its_name_over_a_restart_and_is_lost_if_it_is_not_there(gpus: FakeGpus) -> None:
    gpus.set(0, gone=1)  # while no autoscaler ran
    held = {"GPU-00000000-fake": "cuda:0", "GPU-20000000-fake": "cuda:2"}
    with Probe(gpus) as probe:
        found = probe.look(**held)
    assert {one["uuid"][4]: (one["lost"], bool(one["fault"])) for one in found} == {
        "0": (True, True),
        "1": (False, False),
        "2": (False, False),
    }
    assert len({one["id"] for one in found}) == 3


@pytest.mark.parametrize("question", ["name", "temperature", "utilisation", "ecc", "processes"])
def test_a_side_question_that_fails_leaves_its_own_value_unknown_and_is_told_by_name(
    gpus: FakeGpus, question: str
) -> None:
    gpus.set(1, **{f"fail_{question}": UNKNOWN})
    with Probe(gpus) as probe:
        one = probe.look()[1]
    assert (one["fault"], one["memory_gb"], one["used_gb"]) == ("", 80, 20)
    (told,) = one["untold"]
    assert told.lower().startswith(question)
    assert one["untold"][told] == "NVML: Unknown Error"


@pytest.mark.parametrize("error", [NO_PERMISSION, UNKNOWN])
def test_memory_that_is_not_told_is_unknown_and_never_the_machines(gpus: FakeGpus, error: int) -> None:
    gpus.set(1, fail_memory=error)
    with Probe(gpus) as probe:
        one = probe.look()[1]
    assert (one["fault"], one["memory_gb"], one["used_gb"]) == ("", None, None)
    assert one["untold"]["memory"].startswith("NVML: ")


def test_a_question_that_hangs_is_told_by_name_and_holds_up_no_other_gpu(gpus: FakeGpus) -> None:
    with Probe(gpus) as probe:
        probe.look()
        gpus.set(1, hang_memory=1)
        found = _looks(probe, lambda gpu: gpu[1]["fault"])
        gpus.set(1, hang_memory=0)
        back = _looks(probe, lambda gpu: not gpu[1]["fault"])
    assert found[1]["fault"] == "NVML: nvmlDeviceGetMemoryInfo does not return"
    assert [one["fault"] for one in (found[0], found[2], *back)] == [""] * 5


def test_an_nvml_that_hangs_altogether_is_told_and_the_looks_go_on(gpus: FakeGpus) -> None:
    with Probe(gpus) as probe:
        probe.look()
        gpus.set(ITSELF, hang=1)
        found = _looks(probe, lambda gpu: all(one["fault"] for one in gpu))
        gpus.set(ITSELF, hang=0)
        back = _looks(probe, lambda gpu: not any(one["fault"] for one in gpu))
    assert {one["fault"] for one in found} == {"NVML: nvmlDeviceGetCount does not return"}
    assert [one["memory_gb"] for one in (*found, *back)] == [80] * 6


@pytest.mark.slow
def test_a_slow_nvml_is_waited_for_and_used(gpus: FakeGpus) -> None:
    gpus.set(ITSELF, delay=400)
    with Probe(gpus) as probe:
        probe.look()  # with the start of the process
        found = _looks(probe, lambda gpu: len(gpu) == 3 and gpu[0]["memory_gb"])
        assert [one["fault"] for one in found] == [""] * 3


def test_gpus_that_cannot_be_asked_never_become_cpu_slots(gpus: FakeGpus) -> None:
    gpus.set(ITSELF, init=VERSION_MISMATCH)
    with Probe(gpus, SLOTS=SLOTS) as probe:
        (one,) = probe.look()
        assert (one["kind"], one["memory_gb"]) == ("cuda", None)
        assert "RM has detected an NVML/RM version mismatch" in one["fault"]
        assert "use_gpus = false" in one["fault"]
        gpus.set(ITSELF, init=0)
        assert [one["id"] for one in probe.look()] == ["cuda:0", "cuda:1", "cuda:2"]


def test_gpus_that_are_named_and_not_there_never_become_cpu_slots(gpus: FakeGpus) -> None:
    with Probe(gpus, SLOTS=SLOTS, CUDA_VISIBLE_DEVICES="MIG-1234") as probe:
        (one,) = probe.look()
    assert one["kind"] == "cuda"
    assert "CUDA_VISIBLE_DEVICES is 'MIG-1234'" in one["fault"]


def test_without_a_driver_cpu_slots_are_used_until_it_is_loaded(gpus: FakeGpus) -> None:
    library = gpus.library / "libnvidia-ml.so.1"
    away = library.with_name("away")
    library.rename(away)
    with Probe(gpus, SLOTS=SLOTS) as probe:
        (slot,) = probe.look()
        away.rename(library)
        found = probe.look(**{slot["uuid"]: slot["id"]})
    assert (slot["id"], slot["uuid"][:4], slot["fault"]) == ("cpu:0", "CPU-", "")
    assert [one["id"] for one in found] == ["cuda:0", "cuda:1", "cuda:2", "cpu:0"]
    assert found[-1]["fault"] == "CPU slots are not used beside GPUs"  # its workers are drained


def test_another_package_of_the_name_pynvml_is_refused_at_the_start(gpus: FakeGpus, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "pynvml.py").write_text("def nvmlInit(): pass\n")
    path = os.pathsep.join([str(tmp_path / "other"), os.environ.get("PYTHONPATH", "")])
    with Probe(gpus, SLOTS=SLOTS, PYTHONPATH=path) as probe:
        _, error = probe.process.communicate(timeout=60)
    assert probe.process.returncode == 1
    assert "it is not that of nvidia-ml-py 13 or later. Uninstall it, then pip install 'stoker[autoscaler]'" in error


def test_xid_errors_beside_a_dead_gpu_are_all_told_while_nvml_is_opened_anew(gpus: FakeGpus) -> None:
    gpus.set(0, error=LOST)
    told = []
    with Probe(gpus) as probe:
        probe.look()
        for xid in range(1000, 1070):
            gpus.xid(2, xid)
            told += probe.look()[2]["xids"]
    assert told == list(range(1000, 1070))


def _looks(probe: Probe, wanted: Callable[[list[Gpu]], object]) -> list[Gpu]:
    """Look until it is as wanted. Each look must come back soon, whatever NVML does."""
    deadline = time.monotonic() + 30
    while True:
        began = time.monotonic()
        found = probe.look()
        assert time.monotonic() - began < 10, "a look was held up"
        if wanted(found):
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.05)
