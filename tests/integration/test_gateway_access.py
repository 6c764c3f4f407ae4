"""Rights at a gateway: none without a key, and none to what belongs to another tenant."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from deploy.machine.server import Server
from gateway.access import api_key_store
from gateway.access.hang_ups import AT_ONCE
from gateway.app import create_app
from gatewayed import TABLES, Gatewayed
from processes import wait_for
from producer import Settings
from producer.contract import keys

OPEN = {"/health", "/healthz", "/readyz", "/metrics"}
"""Paths that say nothing of anybody's."""

CHAT = {"model": "talk", "messages": [{"role": "user", "content": "hello"}]}
BODIES: dict[str, Any] = {
    "/v1/chat/completions": CHAT,
    "/v1/completions": {"model": "talk", "prompt": "hello"},
    "/v1/embeddings": {"model": "vectors", "input": "hello"},
    "/v1/jobs": {"model": "asleep", "input": "hello"},
}


@dataclass
class Place:
    """A gateway with a key, a revoked one, and that of another tenant."""

    fleet: Gatewayed
    url: str
    mine: str
    revoked: str
    others: str

    def ask(self, method: str, path: str, key: str | None, body: Any = None) -> httpx2.Response:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        return httpx2.request(method, self.url + path, headers=headers, json=body, timeout=60)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder: Path = tmp_path_factory.mktemp("access")
    server = Server(folder / "server")
    server.start()
    fleet = Gatewayed(folder, server.url)
    revoked = fleet.key("mine")
    (known,) = api_key_store.read_all(fleet.redis)
    api_key_store.revoke(fleet.redis, known.id)
    yield Place(fleet, fleet.gateway(), fleet.key("mine"), revoked, fleet.key("others"))
    fleet.close()
    server.stop()


def endpoints() -> list[tuple[str, str]]:
    """Every endpoint that there is."""
    described = create_app(Settings()).openapi()["paths"]
    return sorted((method.upper(), path) for path, methods in described.items() for method in methods)


OURS = [(method, path) for method, path in endpoints() if path not in OPEN and path.startswith("/v1/")]


def test_there_are_endpoints_to_try() -> None:
    assert len(OURS) >= 9


@pytest.mark.parametrize(("method", "path"), OURS)
def test_nobody_gets_in_without_a_key_or_with_a_revoked_one(place: Place, method: str, path: str) -> None:
    at = path.format(model="talk", job_id="x", file_id="x", batch_id="x")
    for key, code in ((None, "missing_api_key"), (place.revoked, "invalid_api_key"), ("sk-made-up", "invalid_api_key")):
        answer = place.ask(method, at, key, BODIES.get(path))
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, code)
        assert answer.headers["www-authenticate"] == "Bearer"


def test_the_description_is_for_those_with_a_key_and_comes_without_a_page(place: Place) -> None:
    assert place.ask("GET", "/openapi.json", None).status_code == 401
    described = place.ask("GET", "/openapi.json", place.mine).json()["paths"]
    assert sorted((method.upper(), path) for path, methods in described.items() for method in methods) == endpoints()
    assert {place.ask("GET", path, place.mine).status_code for path in ("/docs", "/redoc")} == {404}


@pytest.mark.parametrize(("method", "path"), [each for each in OURS if "{job_id}" in each[1]])
def test_a_job_of_another_tenant_is_not_there(place: Place, method: str, path: str) -> None:
    place.fleet.empty("asleep")
    job = place.ask("POST", "/v1/jobs", place.others, BODIES["/v1/jobs"]).json()["id"]
    answer = place.ask(method, path.format(job_id=job), place.mine)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "job_not_found")
    assert place.ask("GET", f"/v1/jobs/{job}", place.others).json()["status"] == "queued"  # nor was it cancelled


