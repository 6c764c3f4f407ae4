"""``stoker up`` and ``stoker down`` as a person uses them, and as a kill -9 leaves them."""

import base64
import json
import signal
import stat
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis as redis_py

from deploy.machine.server import Server
from home import Home
from processes import wait_for
from producer.contract import keys


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = Home(tmp_path)
    yield home
    home.end()


def flower(home: Home, path: str, password: str | None) -> tuple[int, Any]:
    port = int((home.settings.state_dir / "flower.port").read_text())
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}")
    if password is not None:
        request.add_header("Authorization", "Basic " + base64.b64encode(f"stoker:{password}".encode()).decode())
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310  our own loopback address
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, None


@pytest.mark.slow
def test_up_serves_shows_itself_and_down_leaves_nothing(home: Home) -> None:
    said = home.stoker("up", "--detach")
    secret = (home.settings.state_dir / "flower-password").read_text().strip()
    redis_password = (home.settings.state_dir / "redis" / "password").read_text().strip()
    assert "the fleet is up" in said
    assert "flower-password" in said

    # Secrets: in private files, and nowhere else.
    for file in ("redis.url", "flower-password", "redis/password", "redis/server.conf"):
        assert stat.S_IMODE((home.settings.state_dir / file).stat().st_mode) == 0o600
    shown = said + home.stoker("status") + json.dumps(home.status()) + "\n".join(home.leftovers())
    assert secret not in shown
    assert redis_password not in shown

    assert home.status()["workers"] == []
    home.serves()
    status = wait_for(lambda: (told := home.status())["workers"] and told, "the worker in status")
    assert [worker["model"] for worker in status["workers"]] == ["parrot"]
    assert [device["id"] for device in status["devices"]] == ["cpu:0"]
    assert status["decisions"][0]["action"] == "start"
    assert status["decisions"][0]["reason"]

    assert flower(home, "/api/workers", None)[0] == 401
    assert flower(home, "/api/workers", "guess")[0] == 401
    code, lengths = flower(home, "/api/queues/length", secret)
    assert code == 200
    assert {"name": "parrot.interactive", "messages": 0} in lengths["active_queues"]
    tasks = wait_for(lambda: flower(home, "/api/tasks", secret)[1], "the job in Flower")
    assert [task["name"] for task in tasks.values()] == ["stoker.infer"]

    supervisor = home.pid("supervisor")
    assert "already running" in home.stoker("up", "--detach")
    assert "already running" in home.stoker("up")
    assert home.pid("supervisor") == supervisor

    url = home.settings.redis_url
    home.stoker("down")
    home.assert_nothing_is_left()
    assert "nothing was running" in home.stoker("down")

    # What was queued is there again, at the same address, though no process kept it in memory.
    home.stoker("up", "--detach")
    assert home.settings.redis_url == url
    home.serves()


@pytest.mark.slow
@pytest.mark.parametrize(
    "killed",
    [
        ("supervisor",),
        ("autoscaler",),
        ("supervisor", "autoscaler"),
        ("supervisor", "autoscaler", "server", "flower"),
    ],
    ids=" and ".join,
)
def test_down_leaves_nothing_after_a_kill_9_of(home: Home, killed: tuple[str, ...]) -> None:
    home.stoker("up", "--detach")
    home.serves()  # so that there is a worker to be left behind
    home.kill(*killed)
    home.stoker("down")
    home.assert_nothing_is_left()


@pytest.mark.slow
def test_up_after_a_kill_9_of_the_supervisor_takes_over_what_still_runs(home: Home) -> None:
    home.stoker("up", "--detach")
    home.serves()
    before = {name: home.pid(name) for name in ("server", "autoscaler", "flower")}
    home.kill("supervisor")
    home.stoker("up", "--detach")
    assert {name: home.pid(name) for name in before} == before
    home.serves()


@pytest.mark.slow
def test_parts_that_are_killed_come_back_and_the_queue_with_them(home: Home) -> None:
    home.stoker("up", "--detach")
    url = home.settings.redis_url
    with redis_py.Redis.from_url(url) as client:
        client.set("stoker:test:kept", "yes")
        # Written to disk every second; a killed server may forget the last one.
        wait_for(lambda: client.waitaof(1, 0, 2000)[0] == 1, "the append-only file")
    before = {name: home.pid(name) for name in ("server", "autoscaler", "flower")}
    home.kill(*before)
    for name, pid in before.items():
        assert home.pid(name) != pid
    with redis_py.Redis.from_url(url) as client:

        def leads() -> bool:
            try:
                return bool(client.exists(keys.leader()))
            except redis_py.RedisError:
                return False

        wait_for(leads, "an autoscaler to lead")
        assert client.get("stoker:test:kept") == b"yes"
    home.serves()
    up_log = home.settings.state_dir / "logs" / "up.log"
    for name in before:
        said = f"{name} ended unexpectedly (signal 9); restart in"
        wait_for(lambda said=said: said in up_log.read_text(), said)  # type: ignore[misc]  # a default binds it now


