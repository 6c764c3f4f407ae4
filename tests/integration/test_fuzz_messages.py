"""Every kind of hostile message, as read from a queue: it is refused with a reason, or it is a job like any other."""

import random
from pathlib import Path

import pytest

from benchmarks.chaos.fuzz import Fate, hostile
from producer.contract.message.message_body import NotAJob
from scheduler.message import read


@pytest.mark.parametrize("seed", [1, 2])
def test_what_has_to_be_a_dead_letter_is_refused(seed: int, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    passed = []
    for each in hostile(random.Random(seed), 1000, "echo.batch", canary):
        try:
            read(each.message)
        except NotAJob:
            continue
        passed.append(each)
    assert [each.kind for each in passed if each.fate is Fate.DEAD] == []
    assert not canary.exists(), "reading a message ran what it carried"
