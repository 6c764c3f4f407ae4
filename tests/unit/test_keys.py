"""Redis keys are formatted in ``keys.py`` alone, and stay as they are: other processes use them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from producer.contract import keys
from producer.submission import SUBMIT_LUA

ROOT = Path(__file__).parents[2]
PACKAGES = ("producer", "scheduler", "workers", "autoscaler", "gateway", "simulator", "deploy", "benchmarks")
KEY = re.compile(r"""["']stoker:(?! )""")
"""A literal that a key begins with; messages of the command line have a space there."""


def test_no_key_is_formatted_outside_keys_py() -> None:
    sources = [path for package in PACKAGES for kind in ("*.py", "*.lua") for path in (ROOT / package).rglob(kind)]
    found = {str(path.relative_to(ROOT)) for path in sources if KEY.search(path.read_text())}
    assert found == {"producer/contract/keys.py"}


@pytest.mark.parametrize(
    ("made", "key"),
    [
        (keys.lane("a.b", "batch", "x y"), "stoker:lane:batch:x%20y:a.b"),
        (keys.dated("m", "batch", "t"), "stoker:dated:batch:t:m"),
        (keys.wake("m", "batch"), "stoker:wake:batch:m"),
        (keys.lanes("m"), "stoker:lanes:m"),
        (keys.any_of_model("m"), "stoker:*:m"),
        (keys.any_lane("m"), "stoker:lane:*:m"),
        (keys.any_dated("m"), "stoker:dated:*:m"),
    ],
)
def test_keys_stay_as_they_are(made: str, key: str) -> None:
    assert made == key


def test_scripts_have_the_formats_of_keys_py() -> None:
    for name in ("OF_MODEL", "OF_TIER", "OF_TENANT"):
        assert f"local {name} = '{getattr(keys, name)}'\n" in SUBMIT_LUA
