"""The command as a process of its own, interrupted and killed: every line once, and none run twice."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis as redis_py

from batch_consumer import Consumer
from deploy.machine.server import Server
from processes import wait_for
from producer.contract.fleet.settings import Settings

LINES = 150
FIRST = 60


class Folder:
    """A fleet file, an input, and the command over them."""

    def __init__(self, folder: Path, url: str) -> None:
        self.out = folder / "out.jsonl"
        self.source = folder / "in.jsonl"
        self.source.write_text("".join(json.dumps({"input": f"text {n}"}) + "\n" for n in range(1, LINES + 1)))
        self.fleet = folder / "fleet.toml"
        self.fleet.write_text(f'[redis]\nurl = "{url}"\n[models.echo]\nengine = "echo"\n')
        self.settings = Settings.load(self.fleet)

    def start(self, *more: str) -> subprocess.Popen[str]:
        command = [
            sys.executable,
            "-m",
            "deploy.cli",
            "batch",
            str(self.source),
            "--model",
            "echo",
            "--in-flight",
            "40",
        ]
        return subprocess.Popen(
            [*command, "--out", str(self.out), *more],
            env={**os.environ, "STOKER_FLEET": str(self.fleet)},
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(self, *more: str) -> tuple[int, str]:
        """Exit code and what it said."""
        process = self.start(*more)
        _, said = process.communicate(timeout=60)
        return process.returncode, said

    def answered(self) -> list[int]:
        whole = self.out.read_text().rpartition("\n")[0].splitlines() if self.out.exists() else []
        return [json.loads(line)["line"] for line in whole]


@pytest.fixture
def folder(server: Server, redis: redis_py.Redis, tmp_path: Path) -> Folder:
    return Folder(tmp_path, server.url)


@pytest.fixture
def consume() -> Iterator[Callable[[Settings, float], Consumer]]:
    started = []

    def start(settings: Settings, limit: float) -> Consumer:
        started.append(Consumer(settings, "echo", limit))
        started[-1].start()
        return started[-1]

    yield start
    for consumer in started:
        consumer.end()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_interrupted_and_run_again(
    folder: Folder, consume: Callable[[Settings, float], Consumer], signum: signal.Signals
) -> None:
    consumer = consume(folder.settings, FIRST)
    process = folder.start()
    wait_for(lambda: len(folder.answered()) == FIRST, "the first lines")
    process.send_signal(signum)
    _, said = process.communicate(timeout=60)
    if signum == signal.SIGKILL:
        with folder.out.open("a") as out:
            out.write('{"custom_id": "line-149", "line": 14')  # as it would be, killed in mid-write
    else:
        assert process.returncode == 130
        assert f"stopped with {FIRST} of {LINES} lines" in said
        assert "The same command resumes" in said
    consumer.limit = float("inf")
    code, said = folder.finish()
    assert code == 0, said
    assert f"{FIRST} of them from an earlier run" in said
    assert sorted(folder.answered()) == list(range(1, LINES + 1))
    assert sorted(map(int, consumer.ran)) == list(range(1, LINES + 1))


def test_answers_may_go_to_stdout_and_an_empty_input_is_told(
    folder: Folder, consume: Callable[[Settings, float], Consumer]
) -> None:
    def run() -> tuple[int, str, str]:
        command = [sys.executable, "-m", "deploy.cli", "batch", str(folder.source), "--model", "echo", "--out", "-"]
        environment = {**os.environ, "STOKER_FLEET": str(folder.fleet)}
        ended = subprocess.run(
            command, cwd=folder.source.parent, env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        return ended.returncode, ended.stdout, ended.stderr

    consume(folder.settings, float("inf"))
    code, told, said = run()
    assert (code, sorted(json.loads(line)["line"] for line in told.splitlines())) == (0, list(range(1, LINES + 1)))
    assert f"{LINES} lines in stdout" in said
    folder.source.write_text("\n")
    code, told, said = run()
    assert (code, told) == (0, "")
    assert "holds no requests" in said
    assert "already complete" not in said
    assert not (folder.source.parent / "-").exists()


@pytest.mark.slow
def test_exit_codes_and_words(folder: Folder, consume: Callable[[Settings, float], Consumer]) -> None:
    consume(folder.settings, float("inf"))
    with folder.source.open("a") as source:
        source.write("nonsense\n")
    code, said = folder.finish()
    assert code == 1
    assert f"{LINES + 1} lines in {folder.out}, 1 error, " in said
    code, said = folder.finish()
    assert code == 1
    assert "already complete" in said
    folder.source.write_text('{"input": "another"}\n')
    code, said = folder.finish()
    assert code == 2
    assert "--overwrite" in said
    code, said = folder.finish("--overwrite")
    assert code == 0, said
    assert folder.answered() == [1]
