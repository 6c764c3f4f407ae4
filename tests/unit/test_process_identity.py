"""A process is known by its pid, where that counts, and by when it started since the boot."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from producer.contract import process_identity
from producer.contract.process_identity import of_process, this_machine


def test_a_process_is_itself_whatever_the_clock_says(monkeypatch: pytest.MonkeyPatch) -> None:
    identity = of_process(os.getpid())
    real = time.time
    for step in (3, 10, 3600, -3600):
        monkeypatch.setattr(time, "time", lambda step=step: real() + step)
        monkeypatch.setattr(psutil, "boot_time", lambda step=step: real() + step)
        assert of_process(os.getpid()) == identity
        assert identity.lives
        assert 0 < identity.age_s < 3600


def test_what_has_only_the_pid_of_a_process_is_another() -> None:
    identity = of_process(os.getpid())
    assert not replace(identity, started_ticks=identity.started_ticks - 1).lives
    assert not replace(identity, machine=f"another{this_machine()}").lives
    assert replace(identity, machine="another").age_s == 0


def test_a_child_that_ended_is_known_until_it_is_waited_for_and_does_not_live() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    identity = of_process(child.pid)
    assert identity.lives
    child.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert of_process(child.pid) == identity
    assert not identity.lives
    child.communicate()
    with pytest.raises(ProcessLookupError, match=str(child.pid)):
        of_process(child.pid)


def test_a_program_with_brackets_and_blanks_in_its_name_is_read_like_any_other(tmp_path: Path) -> None:
    program = tmp_path / "a) S 1 (b"
    program.symlink_to("/bin/sleep")
    child = subprocess.Popen([program, "60"])
    try:
        assert abs(of_process(child.pid).started_ticks - of_process(os.getpid()).started_ticks) < 24 * 3600 * 100
        assert of_process(child.pid).lives
    finally:
        child.kill()
        child.wait()


def test_without_a_proc_psutil_is_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(process_identity, "PROC", tmp_path)
    monkeypatch.setattr(process_identity, "BOOT_ID", tmp_path / "none")
    this_machine.cache_clear()
    try:
        identity = of_process(os.getpid())
        assert identity.lives
        assert 0 < identity.age_s < 3600
        assert not replace(identity, started_ticks=1).lives
        with pytest.raises(ProcessLookupError):
            of_process(2**22 + 1)
    finally:
        this_machine.cache_clear()
