"""A batch against a real server: every line once, whatever comes in between."""

import json
import shutil
import threading
import time
import tracemalloc
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis as redis_py

from batch_consumer import Consumer
from deploy.machine.server import Server
from gateway.batches.local_file import FileBatch, Progress
from gateway.batches.resume import sidecar
from processes import DEADLINE_S, wait_for
from producer import Client, Settings
from producer.contract import keys
from producer.contract.errors import BatchError, UnknownModel, UnknownTier
from producer.contract.fleet.fleet_schema import Limits, Model, Redis
from producer.contract.fleet.tenants import Tenant

Consume = Callable[..., Consumer]


def settings_for(url: str, **limits: int) -> Settings:
    model = Model(engine="echo", tiers=("interactive", "batch"), limits=Limits(**limits))
    return Settings(redis=Redis(url=url), models={"echo": model, "other": model}, tenants={"*": Tenant(queue_share=1)})


@pytest.fixture
def client(server: Server, redis: redis_py.Redis) -> Iterator[Client]:
    with Client(settings_for(server.url)) as client:
        yield client


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_source(tmp_path / "in.jsonl", 200)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


def write_source(file: Path, lines: int, size: int = 0) -> Path:
    with file.open("w") as output:
        for n in range(1, lines + 1):
            output.write(json.dumps({"custom_id": f"c{n}", "input": f"text {n}" + "x" * size}) + "\n")
    return file


def finish(batch: FileBatch) -> Progress:
    *_, last = batch.run()
    return last


def answers(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.read_text().splitlines()]


def assert_each_once(out: Path, lines: int) -> None:
    assert sorted(answer["line"] for answer in answers(out)) == list(range(1, lines + 1))
    for answer in answers(out):
        assert answer["custom_id"] == f"c{answer['line']}"
        assert answer["output"] == f"text {answer['line']}"
    assert not sidecar(out).exists()


def test_every_line_is_answered_once(client: Client, consume: Consume, source: Path, out: Path) -> None:
    consumer = consume(client.settings)
    assert finish(FileBatch(client, source, out, "echo", in_flight=50)) == Progress(200, 200, 0, 0, 0)
    assert_each_once(out, 200)
    assert sorted(map(int, consumer.ran)) == list(range(1, 201))


def test_no_more_are_in_flight_than_allowed(client: Client, redis: redis_py.Redis, source: Path, out: Path) -> None:
    steps = FileBatch(client, source, out, "echo", in_flight=50).run()
    assert next(steps).inflight == 50
    assert next(steps).inflight == 50
    assert redis.llen("echo.batch") == 50  # the slowest tier, as none was asked for


@pytest.mark.parametrize("what_fills_it", ["lines", "bytes", "its queue"])
def test_a_model_that_is_down_holds_up_no_other(
    server: Server, redis: redis_py.Redis, consume: Consume, tmp_path: Path, out: Path, what_fills_it: str
) -> None:
    size = 150_000 if what_fills_it == "bytes" else 0
    models = ["other"] * 60 + ["echo", "other", "nosuch"] * 10 + ["echo"] * 30
    source = tmp_path / "in.jsonl"
    source.write_text("\n".join(json.dumps({"model": each, "input": each + "x" * size}) for each in models))
    with Client(settings_for(server.url, max_queued=30)) as client:
        if what_fills_it == "its queue":
            client.submit_many(client.job("other", "x", tier="batch", idempotency_key=f"before:{n}") for n in range(30))
        consume(client.settings)
        batch = FileBatch(client, source, out, in_flight=50 if size else 20)
        done = 0
        for progress in batch.run():
            if progress.done >= 50 and not done:
                done = progress.done
                consume(client.settings, "other")
        assert done == 50, "40 of the model that is up, and 10 that are wrong"
    found = sorted(answers(out), key=lambda answer: answer["line"])
    assert [answer.get("output", "nosuch")[: len(each)] for answer, each in zip(found, models, strict=True)] == models
    assert progress == Progress(100 + 20, 120, 10, 0, 0)