def test_a_key_is_for_its_models_and_tiers(place: Place) -> None:
    key = place.fleet.key("mine", models=("talk", "asleep"), tiers=("batch",))
    assert [each["id"] for each in place.ask("GET", "/v1/models", key).json()["data"]] == ["talk", "asleep"]
    assert place.ask("GET", "/v1/models/vectors", key).status_code == 404
    assert place.ask("POST", "/v1/embeddings", key, BODIES["/v1/embeddings"]).status_code == 404
    refused = place.ask("POST", "/v1/chat/completions", key, {**CHAT, "service_tier": "interactive"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "tier_not_allowed")
    place.fleet.empty("asleep")
    assert place.ask("POST", "/v1/jobs", key, BODIES["/v1/jobs"]).json()["tier"] == "batch"


def test_a_key_of_some_models_learns_of_no_others(place: Place) -> None:
    key = place.fleet.key("mine", models=("talk",))
    asked = {"input_file_id": "file-x", "endpoint": "/v1/completions", "completion_window": "24h"}
    for model in ("vectors", "nosuch"):
        for path, body in (("/v1/batches", {**asked, "model": model}), ("/v1/jobs", {"model": model, "input": "x"})):
            answer = place.ask("POST", path, key, body)
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
            assert answer.json()["error"]["message"].endswith("; allowed: talk")
            assert "plain" not in answer.text


def test_a_key_is_told_of_its_limit(place: Place) -> None:
    key = place.fleet.key("mine", requests_per_minute=2)
    answers = [place.ask("GET", "/v1/models", key) for _ in range(2)]
    assert [answer.headers["x-ratelimit-limit-requests"] for answer in answers] == ["2", "2"]
    assert answers[0].headers["x-ratelimit-remaining-requests"] == "1"
    assert 0 < float(answers[0].headers["x-ratelimit-reset-requests"].removesuffix("s")) <= 30
    while (refused := place.ask("GET", "/v1/models", key)).status_code == 200:
        pass
    assert (refused.status_code, refused.headers["x-ratelimit-remaining-requests"]) == (429, "0")
    assert "x-ratelimit-limit-requests" not in place.ask("GET", "/v1/models", place.mine).headers


@pytest.mark.parametrize("path", ["/health", "/healthz", "/readyz"])
def test_a_balancer_may_ask_for_health_as_it_likes(place: Place, path: str) -> None:
    assert place.ask("GET", path, None).json()["status"] in ("ok", "ready")
    head = place.ask("HEAD", path, None)
    assert (head.status_code, head.content) == (200, b"")
    options = place.ask("OPTIONS", path, None)
    assert (options.status_code, options.headers["allow"]) == (204, "GET, HEAD, OPTIONS")


def test_every_answer_has_the_id_of_its_request(place: Place) -> None:
    def asked(path: str, **headers: str) -> str:
        return httpx2.get(place.url + path, headers=headers).headers["x-request-id"]

    assert asked("/v1/models", **{"x-request-id": "mine-1/a"}) == "mine-1/a"
    for path in ("/health", "/v1/models", "/nowhere"):
        for insane in ("a b", "x" * 129, ""):
            made = asked(path, **{"x-request-id": insane})
            assert made.startswith("req_")
            assert made != asked(path)


def test_a_key_may_ask_so_often(place: Place) -> None:
    key = place.fleet.key("mine", requests_per_minute=3)
    answers = [place.ask("GET", "/v1/models", key) for _ in range(4)]
    assert [answer.status_code for answer in answers[:3]] == [200, 200, 200]
    assert answers[3].status_code in (200, 429)  # 200 where a third of a minute has gone by meanwhile
    while (answer := place.ask("GET", "/v1/models", key)).status_code == 200:
        pass
    assert answer.json()["error"]["type"] == "rate_limit_error"
    assert 1 <= int(answer.headers["retry-after"]) <= 21


def test_redis_knows_keys_only_by_their_hash(place: Place) -> None:
    dump = json.dumps({str(k): str(v) for k, v in place.fleet.redis.hgetall(keys.api_keys()).items()})
    assert place.mine not in dump
    assert place.mine.removeprefix("sk-stoker-") not in dump


@pytest.mark.slow
def test_the_commands_make_list_and_revoke_keys(place: Place) -> None:
    def stoker(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "deploy.cli", *arguments],
            env={**os.environ, "STOKER_FLEET": str(place.fleet.file)},
            capture_output=True,
            text=True,
            check=False,
        )

    made = stoker("keys", "create", "--tenant", "by [hand]", "--model", "talk", "--rpm", "100")
    secret = made.stdout.strip()
    assert place.ask("GET", "/v1/models", secret).status_code == 200
    listed = json.loads(stoker("keys", "list", "--json").stdout)
    (key,) = [key for key in listed if key["tenant"] == "by [hand]"]
    assert (key["models"], key["requests_per_minute"]) == (["talk"], 100)
    assert "by [hand]" in stoker("keys", "list").stdout
    assert stoker("keys", "revoke", key["id"]).returncode == 0
    assert place.ask("GET", "/v1/models", secret).status_code == 401
    wrong = stoker("keys", "revoke", "key_none")
    assert (wrong.returncode, "no API key has the id" in wrong.stderr) == (2, True)


