"""Every file and folder of this repository that the docs name in backticks exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [
    *(ROOT / "docs").glob("*.md"),
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "benchmarks/README.md")),
]
FOLDERS = "producer|gateway|scheduler|workers|autoscaler|simulator|deploy|tests|benchmarks|docs"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_path_that_a_page_names_exists(page: Path) -> None:
    prose = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    named = re.findall(rf"`((?:{FOLDERS})/[\w./-]*)(?:::\w+)?`", prose)
    assert [path for path in named if not (ROOT / path).exists()] == []
