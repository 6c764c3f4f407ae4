"""The fake fleet of ``producer.testing`` behaves as a real one: one scenario on both, and no call reaches Redis."""

from __future__ import annotations

import asyncio
import inspect
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis as redis_py

from deploy.machine.server import Server
from documented import examples
from processes import Fleet
from producer import (
    AsyncClient,
    BrokerUnavailable,
    Client,
    InvalidJob,
    JobCancelled,
    JobFailed,
    QueueFull,
    Result,
    ResultTimeout,
    StokerError,
    UnknownTier,
)
from producer.testing import FakeFleet

TABLES = """
[models.echo]
engine = "echo"
limits = { max_inputs = 3, max_queued = 5 }
[tenants."*"]
queue_share = 1
"""


def told(call: Callable[[], Any]) -> Any:
    """What a caller sees: a value, or an error's type and text."""
    try:
        found = call()
    except StokerError as error:
        return type(error).__name__, str(error)
    return (found.output, found.id) if isinstance(found, Result) else found


def output(found: Result | StokerError) -> object:
    assert isinstance(found, Result), found
    return found.output


def scenario(client: Client) -> list[Any]:
    """One conversation with a fleet that serves ``echo``; ids are fixed by idempotency keys."""
    one = client.submit("echo", "text", idempotency_key="one")
    many = [client.job("echo", [f"{n}", "x"], tier="batch", idempotency_key=f"many-{n}") for n in range(3)]
    return [
        one,
        told(lambda: client.result(one, 60)),
        told(lambda: client.status(one)),
        told(lambda: client.cancel(one)),
        client.submit("echo", "other text", idempotency_key="one") == one,
        told(lambda: client.result(one, 60)),
        sorted((job_id, output(found)) for job_id, found in client.results(client.submit_many(many), 60)),
        told(lambda: list(client.stream(one, timeout=60))),
        told(lambda: client.submit("nosuch", "text")),
        told(lambda: client.submit("echo", "")),
        told(lambda: client.submit("echo", "text", tier="nosuch")),
        told(lambda: client.submit("echo", ["text"] * 4)),
        told(lambda: client.submit("echo", "text", admission="perhaps")),  # type: ignore[arg-type]  # that is the test
        told(lambda: client.result(client.submit("echo", "x", deadline=-1.0, idempotency_key="late"), 60)),
        told(lambda: client.waiting(one).status),
        told(lambda: client.obstacle("echo")),
        told(lambda: client.cancel_many([one])),
        told(lambda: client.status(one)),
        told(lambda: client.forget([one])),
    ]


class Awaited:
    """An :class:`AsyncClient`. Its calls are awaited at once, so that a scenario for a :class:`Client` runs on it."""

    def __init__(self, runner: asyncio.Runner, client: AsyncClient) -> None:
        self._runner, self._client = runner, client

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            found = getattr(self._client, name)(*arguments, **named)
            if inspect.isasyncgen(found):
                return self._runner.run(_all(found))
            return self._runner.run(found) if inspect.iscoroutine(found) else found

        return call


@contextmanager
def awaited(make: Callable[[], AsyncClient]) -> Iterator[Any]:
    with asyncio.Runner() as runner:
        made = runner.run(_made(make))
        try:
            yield Awaited(runner, made)
        finally:
            runner.run(made.aclose())


async def _made(make: Callable[[], AsyncClient]) -> AsyncClient:
    return make()


async def _all(found: AsyncIterator[Any]) -> list[Any]:
    return [each async for each in found]


def test_the_same_conversation_on_the_fake_and_on_a_real_fleet(
    make_fleet: Callable[[str, str], Fleet], server: Server, redis: object
) -> None:
    real = make_fleet(server.url, TABLES)
    real.worker("echo", "w")
    fake = FakeFleet({"echo": lambda item: item}, real.settings)
    with fake.client() as client:
        told = scenario(client)
    assert told == scenario(real.client)
    with awaited(fake.async_client) as client:
        assert told == scenario(client)
    with awaited(lambda: AsyncClient(real.settings)) as client:
        assert told == scenario(client)


def queued(client: Client) -> list[Any]:
    """What is told of jobs that no worker takes; ids are fixed by idempotency keys."""
    jobs = client.submit_many([client.job("echo", f"{n}", tier="batch", idempotency_key=f"{n}") for n in range(3)])
    located = [client.waiting(job) for job in jobs]
    named = client.waiting(jobs[1], "echo", "batch")
    return [
        [(each.status, each.model, each.tier, each.ahead, each.exact) for each in [*located, named]],
        told(lambda: client.cancel_many(jobs[:2])),
        sorted((job_id, type(found).__name__) for job_id, found in client.results(jobs[:2], 60)),
        [client.status(job) for job in jobs],
        told(lambda: client.cancel_many([])),
        told(lambda: client.forget([])),
        told(lambda: client.forget(jobs[:1])),
        client.status(jobs[0]),
        told(lambda: client.cancel(jobs[2])),
        told(lambda: client.forget(jobs)),
    ]


