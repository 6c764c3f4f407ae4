"""Files and batches over HTTP, by the official client; other tenants reach none of them."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import openai
import pytest

from deploy.machine.server import Server
from gateway.access import api_key_store
from gatewayed import TABLES, Gatewayed
from processes import wait_for

LIMITS = TABLES.replace("[gateway]\n", "[gateway]\nmax_file_bytes = 100000\nmax_file_lines = 500\n")


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gatewayed]:
    own = Server(tmp_path_factory.mktemp("server"))
    own.start()
    fleet = Gatewayed(tmp_path_factory.mktemp("fleet"), own.url, LIMITS)
    try:
        yield fleet
    finally:
        fleet.close()
        own.stop()


@pytest.fixture(scope="module")
def url(fleet: Gatewayed) -> str:
    return fleet.gateway()


@pytest.fixture(scope="module")
def served(fleet: Gatewayed, url: str) -> str:
    """The URL of a gateway, beside a process that runs its batches."""
    fleet.batches()
    fleet.worker("talk", "talker")
    fleet.worker("vectors", "embedder")
    return url


@pytest.fixture(scope="module")
def client(fleet: Gatewayed, served: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{served}/v1", api_key=fleet.key("ours"), max_retries=0) as client:
        yield client


def chats(count: int) -> list[dict[str, Any]]:
    return [
        {
            "custom_id": f"c{n}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": "talk", "messages": [{"role": "user", "content": f"number {n}"}]},
        }
        for n in range(count)
    ]


def jsonl(lines: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


def ended(client: openai.OpenAI, batch_id: str) -> Any:
    def look() -> Any:
        batch = client.batches.retrieve(batch_id)
        return batch if batch.status in ("completed", "failed", "expired", "cancelled") else None

    return wait_for(look, f"batch {batch_id}")


def read(client: openai.OpenAI, file_id: str) -> dict[str, Any]:
    return {line["custom_id"]: line for line in map(json.loads, client.files.content(file_id).text.splitlines())}


def test_a_batch_of_chats_from_upload_to_download(client: openai.OpenAI) -> None:
    file = client.files.create(file=("in.jsonl", jsonl(chats(40))), purpose="batch")
    assert (file.object, file.filename, file.purpose, file.bytes) == (
        "file",
        "in.jsonl",
        "batch",
        len(jsonl(chats(40))),
    )
    made = client.batches.create(
        input_file_id=file.id,
        endpoint="/v1/chat/completions",
        completion_window="24h",
        metadata={"night": "friday"},
    )
    assert made.status in ("validating", "in_progress")
    batch = ended(client, made.id)
    assert (batch.status, batch.errors, batch.error_file_id) == ("completed", None, None)
    assert (batch.request_counts.total, batch.request_counts.completed, batch.request_counts.failed) == (40, 40, 0)
    assert batch.metadata == {"night": "friday"}
    found = read(client, batch.output_file_id)
    assert len(found) == 40
    for n in range(40):
        told = found[f"c{n}"]
        assert (told["error"], told["response"]["status_code"]) == (None, 200)
        body = told["response"]["body"]
        assert body["object"] == "chat.completion"
        assert f"number {n}" in body["choices"][0]["message"]["content"]
        assert body["service_tier"] == "batch", "the slowest, as nothing else was asked for"
    output = client.files.retrieve(batch.output_file_id)
    assert (output.purpose, output.filename) == ("batch_output", f"{batch.id}_output.jsonl")
    assert client.files.delete(file.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.content(file.id)


class LosingAnswers(httpx2.HTTPTransport):
    """A network that loses the first answers to POST requests of a path, which the gateway has served."""

    def __init__(self, path: str, count: int) -> None:
        super().__init__()
        self.path, self.count = path, count

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        response = super().handle_request(request)
        if request.method == "POST" and request.url.path == self.path and self.count:
            self.count -= 1
            response.read()
            raise httpx2.ReadError("the connection broke")
        return response


def test_a_batch_whose_answer_was_lost_is_one_batch_though_the_client_asks_again(fleet: Gatewayed, served: str) -> None:
    key = fleet.key("losing")
    with httpx2.Client(transport=LosingAnswers("/v1/batches", 2)) as network:
        losing = openai.OpenAI(base_url=f"{served}/v1", api_key=key, max_retries=2, http_client=network)
        file_id = losing.files.create(file=jsonl(chats(2)), purpose="batch").id
        made = [
            losing.batches.create(input_file_id=file_id, endpoint="/v1/chat/completions", completion_window="24h").id
            for _ in range(2)
        ]
        assert sorted(each.id for each in losing.batches.list()) == sorted(made)  # the second one was asked for anew
        for batch_id in made:
            assert ended(losing, batch_id).request_counts.completed == 2
    headers = {"Authorization": f"Bearer {key}", "Idempotency-Key": "one"}
    asked = {"input_file_id": file_id, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    keyed = [httpx2.post(f"{served}/v1/batches", json=asked, headers=headers) for _ in range(2)]
    assert keyed[0].json()["id"] == keyed[1].json()["id"] not in made
    other = httpx2.post(f"{served}/v1/batches", json={**asked, "completion_window": "1h"}, headers=headers)
    assert (other.status_code, other.json()["error"]["code"]) == (422, "idempotency_key_reused")


def test_a_job_whose_answer_was_lost_is_one_job(fleet: Gatewayed, served: str) -> None:
    def job_of(attempt: str) -> str:
        headers = {"Authorization": key, "x-stainless-retry-count": attempt}
        answer = httpx2.post(f"{served}/v1/jobs", json={"model": "talk", "input": "x"}, headers=headers)
        assert answer.status_code == 202
        return str(answer.json()["id"])

    key = f"Bearer {fleet.key('losing')}"
    first = job_of("0")
    assert job_of("1") == first
    assert job_of("0") != first


def test_a_batch_of_embeddings(client: openai.OpenAI) -> None:
    lines = [
        {"custom_id": f"e{n}", "method": "POST", "url": "/v1/embeddings", "body": {"model": "vectors", "input": f"{n}"}}
        for n in range(5)
    ]
    file = client.files.create(file=jsonl(lines), purpose="batch")
    made = client.batches.create(
        input_file_id=file.id,
        endpoint="/v1/embeddings",
        completion_window="30m",  # type: ignore[arg-type]  # wider than theirs
    )
    batch = ended(client, made.id)
    assert batch.status == "completed"
    bodies = [told["response"]["body"] for told in read(client, batch.output_file_id).values()]
    assert [len(body["data"]) for body in bodies] == [1] * 5


def test_mistakes_are_told_by_line(client: openai.OpenAI) -> None:
    lines = [*chats(2), *chats(1)]
    lines.append({"custom_id": "x", "method": "POST", "url": "/v1/embeddings", "body": {}})
    lines.append({**chats(1)[0], "custom_id": "y", "body": {"model": "talk", "messages": [], "temperature": 0}})
    file = client.files.create(file=jsonl(lines), purpose="batch")
    made = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
    batch = ended(client, made.id)
    assert batch.status == "failed"
    assert [(each.line, each.code) for each in batch.errors.data] == [
        (3, "duplicate_custom_id"),
        (4, "invalid_url"),
        (5, "invalid_value"),
    ]


def test_errors_of_lines_are_in_a_file_of_their_own(client: openai.OpenAI) -> None:
    lines: list[dict[str, Any]] = [
        {"custom_id": "good", "input": "x"},
        {"custom_id": "bad", "input": "y", "parameters": {"fail": "no"}},
    ]
    file = client.files.create(file=jsonl(lines), purpose="batch")
    made = client.batches.create(
        input_file_id=file.id,
        endpoint="/v1/jobs",  # type: ignore[arg-type]  # ours
        completion_window="1h",  # type: ignore[arg-type]  # ours
        extra_body={"model": "talk"},
    )
    batch = ended(client, made.id)
    assert batch.status == "completed"
    assert read(client, batch.output_file_id).keys() == {"good"}
    failed = read(client, batch.error_file_id)["bad"]["response"]
    assert (failed["status_code"], failed["body"]["error"]["message"]) == (400, "no")


def test_lists_go_page_by_page(client: openai.OpenAI) -> None:
    ids = [client.files.create(file=jsonl(chats(1)), purpose="batch").id for _ in range(5)]
    assert [file.id for file in client.files.list(limit=2)][:5] == ids[::-1]
    assert [file.id for file in client.files.list(order="asc", after=ids[1], purpose="batch")][:3] == ids[2:]
    page = client.files.list(limit=2)
    assert (len(page.data), page.has_more) == (2, True)
    made = [
        client.batches.create(input_file_id=each, endpoint="/v1/chat/completions", completion_window="24h").id
        for each in ids
    ]
    assert [batch.id for batch in client.batches.list(limit=2)][:5] == made[::-1]
    assert {ended(client, each).status for each in made} == {"completed"}


def test_cancelled_and_asked_in_vain(client: openai.OpenAI) -> None:
    lines = [{**each, "body": {**each["body"], "model": "asleep"}} for each in chats(3)]
    file = client.files.create(file=jsonl(lines), purpose="batch")
    made = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
    wait_for(lambda: client.batches.retrieve(made.id).status == "in_progress", "the batch to begin")
    assert client.batches.cancel(made.id).status == "cancelling"
    batch = ended(client, made.id)
    assert (batch.status, batch.output_file_id) == ("cancelled", None)
    assert {told["error"]["code"] for told in read(client, batch.error_file_id).values()} == {"batch_cancelled"}
    with pytest.raises(openai.ConflictError):
        client.batches.cancel(made.id)
    with pytest.raises(openai.NotFoundError):
        client.batches.retrieve("batch_nope")
    for wrong in ({"endpoint": "/v1/images"}, {"completion_window": "25h"}, {"completion_window": "soon"}):
        asked: Any = {"input_file_id": file.id, "endpoint": "/v1/embeddings", "completion_window": "24h", **wrong}
        with pytest.raises(openai.BadRequestError, match=f"{next(iter(wrong))} = .*allowed"):
            client.batches.create(**asked)
    with pytest.raises(openai.NotFoundError):
        client.batches.create(input_file_id="file-none", endpoint="/v1/embeddings", completion_window="24h")


def test_what_is_not_supported_is_refused_by_its_name(client: openai.OpenAI) -> None:
    expiry: Any = {"anchor": "created_at", "seconds": 3600}
    with pytest.raises(openai.BadRequestError) as refused:
        client.files.create(file=jsonl(chats(1)), purpose="batch", expires_after=expiry)
    assert (refused.value.param, refused.value.code) == ("expires_after[anchor]", "unsupported_parameter")
    file = client.files.create(file=jsonl(chats(1)), purpose="batch")
    with pytest.raises(openai.BadRequestError) as refused:
        client.batches.create(
            input_file_id=file.id,
            endpoint="/v1/chat/completions",
            completion_window="24h",
            output_expires_after=expiry,
        )
    assert refused.value.param == "output_expires_after"


FORM = {"content-type": "multipart/form-data; boundary=b"}
PART = b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n--b\r\n'
FILE = PART + b'Content-Disposition: form-data; name="file"; filename="f"\r\n\r\n'


@pytest.mark.parametrize(
    ("headers", "body", "status", "says"),
    [
        ({"content-type": "application/json"}, b"{}", 400, "no form"),
        ({"content-type": "multipart/form-data"}, b"{}", 400, "no form"),
        (FORM, b"nonsense", 400, "cannot be read"),
        (FORM, FILE + b"{}\r\n", 400, "ends before its end"),
        (FORM, FILE + b"\r\n--b--\r\n", 400, "empty"),
        (FORM, PART[:-2] + b"--\r\n", 400, "file is missing"),
        (FORM, FILE.replace(b"batch", b"vision") + b"{}\r\n--b--\r\n", 400, "purpose = 'vision'; allowed: 'batch'"),
        (FORM, FILE.replace(b"purpose", b"other") + b"{}\r\n--b--\r\n", 400, "purpose = None"),
        (FORM, FILE.replace(b"batch", b"x" * 2000) + b"{}\r\n--b--\r\n", 400, "longer than"),
        (FORM, FILE + b"x" * 100_001 + b"\r\n--b--\r\n", 413, "larger than the 100000 bytes allowed"),
        (FORM, FILE + b"{}\n" * 502 + b"\r\n--b--\r\n", 400, "502 lines; allowed: 500"),
    ],
)
def test_an_upload_that_is_none_is_refused_and_leaves_nothing(
    fleet: Gatewayed, url: str, headers: dict[str, str], body: bytes, status: int, says: str
) -> None:
    given = {**headers, "authorization": f"Bearer {fleet.key('refused')}"}
    answer = httpx2.post(f"{url}/v1/files", headers=given, content=body)
    assert (answer.status_code, says in answer.json()["error"]["message"]) == (status, True), answer.text
    assert httpx2.get(f"{url}/v1/files", headers=given).json()["data"] == []
    assert not list((fleet.settings.state_dir / "files").rglob("*.new"))


ENDPOINTS = [
    ("POST", "/v1/files"),
    ("GET", "/v1/files"),
    ("GET", "/v1/files/{file}"),
    ("GET", "/v1/files/{file}/content"),
    ("DELETE", "/v1/files/{file}"),
    ("POST", "/v1/batches"),
    ("GET", "/v1/batches"),
    ("GET", "/v1/batches/{batch}"),
    ("POST", "/v1/batches/{batch}/cancel"),
]
Ask = Callable[[str, str, str | None], httpx2.Response]


@pytest.fixture(scope="module")
def theirs(fleet: Gatewayed, client: openai.OpenAI) -> dict[str, str]:
    """A file and a batch of a tenant."""
    file = client.files.create(file=jsonl(chats(1)), purpose="batch").id
    batch = client.batches.create(input_file_id=file, endpoint="/v1/chat/completions", completion_window="24h").id
    ended(client, batch)
    return {"file": file, "batch": batch}


@pytest.fixture
def ask(served: str, theirs: dict[str, str]) -> Ask:
    def ask(method: str, path: str, key: str | None) -> httpx2.Response:
        given: dict[str, Any] = {"headers": {"authorization": f"Bearer {key}"} if key else {}}
        if (method, path) == ("POST", "/v1/files"):
            given |= {"files": {"file": b"{}"}, "data": {"purpose": "batch"}}
        if (method, path) == ("POST", "/v1/batches"):
            given["json"] = {"input_file_id": theirs["file"], "endpoint": "/v1/jobs", "completion_window": "24h"}
        return httpx2.request(method, served + path.format(**theirs), **given)

    return ask


@pytest.mark.parametrize(("method", "path"), ENDPOINTS)
def test_nobody_without_a_key_or_with_a_revoked_one(fleet: Gatewayed, ask: Ask, method: str, path: str) -> None:
    secret = fleet.key("ours", name="revoked")
    kept = next(key for key in api_key_store.read_all(fleet.redis) if key.name == "revoked" and key.revoked_at is None)
    api_key_store.revoke(fleet.redis, kept.id)
    assert [ask(method, path, key).status_code for key in (None, "sk-stoker-guess", secret)] == [401, 401, 401]


@pytest.mark.parametrize(("method", "path"), ENDPOINTS)
def test_nobody_with_another_tenants_key(
    fleet: Gatewayed, client: openai.OpenAI, theirs: dict[str, str], ask: Ask, method: str, path: str
) -> None:
    answer = ask(method, path, fleet.key(f"other-{method}-{path}"))
    if (method, path) == ("POST", "/v1/files"):
        assert answer.json()["id"] not in {file.id for file in client.files.list()}
    elif "{" not in path and method == "GET":
        assert answer.json()["data"] == []
    else:
        assert answer.status_code == 404
    assert client.files.content(theirs["file"]).text, "it is still there"
    assert client.batches.retrieve(theirs["batch"]).status == "completed"
