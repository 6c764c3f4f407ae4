"""What is installed and what goes into the image is all of it, and what is missing is told with its cure."""

import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from producer.contract.extras import EXTRAS, cure

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = PROJECT["tool"]["setuptools"]["packages"]


def test_every_folder_of_ours_is_installed() -> None:
    tops = {name.partition(".")[0] for name in PACKAGES}
    found = {
        ".".join(init.parent.relative_to(ROOT).parts) for top in tops for init in (ROOT / top).rglob("__init__.py")
    }
    assert sorted(found - set(PACKAGES)) == []


def test_whatever_is_installed_goes_into_the_image() -> None:
    kept = {line.removeprefix("!").rstrip("/") for line in (ROOT / ".dockerignore").read_text().splitlines()}
    tops = {name.partition(".")[0] for name in PACKAGES}
    assert sorted((tops | {"pyproject.toml", "constraints.txt", "README.md", "LICENSE", "fleet.toml"}) - kept) == []


@pytest.mark.parametrize("library", EXTRAS)
def test_the_extra_that_is_told_has_the_library(library: str) -> None:
    wanted = PROJECT["project"]["optional-dependencies"][EXTRAS[library]]
    names = {requirement.partition(">")[0].lower() for requirement in wanted}
    brought = {name.lower().replace("_", "-") for name in packages_distributions().get(library, ())}
    # What a library of ours brings along counts: numpy comes with scipy.
    assert names & (brought | ({"scipy"} if library == "numpy" else set()))


def test_a_library_that_is_none_of_ours_is_not_explained() -> None:
    assert cure(ModuleNotFoundError("no module", name="somebody.elses")) == ""
    assert cure(ModuleNotFoundError("no module", name=None)) == ""


@pytest.mark.parametrize(
    ("missing", "command", "extra"),
    [
        ("typer", ["--help"], "cli"),
        ("psutil", ["status"], "cli"),
        ("uvicorn", ["gateway"], "gateway"),
        (
            "scipy",
            ["simulate", "--trace", "synthetic", "--fleet", "synthetic", "--for", "1", "--compare", "slack"],
            "simulator",
        ),
    ],
)
def test_a_command_without_its_library_says_what_to_install(
    missing: str, command: list[str], extra: str, tmp_path: Path
) -> None:
    (tmp_path / "fleet.toml").write_text('[models.m]\nengine = "echo"\n')
    hidden = f"import sys; sys.modules[{missing!r}] = None; sys.argv[1:] = {command!r}"
    program = f"{hidden}; from deploy.command_line import main; main()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert done.stderr == f"stoker: {missing} is not installed: pip install 'stoker[{extra}]'\n"
