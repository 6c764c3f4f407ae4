"""``stoker dead``: an operator's look at what could not be served."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import redis as redis_py
from rich.console import Console
from typer.testing import CliRunner, Result

from deploy.cli import app
from deploy.cli.printable import printable
from deploy.machine.server import Server
from producer.contract import keys
from redis_replies import entries
from scheduler import dead_letters

MESSAGE = b'{"headers": {"id": "job-1"}, "body": "hello"}'


@pytest.fixture
def fleet(server: Server, redis: redis_py.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two models, of which one has two dead letters."""
    file = tmp_path / "fleet.toml"
    file.write_text(f'[redis]\nurl = "{server.url}"\n[models.parrot]\nengine = "echo"\n[models.owl]\nengine = "echo"\n')
    monkeypatch.setenv("STOKER_FLEET", str(file))
    # As wide wherever the tests run: Rich reads COLUMNS once, and processes of xdist have one of their own.
    monkeypatch.setattr("deploy.cli.dead.console", Console(width=200, highlight=False))
    bury(redis, "no job: \x1b[2J", b"\xff\x1b]0;gone\x07")
    bury(redis, "3 workers were lost over it", MESSAGE)
    return file


def bury(redis: redis_py.Redis, reason: str, message: bytes) -> None:
    fields: dict[bytes | str, bytes | str | int] = {
        "queue": "parrot.batch",
        "reason": reason,
        "losses": 3,
        "history": "12.500 lost with w.1f:000001\n",
    }
    redis.xadd(keys.dead("parrot"), {**fields, "message": message})  # type: ignore[dict-item]  # wider than redis-py's


def dead(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["dead", *arguments])


def ids(redis: redis_py.Redis) -> list[str]:
    return [entry.decode() for entry, _ in entries(redis, keys.dead("parrot"))]


def test_letters_are_listed_with_their_reasons_newest_first(fleet: Path, redis: redis_py.Redis) -> None:
    listed = dead("list").stdout
    first, second = ids(redis)
    assert listed.index(second) < listed.index(first)
    assert "3 workers were lost over it" in listed
    assert first not in dead("list", "parrot", "--limit", "1").stdout
    assert dead("list", "owl").stdout == "no dead letters\n"


def test_what_somebody_pushed_cannot_command_the_terminal(fleet: Path, redis: redis_py.Redis) -> None:
    first, _ = ids(redis)
    for told in (dead("list").stdout, dead("show", "parrot", first).stdout):
        assert "\x1b[2J" not in told
        assert "\x1b]0;" not in told
        assert r"no job: \x1b[2J" in told
    assert printable("héllo\nthere \u202e") == r"héllo\nthere \u202e"


def test_a_letter_is_shown_with_its_message(fleet: Path, redis: redis_py.Redis) -> None:
    _, second = ids(redis)
    told = dead("show", "parrot", second).stdout
    assert json.loads(told[told.index("{") :]) == json.loads(MESSAGE)
    assert "parrot.batch" in told
    assert "lost with w.1f:000001" in told


def test_one_letter_is_requeued_and_the_other_purged(fleet: Path, redis: redis_py.Redis) -> None:
    first, second = ids(redis)
    assert dead("requeue", "parrot", second).stdout == "requeued 1\n"
    assert redis.lrange(keys.queue("parrot", "batch"), 0, -1) == [MESSAGE]
    assert dead("purge", "parrot", first).stdout == "purged 1\n"
    assert ids(redis) == []


def test_all_are_requeued_in_the_order_in_which_they_died(fleet: Path, redis: redis_py.Redis) -> None:
    assert dead("requeue", "parrot", "--all").stdout == "requeued 2\n"
    assert redis.rpop(keys.queue("parrot", "batch")) == b"\xff\x1b]0;gone\x07"
    assert redis.rpop(keys.queue("parrot", "batch")) == MESSAGE


def test_neither_one_nor_all_and_one_that_is_not_there_change_nothing(fleet: Path, redis: redis_py.Redis) -> None:
    for command in ("requeue", "purge"):
        assert dead(command, "parrot").exit_code == 2
        assert dead(command, "parrot", "1-1", "--all").exit_code == 2
    for command in ("show", "requeue", "purge"):
        assert "no dead letter '1-1'" in str(dead(command, "parrot", "1-1").exception)
    assert "no model 'parot'" in str(dead("purge", "parot", "--all").exception)
    assert len(ids(redis)) == 2


def test_what_is_no_id_is_refused_before_redis_is_asked(fleet: Path, redis: redis_py.Redis) -> None:
    for command in ("show", "requeue", "purge"):
        for wrong in ("1", "abc", "+", "1-x", "1" * 30 + "-0"):
            told = dead(command, "parrot", wrong)
            assert told.exit_code == 2
            assert "is no ID" in told.output
    assert len(ids(redis)) == 2


def test_all_are_requeued_page_by_page_whatever_vanishes_meanwhile(
    fleet: Path, redis: redis_py.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deploy.cli.dead.PAGE", 2)
    for n in range(5):
        bury(redis, "again", b"message %d" % n)
    every = ids(redis)
    requeue = dead_letters.requeue

    def disturbed(client: redis_py.Redis, model: str, entry: str) -> None:
        if entry == every[0]:
            redis.xdel(keys.dead("parrot"), every[1], every[4])  # somebody purges two
            bury(redis, "died anew", b"new")
        requeue(client, model, entry)

    monkeypatch.setattr(dead_letters, "requeue", disturbed)
    assert dead("requeue", "parrot", "--all").stdout == "requeued 5\n"
    assert redis.llen(keys.queue("parrot", "batch")) == 5
    assert len(ids(redis)) == 1  # what died meanwhile waits for the next decision
    assert dead("requeue", "owl", "--all").stdout == "requeued 0\n"


def told_by_main(fleet: Path, server: Server, user: str, *command: str) -> tuple[int, str]:
    environment = {**os.environ, "STOKER_FLEET": str(fleet)}
    environment["STOKER_REDIS__URL"] = server.url.replace("redis://", f"redis://{user}@")
    done = subprocess.run(
        [sys.executable, "-P", "-m", "deploy.cli", *command], env=environment, capture_output=True, text=True
    )
    assert "Traceback" not in done.stderr
    assert user not in done.stderr
    return done.returncode, done.stderr


@pytest.mark.slow
def test_what_redis_refuses_is_told_apart_with_its_cure(fleet: Path, server: Server, redis: redis_py.Redis) -> None:
    redis.execute_command("ACL", "SETUSER", "narrow", "reset", "on", ">narrow", "+ping")
    try:
        code, told = told_by_main(fleet, server, "narrow:narrow", "dead", "list")
        assert code == 2
        assert "as STOKER_REDIS__URL says, does not permit that to this user" in told
        code, told = told_by_main(fleet, server, "narrow:wrong", "dead", "list")
        assert code == 2
        assert "refuses the user or the password" in told
        assert "correct STOKER_REDIS__URL" in told
    finally:
        redis.execute_command("ACL", "DELUSER", "narrow")
