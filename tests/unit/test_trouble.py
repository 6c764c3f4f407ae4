"""What an error of Redis means, told with the broker's address, where it is configured, and the cure."""

from pathlib import Path

import pytest
import redis
from redis import exceptions

from producer import Settings
from producer.contract.connection import AWAY
from producer.contract.fleet_schema import Redis
from producer.contract.redis_errors import trouble

SECRET = "open-sesame"  # noqa: S105  made up
CONFIGURED = Settings(redis=Redis(url=f"redis://:{SECRET}@db:6379/0"))


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REDIS_URL", "STOKER_REDIS__URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (redis.ConnectionError("refused"), "does not answer (refused): start it, or correct redis.url"),
        (redis.TimeoutError("late"), "does not answer (late)"),
        (redis.AuthenticationError("invalid"), "refuses the user or the password (invalid): correct redis.url"),
        (exceptions.NoPermissionError("no xdel"), "does not permit that to this user (no xdel): 'stoker acl"),
        (exceptions.BusyLoadingError("loading"), "still loading its data"),
        (exceptions.ReadOnlyError("replica"), "is a replica"),
        (exceptions.OutOfMemoryError("oom"), "is full (maxmemory)"),
        (redis.ResponseError("Invalid stream ID"), "answers with an error: Invalid stream ID"),
    ],
)
def test_each_kind_of_error_has_its_own_words(error: Exception, words: str) -> None:
    told = trouble(error, CONFIGURED)
    assert words in told
    assert "redis://***@db:6379/0, as redis.url of the fleet file says," in told
    assert SECRET not in told
    assert "stoker up" not in told  # it would never start a Redis that is configured


def test_the_variable_that_names_the_broker_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = Settings(state_dir=tmp_path)
    own.url_file.write_text(f"redis://:{SECRET}@127.0.0.1:1/0")
    assert "'stoker up' starts it" in trouble(redis.ConnectionError("refused"), own)
    monkeypatch.setenv("REDIS_URL", "redis://far:1/0")
    assert "redis://far:1/0, as REDIS_URL says, does not answer" in trouble(redis.ConnectionError("refused"), own)
    monkeypatch.setenv("STOKER_REDIS__URL", "redis://further:1/0")
    told = trouble(redis.ConnectionError("refused"), Settings(state_dir=tmp_path))
    assert "redis://further:1/0, as STOKER_REDIS__URL says, does not answer" in told


def test_a_redis_that_cannot_serve_now_is_away_whatever_it_says() -> None:
    for error in (
        redis.ConnectionError,
        redis.TimeoutError,
        exceptions.BusyLoadingError,
        exceptions.ReadOnlyError,
        exceptions.OutOfMemoryError,
    ):
        assert issubclass(error, AWAY)
    assert not issubclass(exceptions.NoPermissionError, AWAY)
