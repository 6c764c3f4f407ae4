"""What an error of Redis means, told with the broker's address, where it is configured, and the cure."""

from pathlib import Path

import pytest
import redis
from redis import exceptions

from producer import BrokerUnavailable, Settings
from producer.contract.fleet.fleet_schema import Redis
from producer.contract.server.redis_errors import (
    REFUSALS,
    broker_errors,
    cannot_serve,
    optional_write,
    refusal,
    trouble,
)

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
        (exceptions.OutOfMemoryError("oom"), "has no memory left (maxmemory)"),
        (redis.ResponseError("MISCONF x"), "cannot save its data to disk"),
        (redis.ResponseError("Invalid stream ID"), "answers with an error: Invalid stream ID"),
    ],
)
def test_each_kind_of_error_has_its_own_words(error: Exception, words: str) -> None:
    told = trouble(error, CONFIGURED)
    assert words in told
    assert "redis://***@db:6379/0, as redis.url of the fleet file says," in told
    assert SECRET not in told
    assert "stoker up" not in told  # it would never start a Redis that is configured


def test_a_broker_that_was_taken_down_is_told_without_its_address(tmp_path: Path) -> None:
    gone = Settings(state_dir=tmp_path)
    assert trouble(redis.ConnectionError("refused"), gone).startswith(
        "Redis does not answer (refused): is the fleet up?"
    )


def test_the_variable_that_names_the_broker_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = Settings(state_dir=tmp_path)
    own.url_file.write_text(f"redis://:{SECRET}@127.0.0.1:1/0")
    assert "'stoker up' starts it" in trouble(redis.ConnectionError("refused"), own)
    monkeypatch.setenv("REDIS_URL", "redis://far:1/0")
    told = trouble(redis.ConnectionError("refused"), own)
    assert "redis://far:1/0, as REDIS_URL says, does not answer" in told
    assert "'unset REDIS_URL'" in told
    monkeypatch.setenv("STOKER_REDIS__URL", "redis://further:1/0")
    told = trouble(redis.ConnectionError("refused"), Settings(state_dir=tmp_path))
    assert "redis://further:1/0, as STOKER_REDIS__URL says, does not answer" in told


REFUSING = [
    ("LOADING", exceptions.BusyLoadingError("Redis is loading the dataset in memory")),
    ("READONLY", exceptions.ReadOnlyError("You can't write against a read only replica.")),
    ("OOM", exceptions.OutOfMemoryError("command not allowed when used memory > 'maxmemory'.")),
    ("MASTERDOWN", exceptions.MasterDownError("Link with MASTER is down")),
    ("CLUSTERDOWN", exceptions.ClusterDownError("The cluster is down")),
    ("TRYAGAIN", exceptions.TryAgainError("Multiple keys request during rehashing of slot")),
    ("MISCONF", redis.ResponseError("MISCONF Errors writing to the AOF file: No space left on device")),
    ("NOREPLICAS", redis.ResponseError("NOREPLICAS Not enough good replicas to write.")),
    ("UNBLOCKED", redis.ResponseError("UNBLOCKED force unblock from blocking operation, instance state changed")),
    ("BUSY", redis.ResponseError("BUSY Redis is busy running a script.")),
    ("BUSY", redis.ResponseError("Command # 2 (GET a) of pipeline caused error: BUSY Redis is busy running a script.")),
    ("BUSY", redis.ResponseError("Command # 2 (GET a) of pipeline caused error: ('BUSY Redis is busy',)")),
    ("OOM", exceptions.ExecAbortError("Transaction discarded because of: OOM command not allowed")),
]


@pytest.mark.parametrize(("code", "error"), REFUSING)
def test_a_redis_that_refuses_to_serve_is_known_by_its_code(code: str, error: Exception) -> None:
    assert refusal(error) == code
    assert cannot_serve(error)
    assert f"{REFUSALS[code]} ({code})" in trouble(error, CONFIGURED)
    with (
        pytest.raises(BrokerUnavailable, match=rf"counting: Redis at .* \({code}\)"),
        broker_errors(CONFIGURED, "counting"),
    ):
        raise error


def test_every_refusal_is_tried() -> None:
    assert {code for code, _ in REFUSING} == set(REFUSALS)


@pytest.mark.parametrize(
    "error", [redis.ConnectionError("refused"), redis.TimeoutError("late"), BrokerUnavailable("x")]
)
def test_a_redis_that_is_not_reached_cannot_serve(error: Exception) -> None:
    assert cannot_serve(error)
    assert not refusal(error)


@pytest.mark.parametrize(
    "error",
    [
        exceptions.NoPermissionError("no xdel"),
        redis.ResponseError("BUSYGROUP Consumer Group name already exists"),
        redis.ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value"),
        redis.ResponseError("Command # 1 (SET x BUSY) of pipeline caused error: WRONGTYPE Operation against a key"),
        redis.ResponseError("Command # 1 (SET ) of pipeline caused error: BUSY ) of pipeline caused error: WRONG x"),
        ValueError("BUSY doing something else"),
    ],
)
def test_any_other_error_is_no_refusal_and_is_raised_as_it_is(error: Exception) -> None:
    assert not refusal(error)
    assert not cannot_serve(error)
    with pytest.raises(type(error)) as raised, broker_errors(CONFIGURED, "counting"):
        raise error
    assert raised.value is error


def test_a_write_that_may_be_left_out_is_left_out_when_it_is_refused() -> None:
    for error in (exceptions.NoPermissionError("no zrem"), *(error for _, error in REFUSING[5:])):
        with optional_write():
            raise error
    for error in (redis.ConnectionError("refused"), redis.ResponseError("WRONGTYPE x")):
        with pytest.raises(type(error)), optional_write():
            raise error
