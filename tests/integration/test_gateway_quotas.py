"""What a tenant may keep at a gateway: files, their bytes, and open batches."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from deploy.machine.server import Server
from gatewayed import TABLES, Gatewayed
from processes import wait_for

QUOTAS = "max_files = 3\nmax_files_bytes = 3000\nmax_open_batches = 1\n"
LINE = b'{"custom_id": "1", "method": "POST", "url": "/v1/completions", "body": {"model": "talk", "prompt": "x"}}\n'


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gatewayed]:
    folder: Path = tmp_path_factory.mktemp("quotas")
    server = Server(folder / "server")
    server.start()
    fleet = Gatewayed(folder, server.url, TABLES + QUOTAS)
    yield fleet
    fleet.close()
    server.stop()


@pytest.fixture(scope="module")
def url(fleet: Gatewayed) -> str:
    return fleet.gateway()


@pytest.fixture
def http(fleet: Gatewayed, url: str, request: pytest.FixtureRequest) -> Iterator[httpx2.Client]:
    """As a tenant of the test's own."""
    headers = {"Authorization": f"Bearer {fleet.key(request.node.name)}"}
    with httpx2.Client(base_url=url, headers=headers, timeout=60) as client:
        yield client


def upload(http: httpx2.Client, content: bytes) -> httpx2.Response:
    return http.post("/v1/files", data={"purpose": "batch"}, files={"file": ("in.jsonl", content)})


def code(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def test_a_tenant_has_so_many_files(http: httpx2.Client) -> None:
    ids = [upload(http, LINE).json()["id"] for _ in range(3)]
    assert code(upload(http, LINE)) == (429, "file_quota_exceeded")
    assert http.delete(f"/v1/files/{ids[0]}").is_success
    assert upload(http, LINE).is_success


def test_a_tenant_has_so_many_bytes(http: httpx2.Client) -> None:
    assert upload(http, b"x" * 2000).is_success
    assert code(upload(http, b"x" * 1001)) == (413, "file_too_large")
    assert upload(http, b"x" * 1000).is_success
    assert code(upload(http, b"x")) == (429, "file_quota_exceeded")


def test_a_tenant_has_so_many_open_batches_and_deletes_those_that_ended(http: httpx2.Client, fleet: Gatewayed) -> None:
    file = upload(http, LINE).json()["id"]
    asked = {"input_file_id": file, "endpoint": "/v1/completions", "completion_window": "24h"}
    batch = http.post("/v1/batches", json=asked).json()["id"]
    assert code(http.post("/v1/batches", json=asked)) == (429, "batch_quota_exceeded")
    assert code(http.delete(f"/v1/batches/{batch}")) == (409, "batch_open")
    http.post(f"/v1/batches/{batch}/cancel")
    fleet.batches()
    wait_for(lambda: http.get(f"/v1/batches/{batch}").json()["status"] == "cancelled", "it to end")
    assert http.delete(f"/v1/batches/{batch}").json() == {"id": batch, "object": "batch", "deleted": True}
    assert http.get(f"/v1/batches/{batch}").status_code == 404
    assert http.get("/v1/batches").json()["data"] == []


@pytest.mark.parametrize("more", ["names", "behind the end"])
def test_a_form_has_a_bound_beside_its_file(http: httpx2.Client, more: str) -> None:
    part = b'--b\r\nContent-Disposition: form-data; name="%s"\r\n\r\n\r\n'
    names = b"".join(part % (b"n" * 500 + b"%d" % number) for number in range(100))
    body = names if more == "names" else b"--b--\r\n" + b"x" * 100_000
    answer = http.post("/v1/files", content=body, headers={"Content-Type": "multipart/form-data; boundary=b"})
    assert answer.status_code in (400, 413)
    assert answer.json()["error"]["code"] == "form_too_large"


def test_an_upload_that_is_broken_off_is_no_error(http: httpx2.Client, fleet: Gatewayed) -> None:
    with socket.create_connection((http.base_url.host, http.base_url.port or 80)) as connection:
        connection.sendall(
            b"POST /v1/files HTTP/1.1\r\nHost: x\r\nContent-Length: 9000\r\n"
            b"Content-Type: multipart/form-data; boundary=b\r\n"
            + f"Authorization: {http.headers['Authorization']}\r\n\r\n--b\r\n".encode()
        )
    assert http.get("/healthz").is_success
    assert "Traceback" not in fleet.log(f"gateway-{http.base_url.port}").read_text()
