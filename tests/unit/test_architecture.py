"""The picture of the house, kept true: which folder may import which."""

import ast
import graphlib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
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
"""They look at everything from outside; they are not shipped, and nothing shipped may import them."""

CONTRACT = ("producer.contract", "producer.estimates")
"""All that ``scheduler``, ``workers`` and ``autoscaler`` may import of ``producer``: not the clients."""


def package_of(file: Path) -> list[str]:
    return list(file.relative_to(ROOT).parent.parts)


def modules_imported(source: str, package: Sequence[str] = ()) -> Iterator[str]:
    """Full names of what a file of the package imports, wherever in the file it does so.

    ``from a import b`` counts as ``a.b``, since b may be a module; whoever looks for modules cuts that down.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = list(package[: len(package) - node.level + 1]) if node.level else []
            base = [*start, *filter(None, [node.module])]
            yield from (".".join([*base, alias.name]) for alias in node.names)


def houses_imported(file: Path) -> set[str]:
    imported = modules_imported(file.read_text(), package_of(file))
    return {name.partition(".")[0] for name in imported} & (ARROWS.keys() | MEASURING)


def import_graph() -> dict[str, set[str]]:
    """Which module of ours imports which, also where only types are checked and inside functions."""
    modules = {}
    for folder in ARROWS:
        for file in files_of(folder):
            parts = file.relative_to(ROOT).with_suffix("").parts
            modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    graph = {}
    for name, file in modules.items():
        imported = modules_imported(file.read_text(), package_of(file))
        found = {each if each in modules else each.rpartition(".")[0] for each in imported}
        graph[name] = (found & modules.keys()) - {name}
    return graph


def circles(graph: Mapping[str, set[str]]) -> list[str]:
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


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


@pytest.mark.parametrize("folder", ["scheduler", "workers", "autoscaler"])
def test_of_the_producer_only_contract_and_estimates_are_imported(folder: str) -> None:
    wrong = {
        str(file.relative_to(ROOT)): name
        for file in files_of(folder)
        for name in modules_imported(file.read_text(), package_of(file))
        if name.partition(".")[0] == "producer" and not f"{name}.".startswith(tuple(f"{each}." for each in CONTRACT))
    }
    assert not wrong


def test_the_contract_imports_nothing_else_of_ours() -> None:
    for name, imported in import_graph().items():
        if name.startswith("producer.contract."):
            assert all(each.startswith("producer.contract") for each in imported), name


def test_no_imports_run_in_a_circle() -> None:
    assert circles(import_graph()) == []


def test_a_circle_is_found_also_where_only_types_are_checked() -> None:
    source = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .b import B\ndef f(): from . import c"
    assert {"p.b.B", "p.c"} <= set(modules_imported(source, ["p"]))
    assert circles({"p.a": {"p.b"}, "p.b": {"p.a"}})
    assert not circles({"p.a": {"p.b"}, "p.b": set()})


def test_the_producer_imports_its_own_files_relatively_so_that_it_can_be_installed_under_another_name() -> None:
    wrong = [
        str(file.relative_to(ROOT))
        for file in files_of("producer")
        if any(name.partition(".")[0] == "producer" for name in modules_imported(file.read_text()))
    ]
    assert not wrong


def test_the_arrows_are_looked_for_in_every_kind_of_import() -> None:
    source = (
        "import workers.pool as p\nfrom autoscaler.actions.decide import x\ndef f(): import deploy\nfrom . import y"
    )
    assert set(modules_imported(source)) == {"workers.pool", "autoscaler.actions.decide.x", "deploy", "y"}


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
