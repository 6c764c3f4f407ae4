"""Jobs that are left with a gateway: polled for, read, cancelled, and told of by webhooks that outlive it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pytest

from deploy.machine.ports import free_port
from deploy.machine.server import Server
from gateway.webhooks.delivery import UNREACHED
from gatewayed import Gatewayed
from processes import wait_for
from producer.contract import keys
from producer.contract.published import PublishedDemand, PublishedSize, PublishedSizes, ScaleUpConditions

KEY = b"k" * 32
SECRET = "whsec_" + base64.b64encode(KEY).decode()


class Receiver(ThreadingHTTPServer):
    """Receives webhooks; answers with what ``statuses`` says, and then with 204."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.came: list[tuple[dict[str, str], bytes]] = []
        self.statuses: list[int] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/hook"


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.came.append(({name.lower(): value for name, value in self.headers.items()}, body))
        self.send_response(self.server.statuses.pop(0) if self.server.statuses else 204)
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gatewayed]:
    folder: Path = tmp_path_factory.mktemp("jobs")
    server = Server(folder / "server")
    server.start()
    fleet = Gatewayed(folder, server.url)
    for model in ("talk", "plain"):
        fleet.start(model, model)
    yield fleet
    fleet.close()
    server.stop()


@pytest.fixture(scope="module")
def http(fleet: Gatewayed) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=fleet.gateway(), timeout=60) as client:
        yield client


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.shutdown()
    receiver.server_close()


@pytest.fixture(autouse=True)
def _no_backlog(fleet: Gatewayed) -> None:
    fleet.empty("asleep")


def leave(http: httpx2.Client, headers: dict[str, str] | None = None, **body: Any) -> dict[str, Any]:
    answer = http.post("/v1/jobs", json=body, headers=headers)
    assert answer.status_code == 202, answer.text
    told: dict[str, Any] = answer.json()
    assert answer.headers["location"] == f"/v1/jobs/{told['id']}"
    return told


def ended(http: httpx2.Client, job_id: str) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        told: dict[str, Any] = http.get(f"/v1/jobs/{job_id}").json()
        return told if told["status"] not in ("queued", "running") else None

    return wait_for(look, f"job {job_id} to end")


def test_a_job_is_left_and_polled_for(http: httpx2.Client) -> None:
    job = leave(http, model="plain", input=["a", {"b": 1}], metadata={"of": "me"}, tier="batch")
    assert (job["object"], job["model"], job["tier"], job["metadata"]) == ("job", "plain", "batch", {"of": "me"})
    assert (told := ended(http, job["id"]))["output"] == ["a", {"b": 1}]
    assert (told["status"], told["error"]) == ("succeeded", None)


def test_a_job_that_fails_says_why(http: httpx2.Client) -> None:
    job = leave(http, model="plain", input="x", parameters={"fail": "as asked"})
    told = ended(http, job["id"])
    assert (told["status"], told["output"]) == ("failed", None)
    assert "as asked" in told["error"]["message"]


@pytest.mark.parametrize(("method", "path"), [("DELETE", "/v1/jobs/{}"), ("POST", "/v1/jobs/{}/cancel")])
def test_a_job_is_cancelled(http: httpx2.Client, method: str, path: str) -> None:
    job = leave(http, model="asleep", input="x")
    assert http.get(f"/v1/jobs/{job['id']}").json()["status"] == "queued"
    told = http.request(method, path.format(job["id"])).json()
    assert (told["status"], told["error"]["code"]) == ("cancelled", "cancelled")
    assert http.request(method, path.format(job["id"])).json()["status"] == "cancelled"


def test_a_job_that_has_ended_is_deleted_with_all_that_is_kept_of_it(http: httpx2.Client, fleet: Gatewayed) -> None:
    path = f"/v1/jobs/{leave(http, model='talk', input='to be deleted', stream=True)['id']}"
    wait_for(lambda: http.get(path).json()["status"] == "succeeded", "it to be done")
    assert http.post(f"{path}/cancel").json()["output"] is not None
    assert http.delete(path).json()["status"] == "succeeded"
    assert http.get(path).status_code == http.delete(path).status_code == 404
    job = path.rpartition("/")[2]
    assert not fleet.redis.exists(keys.result(job), keys.stream(job), keys.job_record(job), keys.submission(job))


@pytest.mark.parametrize("metadata", [{"k" * 65: "v"}, {"k": "v" * 513}, {str(n): "v" for n in range(17)}])
@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("/v1/jobs", {"model": "talk", "input": "x"}),
        ("/v1/chat/completions", {"model": "talk", "messages": [{"role": "user", "content": "x"}]}),
        ("/v1/batches", {"input_file_id": "f", "endpoint": "/v1/chat/completions", "completion_window": "24h"}),
    ],
)
def test_metadata_has_openais_limits(
    http: httpx2.Client, path: str, asked: dict[str, Any], metadata: dict[str, str]
) -> None:
    told = http.post(path, json={**asked, "metadata": metadata})
    assert (told.status_code, told.json()["error"]["code"]) == (400, "invalid_value")
    assert told.json()["error"]["param"].startswith("metadata")


