"""What we touch of Celery and Kombu without their having promised it: a new version of either fails here first."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any
from weakref import WeakSet

import pytest
import redis as redis_py
from celery import Celery
from celery.exceptions import TaskRevokedError
from celery.worker import state
from celery.worker.request import Request
from kombu.asynchronous.hub import Hub
from kombu.transport import redis as stock
from kombu.transport import virtual

from deploy.machine.server import Server
from producer import InvalidJob, Job
from producer.contract.errors import WIRE_MODULE
from producer.contract.message.celery_message import encode
from producer.contract.message.job import TASK
from redis_replies import text
from scheduler import results
from scheduler.channel import Channel, SentinelChannel
from scheduler.message import read
from scheduler.poller import Poller
from scheduler.transport import Transport
from workers.monitor import Monitor
from workers.running import Running


@pytest.fixture
def app(server: Server) -> Iterator[Celery]:
    with Celery(broker=server.url, backend=server.url, set_as_current=False) as app:
        yield app


def running() -> Running:
    message = read(encode(Job(model="m", tier="batch", input="a secret"), "job-id"))
    return Running("lease", "m.batch", message, None, lambda _: None)


def test_what_runs_is_seen_by_remote_control_as_a_request_of_its_own_is() -> None:
    ours = running()
    theirs = Request(_message("other-id"), app=Celery(set_as_current=False), task=_Task, on_ack=lambda *_: None)
    assert set(ours.info()) == set(theirs.info())
    assert ours.info()["kwargs"] == theirs.info(safe=True)["kwargs"]
    assert "secret" not in str(ours.info())
    assert list(inspect.signature(Request.terminate).parameters) == ["self", "pool", "signal"]
    assert ours in {ours}  # Celery keeps them in sets, by weak references
    WeakSet([ours])
    ours.eventer = object()


class _Task:
    """As much of a task as a request takes."""

    name = TASK
    typing = False


def _message(job_id: str) -> virtual.Message:
    payload = json.loads(encode(Job(model="m", tier="batch", input="a secret"), job_id))
    payload["properties"]["delivery_tag"] = "tag"
    return virtual.Message(payload, channel=virtual.Channel(_Connection()))


class _Connection:
    """As much of a Kombu connection as decoding a message takes."""

    _used_channel_ids: list[int] = []  # noqa: RUF012  written once, by the one channel
    channel_max = 65535

    class client:  # noqa: N801  Kombu's own name
        transport_options: dict[str, Any] = {}  # noqa: RUF012  never written


def test_the_state_has_what_the_monitor_keeps_up_to_date() -> None:
    assert state.all_total_count == [0]
    for ours, theirs in ((dict, state.requests), (Counter, state.total_count), (WeakSet, state.active_requests)):
        assert type(theirs) is ours
    assert "x" not in state.revoked


def test_events_are_kept_until_they_are_flushed_and_then_go_in_one_message(app: Celery) -> None:
    heard: list[Any] = []
    with app.connection_for_read() as connection, app.connection_for_write() as writing:
        receiver = app.events.Receiver(connection, handlers={"*": heard.append})
        dispatcher = app.events.Dispatcher(writing, hostname="w@h", buffer_group=["task"], on_send_buffered=None)
        consumer = type("Consumer", (), {"event_dispatcher": dispatcher})
        monitor = Monitor(type("App", (), {"worker": type("Worker", (), {"consumer": consumer})}))
        with receiver.consumer_context() as (listening, _, _):
            job = running()
            for _ in range(30):  # more than Celery itself would keep
                monitor.taken(job)
            monitor.left(job)
            with contextlib.suppress(TimeoutError):
                listening.drain_events(timeout=0.5)  # which also subscribes
            assert heard == []
            monitor.flush()
            listening.drain_events(timeout=10)
    assert [event["type"] for event in heard] == ["task-received", "task-started"] * 30
    assert heard[0]["uuid"] == "job-id"
    assert not state.requests
    state.reset_state()


def test_a_worker_stops_when_the_state_says_so() -> None:
    assert state.should_stop is None
    assert "should_stop" in inspect.getsource(state.maybe_shutdown)


def test_the_loop_has_what_the_pool_uses() -> None:
    for name in ("add_reader", "call_repeatedly", "call_later", "run_once"):
        assert callable(getattr(Hub, name)), name


def test_the_poller_and_the_channel_have_what_the_transport_overrides_and_calls() -> None:
    for ours, theirs, names in (
        (Poller, stock.MultiChannelPoller, ("on_poll_start", "on_readable", "_register", "_client_registered")),
        (Poller, stock.MultiChannelPoller, ("_register_LISTEN",)),
        (Channel, stock.Channel, ("_basic_cancel", "_handle_message", "_receive_one", "close")),
        (SentinelChannel, stock.SentinelChannel, ("_sentinel_managed_pool",)),
        (Transport, stock.Transport, ("register_with_event_loop",)),
    ):
        assert issubclass(ours, theirs)
        for name in names:
            assert callable(getattr(theirs, name)), name
    made = inspect.getsource(stock.MultiChannelPoller.__init__) + inspect.getsource(stock.Channel.__init__)
    for attribute in ("_fd_to_chan", "_chan_to_sock", "_channels", "self.handlers"):
        assert attribute in made, attribute


@pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")  # stock Celery's own call
@pytest.mark.parametrize(
    ("ours", "value", "status"),
    [
        (results.succeeded("id", {"output": [0.1, "x"]}), {"output": [0.1, "x"]}, "SUCCESS"),
        (results.failed("id", InvalidJob("as asked")), InvalidJob("as asked"), "FAILURE"),
        (results.revoked("id", "expired"), TaskRevokedError("expired"), "REVOKED"),
    ],
)
def test_a_result_is_written_in_the_format_of_stock_celery(
    app: Celery, redis: redis_py.Redis, ours: bytes, value: Any, status: str
) -> None:
    app.backend.store_result("id", value, status)
    theirs = json.loads(text(redis.get("celery-task-meta-id")))
    if status == "FAILURE":  # stock Celery writes where the class lies; ours has a name that stays
        theirs["result"]["exc_module"] = "producer.errors"
    # With a request at hand, as in a worker, stock Celery writes the empty list of its children.
    assert {**json.loads(ours), "date_done": None} == {**theirs, "date_done": None, "children": []}
    assert ours.startswith(f'{{"status":"{status}"'.encode())  # by which Lua tells a final result


def test_an_error_of_ours_is_found_under_its_name_on_the_wire(app: Celery, redis: redis_py.Redis) -> None:
    assert importlib.import_module(WIRE_MODULE).InvalidJob is InvalidJob
    redis.set("celery-task-meta-id", results.failed("id", InvalidJob("as asked")))
    with pytest.raises(InvalidJob, match="as asked"):
        app.AsyncResult("id").get(timeout=5)


def test_a_result_of_ours_is_read_by_stock_celery(app: Celery, redis: redis_py.Redis) -> None:
    redis.set("celery-task-meta-id", results.succeeded("id", {"output": 1}))
    assert app.AsyncResult("id").get(timeout=5) == {"output": 1}
