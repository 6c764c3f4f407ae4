"""Batches of the Batch API against a real server: every line once, however they end, whoever runs them."""

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
import redis as redis_py
from typer.testing import CliRunner, Result

from batch_consumer import Consumer
from deploy.cli import app
from deploy.machine.server import Server
from gateway.access import api_key_store
from gateway.access.api_key import ApiKey
from gateway.batches.batch_process import Runner
from gateway.batches.batch_run import BatchRun, Stopped
from gateway.batches.storage.lease import Lease, LeaseLost
from gateway.batches.storage.records import BatchRecord, BatchSpec, FileRecord, new_id
from gateway.batches.storage.registry import Registry
from gateway.batches.storage.store import SOURCE, store_of
from gateway.batches.turns import AT_ONCE, OF_TENANT
from gateway.openai.api_error import Problem
from processes import wait_for
from producer import Client
from producer.contract import keys
from producer.contract.fleet.fleet_schema import Gateway, Model, Redis
from producer.contract.fleet.settings import Settings

Consume = Callable[..., Consumer]
CALLER = ApiKey(id="k", tenant="ours")


class Desk:
    """Files and batches as the gateway makes them, and runs of them in this process."""

    def __init__(self, url: str, files: str, **redis: Any) -> None:
        self.settings = Settings(
            redis=Redis(url=url, **redis),
            models={name: Model(engine="echo", tiers=("interactive", "batch")) for name in ("echo", "asleep")},
            gateway=Gateway(files=files),
        )
        self.redis = redis_py.Redis.from_url(url)
        self.registry = Registry(self.redis)
        self.store = store_of(self.settings)

    def upload(self, lines: list[dict[str, Any] | str], tenant: str = "ours") -> str:
        text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines).encode()
        record = FileRecord(
            id=new_id("file-"), tenant=tenant, filename="in", purpose="batch", size=len(text), created_at=0
        )
        with self.store.writing(f"{SOURCE}/{record.id}") as file:
            file.write(text)
        self.registry.add_file(record)
        return record.id

    def create(
        self,
        lines: list[dict[str, Any] | str],
        window_s: int = 3600,
        endpoint: str = "/v1/jobs",
        caller: ApiKey = CALLER,
        model: str = "echo",
    ) -> str:
        now = int(time.time())
        asked = BatchSpec(
            caller=caller,
            endpoint=endpoint,
            input_file_id=self.upload(lines, caller.tenant),
            completion_window=f"{window_s}s",
            created_at=now,
            expires_at=now + window_s,
            model=model,
        )
        return self.registry.add_batch(new_id("batch_"), asked).id

    def claim(self, batch_id: str, lease_s: float = 30.0) -> Lease:
        lease = Lease(self.redis, batch_id, lease_s, "test")
        assert lease.claim()
        return lease

    def run(self, lease: Lease, stop: Event | None = None) -> str:
        with Client(self.settings) as client:
            return BatchRun(self.redis, client, self.store, lease, stop or Event()).run()

    def batch(self, batch_id: str) -> BatchRecord:
        return self.registry.batch("ours", batch_id)

    def lines(self, file_id: str | None) -> list[dict[str, Any]]:
        if file_id is None:
            return []
        with self.store.open(f"{SOURCE}/{self.registry.file('ours', file_id).id}") as file:
            return [json.loads(line) for line in file]

    def answers(self, batch_id: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        record = self.batch(batch_id)
        output, errors = self.lines(record.output_file_id), self.lines(record.error_file_id)
        assert (record.completed, record.failed) == (len(output), len(errors))
        return output, errors


@pytest.fixture
def desk(server: Server, redis: redis_py.Redis, tmp_path: Path) -> Desk:
    return Desk(server.url, str(tmp_path / "files"))


@contextmanager
def interrupted(desk: Desk, batch_id: str) -> Iterator[None]:
    """A process that runs a batch, and is told to end when the block does."""
    stop, ended = Event(), []

    def run(lease: Lease) -> None:
        try:
            desk.run(lease, stop)
        except BaseException as error:
            ended.append(error)

    runner = Thread(target=run, args=(desk.claim(batch_id),))
    runner.start()
    try:
        yield
    finally:
        stop.set()
        runner.join()
    assert [type(error) for error in ended] == [Stopped]


def requests(count: int) -> list[dict[str, Any] | str]:
    return [{"custom_id": f"c{n}", "input": f"text {n}"} for n in range(1, count + 1)]


def assert_each_once(output: list[dict[str, Any]], errors: list[dict[str, Any]], count: int) -> None:
    assert sorted(line["custom_id"] for line in output + errors) == sorted(f"c{n}" for n in range(1, count + 1))
    for line in output:
        assert line["error"] is None
        assert line["response"]["status_code"] == 200
        assert line["response"]["body"]["output"] == f"text {line['custom_id'][1:]}"


def assert_nothing_left(desk: Desk, tmp_path: Path, batch_id: str) -> None:
    assert not desk.redis.exists(keys.batch_parts(batch_id), keys.batch_lease(batch_id), keys.open_batches())
    assert not list((tmp_path / "files" / "parts").iterdir())
    assert not list((tmp_path / "files" / "files").glob("*.new"))


def test_a_batch_ends_with_a_file_of_answers_and_one_of_errors(desk: Desk, consume: Consume, tmp_path: Path) -> None:
    consumer = consume(desk.settings)
    batch_id = desk.create([*requests(200), {"custom_id": "c201", "input": "refuse"}])
    assert desk.run(desk.claim(batch_id)) == "completed"
    output, errors = desk.answers(batch_id)
    assert_each_once(output, errors, 201)
    assert [line["response"]["status_code"] for line in errors] == [400]
    assert errors[0]["response"]["body"]["error"]["message"] == "refused"
    record = desk.batch(batch_id).public()
    assert record["request_counts"] == {"total": 201, "completed": 200, "failed": 1}
    assert None not in (record["in_progress_at"], record["finalizing_at"], record["completed_at"])
    assert sorted(map(int, consumer.ran)) == list(range(1, 202))
    assert_nothing_left(desk, tmp_path, batch_id)
    assert not desk.redis.keys("celery-task-meta-*"), "results that are in the output are deleted"
    assert not desk.redis.keys("stoker:submission:*")


def test_every_mistake_is_told_with_its_line_and_nothing_runs(desk: Desk, consume: Consume) -> None:
    consumer = consume(desk.settings)
    lines: list[dict[str, Any] | str] = [
        {"custom_id": "a", "input": "good"},
        "nonsense",
        "",
        {"custom_id": "a", "input": "again"},
        {"custom_id": "b"},
        {"custom_id": "c", "input": []},
        {"custom_id": "d", "input": "x", "model": "gpt-5"},
        {"custom_id": "e", "method": "POST", "url": "/v1/embeddings", "body": {}},
        '["no", "object"]',
    ]
    batch_id = desk.create(lines)
    assert desk.run(desk.claim(batch_id)) == "failed"
    told = desk.batch(batch_id).public()["errors"]["data"]
    assert [(each["line"], each["code"]) for each in told] == [
        (2, "invalid_json_line"),
        (4, "duplicate_custom_id"),
        (5, "invalid_request"),
        (6, "invalid_job"),
        (7, "model_not_found"),
        (8, "invalid_url"),
        (9, "invalid_json_line"),
    ]
    assert "was given on line 1 already" in told[1]["message"]
    assert not consumer.ran


def test_an_empty_file_is_a_mistake_and_so_is_one_that_is_gone(desk: Desk) -> None:
    empty, gone = desk.create(["", " "]), desk.create(requests(1))
    desk.store.delete(f"{SOURCE}/{desk.batch(gone).asked.input_file_id}")
    for batch_id, code in ((empty, "empty_file"), (gone, "file_not_found")):
        assert desk.run(desk.claim(batch_id)) == "failed"
        assert [mistake.code for mistake in desk.batch(batch_id).mistakes] == [code]


def test_another_process_goes_on_where_one_stopped_and_nothing_runs_twice(
    desk: Desk, consume: Consume, tmp_path: Path
) -> None:
    consumer = consume(desk.settings, limit=70)
    batch_id = desk.create(requests(200))
    with interrupted(desk, batch_id):
        wait_for(lambda: desk.batch(batch_id).completed >= 60, "the first lines to be counted")
    assert not desk.redis.exists(keys.batch_lease(batch_id)), (
        "the lease was given up, so that no successor waits for it"
    )
    consumer.limit = float("inf")
    assert desk.run(desk.claim(batch_id)) == "completed"
    assert_each_once(*desk.answers(batch_id), 200)
    assert sorted(map(int, consumer.ran)) == list(range(1, 201))
    assert_nothing_left(desk, tmp_path, batch_id)


def test_lines_whose_queue_was_emptied_are_sent_again_and_no_other(
    desk: Desk, consume: Consume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.batches.lines.in_flight.AGAIN_S", 0.5)
    consumer = consume(desk.settings, limit=20)
    batch_id = desk.create(requests(100))
    runner = Thread(target=desk.run, args=[desk.claim(batch_id)])
    runner.start()
    try:
        wait_for(lambda: desk.batch(batch_id).completed == 20, "the first lines to be counted")
        assert desk.redis.delete(keys.lane("echo", "batch", "ours")) == 1
        consumer.limit = float("inf")
        wait_for(lambda: desk.batch(batch_id).completed == 100, "the others to be counted")
    finally:
        with suppress(Problem):  # it has ended
            desk.registry.cancel("ours", batch_id)
        runner.join()
    assert_each_once(*desk.answers(batch_id), 100)
    assert sorted(map(int, consumer.ran)) == list(range(1, 101))
    assert_nothing_left(desk, tmp_path, batch_id)


def test_an_input_deleted_halfway_ends_the_batch_and_keeps_what_is_done(desk: Desk, consume: Consume) -> None:
    consume(desk.settings, limit=70)
    batch_id = desk.create(requests(200))
    with interrupted(desk, batch_id):
        wait_for(lambda: desk.batch(batch_id).completed == 70, "the first lines to be counted")
    desk.store.delete(f"{SOURCE}/{desk.batch(batch_id).asked.input_file_id}")
    assert desk.run(desk.claim(batch_id)) == "failed"
    assert [mistake.code for mistake in desk.batch(batch_id).mistakes] == ["file_not_found"]
    assert len(desk.answers(batch_id)[0]) == 70


def test_what_a_killed_writer_left_is_tidied_up_once_it_is_old(desk: Desk, tmp_path: Path) -> None:
    folder = tmp_path / "files" / "files"
    folder.mkdir(parents=True)
    for name, age_s in (("old.1.new", 90_000), ("young.2.new", 60), ("old", 90_000)):
        (folder / name).touch()
        os.utime(folder / name, (time.time() - age_s,) * 2)
    desk.store.tidy()
    assert sorted(file.name for file in folder.iterdir()) == ["old", "young.2.new"]


def test_who_lost_the_lease_cannot_add_a_line(desk: Desk, consume: Consume) -> None:
    consumer = consume(desk.settings, limit=50)
    batch_id = desk.create(requests(200))
    asleep = desk.claim(batch_id)
    lost: list[BaseException] = []

    def run() -> None:
        try:
            desk.run(asleep)
        except LeaseLost as error:
            lost.append(error)

    runner = Thread(target=run)
    runner.start()
    wait_for(lambda: desk.batch(batch_id).completed >= 40, "the first lines to be counted")
    desk.redis.delete(keys.batch_lease(batch_id))  # as if it had slept for too long
    taken = desk.claim(batch_id)
    consumer.limit = float("inf")
    assert desk.run(taken) == "completed"
    runner.join()
    assert lost
    assert_each_once(*desk.answers(batch_id), 200)
    assert sorted(map(int, consumer.ran)) == list(range(1, 201))


def test_parts_that_went_with_the_lease_tell_of_the_lease(
    desk: Desk, consume: Consume, monkeypatch: pytest.MonkeyPatch
) -> None:
    consume(desk.settings)
    asleep = desk.claim(desk.create(requests(20)))

    def gone(name: str) -> None:  # another process ended the batch, and deleted its parts
        desk.redis.delete(keys.batch_lease(asleep.batch_id))
        raise FileNotFoundError(name)

    monkeypatch.setattr(desk.store, "writing", gone)
    with pytest.raises(LeaseLost):
        desk.run(asleep)


def test_cancelled_it_keeps_what_is_done_and_tells_of_the_rest(desk: Desk, consume: Consume, tmp_path: Path) -> None:
    consumer = consume(desk.settings, limit=80)
    batch_id = desk.create(requests(1000))
    runner = Thread(target=desk.run, args=[desk.claim(batch_id)])
    runner.start()
    wait_for(lambda: desk.batch(batch_id).completed == 80, "the first lines to be counted")
    assert desk.registry.cancel("ours", batch_id).public()["status"] == "cancelling"
    runner.join()
    assert desk.batch(batch_id).status == "cancelled"
    output, errors = desk.answers(batch_id)
    assert_each_once(output, errors, 1000)
    assert len(output) == 80
    assert {line["error"]["code"] for line in errors} == {"batch_cancelled"}
    assert len(consumer.ran) == 80
    assert_nothing_left(desk, tmp_path, batch_id)


def test_expired_it_delivers_what_is_done_and_tells_of_the_rest(desk: Desk, consume: Consume) -> None:
    consume(desk.settings, limit=80)
    batch_id = desk.create(requests(600), window_s=4)
    assert desk.run(desk.claim(batch_id)) == "expired"
    output, errors = desk.answers(batch_id)
    assert_each_once(output, errors, 600)
    assert len(output) == 80
    assert {line["error"]["code"] for line in errors} == {"batch_expired"}


def test_an_estimate_while_it_runs(desk: Desk, consume: Consume) -> None:
    consume(desk.settings, limit=150)
    batch_id = desk.create(requests(300))

    def estimated() -> BatchRecord | None:
        record = desk.batch(batch_id)
        return record if record.completed and record.finish_at else None

    with interrupted(desk, batch_id):
        record = wait_for(estimated, "an estimate")
    assert record.public()["estimated_finish_at"] >= int(record.told_at)


def test_files_may_be_anywhere_that_fsspec_knows(server: Server, redis: redis_py.Redis, consume: Consume) -> None:
    desk = Desk(server.url, "memory://batches")
    consume(desk.settings)
    batch_id = desk.create(requests(100))
    assert desk.run(desk.claim(batch_id)) == "completed"
    assert_each_once(*desk.answers(batch_id), 100)


def test_a_batch_for_a_model_that_was_added_since_the_start_runs(desk: Desk, consume: Consume) -> None:
    consume(desk.settings)
    now, asked = [desk.settings.model_copy(update={"models": {}})], Event()

    def reread() -> Settings:
        found = now[-1]
        if found is desk.settings:
            asked.set()
        return found

    process = Runner(now[0], reread)
    thread = Thread(target=process.run)
    thread.start()
    now.append(desk.settings)
    assert asked.wait(30)
    batch_id = desk.create(requests(5))
    wait_for(lambda: desk.batch(batch_id).status in ("completed", "failed"), "the batch")
    process.stop()
    thread.join()
    assert desk.batch(batch_id).status == "completed"


def test_the_process_takes_on_what_there_is_and_stops_when_told(desk: Desk, consume: Consume) -> None:
    consume(desk.settings)
    batches = [desk.create(requests(50)) for _ in range(3)]
    process = Runner(desk.settings)
    thread = Thread(target=process.run)
    thread.start()
    wait_for(lambda: {desk.batch(each).status for each in batches} == {"completed"}, "the batches")
    process.stop()
    thread.join()
    for each in batches:
        assert_each_once(*desk.answers(each), 50)


@contextmanager
def processing(desk: Desk) -> Iterator[None]:
    """A batch process, in this one."""
    process = Runner(desk.settings)
    thread = Thread(target=process.run)
    thread.start()
    try:
        yield
    finally:
        process.stop()
        thread.join()


def test_a_tenant_whose_batches_get_nowhere_holds_up_neither_others_nor_itself(
    desk: Desk, consume: Consume, monkeypatch: pytest.MonkeyPatch
) -> None:
    consume(desk.settings)
    alice, bob = ApiKey(id="a", tenant="alice"), ApiKey(id="b", tenant="bob")

    def ended(batch_id: str) -> bool:
        return desk.redis.hget(keys.batch(batch_id), "status") == b"completed"

    def begun(batch_id: str) -> bool:
        return desk.redis.hget(keys.batch(batch_id), "status") == b"in_progress"

    with processing(desk):
        stuck = [desk.create(requests(3), caller=alice, model="asleep") for _ in range(2 * AT_ONCE)]
        wait_for(lambda: sum(map(begun, stuck)) == OF_TENANT, "all that may run of them")
        others = [desk.create(requests(5), caller=bob) for _ in range(AT_ONCE)]
        wait_for(lambda: all(map(ended, others)), "another tenant's batches")
        monkeypatch.setattr("gateway.batches.turns.IDLE_S", 0.3)
        own = desk.create(requests(5), caller=alice)
        wait_for(lambda: ended(own), "its own batch for a model that is up")
    assert desk.redis.zrange(keys.open_tenants(), 0, -1) == [b"alice"]


def test_a_batch_whose_key_is_revoked_starts_no_more_lines(
    desk: Desk, consume: Consume, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.batches.batch_run.LOOK_S", 0.1)
    monkeypatch.setattr("gateway.batches.storage.parts.EVERY_S", 0.1)
    consume(desk.settings, limit=10)
    secret, key = ApiKey.new("ours")
    api_key_store.add(desk.redis, secret, key)
    batch_id = desk.create(requests(600), caller=key)
    with processing(desk):
        wait_for(lambda: desk.batch(batch_id).completed == 10, "its first lines")
        api_key_store.revoke(desk.redis, key.id)
        wait_for(lambda: desk.batch(batch_id).status == "cancelled", "its end")
    output, errors = desk.answers(batch_id)
    assert_each_once(output, errors, 600)
    assert len(output) == 10
    assert [mistake.code for mistake in desk.batch(batch_id).mistakes] == ["api_key_revoked"]


def test_an_operator_lists_and_cancels_batches_of_any_tenant(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fleet = tmp_path / "fleet.toml"
    fleet.write_text(f'redis.url = "{desk.settings.redis_url}"\n[models.echo]\nengine = "echo"\n')
    monkeypatch.setenv("STOKER_FLEET", str(fleet))
    batch_id = desk.create(requests(3))

    def stoker(*arguments: str) -> Result:
        return CliRunner().invoke(app, ["batches", *arguments])

    listed = stoker("list").stdout.splitlines()[-1].split()
    assert listed == [batch_id, "ours", "k", "validating", "0", "0"]
    assert stoker("list", "--tenant", "theirs").stdout == "no batch is open\n"
    assert stoker("cancel", batch_id).stdout == f"{batch_id}, of tenant ours, is cancelling\n"
    assert desk.run(desk.claim(batch_id)) == "cancelled"
    assert "cannot be cancelled any more" in str(stoker("cancel", batch_id).exception)
    assert "'stoker batches list' shows" in str(stoker("cancel", "batch_none").exception)
