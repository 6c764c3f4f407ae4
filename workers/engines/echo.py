"""The echo engine, which answers without a model: for tests, and to measure the queue alone."""

from __future__ import annotations

import json
import threading
import time

from producer.contract.errors import EngineError, InvalidJob, JobCancelled, JobExpired, Preempted
from producer.contract.fleet.engine_options import EchoOptions
from producer.contract.fleet.fleet_schema import Model

from .echo_output import Speech
from .mailbox import MailboxEngine, Withdrawal
from .protocol import Batch, Outcome, Report, Request


class EchoEngine(MailboxEngine[Request]):
    """Returns the inputs of each request as its outputs, in batches of up to ``max_concurrency`` requests.

    With the option ``task`` it answers in the format of another engine instead (``echo_output``). For tests, parameters
    of a request inject faults: ``fail`` (``InvalidJob`` with that message), ``flake`` (``EngineError`` with that
    message), ``crash`` (the engine is lost), ``garble`` (an outcome that cannot be used), ``derail`` (a report that the
    worker cannot process at all) and ``hang``.
    """

    def __init__(self, settings: Model) -> None:
        super().__init__()
        self._batch_limit = settings.max_concurrency
        options = settings.options
        assert isinstance(options, EchoOptions)
        self._delay_s = options.delay_s
        self._journal = options.journal
        self._task = options.task
        self._waiting: dict[str, Request] = {}
        self._speeches: dict[str, Speech] = {}
        self._running: set[str] = set()
        self._given_up: list[Outcome] = []

    @property
    def capacity(self) -> int:
        """Two batches: one running and one ahead."""
        return 2 * self._batch_limit

    @property
    def slots(self) -> int:
        """0: batches begin and end as a whole."""
        return 0

    def load(self) -> None:
        """Do nothing: there is no model."""

    def step(self, timeout: float) -> list[Report]:
        """See ``protocol``."""
        self._read_mail(0 if self._waiting else timeout)
        batch = list(self._waiting.values())[: self._batch_limit]
        new = [request for request in batch if request.id not in self._speeches]
        if new and self._journal:
            with self._journal.open("a") as journal:  # a single write in append mode: workers may share a journal
                journal.write("".join(json.dumps(request.inputs) + "\n" for request in new))
        self._running = {request.id for request in batch}
        if any(request.parameters.get("hang") for request in batch):
            threading.Event().wait()
        if batch and self._delay_s:
            time.sleep(self._delay_s)
            self._read_mail(0)  # cancellations and deadlines of the time in which the batch ran
        reports: list[Report] = [*self._given_up]
        self._given_up = []
        for request in batch:
            if request.id in self._waiting:
                reports += self._answer(request, len(batch))
            if request.parameters.get("derail"):
                reports.append(Batch(1, 1, 1, ran_s="none"))  # type: ignore[arg-type]  # that is the fault
        self._progress += bool(batch)
        self._running = set()
        return reports

    def _read_mail(self, timeout: float) -> None:
        for message in self._mailbox.take(timeout):
            if isinstance(message, Request):
                self._waiting[message.id] = message
            elif isinstance(message, Withdrawal):
                for request_id in self._waiting.keys() - self._running - self._speeches.keys():
                    self._give_up(request_id, Preempted(f"job {request_id} was given back"))
            elif message.request_id in self._waiting:
                self._give_up(message.request_id, JobCancelled(f"job {message.request_id} was cancelled"))
        now = time.monotonic()
        for request in [each for each in self._waiting.values() if each.deadline is not None and each.deadline <= now]:
            self._give_up(request.id, JobExpired(f"job {request.id} was not done by its deadline"))

    def _give_up(self, request_id: str, error: JobCancelled | JobExpired | Preempted) -> None:
        del self._waiting[request_id]
        speech = self._speeches.pop(request_id, None)
        self._given_up.append(Outcome(request_id, error=error, usage=speech.used if speech else {}))

    def _answer(self, request: Request, batch_size: int) -> list[Report]:
        """What a batch reports of a request. A streaming request with words left continues in the next batch."""
        outcome, pieces = self._misdeed(request, batch_size), []
        if outcome is None and self._task == "echo":
            outcome = Outcome(request.id, outputs=list(request.inputs), ran_s=self._delay_s, batch_size=batch_size)
        elif outcome is None:
            try:
                speech = self._speeches.get(request.id) or Speech(request, self._task)
            except InvalidJob as error:
                outcome = Outcome(request.id, error=error, batch_size=batch_size)
            else:
                self._speeches[request.id] = speech
                pieces = speech.say()
                outcome = speech.outcome(batch_size, self._delay_s) if speech.over else None
        if outcome is None:
            return [*pieces]
        del self._waiting[request.id]
        self._speeches.pop(request.id, None)
        return [*pieces, outcome]

    def _misdeed(self, request: Request, batch_size: int) -> Outcome | None:
        if request.parameters.get("crash"):
            raise RuntimeError(f"request {request.id} asked for a crash")
        if request.parameters.get("garble"):
            return Outcome(request.id, outputs=[], batch_size=batch_size)
        if message := request.parameters.get("flake"):
            return Outcome(request.id, error=EngineError(str(message)), batch_size=batch_size)
        if message := request.parameters.get("fail"):
            return Outcome(request.id, error=InvalidJob(str(message)), batch_size=batch_size)
        return None

    def close(self) -> None:
        """Do nothing: no device is held."""
