"""The pure pieces of batches: repeated names, completion windows, pace, and records as they are told."""

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.access.api_key import ApiKey
from gateway.batches import completion_window
from gateway.batches.lines.custom_ids import FirstLines
from gateway.batches.lines.in_flight import CHUNK, chunk
from gateway.batches.lines.line_translation import JOBS, Terms, tell_openai
from gateway.batches.lines.lines import Line, LineError, parse
from gateway.batches.progress import LEAST, MOST, Pace, width
from gateway.batches.resume import number_of
from gateway.batches.storage.records import BatchRecord, BatchSpec, new_id
from gateway.openai.api_error import Problem
from producer.contract.errors import JobFailed, QueueFull
from producer.contract.fleet.fleet_schema import Limits, Model
from producer.contract.fleet.settings import Settings
from producer.contract.fleet.tenants import Tenant
from producer.contract.heartbeat import Heartbeat, WorkerState
from producer.contract.message.job import Result

SETTINGS = Settings(models={"echo": Model(engine="echo"), "talk": Model(engine="echo", options={"task": "generate"})})


@given(st.lists(st.text(max_size=3), max_size=200))
def test_first_seen_knows_on_which_line_a_name_came_first(names: list[str]) -> None:
    seen = FirstLines()
    first: dict[str, int] = {}
    for line, name in enumerate(names, 1):
        assert seen.add(name, line) == first.setdefault(name, line)


def test_first_seen_grows() -> None:
    seen, rng = FirstLines(), random.Random(1)
    names = [f"{rng.random()}" for _ in range(20_000)]
    assert [seen.add(name, line) for line, name in enumerate(names)] == list(range(20_000))
    assert [seen.add(name, 0) for name in names] == list(range(20_000))


@pytest.mark.parametrize(("given", "seconds"), [("24h", 86_400), ("1d", 86_400), ("90m", 5400), ("5s", 5)])
def test_completion_windows(given: str, seconds: int) -> None:
    assert completion_window.seconds(given) == seconds


@pytest.mark.parametrize("given", ["", "24", "h", "25h", "2d", "0h", "-1h", "1.5h", "24h ", "999999s", "1\u0661h"])
def test_what_is_no_completion_window(given: str) -> None:
    with pytest.raises(ValueError, match="allowed: '24h'"):
        completion_window.seconds(given)


def test_the_pace_is_known_from_the_first_lines_on_and_follows() -> None:
    pace = Pace(0.0, 100)
    assert pace.add(1.0, 150) == pytest.approx(50)
    assert pace.add(2.0, 200) == pytest.approx(50)
    for second in range(3, 200):
        rate = pace.add(second, 200 + 10 * (second - 2))
    assert rate == pytest.approx(10, rel=0.01)
    assert pace.add(199, 2170) == pytest.approx(rate), "no time, no news"


def beat(model: str, capacity: int, state: WorkerState = WorkerState.READY) -> Heartbeat:
    return Heartbeat(
        name="w", model=model, device="d", host="h", pid=1, pid_created_at=0, state=state, started_at=0, beat_at=0,
        capacity=capacity,
    )  # fmt: skip


def test_as_many_lines_wait_as_run() -> None:
    assert width([], "m") == LEAST
    assert width([beat("m", 300), beat("m", 200), beat("n", 1000)], "m") == 1000
    assert width([beat("m", 300), beat("m", 300, WorkerState.LOADING)], "m") == 600
    assert width([beat("m", 100_000)], "m") == MOST


def test_a_chunk_is_never_larger_than_what_a_queue_or_a_quota_lets_in() -> None:
    few = Model(engine="echo", limits=Limits(max_queued=40))
    settings = Settings(models={"echo": few}, tenants={"small": Tenant(max_queued=5)})
    assert chunk(SETTINGS, "anybody") == CHUNK
    assert [chunk(settings, tenant) for tenant in ("default", "small")] == [20, 5]


