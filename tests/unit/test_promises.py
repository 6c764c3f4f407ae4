"""The docs promise nothing that no test proves."""

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
DOCS = TESTS.parent / "docs"


@pytest.mark.parametrize("doc", ["reliability.md", "security.md"])
def test_every_promise_names_a_test_that_exists(doc: str) -> None:
    tables = re.findall(r"\| proved by \|\n((?:\|.*\n)+)", (DOCS / doc).read_text())
    rows = [row for table in tables for row in table.splitlines()[1:]]
    assert len(rows) > 12
    for row in rows:
        named = re.findall(r"`(test_\w+\.py)(?:::(test_\w+))?`", row)
        assert named, row
        for file, test in named:
            (path,) = TESTS.rglob(file)
            assert f"def {test}(" in path.read_text() or not test, row
