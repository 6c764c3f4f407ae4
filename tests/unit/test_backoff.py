import random

from scheduler.lease.retry_backoff import FIRST_S, LONGEST_S, delays


def test_delays_double_up_to_a_longest_and_differ_between_jobs() -> None:
    one, other = (delays(10, random.Random(seed)) for seed in (1, 2))
    assert one != other
    for n, delay in enumerate(one):
        full = min(LONGEST_S, FIRST_S * 2**n)
        assert full / 2 <= delay <= full
