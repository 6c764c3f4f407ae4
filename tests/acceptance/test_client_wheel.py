"""The client's wheel in an empty environment, beside a backend's own modules: every example of docs/client.md runs."""

import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.machine.server import Server
from documented import ECHOES, examples
from processes import Fleet

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    # Nothing of this checkout may be found by its path.
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env={**kept, **environment}, capture_output=True, text=True, timeout=170
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("checkout")  # building leaves its traces where it is done
    for folder in ("producer", "deploy/client"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__", "build"))
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps"]
    run(*pip, "--wheel-dir", "dist", "deploy/client", cwd=copy)
    (built,) = (copy / "dist").glob("stoker_client-*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with nothing but the wheel and what it asks for."""
    folder = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "own", cwd=folder)
    found = folder / "own" / "bin" / "python"
    pip: list[str | Path] = [found, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    run(*pip, "-c", ROOT / "constraints.txt", wheel, cwd=folder)
    return found


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder: Path = tmp_path_factory.mktemp("fleet")
    server = Server(folder / "server")
    server.start()
    fleet = Fleet(folder, server.url, ECHOES)
    for model in ("smollm2", "minilm"):
        fleet.worker(model, model)
    yield fleet
    fleet.close()
    server.stop()


@pytest.fixture
def backend(tmp_path: Path) -> Path:
    """A backend's folder, with a module that is named like our folder."""
    (tmp_path / "producer.py").write_text("MINE = True\n")
    return tmp_path


EXAMPLES = examples("client.md", "python")


@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_an_example_runs_beside_a_module_of_the_same_name(
    python: Path, fleet: Fleet, backend: Path, example: str
) -> None:
    check = "import producer; assert producer.MINE\n"
    told = run(python, "-c", check + example, cwd=backend, STOKER_FLEET=str(fleet.file))
    assert told.strip()


def test_the_examples_are_answered(python: Path, fleet: Fleet, backend: Path) -> None:
    told = run(python, "-c", EXAMPLES[1], cwd=backend, STOKER_FLEET=str(fleet.file))
    assert [line.split()[1] for line in told.splitlines()] == ["2"] * 100


def test_it_brings_neither_models_nor_servers(python: Path, backend: Path) -> None:
    heavy = ["torch", "transformers", "pynvml", "fastapi", "uvicorn", "typer", "rich", "numpy", "producer", "workers"]
    look = f"import importlib.util as u; print([name for name in {heavy} if u.find_spec(name)])"
    assert run(python, "-P", "-c", look, cwd=backend).strip() == "[]"
    assert "No broken requirements" in run(python, "-m", "pip", "check", cwd=backend)
    every = "import pkgutil, importlib, stoker_client as s; "
    every += "[importlib.import_module(m.name) for m in pkgutil.walk_packages(s.__path__, 'stoker_client.') "
    every += "if not m.name.endswith('__main__')]; print('all')"
    assert run(python, "-c", every, cwd=backend).strip() == "all"


def test_it_asks_for_what_the_fleets_own_package_asks_for() -> None:
    own = tomllib.loads((ROOT / "pyproject.toml").read_text())
    client = tomllib.loads((ROOT / "deploy" / "client" / "pyproject.toml").read_text())
    for field in ("dependencies", "version", "requires-python", "license"):
        assert client["project"][field] == own["project"][field]
    of_ours = [each for each in own["tool"]["setuptools"]["packages"] if each.partition(".")[0] == "producer"]
    named = [each.replace("producer", "stoker_client", 1) for each in of_ours]
    assert client["tool"]["setuptools"]["packages"] == named
