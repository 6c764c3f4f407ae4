"""Translation of lines: from an input line to a job, and from the job's end to an output line."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from producer.contract.errors import InvalidJob, JobCancelled, JobExpired, JobFailed, StokerError
from producer.contract.fleet.settings import Settings
from producer.contract.message.job import Job, Result
from producer.submission import build

from ...access.api_key import ANYBODY, ApiKey
from ...openai.api_error import problem_of
from ...openai.endpoints import ENDPOINTS
from ...openai.model_list import permitted
from ...openai.service_tier import SLOWEST, tier_of
from .lines import Line, LineError

JOBS = "/v1/jobs"
"""The endpoint of lines in Stoker's own form."""


@dataclass(frozen=True, slots=True)
class LineRequest:
    """A line that can be submitted: its job, and a function for the body of its answer."""

    line: Line
    job: Job
    body: Callable[[Result], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Terms:
    """The settings that the lines of one run share.

    Args:
        run: id of the run. With a line's number it makes the idempotency key of the line's job, so that a line
        submitted
            again after a crash is the same job.
        model, tier: of lines that name none; the tier is else the slowest that the caller may use.
        endpoint: the only one that lines may be for; any when None.
        deadline: when the whole run ends.
    """

    settings: Settings
    run: str
    caller: ApiKey = ANYBODY
    model: str | None = None
    tier: str | None = None
    endpoint: str | None = None
    deadline: datetime | None = None

    def model_of(self, line: Line) -> str | None:
        """The model that a line names; None if it names none of the fleet, or is invalid."""
        if line.error is not None:
            return None
        named = (line.fields["body"] if line.is_openai else line.fields).get("model", self.model)
        return named if isinstance(named, str) and named in self.settings.models else None

    def read(self, line: Line) -> LineRequest:
        """The job that a line asks for.

        Raises:
            InvalidJob, Problem: the line is invalid.
        """
        if line.error is not None:
            raise line.error
        url = line.fields.get("url") if line.is_openai else JOBS
        if self.endpoint is not None and url != self.endpoint:
            form = "" if line.is_openai else ", which is for lines with an input and no body"
            raise LineError(f"url = {url!r:.80}{form}; this batch is for {self.endpoint!r}", "invalid_url", "url")
        job, body = self._openai(line, url) if line.is_openai else self._ours(line)
        of_run = {"idempotency_key": f"{self.run}:{line.number}", "deadline": self.deadline, "stream": False}
        return LineRequest(line, job.model_copy(update=of_run), body)

    def _ours(self, line: Line) -> tuple[Job, Callable[[Result], dict[str, Any]]]:
        model = line.fields.get("model", self.model)
        if not isinstance(model, str):
            raise LineError("model is missing: name one for the line, or for the whole batch", "model_missing", "model")
        model = self.settings.named(model)
        if self.caller.models is not None:  # it learns of no others
            permitted(model, self.settings, self.caller)
        self.settings.model(model)
        tier = self.tier or tier_of(SLOWEST, model, self.settings, self.caller)
        given = {"parameters": line.fields.get("parameters"), "tenant": self.caller.tenant}
        return build(self.settings, model, line.fields["input"], tier, None, given), _body

    def _openai(self, line: Line, url: object) -> tuple[Job, Callable[[Result], dict[str, Any]]]:
        endpoint = ENDPOINTS.get(url) if isinstance(url, str) else None
        if endpoint is None:
            raise LineError(f"url = {url!r:.80}; allowed: {', '.join(ENDPOINTS)}", "invalid_url", "url")
        body: dict[str, Any] = line.fields["body"]
        if body.get("stream"):
            raise LineError("stream = True: an answer in a file is told whole; leave it out", param="stream")
        if body.get("service_tier") in (None, "auto", "default"):
            body = {**body, "service_tier": self.tier or SLOWEST}
        if self.model is not None:
            body = {"model": self.model, **body}
        order = endpoint.read(body, self.settings, self.caller)
        created = int(time.time())
        return order.job, lambda result: order.response(result.id, result, created)


def _body(result: Result) -> dict[str, Any]:
    return result.model_dump(mode="json")


Tell = Callable[[Line, LineRequest | None, Result | StokerError], tuple[bytes, bool]]
"""Makes the output line of a line that ended, and whether it is an error. The request is None if it was invalid."""


def tell_ours(line: Line, _: LineRequest | None, ended: Result | StokerError) -> tuple[bytes, bool]:
    """The output line in Stoker's own form: the fields of the result, or ``error`` with its kind and message."""
    told: dict[str, Any] = {"custom_id": line.custom_id, "line": line.number}
    if isinstance(ended, Result):
        told |= ended.model_dump(mode="json", exclude={"id"})
    else:
        # Only a plain JobFailed stands for something else: the error on the worker.
        kind = ended.kind if type(ended) is JobFailed else type(ended).__name__
        told["error"] = {"kind": "InvalidJob" if isinstance(ended, LineError) else kind, "message": str(ended)}
    return _written(told), "error" in told


class NotRun(InvalidJob):
    """The line was not run, because its batch had ended. ``code`` is ``expired`` or ``cancelled``."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def cancelled() -> NotRun:
    """The error of lines of a cancelled batch."""
    return NotRun("batch_cancelled", "the batch was cancelled before this request was done")


def expired() -> NotRun:
    """The error of lines of an expired batch."""
    return NotRun("batch_expired", "the batch's completion window closed before this request was done")


def tell_openai(run: str, why: Callable[[], NotRun] = cancelled) -> Tell:
    """The output line in OpenAI's form: ``response`` with a status code and a body, or ``error`` if it was not run.

    The ``id``, which comes first, ends with the line's number, by which a run recognises its own output.

    Args:
        why: the error of a job that was cancelled.
    """

    def tell(line: Line, request: LineRequest | None, ended: Result | StokerError) -> tuple[bytes, bool]:
        told: dict[str, Any] = {"id": f"batch_req_{run}-{line.number}", "custom_id": line.custom_id}
        if isinstance(ended, JobExpired):
            ended = expired()
        elif isinstance(ended, JobCancelled):
            ended = why()
        if isinstance(ended, NotRun):
            return _written({**told, "response": None, "error": {"code": ended.code, "message": str(ended)}}), True
        status = 200
        try:
            if not isinstance(ended, Result):
                raise ended
            assert request is not None
            body = request.body(ended)
        except StokerError as error:
            problem = problem_of(error)
            status, body = problem.status, problem.body
        job_id = request.job.id if request is not None else None
        response = {"status_code": status, "request_id": job_id, "body": body}
        return _written({**told, "response": response, "error": None}), status != 200

    return tell


def tell_alike(run: str) -> Tell:
    """The output line in the form of the input line."""
    openai = tell_openai(run)
    return lambda line, request, ended: (openai if line.is_openai else tell_ours)(line, request, ended)


def _written(told: dict[str, Any]) -> bytes:
    # ASCII, so that any string JSON can write can be written, half of a surrogate pair too.
    return json.dumps(told).encode() + b"\n"
