"""The picture of the house, kept true: which folder may import which."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

ARROWS = {
    "producer": set(),
    "gateway": {"producer"},
    "scheduler": {"producer"},
    "workers": {"producer", "scheduler"},
    "autoscaler": {"producer", "scheduler"},
    "simulator": {"producer", "scheduler", "autoscaler"},
    "deploy": {"producer", "gateway", "scheduler", "workers", "autoscaler", "simulator"},
}

MEASURING = {"benchmarks", "tests"}
"""Look at everything from outside; they are not shipped, and nothing of ours may need them."""


def modules_imported(source: str) -> Iterator[str]:
    """Full names of what a file imports absolutely, wherever in the file it does so."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module


def houses_imported(file: Path) -> set[str]:
    return {name.partition(".")[0] for name in modules_imported(file.read_text())} & (ARROWS.keys() | MEASURING)


def files_of(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def test_the_picture_names_every_package_that_is_there() -> None:
    packages = {init.parent.name for init in ROOT.glob("*/__init__.py")}
    assert packages - MEASURING <= ARROWS.keys()


def test_every_package_and_subpackage_is_shipped() -> None:
    import tomllib

    shipped = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    there = {
        ".".join(init.parent.relative_to(ROOT).parts)
        for folder in ARROWS
        for init in (ROOT / folder).rglob("__init__.py")
    }
    assert set(shipped) == there


@pytest.mark.parametrize("folder", [folder for folder in ARROWS if files_of(folder)])
def test_imports_follow_the_arrows(folder: str) -> None:
    allowed = ARROWS[folder] | {folder}
    wrong = {str(file.relative_to(ROOT)): houses_imported(file) - allowed for file in files_of(folder)}
    assert not {file: houses for file, houses in wrong.items() if houses}


def test_the_producer_imports_its_own_files_relatively_so_that_it_can_be_installed_under_another_name() -> None:
    wrong = [str(file.relative_to(ROOT)) for file in files_of("producer") if "producer" in houses_imported(file)]
    assert not wrong


def test_the_arrows_are_looked_for_in_every_kind_of_import() -> None:
    source = (
        "import workers.pool as p\nfrom autoscaler.actions.decide import x\ndef f(): import deploy\nfrom . import y"
    )
    assert set(modules_imported(source)) == {"workers.pool", "autoscaler.actions.decide", "deploy"}


def test_importing_the_producer_loads_no_model_no_gpu_and_no_screen(tmp_path: Path) -> None:
    heavy = ["torch", "transformers", "pynvml", "typer", "rich", "numpy", "psutil", "fastapi", "uvicorn", "httpx2"]
    program = f"import sys, producer; print([name for name in {heavy} if name in sys.modules])"
    # From elsewhere, so that what is installed is tested rather than what lies here.
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"