def test_a_key_of_the_default_tenant_is_no_way_around_a_quota(own_server: Server, tmp_path: Path) -> None:
    fleet = Gatewayed(tmp_path / "quotas", own_server.url, f"{TABLES}max_in_flight = 4\n")
    try:
        url, escaping, named = fleet.gateway(), fleet.key("default"), fleet.key("acme")
        told = httpx2.get(f"{url}/v1/models", headers={"Authorization": f"Bearer {escaping}"})
        assert (told.status_code, told.json()["error"]["code"]) == (403, "tenant_not_allowed")
        assert httpx2.get(f"{url}/v1/models", headers={"Authorization": f"Bearer {named}"}).status_code == 200
        made = subprocess.run(
            [sys.executable, "-m", "deploy.cli", "keys", "create", "--tenant", "default"],
            env={**os.environ, "STOKER_FLEET": str(fleet.file)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (made.returncode, "--tenant is 'default'" in made.stderr) == (2, True)
    finally:
        fleet.close()


@pytest.mark.slow
def test_a_gateway_listens_beyond_loopback_only_when_there_is_a_key(
    own_server: Server, make_fleet: Any, tmp_path: Path
) -> None:
    fleet = Gatewayed(tmp_path / "open", own_server.url)
    try:
        refused = subprocess.run(
            [sys.executable, "-m", "deploy.cli", "gateway", "--host", "0.0.0.0"],  # noqa: S104  that is the point
            env={**os.environ, "STOKER_FLEET": str(fleet.file)},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert refused.returncode == 2
        assert "stoker keys create" in refused.stderr
        secret = fleet.key()
        url = fleet.gateway("--host", "0.0.0.0")  # noqa: S104
        assert httpx2.get(f"{url}/v1/models").status_code == 401
        assert httpx2.get(f"{url}/v1/models", headers={"Authorization": f"Bearer {secret}"}).status_code == 200
        fleet.redis.delete(keys.api_keys())  # whatever becomes of the keys, it does not open
        assert httpx2.get(f"{url}/v1/models").status_code == 401
    finally:
        fleet.close()


@pytest.mark.parametrize(("method", "path"), OURS)
def test_without_a_key_no_body_is_read(place: Place, method: str, path: str) -> None:
    at = path.format(model="talk", job_id="x", file_id="x", batch_id="x")
    head = f"{method} {at} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n["
    address = httpx2.URL(place.url)
    with socket.create_connection((address.host, address.port or 0), timeout=60) as connection:
        connection.sendall(head.encode())  # and no more of the body
        assert connection.recv(65536).startswith(b"HTTP/1.1 401 ")
    assert place.ask(method, at, "wrong", "no JSON").status_code == 401


@pytest.fixture(scope="module")
def keyless(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A gateway on loopback without any key; its address."""
    folder: Path = tmp_path_factory.mktemp("keyless")
    server = Server(folder / "server")
    server.start()
    fleet = Gatewayed(
        folder, server.url, TABLES.replace("[gateway]", '[gateway]\ncors_origins = ["https://app.example"]')
    )
    yield fleet.gateway()
    fleet.close()
    server.stop()


def test_pages_of_other_origins_get_nothing_without_a_key(keyless: str) -> None:
    port = httpx2.URL(keyless).port
    own = f"127.0.0.1:{port}"
    for headers, expected in (
        ({}, 200),
        ({"Host": f"localhost:{port}"}, 200),
        ({"Host": f"[::1]:{port}"}, 200),
        ({"Host": "evil.example"}, 403),
        ({"Host": f"127.0.0.1.evil.example:{port}"}, 403),
        ({"Origin": f"http://{own}"}, 200),
        ({"Origin": "https://app.example"}, 200),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "none"}, 200),
    ):
        answer = httpx2.get(f"{keyless}/v1/models", headers=headers)
        assert answer.status_code == expected, (headers, answer.text)
        if expected == 403:
            assert "API key" in answer.json()["error"]["message"]
    form, headers = {"file": ("x", b"{}")}, {"Origin": "https://evil.example"}
    assert httpx2.post(f"{keyless}/v1/files", files=form, data={"purpose": "batch"}, headers=headers).status_code == 403


@pytest.mark.slow
def test_a_key_whose_clients_hang_up_all_the_time_waits_and_others_do_not(place: Place) -> None:
    busy = place.fleet.key("busy")
    head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {busy}\r\n"
    head += "Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"
    address = httpx2.URL(place.url)

    def refused() -> str:
        with ExitStack() as stack:  # all at once: what is counted drains away
            for _ in range(4 * int(AT_ONCE)):
                connection = stack.enter_context(socket.create_connection((address.host, address.port or 0)))
                connection.sendall(head.encode())
        answer = place.ask("GET", "/v1/models", busy)
        return str(answer.json()["error"]["code"]) if answer.is_error else ""

    assert wait_for(refused, "the key to wait") == "too_many_hang_ups"
    assert place.ask("GET", "/v1/models", place.mine).is_success
    wait_for(lambda: place.ask("GET", "/v1/models", busy).is_success, "the key to be served again")
