"""Each extra alone, in an environment with nothing else in it, starts what it promises: ``make test-extras``.

It installs from package registries: about 5 GB of disk, most of it for the three selections with torch and the one with
scipy. They are marked slow; ``make test-extras-light`` leaves them out.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deploy.machine.ports import answers, free_port
from deploy.machine.server import Server
from processes import wait_for
from producer import Client, Settings

ROOT = Path(__file__).parents[2]
PYTHON = "bin/python"
FLEET = '[models.parrot]\nengine = "echo"\n\n[[devices]]\nname = "cpu:0"\n'


class Environment:
    """A virtual environment with one selection of extras, and commands that run in it."""

    def __init__(self, folder: Path, wheel: Path, extras: str, url: str) -> None:
        self.folder, self.url = folder, url
        folder.mkdir(parents=True)
        (folder / "fleet.toml").write_text(FLEET)
        self.run(sys.executable, "-m", "venv", "--without-pip", "venv")
        self.bin = folder / "venv" / "bin"
        # Our own pip installs into it, and compiles nothing beforehand: of most packages little is imported.
        pip: list[str | Path] = [sys.executable, "-m", "pip", "--python", self.bin / "python", "install", "--quiet"]
        wanted = f"stoker{extras} @ {wheel.as_uri()}"
        self.run(*pip, "--no-compile", "--disable-pip-version-check", "-c", ROOT / "constraints.txt", wanted)

    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        return {**kept, "REDIS_URL": self.url, "OMP_NUM_THREADS": "1"}

    def ask(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        words = list(map(str, command))
        return subprocess.run(words, cwd=self.folder, env=self.environment(), capture_output=True, text=True)

    def run(self, *command: str | Path) -> str:
        """Run a command that must succeed."""
        done = self.ask(*command)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def stoker(self, *arguments: str) -> str:
        return self.run(self.bin / "stoker", *arguments)

    def python(self, *arguments: str) -> str:
        return self.run(self.bin / "python", "-P", *arguments)

    def start(self, *command: str | Path) -> subprocess.Popen[bytes]:
        """Start what runs until it is told to stop."""
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(
                list(map(str, command)), cwd=self.folder, env=self.environment(), stdout=log, stderr=log
            )


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built of what git has, so that nothing else of this folder is in it."""
    copy = tmp_path_factory.mktemp("checkout")
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True).stdout
    for name in filter(None, files.decode().split("\0")):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_file():
            (copy / name).write_bytes((ROOT / name).read_bytes())
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*pip, "--wheel-dir", "dist", "."], cwd=copy, check=True)
    (built,) = (copy / "dist").glob("stoker-*.whl")
    return built


@pytest.fixture
def install(wheel: Path, tmp_path: Path, server: Server) -> Callable[[str], Environment]:
    return lambda extras: Environment(tmp_path / "home", wheel, extras, server.url)


@pytest.fixture(autouse=True)
def _empty(redis: object) -> Iterator[None]:
    return iter([None])


def serves(home: Environment) -> None:
    """A job goes in and its answer comes out."""
    settings = Settings.load(home.folder / "fleet.toml")
    settings = settings.model_copy(update={"redis": settings.redis.model_copy(update={"url": home.url})})
    with Client(settings) as client:
        assert client.result(client.submit("parrot", "hello"), timeout=60).output == "hello"


def test_none_is_the_client_and_a_worker_of_an_engine_without_a_model(install: Callable[[str], Environment]) -> None:
    home = install("")
    home.python("-c", "from producer import AsyncClient, Client, Settings; Client(Settings.load('fleet.toml'))")
    missing = home.ask(home.bin / "stoker", "--help")
    assert (missing.returncode, missing.stdout) == (2, "")
    assert missing.stderr == "stoker: typer is not installed: pip install 'stoker[cli]'\n"


