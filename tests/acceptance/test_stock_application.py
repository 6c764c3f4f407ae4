"""A backend that has ``celery[redis]`` and nothing of ours: its own virtual environment, its own process."""

import json
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path

import pytest
import redis as redis_py

from deploy.machine.server import Server
from processes import Fleet

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]

BACKEND = """
import importlib.util, json, sys, time
from celery import Celery
from celery.exceptions import TaskRevokedError

assert importlib.util.find_spec("producer") is None, "this environment must hold nothing of ours"
app = Celery(broker=sys.argv[1], backend=sys.argv[1])
send = lambda model: app.send_task("stoker.infer", kwargs={"input": ["a", "b"]}, queue=model + ".interactive")

output = send("echo").get(timeout=60)["output"]

deadline, pong, active = time.monotonic() + 60, None, []
while not pong and time.monotonic() < deadline:
    pong = app.control.inspect(timeout=2).ping()

running = send("sleepy")
while running.id not in active and time.monotonic() < deadline:
    found = app.control.inspect(timeout=1).active() or {}
    active = [task["id"] for tasks in found.values() for task in tasks]
running.revoke(terminate=True)
try:
    running.get(timeout=60)
    revoked = False
except TaskRevokedError:
    revoked = True
print(json.dumps({"output": output, "pong": sorted(pong), "active": running.id in active, "revoked": revoked}))
"""

TABLES = """
[models.echo]
engine = "echo"
[models.sleepy]
engine = "echo"
options = { delay_s = 30.0 }
"""


@pytest.fixture(scope="module")
def stock_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stock")
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    constraints = ROOT / "constraints.txt"
    install: list[str | Path] = [python, "-m", "pip", "install", "-q", "-c", constraints, "celery[redis]"]
    subprocess.run(install, check=True, capture_output=True, timeout=150)
    return python


def test_a_stock_application_gets_its_results_and_its_remote_control(
    stock_python: Path, redis: redis_py.Redis, server: Server, make_fleet: Callable[[str, str], Fleet], tmp_path: Path
) -> None:
    fleet = make_fleet(server.url, TABLES)
    fleet.worker("echo", "w")
    fleet.worker("sleepy", "s")
    command: list[str | Path] = [stock_python, "-I", "-c", BACKEND, server.url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=150, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["output"] == ["a", "b"]
    assert [name.split("@")[0] for name in found["pong"]] == ["s", "w"]
    assert found["active"]
    assert found["revoked"]
    assert sys.prefix not in str(stock_python)