def test_ids_sort_by_age() -> None:
    ids = [new_id("batch_") for _ in range(5)]
    assert len(set(ids)) == 5
    assert [each[:17] for each in ids] == sorted(each[:17] for each in ids)


def record(**fields: object) -> BatchRecord:
    asked = BatchSpec(
        caller=ApiKey(id="k"), endpoint=JOBS, input_file_id="f", completion_window="24h", created_at=1, expires_at=9
    )
    return BatchRecord(id="batch_1", asked=asked, **fields)


def test_the_estimate_is_of_what_is_left_at_the_pace_of_late() -> None:
    running = record(status="in_progress", total=100, completed=40, failed=10, lines_per_s=5.0, told_at=1000.0)
    assert running.public()["estimated_finish_at"] == 1010
    assert running.model_copy(update={"lines_per_s": 0.0}).finish_at is None
    assert running.model_copy(update={"status": "completed"}).finish_at is None


def test_cancelling_is_told_until_it_has_ended() -> None:
    assert record(status="in_progress", cancelling_at=5).public()["status"] == "cancelling"
    assert record(status="cancelled", cancelling_at=5).public()["status"] == "cancelled"


def line(**fields: object) -> Line:
    return parse(7, json.dumps(fields).encode(), 10_000)


CHAT = {"model": "talk", "messages": [{"role": "user", "content": "hi"}]}


def test_a_line_is_the_same_job_each_time_it_is_read() -> None:
    terms = Terms(SETTINGS, "run", ApiKey(id="k", tenant="t"), endpoint="/v1/chat/completions")
    asked = line(custom_id="a", method="POST", url="/v1/chat/completions", body=CHAT)
    one, other = terms.read(asked).job, terms.read(asked).job
    assert (one.id, one.tier, one.tenant, one.idempotency_key) == (other.id, "batch", "t", "run:7")
    told = line(custom_id="a", method="POST", url="/v1/chat/completions", body={**CHAT, "service_tier": "standard"})
    assert terms.read(told).job.tier == "standard"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"url": "/v1/embeddings", "body": CHAT}, "url"),
        ({"url": "/v1/chat/completions", "body": {**CHAT, "stream": True}}, "stream"),
        ({"url": "/v1/chat/completions", "body": {**CHAT, "model": "echo"}}, "model"),
        ({"url": "/v1/chat/completions", "body": {**CHAT, "model": "none"}}, "model"),
        ({"url": "/v1/chat/completions", "body": {**CHAT, "temperature": "hot"}}, "temperature"),
    ],
)
def test_what_a_batch_cannot_ask_for(fields: dict[str, object], param: str) -> None:
    terms = Terms(SETTINGS, "run", endpoint="/v1/chat/completions")
    with pytest.raises((LineError, Problem)) as refused:
        terms.read(line(custom_id="a", method="POST", **fields))
    assert isinstance(refused.value, LineError | Problem)
    assert refused.value.param == param


def test_a_key_is_kept_to_its_models_in_our_own_form_too() -> None:
    terms = Terms(SETTINGS, "run", ApiKey(id="k", models=("talk",)), model="echo")
    with pytest.raises(Problem, match="the model 'echo' does not exist, or this API key may not use it; allowed: talk"):
        terms.read(line(input="x"))
    assert terms.read(line(input="x", model="talk")).job.model == "talk"


def test_what_ended_is_told_in_openais_form_and_known_again_by_its_line() -> None:
    terms, tell = Terms(SETTINGS, "batch_0a-b", model="echo"), tell_openai("batch_0a-b")
    asked = line(custom_id='a","id": "batch_req_x-9"', input="x")
    request = terms.read(asked)
    for end, status in ((Result(id="j", output="x"), 200), (JobFailed("no"), 500), (QueueFull("full"), 429)):
        told, failed = tell(asked, request, end)
        assert number_of(told) == 7
        assert (json.loads(told)["response"]["status_code"], failed) == (status, status != 200)
