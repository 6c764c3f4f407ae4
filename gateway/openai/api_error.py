"""Errors of the OpenAI API: a status, and ``{"error": {"message", "type", "param", "code"}}``.

Source: https://platform.openai.com/docs/guides/error-codes. The official clients choose the exception by the status.
"""

from __future__ import annotations

from typing import Any

from producer.contract.errors import (
    BrokerUnavailable,
    ContextLengthExceeded,
    DeadlineUnreachable,
    InvalidJob,
    JobCancelled,
    JobExpired,
    ModelUnavailable,
    QueueFull,
    ResultTimeout,
    ServerBusy,
    ServerRefused,
    StokerError,
    UnknownModel,
    UnknownTier,
    UnsupportedByEngine,
)

AWAY_MESSAGE = "the queue cannot serve for the moment; come back in a while"
"""For a Redis that is away, or takes no writes. Its address and its state are for the gateway's log alone."""

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    429: "rate_limit_error",
}


class Problem(StokerError):
    """An error response.

    ``status`` is HTTP's, ``param`` the name of the wrong parameter, ``code`` the error for programs, ``retry_after_s``
    the time after which to retry, in seconds. ``type`` is the API's type of error, by default that of the status.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after_s: float | None = None,
        type: str = "",
    ) -> None:
        super().__init__(message)
        self.type = type or _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
        self.status = status
        self.param = param
        self.code = code
        self.retry_after_s = retry_after_s

    @property
    def body(self) -> dict[str, Any]:
        """The body of the response."""
        return {"error": {"message": str(self), "type": self.type, "param": self.param, "code": self.code}}


def problem_of(error: StokerError) -> Problem:
    """What a client is told of any error of ours. One that passes carries ``retry_after_s``, and is told as 429."""
    retry_after_s = getattr(error, "retry_after_s", None)
    message = str(error)
    match error:
        case Problem():
            return error
        case UnknownModel():
            return Problem(404, message, param="model", code="model_not_found")
        case UnknownTier():
            return Problem(400, message, param="service_tier", code="invalid_service_tier")
        case QueueFull():
            return Problem(429, message, code="queue_full", retry_after_s=retry_after_s)
        case DeadlineUnreachable():
            return Problem(429, message, param="deadline_s", code="deadline_unreachable", retry_after_s=retry_after_s)
        case ContextLengthExceeded():
            return Problem(400, message, code="context_length_exceeded")
        case ServerRefused():
            return Problem(400, message, param=error.param or None, code=error.code or "invalid_job", type=error.type)
        case ServerBusy():
            code, wait = error.code or "server_busy", error.retry_after_s
            return Problem(error.status, message, code=code, retry_after_s=wait, type=error.type)
        case UnsupportedByEngine():
            return Problem(400, message, param=error.param or None, code="unsupported_parameter")
        case InvalidJob():
            return Problem(400, message, code="invalid_job")
        case ModelUnavailable():
            return Problem(503, message, code="model_unavailable", retry_after_s=retry_after_s)
        case BrokerUnavailable():
            return Problem(503, AWAY_MESSAGE, code="broker_unavailable", retry_after_s=retry_after_s or 1.0)
        case ResultTimeout() | JobExpired():
            return Problem(504, message, code="timeout")
        case JobCancelled():
            return Problem(409, message, code="cancelled")
        case _ if retry_after_s is not None:
            return Problem(429, message, code="rate_limit_exceeded", retry_after_s=retry_after_s)
        case _:
            return Problem(500, message, code="job_failed")
