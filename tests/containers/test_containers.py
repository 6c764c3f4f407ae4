"""The image, and the fleet of ``docker-compose.yml`` with real models: every way in, a kill, a stop, a start."""

from __future__ import annotations

import json
import re
import secrets
import subprocess
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from container_engine import FOLDER, ROOT, Podman
from deploy.acl import ROLES
from deploy.acl.users import name_of
from deploy.cli.acl import variable
from deploy.machine.ports import free_port
from processes import wait_for
from producer.contract.message.job import TASK

IMAGE = "localhost/stoker:0.1.0"
PROJECT = "stoker-test"
SUBMIT = """
import sys
from producer import Client
with Client() as client:
    jobs = [client.submit("minilm", f"text {n}", tier="batch") for n in range(int(sys.argv[1]))]
    print(*jobs)
"""
FETCH = """
import sys
from producer import Client
with Client() as client:
    found = dict(client.results(sys.argv[1:], timeout=240))
    print(sum(len(result.output) == 384 for result in found.values()))
"""
STOCK = f"""
import os
from celery import Celery
url = os.environ["REDIS_URL"]
with Celery(broker=url, backend=url, set_as_current=False) as app:
    answer = app.send_task("{TASK}", kwargs={{"input": "stock"}}, queue="minilm.batch")
    print(len(answer.get(timeout=240)["output"]))
"""


@pytest.fixture(scope="module")
def podman() -> Podman:
    engine = Podman(FOLDER)
    engine.make_bases()
    engine.build(ROOT / "deploy" / "Dockerfile", IMAGE)
    return engine


class Project:
    """The services of the compose file, without GPUs, with ports of this machine that are free."""

    def __init__(self, podman: Podman, folder: Path) -> None:
        self.podman, self.folder, self.port = podman, folder, free_port()
        services: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
        services["name"] = PROJECT
        for service in services["services"].values():
            service.pop("deploy", None)  # GPUs
            service.pop("build", None)
        services["services"]["gateway"]["ports"] = [f"127.0.0.1:{self.port}:8000"]
        services["services"]["flower"]["ports"] = [f"127.0.0.1:{free_port()}:5555"]
        (folder / "docker-compose.yml").write_text(yaml.safe_dump(services))
        (folder / "fleet.toml").write_text((ROOT / "fleet.toml").read_text())
        names = ("REDIS_PASSWORD", "FLOWER_PASSWORD", *map(variable, ROLES))
        self.passwords = {name: secrets.token_hex(16) for name in names}
        (folder / ".env").write_text("".join(f"{name}={value}\n" for name, value in self.passwords.items()))

    def compose(self, *arguments: str) -> str:
        return self.podman.run("podman-compose", "--profile", "gateway", *arguments, cwd=self.folder, timeout=600)

    def python(self, script: str, *arguments: str, role: str = "producer") -> str:
        """What a Python script prints in the autoscaler's container."""
        return self._exec(role, "python", "-c", script, *arguments)

    def stoker(self, *arguments: str, role: str = "operator") -> str:
        return self._exec(role, "stoker", *arguments)

    def _exec(self, role: str, *command: str) -> str:
        """What a command prints in the autoscaler's container, as the Redis user of a role."""
        url = f"REDIS_URL=redis://{name_of(role)}:{self.passwords[variable(role)]}@redis:6379/0"
        return self.podman.run("podman", "exec", "--env", url, f"{PROJECT}_autoscaler_1", *command)

    def healthy(self, service: str) -> bool:
        check = ["podman", "healthcheck", "run", f"{PROJECT}_{service}_1"]
        return subprocess.run(check, env=self.podman.environment, capture_output=True).returncode == 0

    def up(self, *services: str) -> None:
        self.compose("up", "--detach", "--no-build", *services)
        for service in services:
            wait_for(partial(self.healthy, service), f"{service} to be healthy")

    def start(self) -> None:
        """Start as the compose file says: a gateway that others than this machine reach requires an API key first."""
        self.up("redis", "autoscaler", "flower")
        self.key = re.findall(r"\bsk-stoker-[\w-]+", self.stoker("keys", "create", "--tenant", "me"))[0]
        self.up("gateway")
        self.compose("up", "--detach", "--no-build", "batches")  # has no health check

    def post(self, path: str, body: dict[str, Any]) -> Any:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}",
            json.dumps(body).encode(),
            {"Content-Type": "application/json", "Authorization": f"Bearer {self.key}"},
        )
        with urllib.request.urlopen(request, timeout=300) as answer:  # noqa: S310
            return json.load(answer)


@pytest.fixture(scope="module")
def project(podman: Podman, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    made = Project(podman, tmp_path_factory.mktemp("compose"))
    try:
        made.start()
        yield made
    finally:
        made.compose("down", "--volumes", "--timeout", "5")


@pytest.mark.timeout(1800)
def test_the_image_shows_its_help_and_runs_without_root(podman: Podman) -> None:
    shown = podman.run("podman", "run", "--rm", "--network", "none", IMAGE, "--help")
    assert "Keep GPUs fed" in shown
    asking = ("podman", "run", "--rm", "--network", "none", "--entrypoint", "id", IMAGE, "--user")
    assert podman.run(*asking).strip() == "10001"


@pytest.mark.timeout(1800)
def test_jobs_of_every_way_in_are_answered(project: Project) -> None:
    jobs = project.python(SUBMIT, "3").split()
    assert project.python(FETCH, *jobs).strip() == "3"
    assert project.python(STOCK, role="stock").strip() == "384"
    embedded = project.post("/v1/embeddings", {"model": "minilm", "input": "x"})
    assert len(embedded["data"][0]["embedding"]) == 384
    project.python('open(\'in.jsonl\', \'w\').write(\'{"custom_id": "1", "input": "x"}\\n\')')
    project.stoker("batch", "in.jsonl", "--model", "minilm", "--out", "out.jsonl", role="producer")
    assert json.loads(project.python("print(open('out.jsonl').read())"))["custom_id"] == "1"


@pytest.mark.timeout(1800)
def test_a_worker_that_is_killed_inside_is_replaced_and_its_jobs_end(project: Project) -> None:
    assert project.python(FETCH, *project.python(SUBMIT, "1").split()).strip() == "1"
    jobs = project.python(SUBMIT, "500").split()
    kill = "import psutil\nfor p in psutil.process_iter():\n    if 'workers' in p.cmdline(): p.kill()\n"
    project.python(kill)
    assert project.python(FETCH, *jobs).strip() == "500"


@pytest.mark.timeout(1800)
def test_a_stop_drains_and_a_start_goes_on_with_what_is_queued(project: Project) -> None:
    assert project.python(FETCH, *project.python(SUBMIT, "1").split()).strip() == "1"
    jobs = project.python(SUBMIT, "2000").split()
    project.compose("stop", "--timeout", "90", "autoscaler", "gateway", "batches")
    logs = project.podman.run("podman", "logs", f"{PROJECT}_autoscaler_1")
    assert "Traceback" not in logs
    project.up("autoscaler", "gateway")
    assert project.python(FETCH, *jobs).strip() == "2000"
