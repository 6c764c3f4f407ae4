"""The real pynvml on three GPUs that a small library in C makes up."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SHOW = """
import dataclasses, json, os, pathlib
from autoscaler.devices import quarantine
from autoscaler.nvml import choose_probe
from producer.settings import Settings

probe = choose_probe(Settings())
rounds = []
for lost in (False, True, False):
    file = pathlib.Path(os.environ["FAKE_NVML_LOST"])
    file.touch() if lost else file.unlink(missing_ok=True)
    devices, _ = quarantine(probe.devices(), frozenset())
    rounds.append([dataclasses.asdict(device) for device in devices])
print(json.dumps({"source": probe.source, "rounds": rounds}))
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        if "CI" in os.environ:
            pytest.fail("no C compiler: install gcc, or the NVML probe goes untested")
        pytest.skip("no C compiler to build the NVML stand-in with")
    folder = tmp_path_factory.mktemp("nvml")
    source = Path(__file__).with_name("fake_nvml.c")
    target = folder / "libnvidia-ml.so.1"
    subprocess.run([compiler, "-shared", "-fPIC", "-Wall", "-Werror", "-o", str(target), str(source)], check=True)
    return folder


def show(library: Path, tmp_path: Path, **env: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    environment = {
        **inherited,
        "LD_LIBRARY_PATH": str(library),
        "FAKE_NVML_LOST": str(tmp_path / "lost"),
        **env,
    }
    return subprocess.run(
        [sys.executable, "-c", SHOW], env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def test_gpus_are_measured_and_what_one_does_not_tell_is_left_open(library: Path, tmp_path: Path) -> None:
    answer = show(library, tmp_path)
    assert answer.returncode == 0, answer.stderr
    found = json.loads(answer.stdout)
    assert found["source"] == "NVML"
    well, hot, _ = found["rounds"][0]
    expected = {
        "id": "cuda:0",
        "kind": "cuda",
        "name": "Fake GPU 0",
        "memory_gb": 80,
        "used_gb": 20,
        "fault": "",
    }
    assert expected.items() <= well.items()
    assert (well["used_by"], well["temperature_c"], well["utilisation"]) == ({"4711": 15}, 45, 0.5)
    assert (hot["name"], hot["used_by"], hot["utilisation"]) == ("GPU", {}, None)
    assert hot["fault"].startswith("hot: 91 C")


def test_a_lost_gpu_is_faulty_keeps_its_place_and_comes_back(library: Path, tmp_path: Path) -> None:
    answer = show(library, tmp_path)
    faults = [devices[2]["fault"] for devices in json.loads(answer.stdout)["rounds"]]
    assert faults == ["", "NVML: GPU is lost", ""]
    lost = json.loads(answer.stdout)["rounds"][1][2]
    assert (lost["id"], lost["name"], lost["memory_gb"]) == ("cuda:2", "Fake GPU 2", 80)


@pytest.mark.parametrize(("visible", "expected"), [("2,0", ["cuda:0", "cuda:2"]), ("GPU-10000000", ["cuda:1"])])
def test_only_the_gpus_that_we_were_given_are_used(
    library: Path, tmp_path: Path, visible: str, expected: list[str]
) -> None:
    answer = show(library, tmp_path, CUDA_VISIBLE_DEVICES=visible)
    assert [device["id"] for device in json.loads(answer.stdout)["rounds"][0]] == expected


def test_no_gpu_given_and_none_declared_is_an_error(library: Path, tmp_path: Path) -> None:
    answer = show(library, tmp_path, CUDA_VISIBLE_DEVICES="")
    assert answer.returncode == 1
    assert "no device to run on: NVML shows no GPU (CUDA_VISIBLE_DEVICES is '')" in answer.stderr