def test_a_job_is_read_as_it_is_made_and_read_on_after_a_break(http: httpx2.Client) -> None:
    job = leave(http, model="talk", input="one two three four", stream=True)

    def events(**headers: str) -> list[tuple[str, str, Any]]:
        text = http.get(f"/v1/jobs/{job['id']}/stream", headers=headers).text
        found = []
        for block in text.strip().split("\n\n"):
            fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
            found.append((fields.get("id", ""), fields["event"], json.loads(fields["data"])))
        return found

    whole = events()
    assert [kind for _, kind, _ in whole][-1] == "result"
    assert "".join(data["text"] for _, kind, data in whole if kind == "piece") == "one two three four"
    assert whole[-1][2]["output"] == {"text": "one two three four", "finish_reason": "stop"}
    assert events(**{"Last-Event-ID": whole[0][0]}) == whole[1:]
    assert http.get(f"/v1/jobs/{job['id']}/stream", headers={"Last-Event-ID": "no id"}).status_code == 400


def test_an_idempotency_key_is_one_job(http: httpx2.Client) -> None:
    key = {"Idempotency-Key": "order 66"}
    first = leave(http, key, model="asleep", input="x")
    assert leave(http, key, model="asleep", input="x")["id"] == first["id"]
    other = http.post("/v1/jobs", json={"model": "asleep", "input": "y"}, headers=key)
    assert (other.status_code, other.json()["error"]["code"]) == (422, "idempotency_key_reused")
    assert http.get(f"/v1/jobs/{first['id']}").json()["status"] == "queued"


def test_a_job_whose_queue_was_emptied_is_queued_anew(http: httpx2.Client, fleet: Gatewayed) -> None:
    key = {"Idempotency-Key": "emptied"}
    first = leave(http, key, model="asleep", input="x")
    for _ in range(2):
        (queue,) = fleet.redis.keys("asleep.*")
        fleet.redis.delete(queue)
        assert leave(http, key, model="asleep", input="x")["id"] == first["id"]
    assert http.delete(f"/v1/jobs/{first['id']}").json()["status"] == "cancelled"
    assert leave(http, key, model="asleep", input="x")["status"] == "cancelled"
    assert fleet.redis.keys("asleep.*") == []


def test_what_is_refused_leaves_nothing(http: httpx2.Client, fleet: Gatewayed) -> None:
    for body in ({"input": ""}, {"input": "x", "deadline_s": 1e9}, {"input": "x", "tier": "none"}, {"inputs": "x"}):
        assert http.post("/v1/jobs", json={"model": "asleep", **body}).status_code == 400
    for _ in range(2):
        leave(http, model="asleep", input="x")
    before = len(list(fleet.redis.scan_iter(keys.job_record("*"), count=1000)))
    full = http.post("/v1/jobs", json={"model": "asleep", "input": "x"})
    assert (full.status_code, full.json()["error"]["code"]) == (429, "queue_full")
    assert len(list(fleet.redis.scan_iter(keys.job_record("*"), count=1000))) == before


def test_a_deadline_out_of_reach_is_refused_or_degraded_as_asked(http: httpx2.Client, fleet: Gatewayed) -> None:
    late = {"model": "asleep", "input": "x", "deadline_s": 5}
    records = len(list(fleet.redis.scan_iter(keys.job_record("*"), count=1000)))
    none = ScaleUpConditions(present=0, tier="interactive", queued=None)
    demand = PublishedDemand(model="asleep", load_s=100.0)
    size = PublishedSize(replicas=0, reason="", demand=demand, one_more=none)
    sizes = PublishedSizes(at=0.0, policy="slack", models={"asleep": size})
    fleet.redis.set(keys.sizes(), sizes.model_dump_json())
    try:
        refused = http.post("/v1/jobs", json={**late, "admission": "refuse"}, headers={"Idempotency-Key": "late"})
        assert (refused.status_code, int(refused.headers["retry-after"])) == (429, 16)  # a fifth of 101 s, less 5
        error = refused.json()["error"]
        assert (error["code"], error["type"], error["param"]) == (
            "deadline_unreachable",
            "rate_limit_error",
            "deadline_s",
        )
        assert "in 20.2 s" in error["message"]
        assert len(list(fleet.redis.scan_iter(keys.job_record("*"), count=1000))) == records
        # Refused, the key stands for nothing yet; queued, for what became of it.
        key = {"Idempotency-Key": "late"}
        degraded = [leave(http, key, **late, admission="degrade") for _ in range(2)]
        assert degraded[0] == degraded[1]
        assert degraded[0]["tier"] == "standard"
        (message,) = fleet.redis.lrange(keys.queue("asleep", "standard"), 0, -1) or [b""]
        expires = datetime.fromisoformat(json.loads(message)["headers"]["expires"]).timestamp()
        assert expires == pytest.approx(time.time() + fleet.settings.redis.result_ttl_s, abs=60)
        assert leave(http, model="asleep", input="x", admission="refuse")["tier"] == "interactive"  # no deadline_s
        assert http.post("/v1/jobs", json={**late, "admission": "perhaps"}).status_code == 400
    finally:
        fleet.redis.delete(keys.sizes())
        fleet.redis.delete(keys.queue("asleep", "standard"))