def test_a_wrong_line_is_an_error_of_its_own(client: Client, consume: Consume, tmp_path: Path, out: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text(
        '{"input": "good"}\nnonsense\n\n{"custom_id": "e", "input": ""}\n{"input": "x", "extra": 1}\n{"input": 5}\n'
        '{"custom_id": "r", "input": "refuse"}\n{"input": ["two", {"of": "them"}]}\n{"input": "%s"}' % ("x" * 2_000_000)
    )
    consumer = consume(client.settings)
    assert finish(FileBatch(client, source, out, "echo")).errors == 6
    found = {answer["line"]: answer for answer in answers(out)}
    assert sorted(found) == [1, 2, 4, 5, 6, 7, 8, 9]
    assert found[1]["output"] == "good"
    assert found[8]["output"] == ["two", {"of": "them"}]
    assert all(found[line]["error"]["kind"] == "InvalidJob" for line in (2, 4, 5, 6, 7, 9))
    assert (found[4]["custom_id"], found[7]["custom_id"]) == ("e", "r")
    assert "max_input_bytes" in found[9]["error"]["message"]
    assert sorted(consumer.ran) == ["1", "7", "8"]


def test_lines_whose_queue_was_emptied_are_sent_again(
    client: Client,
    consume: Consume,
    redis: redis_py.Redis,
    source: Path,
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gateway.batches.lines.in_flight.AGAIN_S", 0.5)
    consumer = consume(client.settings, limit=20)
    batch, ends_at = FileBatch(client, source, out, "echo", in_flight=50), time.monotonic() + DEADLINE_S
    emptied = 0
    for progress in batch.run():
        if progress.done == 20 and not emptied:
            emptied = redis.llen("echo.batch")
            redis.delete("echo.batch")
            consumer.limit = float("inf")
        if time.monotonic() > ends_at:
            batch.stop()
    assert emptied
    assert progress == Progress(200, 200, 0, 0, 0)
    assert_each_once(out, 200)
    assert sorted(map(int, consumer.ran)) == list(range(1, 201)), "none that was known is sent twice"


def test_the_same_command_goes_on_after_its_queue_was_emptied(
    client: Client, consume: Consume, redis: redis_py.Redis, source: Path, out: Path
) -> None:
    stopped = FileBatch(client, source, out, "echo", in_flight=50)
    for _ in stopped.run():
        stopped.stop()
    assert redis.delete("echo.batch") == 1
    consumer, ends_at = consume(client.settings), time.monotonic() + DEADLINE_S
    resumed = FileBatch(client, source, out, "echo", in_flight=50)
    for _ in resumed.run():
        if time.monotonic() > ends_at:
            resumed.stop()
    assert_each_once(out, 200)
    assert sorted(map(int, consumer.ran)) == list(range(1, 201))


def test_stopped_and_run_again_nothing_runs_twice(client: Client, consume: Consume, source: Path, out: Path) -> None:
    consumer = consume(client.settings, limit=70)
    batch = FileBatch(client, source, out, "echo", in_flight=40)
    for progress in batch.run():
        if progress.done >= 60:
            batch.stop()
    assert 60 <= progress.done <= 70
    assert sidecar(out).exists()
    consumer.limit = float("inf")
    last = finish(FileBatch(client, source, out, "echo", in_flight=40))
    assert (last.done, last.resumed) == (200, progress.done)
    assert_each_once(out, 200)
    assert sorted(map(int, consumer.ran)) == list(range(1, 201))


def test_an_output_that_was_lost_comes_back_from_stored_results(
    client: Client, consume: Consume, source: Path, out: Path
) -> None:
    consumer = consume(client.settings, limit=100)
    batch = FileBatch(client, source, out, "echo")
    for progress in batch.run():
        if progress.done == 100:
            batch.stop()
    out.unlink()
    consumer.limit = float("inf")
    finish(FileBatch(client, source, out, "echo"))
    assert_each_once(out, 200)
    assert len(consumer.ran) == 200


def test_a_complete_output_is_left_alone(client: Client, consume: Consume, source: Path, out: Path) -> None:
    consumer = consume(client.settings)
    finish(FileBatch(client, source, out, "echo"))
    before = out.read_bytes()
    assert finish(FileBatch(client, source, out, "echo")) == Progress(200, 200, 0, 200, 0)
    assert (out.read_bytes(), len(consumer.ran)) == (before, 200)
    finish(FileBatch(client, source, out, "echo", overwrite=True))
    assert len(consumer.ran) == 400
    assert_each_once(out, 200)


def test_an_output_of_something_else_is_refused(client: Client, tmp_path: Path, source: Path, out: Path) -> None:
    out.write_text('{"custom_id": "c1", "line": 1, "output": "text 1"}\n')
    with pytest.raises(BatchError, match=r"not the output of this input.*--overwrite"):
        finish(FileBatch(client, source, out, "echo"))
    assert out.read_text().count("\n") == 1
    out.unlink()
    next(FileBatch(client, source, out, "echo").run())
    with pytest.raises(BatchError, match="model was 'echo', is 'other'"):
        finish(FileBatch(client, source, out, "other"))


def test_what_cannot_be_is_refused_before_a_file_is_made(client: Client, source: Path, out: Path) -> None:
    with pytest.raises(UnknownModel):
        FileBatch(client, source, out, "nope")
    with pytest.raises(UnknownTier):
        FileBatch(client, source, out, "echo", "standard")
    with pytest.raises(BatchError, match="is not a file"):
        FileBatch(client, source.with_name("none"), out, "echo")
    assert not out.exists()


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("link", ["itself", "a symbolic link", "a hard link", "its sidecar"])
def test_the_input_is_never_the_output(client: Client, tmp_path: Path, link: str, overwrite: bool) -> None:
    source = write_source(tmp_path / "in.run", 3)
    out = {"itself": source, "its sidecar": tmp_path / "in"}.get(link, tmp_path / "out")
    if link == "a symbolic link":
        out.symlink_to(source)
    elif link == "a hard link":
        out.hardlink_to(source)
    before = source.read_bytes()
    with pytest.raises(BatchError, match="is the input itself"):
        finish(FileBatch(client, source, out, "echo", overwrite=overwrite))
    assert source.read_bytes() == before


def test_an_output_that_cannot_be_there_is_told_before_it_is_tried(
    client: Client, source: Path, tmp_path: Path
) -> None:
    with pytest.raises(BatchError, match=r"the folder .*such does not exist: make it"):
        FileBatch(client, source, tmp_path / "no" / "such" / "x.jsonl", "echo")
    with pytest.raises(BatchError, match="is a folder"):
        FileBatch(client, source, tmp_path, "echo")


def test_when_nothing_is_answered_what_is_missing_is_told(
    client: Client, consume: Consume, redis: redis_py.Redis, source: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.batches.lines.submit_loop.HINT_S", 1.5)  # longer than a first step on a busy machine
    steps = FileBatch(client, source, out, "echo").run()
    assert next(steps).waiting == ""  # not at once: a fleet may need a moment
    missing = "no worker of echo and no autoscaler leads: start the fleet with 'stoker up'"
    assert next(step.waiting for step in steps if step.waiting) == missing
    redis.set(keys.leader(), "house")
    assert next(step.waiting for step in steps if step.waiting != missing).startswith("no worker of echo yet")
    consume(client.settings)
    *_, last = steps
    assert (last.done, last.waiting) == (200, "")


def test_a_full_queue_is_waited_for(
    server: Server, consume: Consume, redis: redis_py.Redis, source: Path, out: Path
) -> None:
    settings = settings_for(server.url, max_queued=60)
    with Client(settings) as client:
        steps = FileBatch(client, source, out, "echo").run()
        assert next(steps).waiting == "the queue echo.batch is full"
        consumer = consume(settings)
        *_, last = steps
    assert (last.done, last.waiting) == (200, "")
    assert_each_once(out, 200)
    assert len(consumer.ran) == 200


@pytest.mark.parametrize("memory_lost", [False, True])
def test_an_outage_is_ridden_out(
    own_server: Server, consume: Consume, source: Path, out: Path, memory_lost: bool
) -> None:
    settings = settings_for(own_server.url)
    consumer = consume(settings, limit=50)
    with Client(settings) as client:
        steps = FileBatch(client, source, out, "echo", in_flight=100).run()
        while next(steps).done < 50:
            pass
        own_server.kill()
        while "does not answer" not in next(steps).waiting:
            pass
        if memory_lost:
            shutil.rmtree(own_server.data_dir / "appendonlydir")
        own_server.start()
        consumer.limit = 1000
        *_, last = steps
    assert (last.done, last.errors) == (200, 0)
    assert_each_once(out, 200)
    assert sorted(map(int, consumer.ran)) == list(range(1, 201))


@pytest.mark.slow
def test_memory_does_not_grow_with_the_file(client: Client, consume: Consume, tmp_path: Path) -> None:
    consume(client.settings, remember=False)

    def peak(lines: int) -> int:
        source = write_source(tmp_path / f"in-{lines}.jsonl", lines, size=4000)
        tracemalloc.start()
        try:
            finish(FileBatch(client, source, tmp_path / f"out-{lines}.jsonl", "echo", in_flight=32))
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(100)  # what is allocated once and kept
    growth = peak(800) - peak(200)
    assert growth < 600 * 4000 / 4, "a quarter of the lines that came on top"


def test_two_at_once_do_not_share_an_output(client: Client, source: Path, out: Path) -> None:
    first = FileBatch(client, source, out, "echo").run()
    next(first)
    with pytest.raises(BatchError, match="another process writes"):
        finish(FileBatch(client, source, out, "echo"))
    assert isinstance(first, Generator)
    first.close()


def test_stopping_is_noticed_while_nothing_comes(client: Client, source: Path, out: Path) -> None:
    batch = FileBatch(client, source, out, "echo")
    steps = batch.run()
    next(steps)
    stopper = threading.Thread(target=batch.stop)
    stopper.start()
    *_, last = steps
    stopper.join()
    assert (last.done, last.inflight) == (0, 200)
    wait_for(lambda: sidecar(out).exists(), "the sidecar")
