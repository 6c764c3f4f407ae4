"""The benchmark's own arithmetic: a figure that was not measured is never good."""

import random
from pathlib import Path

import pytest

from benchmarks.bars import Bar, percentile
from benchmarks.chaos import audit
from benchmarks.chaos.plan import plan


def test_a_bar_holds_in_its_direction_and_never_without_a_value() -> None:
    assert Bar("x", 0, 0).ok
    assert not Bar("x", 1, 0).ok
    assert Bar("x", 2, 1, "higher").ok
    assert not Bar("x", None, 0).ok


@pytest.mark.parametrize(("count", "share", "found"), [(100, 0.99, 99), (100, 0.5, 50), (1, 0.99, 1), (200, 0.99, 198)])
def test_a_percentile_is_a_value_that_occurred(count: int, share: float, found: int) -> None:
    assert percentile([float(n) for n in range(1, count + 1)], share) == found


def test_there_is_no_percentile_of_nothing() -> None:
    assert percentile([], 0.99) is None


def test_a_plan_holds_what_it_was_asked_for_in_order() -> None:
    kills = plan(random.Random(1), 10_000, workers=36, autoscalers=12, servers=5)
    assert [sum(kill.what == what for kill in kills) for what in ("worker", "autoscaler", "redis")] == [36, 12, 5]
    assert [kill.done for kill in kills] == sorted(kill.done for kill in kills)
    assert kills[-1].done < 10_000
    assert kills == plan(random.Random(1), 10_000, workers=36, autoscalers=12, servers=5)
    assert kills != plan(random.Random(2), 10_000, workers=36, autoscalers=12, servers=5)


def test_the_audit_counts_final_results_and_leaves_out_a_command_cut_short(tmp_path: Path) -> None:
    def command(*parts: bytes) -> bytes:
        return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)

    done, retry = b'{"status": "SUCCESS", "result": 1}', b'{"status": "RETRY", "result": 1}'
    folder = tmp_path / "appendonlydir"
    folder.mkdir()
    (folder / "appendonly.aof.2.incr.aof").write_bytes(
        command(b"SET", b"celery-task-meta-a", done, b"PXAT", b"1") + command(b"SET", b"celery-task-meta-b", done)[:-10]
    )
    (folder / "appendonly.aof.1.incr.aof").write_bytes(
        command(b"SELECT", b"0")
        + b"#TS:1\r\n"
        + command(b"SET", b"celery-task-meta-a", retry)
        + command(b"SET", b"celery-task-meta-a", done)
        + command(b"SETEX", b"celery-task-meta-c", b"10", done)
        + command(b"SET", b"another", done)
    )
    assert audit.commits(tmp_path) == {"a": 2, "c": 1}
