"""Every example of docs/batch.md and docs/celery.md, as it stands there. Echoes stand for the models."""

import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.machine.server import Server
from documented import ECHOES, examples, install_node_client
from gatewayed import Gatewayed
from processes import DEADLINE_S
from producer.contract.fleet.settings import Settings

pytestmark = pytest.mark.slow


class Documented(Gatewayed):
    """A fleet with one gateway."""

    url = ""


PUBLISHED = "http://127.0.0.1:8000"


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Documented]:
    folder: Path = tmp_path_factory.mktemp("documented")
    server = Server(folder / "server")
    server.start()
    fleet = Documented(folder, server.url, ECHOES)
    for model in ("smollm2", "minilm"):
        fleet.worker(model, model)
    fleet.batches()
    fleet.url = fleet.gateway()
    yield fleet
    fleet.close()
    server.stop()


def run(fleet: Documented, folder: Path, *command: str) -> str:
    stoker = folder / "bin" / "stoker"  # the command, of this checkout
    stoker.parent.mkdir()
    stoker.write_text(f'#!/bin/sh\nexec {sys.executable} -m deploy.cli "$@"\n')
    stoker.chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{stoker.parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "STOKER_FLEET": str(fleet.file),
        "REDIS_URL": fleet.settings.redis_url,
    }
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=DEADLINE_S)
    assert done.returncode == 0, done.stderr
    return done.stdout


def addressed(fleet: Documented, example: str) -> str:
    return example.replace(PUBLISHED, fleet.url)


CELERY, BATCH = examples("celery.md", "python"), examples("batch.md", "python")


@pytest.mark.parametrize("example", [*CELERY, *BATCH], ids=range(len(CELERY + BATCH)))
def test_a_python_example_runs(fleet: Documented, tmp_path: Path, example: str) -> None:
    told = run(fleet, tmp_path, sys.executable, "-c", addressed(fleet, example))
    assert told.strip()
    if example in BATCH:
        assert told.count("question-") >= 20


@pytest.mark.parametrize("example", examples("batch.md", "bash"), ids=["stoker batch", "curl"])
def test_a_shell_example_runs(fleet: Documented, tmp_path: Path, example: str) -> None:
    run(fleet, tmp_path, "bash", "-euo", "pipefail", "-c", addressed(fleet, example))
    if "--out" in example:
        assert len((tmp_path / "answers.jsonl").read_text().splitlines()) == 2


@pytest.mark.skipif(not shutil.which("npm") and not os.environ.get("CI"), reason="npm is not installed")
def test_the_node_example_runs(fleet: Documented, tmp_path: Path) -> None:
    """Without npm this is left out, as dclint is in ``make lint``; with ``CI`` set, that is a failure."""
    (example,) = examples("batch.md", "javascript")
    install_node_client(tmp_path)
    script = tmp_path / "example.mjs"
    script.write_text(addressed(fleet, example))
    told = run(fleet, tmp_path, "node", str(script))
    assert "completed" in told
    assert told.count('"custom_id": "city-') == 2


def test_the_settings_are_settings() -> None:
    (example,) = examples("batch.md", "toml")
    assert Settings(**tomllib.loads(example)).gateway.files == "s3://bucket/batches"
