"""The limit of open files of a worker, each connection to a server being one."""

from __future__ import annotations

import errno

from producer.contract.errors import ConfigError, EngineError
from producer.contract.open_files import limit

OWN = 128
"""Files that a worker needs beside the connections of its engine: of Redis, the model, logs, and Python itself."""
CURE = "raise the limit of open files (ulimit -n, LimitNOFILE= of systemd, docker run --ulimit nofile=), or lower \
max_concurrency"


def require(connections: int) -> None:
    """Refuse a number of connections for which the limit is too low.

    Raises:
        ConfigError: with the limit.
    """
    if (most := limit()) < connections + OWN:
        raise ConfigError(
            f"max_concurrency = {connections} takes up to {connections + OWN} open files, and the limit of this worker "
            f"is {most}: {CURE}"
        )


def used_up() -> EngineError:
    """The error of a request for which no file descriptor was left."""
    return EngineError(f"the worker has used up its {limit()} file descriptors: {CURE}")


def are_used_up(error: BaseException) -> bool:
    """Whether an error was caused by a lack of file descriptors, of this process or of the machine."""
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return True
    causes = list(error.exceptions) if isinstance(error, BaseExceptionGroup) else []
    if (cause := error.__cause__ or error.__context__) is not None:
        causes.append(cause)
    return any(are_used_up(cause) for cause in causes)