@pytest.mark.slow
def test_ctrl_c_stops_all_of_it(home: Home) -> None:
    process = subprocess.Popen(
        home.command("up"), cwd=home.folder, env=home.environment, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    with process.stdout:
        for line in process.stdout:
            if "the fleet is up" in line:
                break
        home.serves()
        process.send_signal(signal.SIGINT)
        said = process.stdout.read()
    assert process.wait(60) == 0, said
    assert "stopped" in said
    home.assert_nothing_is_left()


@pytest.mark.slow
def test_up_says_at_once_that_a_configured_redis_is_not_there(home: Home) -> None:
    home.environment["REDIS_URL"] = "redis://:open-sesame@127.0.0.1:1/0"
    for arguments in (("up",), ("up", "--detach")):
        done = subprocess.run(
            home.command(*arguments), cwd=home.folder, env=home.environment, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 2
        assert "redis://***@127.0.0.1:1/0, as REDIS_URL says, does not answer" in done.stderr
        assert "'unset REDIS_URL'" in done.stderr
        told = done.stdout + done.stderr
        assert "the fleet uses Redis at redis://***@127.0.0.1:1/0, as REDIS_URL says, and starts no server" in told
        assert "open-sesame" not in done.stderr + done.stdout
        assert "Traceback" not in done.stderr
    home.assert_nothing_is_left()


def test_up_ends_at_once_with_the_reason_why_a_process_does_not_start(home: Home, server: Server) -> None:
    home.environment |= {"REDIS_URL": server.url, "FLOWER_ADDRESS": "203.0.113.1"}  # of no machine (RFC 5737)
    done = subprocess.run(
        home.command("up", "--detach", "--no-gateway"),
        cwd=home.folder,
        env=home.environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert "flower does not start: it ended (exit code 1): " in done.stderr
    assert "Cannot assign requested address" in done.stderr
    assert "flower.log" in done.stderr
    home.assert_nothing_is_left()


@pytest.mark.parametrize("command", [("up", "--no-flower", "--no-gateway"), ("autoscaler",)], ids=" ".join)
def test_processes_that_were_left_to_us_are_no_zombies_for_ever(
    home: Home, redis: redis_py.Redis, server: Server, command: tuple[str, ...]
) -> None:
    """As where the command is PID 1, but here it gets a child of the shell that it replaces."""
    process = subprocess.Popen(
        ["sh", "-c", 'true & exec "$0" "$@"', *home.command(*command)],
        cwd=home.folder,
        env={**home.environment, "REDIS_URL": server.url},
        stdout=subprocess.DEVNULL,
    )
    wait_for(lambda: redis.exists(keys.leader()), "an autoscaler to lead")

    def no_zombies() -> bool:
        return all(child.status() != psutil.STATUS_ZOMBIE for child in psutil.Process(process.pid).children())

    wait_for(no_zombies, "the zombie to be collected", deadline_s=30)
    process.terminate()
    assert process.wait(60) == 0


def test_the_autoscaler_alone_is_restarted_and_takes_the_new_devices(
    home: Home, redis: redis_py.Redis, server: Server
) -> None:
    home.environment["REDIS_URL"] = server.url
    alone = subprocess.run(
        home.command("restart", "autoscaler"), cwd=home.folder, env=home.environment, capture_output=True
    )
    assert alone.returncode == 2
    assert b"no 'stoker up' runs here" in alone.stderr

    home.stoker("up", "--detach", "--no-flower", "--no-gateway")
    supervisor, before = home.pid("supervisor"), home.pid("autoscaler")
    file = home.folder / "fleet.toml"
    file.write_text(file.read_text().replace("cpu:0", "cpu:7"))
    assert "autoscaler was restarted" in home.stoker("restart", "autoscaler")
    assert (home.pid("supervisor"), home.pid("autoscaler") != before) == (supervisor, True)

    def devices() -> bool:
        return b"cpu:7" in (redis.get(keys.devices()) or b"")

    wait_for(devices, "the new device")
