"""Every error that Stoker raises. The message names the cause and the cure."""

from collections.abc import Sequence
from datetime import datetime

WIRE_MODULE = "producer.errors"
"""The module of these errors as stored results name it (``exc_module``, ``lease/fail.lua``). Stock readers look errors
up by it, so it stays when this file moves; ``producer/errors.py`` is what they find."""


class StokerError(Exception):
    """Base of all errors that Stoker raises."""


class ConfigError(StokerError):
    """``fleet.toml`` or a ``STOKER_*`` variable holds a value that is not allowed."""


class UnsuitableServer(ConfigError):
    """The server that ``redis.url`` names lacks what Stoker needs; see ``contract/server_requirements.py``."""


class BrokerUnavailable(StokerError):
    """Redis cannot be reached, or refuses to serve."""


class InvalidJob(StokerError, ValueError):
    """The job itself is invalid: running it again cannot help."""


class ContextLengthExceeded(InvalidJob):
    """An input is too long for the model's context, by itself or with the answer that it asks for.

    The message says "maximum context length", by which clients of the OpenAI API recognise the error.
    """


class UnsupportedByEngine(InvalidJob):
    """The engine of the model does not take a parameter or a kind of input, which is ``param``."""

    def __init__(self, message: str, param: str = "") -> None:
        super().__init__(message, param)  # both of them: a stored result is made of ``args``
        self.param = param

    def __str__(self) -> str:
        return str(self.args[0])


class UnknownModel(InvalidJob):
    """No model of that name is in the fleet."""


class UnknownTier(InvalidJob):
    """The model does not serve that SLA tier."""


class ServerRefused(InvalidJob):
    """The server behind the ``openai`` engine finds the request invalid.

    ``code``, ``param`` and ``type`` are those of the server's error, or empty.
    """

    def __init__(self, message: str, code: str = "", param: str = "", type: str = "") -> None:
        super().__init__(message, code, param, type)  # all of them: a stored result is made of ``args``
        self.code = code
        self.param = param
        self.type = type

    def __str__(self) -> str:
        return str(self.args[0])


class QueueFull(StokerError):
    """A queue is at its limit.

    ``retry_after_s`` is the time after which to retry, in seconds. After a submission of many jobs, ``queued`` are the
    ids of the jobs that were queued, ``refused`` those of the others: only these are to be submitted again.
    """

    def __init__(
        self, message: str, retry_after_s: float = 1.0, queued: Sequence[str] = (), refused: Sequence[str] = ()
    ) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.queued = list(queued)
        self.refused = list(refused)


class QuotaExceeded(QueueFull):
    """A tenant is at its quota of queued jobs (``tenants.NAME.max_queued``); other tenants' jobs are accepted."""


class DeadlineUnreachable(StokerError):
    """The job would miss its deadline and was submitted with ``admission="refuse"``; nothing was queued.

    ``earliest`` is the earliest deadline that could be met now. After ``retry_after_s`` seconds without other jobs, a
    deadline as far off as this one could be met.
    """

    def __init__(self, message: str, earliest: datetime, retry_after_s: float) -> None:
        super().__init__(message)
        self.earliest = earliest
        self.retry_after_s = retry_after_s


class ModelUnavailable(StokerError):
    """The workers of a model fail to start, one after the other; nothing was queued.

    ``retry_after_s`` is the time until the next start, in seconds.
    """

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class BatchError(StokerError):
    """The files of a batch cannot be used as asked."""


class ResultTimeout(StokerError, TimeoutError):
    """The result did not come within the time given. The job itself goes on."""


class JobFailed(StokerError):
    """The job ran and failed. ``kind`` is the name of the error on the worker."""

    def __init__(self, message: str, kind: str = "JobFailed") -> None:
        super().__init__(message)
        self.kind = kind


class JobCancelled(JobFailed):
    """The job was cancelled before it finished."""


class JobExpired(JobFailed):
    """The job's deadline passed before it finished."""


class ServerBusy(JobFailed):
    """The server behind the ``openai`` engine stayed too busy to serve the request, which was tried again meanwhile.

    ``status`` is 429 or 503. ``retry_after_s`` is the time after which the server wants to be asked again, in seconds,
    or None. ``code`` and ``type`` are those of the server's error, or empty.
    """

    def __init__(
        self,
        message: str,
        status: str = "503",
        retry_after_s: str = "",
        code: str = "",
        type: str = "",
    ) -> None:
        super().__init__(message, "ServerBusy")
        self.args = (message, status, retry_after_s, code, type)  # as texts: a stored result is made of them
        self.status = 429 if status == "429" else 503
        self.retry_after_s = float(retry_after_s) if retry_after_s else None
        self.code = code
        self.type = type

    def __str__(self) -> str:
        return str(self.args[0])


class EngineError(StokerError):
    """The engine could not serve a request, though nothing was wrong with the request."""


class Preempted(StokerError):
    """The request was given back before it ran. Nothing is wrong; it runs elsewhere."""


class ModelNotFound(ConfigError):
    """A model's ``source`` does not lead to a model that can be loaded."""
