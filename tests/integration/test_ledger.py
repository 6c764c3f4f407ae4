import pytest
import redis as redis_py

from producer import Settings, keys
from scheduler.ledger import Ledger
from scheduler.queue import Queue

RESULT = b'{"status": "SUCCESS"}'


@pytest.fixture
def ledger(redis: redis_py.Redis) -> Ledger:
    ledger = Ledger(Queue(redis, Settings(models={"m": {"engine": "echo"}}), "m"))
    redis.lpush("m.batch", b"1", b"2")
    for n, job in enumerate(ledger.queue.claim(2, "owner")):
        ledger.take(job, f"job-{n}")
    return ledger


def test_a_result_is_written_with_its_acknowledgement_and_not_before(redis: redis_py.Redis, ledger: Ledger) -> None:
    lease, _ = ledger.held
    ledger.keep(lease, RESULT)
    ledger.flush()
    assert redis.get(keys.result("job-0")) is None
    ledger.done(lease)
    ledger.flush()
    assert redis.get(keys.result("job-0")) == RESULT
    assert list(ledger.held.values()) == ["job-1"]


def test_what_is_ended_outlives_an_outage(
    redis: redis_py.Redis, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise redis_py.ConnectionError("gone")

    finished, given_back = ledger.held
    ledger.keep(finished, RESULT)
    ledger.done(finished)
    ledger.release([given_back])
    with monkeypatch.context() as outage:
        outage.setattr(ledger.queue, "finish", away)
        with pytest.raises(redis_py.ConnectionError):
            ledger.flush()
    ledger.flush()
    assert redis.get(keys.result("job-0")) == RESULT
    assert redis.lrange("m.batch", 0, -1) == [b"2"]


def test_nothing_is_remembered_of_jobs_that_are_not_held(ledger: Ledger) -> None:
    ledger.keep("nobody's lease", RESULT)
    for lease, act in zip(list(ledger.held), (ledger.release, ledger.abandon), strict=True):
        ledger.keep(lease, RESULT)
        act([lease])
    ledger.flush()
    assert not ledger.held
    assert not ledger._results