def test_a_webhook_is_signed_and_tried_again(http: httpx2.Client, receiver: Receiver) -> None:
    receiver.statuses = [500]
    job = leave(http, model="plain", input="x", webhook={"url": receiver.url, "secret": SECRET})
    wait_for(lambda: len(receiver.came) >= 2, "the second attempt")
    for headers, body in receiver.came:
        signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        expected = base64.b64encode(hmac.new(KEY, signed, hashlib.sha256).digest()).decode()
        assert headers["webhook-signature"] == f"v1,{expected}"
        assert headers["webhook-id"] == job["id"]
        assert abs(int(headers["webhook-timestamp"]) - time.time()) < 300
        told = json.loads(body)
        assert (told["type"], told["data"]["id"], told["data"]["output"]) == ("job.succeeded", job["id"], "x")

    def delivered() -> Any:
        return http.get(f"/v1/jobs/{job['id']}").json()["webhook"]["delivered_at"]

    wait_for(delivered, "the delivery to be noted")
    notice = http.get(f"/v1/jobs/{job['id']}").json()["webhook"]
    assert (notice["failures"], notice["last_error"]) == (1, "answered with 500")


def test_a_receiver_that_says_gone_is_not_asked_again(http: httpx2.Client, receiver: Receiver) -> None:
    receiver.statuses = [410]
    job = leave(http, model="plain", input="x", webhook={"url": receiver.url, "secret": SECRET})
    wait_for(lambda: http.get(f"/v1/jobs/{job['id']}").json()["webhook"]["given_up_at"], "it to be given up")
    assert len(receiver.came) == 1


@pytest.mark.slow
def test_a_webhook_outlives_its_gateway(fleet: Gatewayed, http: httpx2.Client, receiver: Receiver) -> None:
    url = fleet.gateway()
    dying = fleet.processes[-1]
    answer = httpx2.post(
        f"{url}/v1/jobs",
        json={"model": "asleep", "input": "x", "webhook": {"url": receiver.url, "secret": SECRET}},
        timeout=60,
    )
    dying.kill()
    dying.wait()
    assert receiver.came == []
    http.delete(f"/v1/jobs/{answer.json()['id']}")  # through another gateway: it ends
    wait_for(lambda: receiver.came, "another gateway to tell")
    assert json.loads(receiver.came[0][1])["type"] == "job.cancelled"


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("http://example.com/", "forbidden_webhook"),
        ("https://127.0.0.2/", "forbidden_webhook"),
        ("https://10.0.0.1/", "forbidden_webhook"),
        ("https://169.254.169.254/latest/meta-data", "forbidden_webhook"),
        ("https://[::1]/", "forbidden_webhook"),
        ("https://[::ffff:10.0.0.1]/", "forbidden_webhook"),
        ("https://[64:ff9b::a00:1]/", "forbidden_webhook"),
        ("ftp://example.com/", "invalid_value"),
        ("https://user@example.com/", "invalid_value"),
        ("https:///", "invalid_value"),
    ],
)
def test_a_webhook_goes_nowhere_private(http: httpx2.Client, url: str, code: str) -> None:
    body = {"model": "plain", "input": "x", "webhook": {"url": url, "secret": SECRET}}
    answer = http.post("/v1/jobs", json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)
    assert SECRET not in answer.text


def test_a_webhook_needs_a_secret_that_is_one(http: httpx2.Client, receiver: Receiver) -> None:
    for secret in ("", "whsec_", "whsec_short", "x" * 40):
        body = {"model": "plain", "input": "x", "webhook": {"url": receiver.url, "secret": secret}}
        answer = http.post("/v1/jobs", json=body)
        assert answer.status_code == 400
        assert answer.json()["error"]["param"] == "webhook.secret"


def test_a_name_that_leads_to_a_private_address_is_found_out_when_it_is_called(
    http: httpx2.Client,
) -> None:
    """Nor is it told apart from names that nobody has, and from ports that nobody listens at."""
    closed, hosts = free_port(), ("localhost", "localhost.invalid", f"127.0.0.1:{free_port()}")
    jobs = [
        leave(http, model="plain", input="x", webhook={"url": url, "secret": SECRET})
        for url in (*(f"https://{host}/" for host in hosts), f"http://127.0.0.1:{closed}/")
    ]

    def tried() -> list[Any]:
        found = [http.get(f"/v1/jobs/{job['id']}").json()["webhook"] for job in jobs]
        return found if all(each["failures"] for each in found) else []

    found = wait_for(tried, "all to have been tried")
    assert {(each["last_error"], each["failures"]) for each in found} == {(UNREACHED, 1)}
