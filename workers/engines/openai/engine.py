"""The engine that sends requests to a server, one for each input or batch of texts to embed, up to ``max_concurrency``
at a time.

The event loop of the connections runs only inside ``step``, so that a single thread does all work and needs no locks;
between steps, the kernel buffers the server's output.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

from producer.contract.errors import (
    EngineError,
    InvalidJob,
    JobCancelled,
    JobExpired,
    Preempted,
    StokerError,
)
from producer.contract.fleet.engine_options import OpenAIOptions
from producer.contract.fleet.fleet_schema import Model

from ... import open_files
from .. import sources
from ..mailbox import Cancellation, MailboxEngine, Withdrawal
from ..protocol import Outcome, OutputPiece, Prefilled, Report, Request
from . import command, http_requests, readiness
from .answer import News
from .client import ServerClient, ServerLost
from .http_requests import Ask, OpenRequest
from .server import EngineServer, free_port

logger = logging.getLogger(__name__)

HANG_UP_S = 1.0
"""Longest wait of a step for the connections of cancelled requests to close, in seconds."""


class OpenAIEngine(MailboxEngine[Request]):
    """Returns ``{"text", "finish_reason"}`` or an embedding for each input; usage is the server's. See
    ``answer.Answer`` for what else an output may hold.

    Inputs are those of the ``generate`` engine, but the server validates the messages of a chat, and all parameters
    that this engine does not know. The engine is lost when the server ends or fails its health check.
    """

    def __init__(self, settings: Model, device: str) -> None:
        super().__init__()
        assert isinstance(settings.options, OpenAIOptions)
        self._options = settings.options
        command.device_kind(device)
        self._settings = settings
        self._device = device
        self._jobs: dict[str, OpenRequest] = {}
        self._waiting: deque[Ask] = deque()
        self._running: set[Ask] = set()
        self._hanging_up: set[asyncio.Task[None]] = set()
        self._reports: list[Report] = []
        self._lost: ServerLost | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._news = asyncio.Event()
        self._server: EngineServer | None = None
        self._port = 0
        self._client: ServerClient | None = None
        self._model = self._options.model or ""

    @property
    def capacity(self) -> int:
        """Requests held, and one for each slot that their inputs leave free."""
        taken = len(self._waiting) + len(self._running)
        return len(self._jobs) + max(0, self._settings.max_concurrency - taken)

    @property
    def slots(self) -> int:
        """The most HTTP requests in flight."""
        return self._settings.max_concurrency

    def load(self) -> None:
        """Start the server, unless ``options.url`` names one, and wait until its health check succeeds.

        Raises:
            ConfigError: when the command cannot be run, the server has no model, or the limit of open files is too low
                for ``max_concurrency``.
            EngineError: when the server ends or is not ready in time; with the end of its log.
        """
        open_files.require(self._settings.max_concurrency)
        self._loop = asyncio.new_event_loop()
        try:
            url = self._options.url or self._start()
            self._client = ServerClient(url, self._options)
            self._loop.run_until_complete(self._connect(self._client))
        except BaseException:
            self.close()
            raise

    def _start(self) -> str:
        self._port = port = free_port()
        source = self._settings.source
        if source.startswith("package:"):  # a scheme of ours, unknown to servers
            source = str(sources.resolve(source))
        device, port_text = command.device_kind(self._device), str(port)
        arguments = command.arguments(self._options.command, source=source, port=port_text, device=device)
        env = {**command.device_env(self._device, os.environ), **self._options.env}
        logger.info("starting on port %d: %s", port, " ".join(arguments))
        self._server = EngineServer(arguments, env, self._options.stop_s)
        return f"http://127.0.0.1:{port}"

    async def _connect(self, client: ServerClient) -> None:
        await readiness.until_ready(client, self._server, self._port, self._options.start_s)
        self._model = self._options.model or await client.first_model()

    def _put(self, message: Request | Cancellation | Withdrawal) -> None:
        super()._put(message)
        if (loop := self._loop) is not None:
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
                loop.call_soon_threadsafe(self._news.set)

    def step(self, timeout: float) -> Sequence[Report]:
        """Run the event loop until something happens. See ``protocol``.

        Raises:
            ServerLost: with the cause; if the server has ended, with the end of its log.
        """
        assert self._loop is not None
        self._loop.run_until_complete(self._turn(timeout))
        reports, self._reports = self._reports, []
        if not reports and self._lost is not None:
            raise self._lost
        return reports

    async def _turn(self, timeout: float) -> None:
        ends_at = [job.request.deadline for job in self._jobs.values() if job.request.deadline is not None]
        if ends_at:
            timeout = max(0.0, min(timeout, min(ends_at) - time.monotonic()))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._news.wait(), timeout)
        self._news.clear()
        if self._client is not None and self._client.pausing:
            self._progress += 1  # requests that wait for a busy server are no sign of a hung engine
        if self._server is not None and (ended := self._server.ended):
            self._lost = ServerLost(f"the server ended: {ended}")
        self._read_mail()
        self._expire(time.monotonic())
        self._admit()
        if self._hanging_up:  # so that the server has ended a cancelled request before the next takes its slot
            await asyncio.wait(self._hanging_up, timeout=HANG_UP_S)
            self._hanging_up = {task for task in self._hanging_up if not task.done()}

    def _read_mail(self) -> None:
        for message in self._mailbox.take(0):
            if isinstance(message, Request):
                self._accept(message)
            elif isinstance(message, Withdrawal):
                for job in [job for job in self._jobs.values() if not job.started_at]:
                    self._fail(job, Preempted(f"job {job.request.id} was given back"))
            elif cancelled := self._jobs.get(message.request_id):
                self._fail(cancelled, JobCancelled(f"job {message.request_id} was cancelled"))

    def _expire(self, now: float) -> None:
        for job in list(self._jobs.values()):
            if job.request.deadline is not None and job.request.deadline <= now:
                self._fail(job, JobExpired(f"job {job.request.id} was not done by its deadline"))

    def _accept(self, request: Request) -> None:
        try:
            job = http_requests.job_of(request, self._model, self._options)
        except InvalidJob as error:
            self._reports.append(Outcome(request.id, error=error))
            return
        except Exception as error:
            logger.exception("job %s could not be read", request.id)
            self._reports.append(Outcome(request.id, error=EngineError(f"the job could not be read: {error!r}")))
            return
        self._jobs[request.id] = job
        self._waiting.extend(job.asks)

    def _admit(self) -> None:
        assert self._loop is not None
        while self._waiting and len(self._running) < self._settings.max_concurrency:
            ask = self._waiting.popleft()
            if not ask.job.started_at:
                ask.job.started_at = time.monotonic()
                self._reports.append(Prefilled(ask.job.request.id, 0.0))  # servers prefill beside decoding
            self._running.add(ask)
            ask.task = self._loop.create_task(self._run(ask))
            ask.task.add_done_callback(functools.partial(self._leave, ask))
            for other in self._running:
                other.job.batch_size = max(other.job.batch_size, len(self._running))

    async def _run(self, ask: Ask) -> None:
        """Send an HTTP request and store its answer. The task is cancelled when its job gets an outcome earlier."""
        try:
            outputs, usage = await self._answer(ask)
        except ServerLost as error:
            self._lost = self._lost or error  # no outcome for its job, which may or may not be the cause
        except StokerError as error:
            self._fail(ask.job, error)
        except Exception as error:
            logger.exception("input %d of job %s could not be sent to the server", ask.index, ask.job.request.id)
            self._fail(ask.job, EngineError(f"input {ask.index} could not be sent to the server: {error!r}"))
        else:
            self._take(ask, outputs, usage)

    def _leave(self, ask: Ask, _: asyncio.Task[None]) -> None:
        """Free the slot of a task. A callback, because a task that is cancelled before its first step does not run."""
        self._running.discard(ask)
        self._news.set()

    async def _answer(self, ask: Ask) -> tuple[Sequence[Any], dict[str, int]]:
        assert self._client is not None
        deadline = ask.job.request.deadline
        if self._options.task == "embeddings":
            return await self._client.embed(ask.call, ask.count, deadline)

        def hear(news: News) -> None:
            self._progress += 1
            ask.events += bool(news.text or news.reasoning or news.calls)
            if not ask.job.request.stream:
                return
            if pieces := _pieces(ask, news):
                self._reports += pieces
                self._news.set()

        output, usage = await self._client.generate(ask.call, hear, deadline)
        return [output], usage

    def _take(self, ask: Ask, outputs: Sequence[Any], usage: dict[str, int]) -> None:
        job = ask.job
        self._progress += 1
        job.outputs[ask.index : ask.index + ask.count] = outputs
        for name, tokens in usage.items():
            job.usage[name] = job.usage.get(name, 0) + tokens
        job.asks.remove(ask)
        if not job.asks:
            ran_s = time.monotonic() - job.started_at
            self._end(job, Outcome(job.request.id, job.outputs, None, job.usage, ran_s, job.batch_size))

    def _fail(self, job: OpenRequest, error: StokerError) -> None:
        ran_s = time.monotonic() - job.started_at if job.started_at else 0.0
        used = job.used if job.started_at else {}
        self._end(job, Outcome(job.request.id, None, error, used, ran_s, job.batch_size))

    def _end(self, job: OpenRequest, outcome: Outcome) -> None:
        """End a job with its outcome, and cancel its HTTP requests in flight."""
        del self._jobs[job.request.id]
        if job.asks:
            self._waiting = deque(ask for ask in self._waiting if ask.job is not job)
        for ask in job.asks:
            if ask.task is not None and ask.task is not asyncio.current_task() and not ask.task.done():
                ask.task.cancel()
                self._hanging_up.add(ask.task)
        self._reports.append(outcome)

    def close(self) -> None:
        """Close all connections, and stop the server if this engine started it."""
        loop, self._loop = self._loop, None
        if loop is None:
            return
        loop.run_until_complete(self._hang_up())
        loop.close()
        if self._server is not None:
            self._server.stop()
            self._server = None

    async def _hang_up(self) -> None:
        tasks = {ask.task for ask in self._running if ask.task is not None} | self._hanging_up
        for task in tasks - self._hanging_up:  # a second cancellation would interrupt the closing
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=HANG_UP_S)
        if self._client is not None:
            await self._client.close()
        await asyncio.get_running_loop().shutdown_asyncgens()


def _pieces(ask: Ask, news: News) -> list[OutputPiece]:
    """What a stream tells. Servers report usage at the end; until then, each event counts as a token."""
    job, index = ask.job.request.id, ask.index
    pieces = [OutputPiece(job, index, text, tokens=1, call=number) for number, text in news.calls if text]
    if news.reasoning:
        pieces.append(OutputPiece(job, index, news.reasoning, tokens=1, reasoning=True))
    if news.text or news.logprobs:
        pieces.append(OutputPiece(job, index, news.text, tokens=1, logprobs=news.logprobs))
    return pieces
