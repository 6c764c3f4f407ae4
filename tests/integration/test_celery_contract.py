"""What we touch of Celery and Kombu without their having promised it: a new version of either fails here first."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from typing import Any

import pytest
import redis as redis_py
from celery import Celery
from celery.concurrency.base import BasePool
from celery.worker import state
from celery.worker.request import Request
from kombu.asynchronous.hub import Hub
from kombu.transport import redis as stock
from kombu.transport import virtual

from deploy.server import Server
from producer import Job, Settings
from producer.envelope import encode
from producer.job import TASK
from scheduler.ledger import Ledger
from scheduler.message import read
from scheduler.queue import Queue
from scheduler.results import LedgerBackend
from scheduler.transport import Channel, Poller, SentinelChannel, Transport
from workers.pool import EnginePool


@pytest.fixture
def app(server: Server) -> Iterator[Celery]:
    with Celery(broker=server.url, backend=server.url, set_as_current=False) as app:
        app.task(name=TASK, acks_late=True)(infer)
        yield app


def infer(**_: object) -> None:
    """Stands for the task; it is not run."""


class Recorder(BasePool):
    """A pool that keeps what Celery gives it."""

    given: dict[str, Any]

    def on_apply(self, target: Any, args: Any, kwargs: Any, **options: Any) -> None:
        self.given = {"target": target, "args": args, "kwargs": kwargs, **options}


def request(app: Celery) -> Request:
    payload = read(encode(Job(model="m", tier="batch", input="x"), "job-id"))
    payload["properties"]["delivery_tag"] = "lease"
    message = virtual.Message(payload, channel=virtual.Channel(_Connection()))
    return Request(message, app=app, task=app.tasks[TASK], on_ack=lambda *_: None)


class _Connection:
    """As much of a Kombu connection as decoding a message takes."""

    _used_channel_ids: list[int] = []  # noqa: RUF012  written once, by the one channel
    channel_max = 65535

    class client:  # noqa: N801  Kombu's own name
        transport_options: dict[str, Any] = {}  # noqa: RUF012  never written


def test_a_pool_is_given_what_ours_takes(app: Celery) -> None:
    pool = Recorder(app=app)
    given = request(app)
    given.execute_using_pool(pool)
    name, job_id, request_dict, body, content_type, encoding = pool.given["args"]
    assert (name, job_id, content_type, encoding) == (TASK, "job-id", "application/json", "utf-8")
    assert request_dict["properties"]["delivery_tag"] == "lease"
    assert request_dict["delivery_info"]["routing_key"] == "m.batch"
    assert request_dict["kwargs"] == {"model": "m", "tier": "batch", "input": "x"}
    assert json.loads(body)[1] == request_dict["kwargs"]
    assert pool.given["accept_callback"].__self__ is given
    assert given.message.headers["submitted_at"] > 0
    assert given.expires is None
    taken = set(inspect.signature(EnginePool.on_apply).parameters) - {"self", "_"}
    assert taken <= set(pool.given)


def test_a_request_announces_that_it_is_revoked_as_we_call_it() -> None:
    assert list(inspect.signature(Request._announce_revoked).parameters) == [
        "self", "reason", "terminated", "signum", "expired",
    ]  # fmt: skip


def test_a_worker_stops_when_the_state_says_so() -> None:
    assert state.should_stop is None
    assert "should_stop" in inspect.getsource(state.maybe_shutdown)


def test_the_loop_has_what_the_pool_uses() -> None:
    for name in ("add_reader", "call_repeatedly", "run_once"):
        assert callable(getattr(Hub, name)), name


def test_the_poller_and_the_channel_have_what_the_transport_overrides_and_calls() -> None:
    for ours, theirs, names in (
        (Poller, stock.MultiChannelPoller, ("on_poll_start", "on_readable", "_register", "_client_registered")),
        (Poller, stock.MultiChannelPoller, ("_register_LISTEN",)),
        (Channel, stock.Channel, ("_basic_cancel", "close")),
        (SentinelChannel, stock.SentinelChannel, ("_sentinel_managed_pool",)),
        (Transport, virtual.Transport, ("_deliver",)),
    ):
        assert issubclass(ours, theirs)
        for name in names:
            assert callable(getattr(theirs, name)), name
    made = inspect.getsource(stock.MultiChannelPoller.__init__) + inspect.getsource(stock.Channel.__init__)
    for attribute in ("_fd_to_chan", "_chan_to_sock", "_channels", "self.handlers"):
        assert attribute in made, attribute


@pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")  # stock Celery's own call
def test_a_result_is_stored_in_the_format_that_stock_celery_reads(app: Celery, redis: redis_py.Redis) -> None:
    ledger = Ledger(Queue(redis, Settings(models={"m": {"engine": "echo"}}), "m"))
    redis.lpush("m.batch", b"job")
    (job,) = ledger.queue.claim(1, "owner")
    ledger.take(job, "job-id")
    app.conf.broker_transport_options = {"ledger": ledger}
    backend = LedgerBackend(app=app, url=app.conf.result_backend)
    context = type("Context", (), {"properties": {"delivery_tag": job.lease}})()
    backend._store_result("job-id", {"output": 1}, "SUCCESS", request=context)
    ledger.done(job.lease)
    ledger.flush()
    ours = json.loads(redis.get("celery-task-meta-job-id"))
    app.backend.store_result("other-id", {"output": 1}, "SUCCESS")
    theirs = json.loads(redis.get("celery-task-meta-other-id"))
    assert set(ours) == set(theirs)
    assert next(iter(ours)) == "status"  # by which finish.lua tells a final result
    assert app.AsyncResult("job-id").get(timeout=5) == {"output": 1}
