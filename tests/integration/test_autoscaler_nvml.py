"""The real pynvml on three GPUs that a small library in C makes up."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.devices.fake_nvml import LOST, UNKNOWN, FakeGpus, NoCompilerError

# Told on stdin when to look again.
SHOW = """
import dataclasses, json, sys
from autoscaler.devices.nvml import choose_probe
from producer.contract.settings import Settings

probe = choose_probe(Settings())
for _ in sys.stdin:
    print(json.dumps([dataclasses.asdict(device) for device in probe.devices()]), flush=True)
"""

Gpu = dict[str, Any]


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

    def look(self) -> list[Gpu]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("\n")
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
    assert (first["fault"], first["lost"], first["memory_gb"]) == ("NVML: Unknown Error", False, 0)


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
        gpus.set(1, uuid=2)
        other = probe.look()[1]
    assert other["lost"]
    assert "GPU-20000000-fake in its place: restart the autoscaler" in other["fault"]


@pytest.mark.parametrize(("visible", "expected"), [("2,0", ["cuda:0", "cuda:2"]), ("GPU-10000000", ["cuda:1"])])
def test_only_the_gpus_that_we_were_given_are_used(gpus: FakeGpus, visible: str, expected: list[str]) -> None:
    with Probe(gpus, CUDA_VISIBLE_DEVICES=visible) as probe:
        assert [device["id"] for device in probe.look()] == expected


def test_no_gpu_given_and_none_declared_is_an_error(gpus: FakeGpus) -> None:
    with Probe(gpus, CUDA_VISIBLE_DEVICES="") as probe:
        _, error = probe.process.communicate(timeout=60)
    assert probe.process.returncode == 1
    assert "no device to run on: NVML shows no GPU (CUDA_VISIBLE_DEVICES is '')" in error
