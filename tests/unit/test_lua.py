"""Values that Lua and Python share stand once, in Python."""

import re
from pathlib import Path

import pytest

from producer.contract.fleet import tenants
from producer.contract.queue import lanes
from producer.contract.server.lua import script
from producer.submission import SUBMIT_LUA
from scheduler.lease import trials
from scheduler.lease.claim_layout import ClaimArguments, ClaimKeys, QueueArguments, flatten
from scheduler.lease.queue import CLAIM
from scheduler.order import fairness, preemption
from scheduler.window import window

ROOT = Path(__file__).parents[2]
LUA = [file for folder in ("producer", "gateway", "scheduler", "workers") for file in (ROOT / folder).rglob("*.lua")]

SHARED = {
    "DEFAULT": tenants.DEFAULT,
    "DUE": lanes.DUE,
    "REMEMBERED": lanes.REMEMBERED,
    "GRACE": preemption.GRACE,
    "ENVELOPE_BYTES": fairness.ENVELOPE_BYTES,
    "BYTES_PER_TOKEN": fairness.BYTES_PER_TOKEN,
    "OUTPUT": fairness.OUTPUT,
    "LOOK_S": window.LOOK_S,
    "SUSPECTS_LAST": trials.SUSPECTS_LAST,
    "SUSPECTS_FIRST": trials.SUSPECTS_FIRST,
}


def test_scripts_have_the_values_that_python_has() -> None:
    bury = script("scheduler.lease", "bury.lua")
    for name, value in SHARED.items():
        assert f"\nlocal {name} = {value!r}\n" in (bury if name == "KEPT" else CLAIM), name
    assert f"local DUE = {lanes.DUE}\n" in SUBMIT_LUA


@pytest.mark.parametrize("file", LUA, ids=lambda file: file.name)
def test_no_lua_file_writes_a_shared_value_again(file: Path) -> None:
    text = file.read_text()
    for name, value in SHARED.items():
        assert not re.search(rf"local [\w, ]*\b{name}\b[\w, ]* =", text), name
        if isinstance(value, int) and value > 10_000:
            assert not re.search(rf"(?<![\w.]){value}(?![\w.])", text), name


def test_no_line_is_left_unresolved() -> None:
    assert not re.findall("^-- (?:include|constant|insert) .*", CLAIM, re.MULTILINE)


def test_a_claim_is_flattened_in_the_order_in_which_lua_names_it() -> None:
    keys = ClaimKeys(*(f"key-{nth}" for nth in range(1, 12)))
    arguments = ClaimArguments(1, 2, 3.0, "owner", 5, 6, 7, 8.0, 9.0, 10.0, 11, "policies", 13, 14)
    queue = QueueArguments(15.0, 16.0, 17.0, 18.0, 19)
    number, *flat = flatten(keys, ["q"], arguments, [queue])
    assert number == 12
    assert flat[:12] == [*(f"key-{nth}" for nth in range(1, 12)), "q"]
    assert flat[12:] == [
        *(1, 2, 3.0, "owner", 5, 6, 7, 8.0, 9.0, 10.0),
        *(11, "policies", 13, 14, 15.0, 16.0, 17.0, 18.0, 19),
    ]
    for nth, name in enumerate(ClaimArguments.__dataclass_fields__, 1):
        assert re.search(rf"\b{name} = (?:tonumber\()?ARGV\[{nth}\]", CLAIM), name
    for nth, name in enumerate(ClaimKeys.__dataclass_fields__, 1):
        assert f"{name} = KEYS[{nth}]" in CLAIM
    assert "local at = 14 + (i - 12) * 5" in CLAIM


def test_only_numbers_and_strings_are_constants() -> None:
    from producer.contract.server import lua

    with pytest.raises(TypeError, match="no constant of Lua"):
        lua._literal(None)
