"""The processes on a GPU that no worker has started, by what the machine tells of them."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from autoscaler.devices.gpu_processes import strangers
from autoscaler.launchers import records


@pytest.fixture
def program(tmp_path: Path) -> Path:
    file = tmp_path / "train.py"
    file.write_text("print(flush=True)\nimport time\ntime.sleep(600)\n")
    return file


@pytest.fixture(params=[False, True], ids=["of another", "of a worker"])
def process(request: pytest.FixtureRequest, program: Path) -> Iterator[tuple[int, bool]]:
    """A process, and whether a worker has started it."""
    environment = {**os.environ, **({records.MARK: "/somewhere/run/parrot-1"} if request.param else {})}
    command = [sys.executable, str(program), "--api-key", "secret"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as started:
        assert started.stdout is not None
        started.stdout.readline()
        yield started.pid, request.param
        started.kill()


def test_strangers_are_told_with_their_program_and_no_argument(process: tuple[int, bool], program: Path) -> None:
    pid, of_a_worker = process
    found = strangers([pid])
    assert list(found) == ([] if of_a_worker else [pid])
    told = f"{sys.executable} {program}"[:80]
    assert all(what.startswith(f"{told}, of ") for what in found.values())


def test_a_process_of_another_container_is_told_by_its_pid_alone() -> None:
    assert strangers([2**22 + 1]) == {2**22 + 1: "not visible here"}