def test_either_client_locates_cancels_and_forgets_queued_jobs(
    make_fleet: Callable[[str, str], Fleet], server: Server, redis: redis_py.Redis
) -> None:
    real = make_fleet(server.url, TABLES)
    found = queued(real.client)
    assert [each[3] for each in found[0]] == [0, 1, 2, 1]
    assert [kind for _, kind in found[2]] == ["JobCancelled"] * 2
    assert "no worker of echo and no autoscaler leads" in real.client.obstacle("echo")
    redis.flushdb()
    with awaited(lambda: AsyncClient(real.settings)) as client:
        assert queued(client) == found
        assert client.obstacle("echo") == real.client.obstacle("echo")
        with pytest.raises(UnknownTier, match="has no tier 'nosuch'"):
            client.waiting("unknown", "echo", "nosuch")
        job = client.submit("echo", "estimated")
        ours, theirs = client.waiting(job).estimate, real.client.waiting(job).estimate
        assert ours is not None
        assert theirs is not None
        assert ours.why == theirs.why


def test_the_awaited_calls_tell_an_outage(make_fleet: Callable[[str, str], Fleet], own_server: Server) -> None:
    real = make_fleet(own_server.url, TABLES)
    calls: list[tuple[str, tuple[Any, ...]]] = [
        ("waiting", ("x",)), ("obstacle", ("echo",)), ("cancel_many", (["x"],)), ("forget", (["x"],)),
    ]  # fmt: skip
    own_server.stop()
    with awaited(lambda: AsyncClient(real.settings)) as client:
        for name, arguments in calls:
            with pytest.raises(BrokerUnavailable):
                getattr(client, name)(*arguments)


def test_held_jobs_are_queued_and_can_be_cancelled() -> None:
    fleet = FakeFleet({"echo": lambda item: str(item).upper()})
    with fleet.client() as client:
        with fleet.held():
            first, second = client.submit("echo", "a"), client.submit("echo", "b")
            assert (client.status(second), client.waiting(second).ahead) == ("queued", 1)
            assert client.cancel(first)
            assert [job_id for job_id, _ in client.results([first, second], timeout=0.0)] == [first]
            with pytest.raises(ResultTimeout):
                client.result(second, timeout=0.0)
        with pytest.raises(JobCancelled):
            client.result(first)
        assert client.result(second).output == "B"


def test_a_full_queue_an_outage_and_a_failing_model_are_what_an_application_would_see() -> None:
    def fail(item: object) -> object:
        raise OSError("the disk is gone")

    fleet = FakeFleet({"echo": fail})
    limits = fleet.settings.models["echo"].limits.model_copy(update={"max_queued": 1})
    fleet.settings.models["echo"] = fleet.settings.models["echo"].model_copy(update={"limits": limits})
    with fleet.client() as client:
        with pytest.raises(JobFailed, match="OSError: the disk is gone"):
            client.result(client.submit("echo", "a"))
        with fleet.held(), pytest.raises(QueueFull, match="holds 1 jobs"):
            [client.submit("echo", "a") for _ in range(2)]
        with fleet.outage(), pytest.raises(BrokerUnavailable):
            client.submit("echo", "a")


def test_an_answer_may_refuse_its_input() -> None:
    def refuse(item: object) -> object:
        raise InvalidJob("no such language")

    fleet = FakeFleet({"echo": refuse})
    with fleet.client() as client, pytest.raises(InvalidJob, match="no such language"):
        client.result(client.submit("echo", "a"))


def test_awaited() -> None:
    async def ask(client: AsyncClient) -> tuple[Any, str]:
        async with client:
            job = await client.submit("echo", "a", stream=True)
            text = "".join([piece.text async for piece in client.stream(job)])
            return (await client.result(job)).output, text

    fleet = FakeFleet({"echo": lambda item: {"text": str(item).upper()}})
    assert asyncio.run(ask(fleet.async_client())) == ({"text": "A"}, "A")
    assert [each.job.stream for each in fleet.jobs.values()] == [True]


@pytest.mark.slow
def test_the_documented_examples_run(tmp_path: Path) -> None:
    for number, example in enumerate(examples("testing.md", "python")):
        (tmp_path / f"test_example_{number}.py").write_text(example.replace("stoker_client", "producer"))
    environment = {name: value for name, value in os.environ.items() if name != "STOKER_FLEET"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "3 passed" in done.stdout


CALLS: dict[str, tuple[Any, ...]] = {
    "submit": ("echo", "a"),
    "submit_many": ([],),
    "job": ("echo", "a"),
    "result": ("JOB",),
    "results": (["JOB"],),
    "stream": ("JOB",),
    "follow": ("JOB",),
    "status": ("JOB",),
    "waiting": ("JOB",),
    "obstacle": ("echo",),
    "cancel": ("JOB",),
    "cancel_many": (["JOB"],),
    "forget": (["JOB"],),
    "close": (),
    "aclose": (),
}
NOT_FAKED = {"admit"}
"""``submit`` calls it, and it asks only of jobs with a deadline."""


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_every_call_of_a_client_is_answered_without_redis(kind: type[Client | AsyncClient]) -> None:
    fleet = FakeFleet({"echo": lambda item: {"text": item}})
    for name, function in inspect.getmembers(kind, inspect.isfunction):
        if name.startswith("_") or name in NOT_FAKED:
            continue
        client: Any = fleet.client() if kind is Client else fleet.async_client()
        job = fleet.client().submit("echo", "a")
        arguments = [job if each == "JOB" else [job] if each == ["JOB"] else each for each in CALLS[name]]
        asyncio.run(_exhaust(function.__get__(client) and getattr(client, name)(*arguments)))


async def _exhaust(found: Any) -> None:
    if inspect.isawaitable(found):
        await found
    elif inspect.isasyncgen(found):
        assert [each async for each in found]
    elif inspect.isgenerator(found):
        assert list(found)
