"""Hostile messages, on a queue and to the mailbox of remote control: only JSON is read, and nothing in it is run."""

from __future__ import annotations

import base64
import json
import os
import pickle
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis as redis_py
from celery import Celery, chain

from deploy.machine.server import Server
from processes import DEADLINE_S, Fleet, wait_for
from producer import Job
from producer.contract import keys
from producer.contract.heartbeat import WorkerState
from producer.contract.message.celery_message import encode
from producer.contract.message.job import TASK
from redis_replies import entries

TABLES = """
[models.echo]
engine = "echo"

[models.sleepy]
engine = "echo"
options = { delay_s = 30.0 }
limits = { time_limit_s = 1.0 }
"""
QUEUE = keys.queue("echo", "batch")
ELSEWHERE = "backend"
"""A queue of another application on the same Redis."""


@pytest.fixture
def fleet(redis: redis_py.Redis, server: Server, make_fleet: Callable[[str, str], Fleet]) -> Fleet:
    made = make_fleet(server.url, TABLES)
    made.worker("echo", "w")
    return made


class Touch:
    """Unpickled, it leaves a file behind."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.file),))


def message(body: bytes, content_type: str, encoding: str = "binary", **headers: Any) -> bytes:
    """A well-formed Celery message around any body."""
    made = json.loads(encode(Job(model="echo", tier="batch", input="x"), str(uuid.uuid4())))
    made["headers"].update(headers)
    made |= {"body": base64.b64encode(body).decode(), "content-type": content_type, "content-encoding": encoding}
    return json.dumps(made).encode()


def reasons(fleet: Fleet) -> list[str]:
    return [letter[b"reason"].decode() for _, letter in entries(fleet.redis, keys.dead("echo"))]


def last_reason_has(fleet: Fleet, why: str) -> bool:
    return why in (reasons(fleet) or [""])[-1]


def still_serves(fleet: Fleet) -> bool:
    assert fleet.processes[0].poll() is None
    job = fleet.client.submit("echo", "good", tier="batch")
    return bool(fleet.client.result(job, timeout=DEADLINE_S).output == "good")


def test_no_pickle_yaml_or_old_protocol_is_read(fleet: Fleet, tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    pickled = pickle.dumps([[], {"input": Touch(touched)}, {}])
    yaml = f"!!python/object/apply:os.mkdir ['{touched}']".encode()
    protocol_1 = {"task": TASK, "id": "one", "args": [], "kwargs": {"input": "x"}, "callbacks": [{"task": "x"}]}
    old = json.loads(message(json.dumps(protocol_1).encode(), "application/json", "utf-8"))
    old["headers"] = {}
    hostile = {
        message(pickled, "application/x-python-serialize"): "only application/json",
        message(pickled, "application/json", "utf-8"): "the body is not JSON",
        message(pickled, "application/json"): "content-encoding is 'binary'",
        message(yaml, "application/x-yaml", "utf-8"): "only application/json",
        message(yaml, "application/json", "utf-8"): "the body is not JSON",
        json.dumps(old).encode(): "task protocol 1",
        pickled: "the message is not JSON",
    }
    for each, why in hostile.items():
        fleet.redis.lpush(QUEUE, each)
        wait_for(partial(last_reason_has, fleet, why), why)
    assert len(reasons(fleet)) == len(hostile)
    assert still_serves(fleet)
    assert not touched.exists()
    pickle.loads(pickled)  # noqa: S301  our own: the payload would have worked
    assert touched.exists()


def test_a_message_cannot_make_a_worker_send_tasks(fleet: Fleet, server: Server) -> None:
    with Celery(broker=server.url, set_as_current=False) as app:
        evil = app.signature("evil", queue=ELSEWHERE)
        infer = app.signature(TASK, kwargs={"input": "x"}, queue=QUEUE)
        bad = app.signature(TASK, kwargs={"input": 7}, queue=QUEUE)
        infer.apply_async(link=evil)
        wait_for(lambda: len(reasons(fleet)) == 1, "link to be refused")
        bad.apply_async(link_error=evil)
        wait_for(lambda: len(reasons(fleet)) == 2, "link_error to be refused")
        chain(infer, evil, app=app).apply_async()
        wait_for(lambda: len(reasons(fleet)) == 3, "chain to be refused")
        embed = {"chord": dict(evil)}
        fleet.redis.lpush(QUEUE, message(json.dumps([[], {"input": "x"}, embed]).encode(), "application/json", "utf-8"))
        wait_for(lambda: len(reasons(fleet)) == 4, "chord to be refused")
        in_headers = message(b"[[], {}, null]", "application/json", "utf-8", chain=[dict(evil)], callbacks=[dict(evil)])
        fleet.redis.lpush(QUEUE, in_headers)
        wait_for(lambda: len(reasons(fleet)) == 5, "the same in headers to be refused")
    names = ["callbacks", "errbacks", "chain", "chord", "callbacks, chain"]
    assert [reason.partition("(")[2].partition(")")[0] for reason in reasons(fleet)] == names
    assert still_serves(fleet)
    assert not fleet.redis.exists(ELSEWHERE)


def test_a_message_cannot_hold_the_device_for_longer_than_the_model_allows(fleet: Fleet, server: Server) -> None:
    fleet.worker("sleepy", "s")
    with Celery(broker=server.url, backend=server.url, set_as_current=False) as app:
        for asked in (10_000, None):
            answer = app.send_task(TASK, kwargs={"input": "x"}, queue="sleepy.batch", time_limit=asked)
            with pytest.raises(Exception, match="TimeLimitExceeded"):
                answer.get(timeout=DEADLINE_S)


@pytest.fixture
def stock(server: Server) -> Celery:
    return Celery("backend", broker=server.url, backend=server.url, set_as_current=False)


def await_listening(app: Celery) -> None:
    """Wait until the worker answers: what is published before it has subscribed is lost."""
    wait_for(lambda: app.control.inspect(timeout=1).ping(), "a pong")


@pytest.mark.slow
def test_remote_control_commands_that_could_do_harm_are_refused(fleet: Fleet, stock: Celery) -> None:
    harmful: dict[str, dict[str, Any]] = {
        "shutdown": {},
        "pool_restart": {"modules": ["os"], "reload": True},
        "pool_grow": {"n": 100},
        "pool_shrink": {"n": 100},
        "autoscale": {"max": 100, "min": 100},
        "add_consumer": {"queue": ELSEWHERE},
        "cancel_consumer": {"queue": QUEUE},
        "rate_limit": {"task_name": TASK, "rate_limit": "1/h"},
        "time_limit": {"task_name": TASK, "hard": 1e9},
        "disable_events": {},
        "revoke_by_stamped_headers": {"headers": {"a": "b"}},
        "election": {"id": "x", "topic": "task", "action": {"task": "evil"}},
        "memdump": {},
        "objgraph": {},
    }
    with stock as app:
        await_listening(app)
        for command, arguments in harmful.items():
            replies = app.control.broadcast(command, arguments=arguments, reply=True, limit=1, timeout=DEADLINE_S)
            (answer,) = [answer for reply in replies for answer in reply.values()]
            assert answer == {"error": f"KeyError('{command}')"}, command
        fleet.redis.lpush(ELSEWHERE, "precious")
        assert still_serves(fleet)
        assert fleet.redis.llen(ELSEWHERE) == 1
        inspect = app.control.inspect(timeout=1)
        for looking in ("ping", "stats", "active", "reserved", "registered", "active_queues", "conf", "report"):
            told = wait_for(getattr(inspect, looking), looking)
            (answer,) = told.values()
            assert "error" not in answer, (looking, answer)
    assert fleet.beat("w", WorkerState.READY)


def test_the_mailbox_reads_only_json(fleet: Fleet, stock: Celery, tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    with stock as app, app.connection_for_write() as connection, connection.channel() as channel:
        await_listening(app)
        mailbox = app.control.mailbox(connection)
        producer = mailbox._get_exchange("celery", "fanout")(channel)
        producer.declare()
        for body, kind in (
            (pickle.dumps({"method": Touch(touched)}), "application/x-python-serialize"),
            (f"!!python/object/apply:os.mkdir ['{touched}']".encode(), "application/x-yaml"),
            (b"[" * 100_000, "application/json"),
            (b'{"method": 7, "arguments": 7}', "application/json"),
        ):
            made = producer.Message(body, content_type=kind, content_encoding="binary" if b"!" not in body else "utf-8")
            producer.publish(made, routing_key="")
        wait_for(lambda: "a message of remote control was dropped" in fleet.log("w").read_text(), "the loss in the log")
        await_listening(app)
    assert still_serves(fleet)
    assert not touched.exists()


def test_whatever_is_published_to_the_mailbox_ends_no_worker(fleet: Fleet, stock: Celery) -> None:
    body = json.dumps({"body": "x", "properties": {"body_encoding": "nope", "delivery_tag": "1", "delivery_info": {}}})
    decimal = json.dumps({**json.loads(command()), "more": {"__type__": "decimal", "__value__": "none"}})
    documents = (decimal, "null", "[]", '"x"', "7", "{}", "garbage", b"\xff\xfe", body, '{"body": 7, "properties": 7}')
    with stock as app:
        await_listening(app)
        for document in documents:
            publish = partial(fleet.redis.publish, "/0.celery.pidbox", document)
            wait_for(publish, "the worker to listen")
        wait_for(lambda: "a message of remote control was dropped" in fleet.log("w").read_text(), "the loss in the log")
        await_listening(app)
    assert still_serves(fleet)


def command(**fields: object) -> str:
    """A command of remote control as Celery would publish it."""
    return as_command({"method": "ping", **fields})


def as_command(body: object) -> str:
    properties = {"body_encoding": "base64", "delivery_tag": "1", "delivery_info": {"exchange": "celery.pidbox"}}
    text = base64.b64encode(json.dumps(body).encode()).decode()
    about = {"content-type": "application/json", "content-encoding": "utf-8", "headers": {}}
    return json.dumps({"body": text, "properties": properties, **about})


def test_rubbish_in_the_mailbox_is_logged_in_plain_lines_below_its_rate_and_costs_no_connection(
    fleet: Fleet, stock: Celery
) -> None:
    rubbish: list[str | bytes] = [
        "garbage", b"\xff", "7", "{}", "null", "[" * 100_000, json.dumps({"body": 7, "properties": 7}),
        *map(as_command, (7, "x", [], {})),
        command(method=7), command(method="shutdown"), command(method="nope" * 1000), command(method=["ping"]),
        command(method="revoke"), command(method="revoke", arguments={"task_id": {}}), command(self=7),
        command(arguments=7), command(arguments={"a": 1}), command(reply_to=7), command(reply_to={"exchange": {}}),
        command(destination=7), command(pattern="*", matcher="regex"), command(pattern="(a+)+$", matcher="pcre"),
        command(method="query_task", arguments={"ids": 7}), command(ticket={}, reply_to={"exchange": "x"}),
        command().replace('"headers": {}', '"headers": {"clock": "x"}'),
        command().replace('"headers": {}', '"headers": {"compression": "application/x-gzip"}'),
    ]  # fmt: skip
    with stock as app:
        await_listening(app)
        for document in rubbish:
            assert fleet.redis.publish("/0.celery.pidbox", document) == 1
        await_listening(app)
    log = fleet.log("w").read_text()
    assert "Traceback" not in log
    assert log.count("a message of remote control was dropped") == 1
    assert log.count("Connected to") == 1
    assert still_serves(fleet)