def test_cli_commands_a_fleet_that_runs_elsewhere(install: Callable[[str], Environment]) -> None:
    home = install("[cli]")
    for arguments in (
        ["--help"],
        ["status"],
        ["explain"],
        ["dead", "list"],
        ["keys", "list"],
        ["acl", "producer"],
        ["down"],
    ):
        home.stoker(*arguments)
    home.stoker("simulate", "--trace", "synthetic", "--fleet", "synthetic", "--for", "10")
    told = home.ask(home.bin / "stoker", "gateway")
    assert (told.returncode, told.stderr) == (2, "stoker: uvicorn is not installed: pip install 'stoker[gateway]'\n")


def test_gateway_serves_and_runs_batches(install: Callable[[str], Environment]) -> None:
    home = install("[gateway]")
    home.python("-c", "from gateway.server import serve; from gateway.app import create_app")
    home.python("-m", "gateway.batches", "--help")


def test_cli_and_gateway_serve(install: Callable[[str], Environment]) -> None:
    home = install("[cli,gateway]")
    port = free_port()
    gateway = home.start(home.bin / "stoker", "gateway", "--port", str(port))
    try:
        wait_for(lambda: answers(f"http://127.0.0.1:{port}", "/readyz"), "the gateway")
    finally:
        gateway.terminate()
        gateway.wait(30)


def test_autoscaler_starts_workers(install: Callable[[str], Environment]) -> None:
    home = install("[autoscaler]")
    autoscaler = home.start(home.bin / "python", "-P", "-m", "autoscaler")
    try:
        serves(home)
    finally:
        autoscaler.terminate()
        autoscaler.wait(30)
        subprocess.run([sys.executable, "-P", "-m", "deploy.cli", "down"], cwd=home.folder, env=home.environment())


def test_cli_and_autoscaler_start_workers(install: Callable[[str], Environment]) -> None:
    home = install("[cli,autoscaler]")
    autoscaler = home.start(home.bin / "stoker", "autoscaler")
    try:
        serves(home)
    finally:
        autoscaler.terminate()
        autoscaler.wait(30)
        home.stoker("down")


@pytest.mark.slow
def test_simulator_compares_and_draws(install: Callable[[str], Environment]) -> None:
    home = install("[simulator]")
    home.stoker(
        "simulate", "--trace", "synthetic", "--fleet", "synthetic", "--for", "10", "--compare", "slack,threshold",
        "--plot", "out.png",
    )  # fmt: skip
    assert (home.folder / "out.png").stat().st_size > 0


@pytest.mark.slow
def test_worker_runs_every_engine(install: Callable[[str], Environment]) -> None:
    home = install("[worker]")
    for engine in ("embed", "classify", "rerank", "generate", "openai"):
        options = "options = { url = 'http://127.0.0.1:1' }" if engine == "openai" else "source = 'package:none'"
        (home.folder / f"{engine}.toml").write_text(f'[models.m]\nengine = "{engine}"\n{options}\n')
        made = f"create(Settings.load('{engine}.toml').model('m'), 'cpu:0')"
        imports = "from workers.engines.registry import create; from producer import Settings"
        told = home.ask(home.bin / "python", "-P", "-c", f"{imports}; {made}")
        assert "ModuleNotFoundError" not in told.stderr, told.stderr


@pytest.mark.slow
def test_the_image_has_all_of_a_machine_but_server_and_monitor(install: Callable[[str], Environment]) -> None:
    home = install("[cli,worker,autoscaler,gateway]")
    up = home.start(home.bin / "stoker", "up", "--no-flower")
    try:
        serves(home)
    finally:
        up.terminate()
        up.wait(60)


@pytest.mark.slow
def test_all_is_one_machine_with_nothing_installed(install: Callable[[str], Environment]) -> None:
    home = install("[all]")
    home.url = ""
    home.stoker("up", "--detach")
    try:
        assert "parrot" in home.stoker("status")
    finally:
        home.stoker("down")
