"""Orphans: collected beside children with an exit status that is asked for. In a process of their own, since the
children of this process are not given to another."""

import subprocess
import sys

PROGRAM = """
import ctypes, os, subprocess, time
from autoscaler.launchers.orphans import collect

assert ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) == 0  # PR_SET_CHILD_SUBREAPER
assert collect([]) == 0  # no child at all
before = subprocess.Popen(["sh", "-c", "exit 7"])
subprocess.run(["sh", "-c", "sleep 0.2 &"], check=True)  # leaves the sleep without a parent
after = subprocess.Popen(["sh", "-c", "exit 8"])
living = subprocess.Popen(["sleep", "600"])
started = [before, after, living]
deadline = time.monotonic() + 60
orphans = 0
while not orphans and time.monotonic() < deadline:
    orphans += collect(started)
    time.sleep(0.01)
living.kill()
print(orphans, before.wait(), after.wait(), living.wait(), collect(started))
"""


def test_an_orphan_is_collected_and_no_exit_status_is_taken_from_those_who_ask() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["1", "7", "8", "-9", "0"], done.stderr
