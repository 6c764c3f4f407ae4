from autoscaler.actions.backoff import LONGEST_S, STABLE_S, after, pause_s
from autoscaler.observation import Memory


def test_pauses_double_up_to_a_limit() -> None:
    assert [pause_s(n) for n in (1, 2, 3, 4)] == [1, 2, 4, 8]
    assert pause_s(100_000) == LONGEST_S


def test_failures_in_a_row_add_up() -> None:
    first = after(None, 100, 0.1, "exit 1")
    second = after(first, 102, 0.1, "exit 1: no such file")
    assert (first.until, second.until) == (101, 104)
    assert "2 times in a row" in second.reason
    assert "no such file" in second.reason


def test_a_worker_that_lived_starts_the_count_anew() -> None:
    tenth = after(None, 0, 0, "")
    for _ in range(9):
        tenth = after(tenth, tenth.until, 0, "")
    assert tenth.failures == 10
    assert after(tenth, tenth.until, STABLE_S, "").failures == 1
    assert after(tenth, tenth.until + LONGEST_S, 0, "").failures == 1


def test_a_worker_that_served_and_was_killed_holds_nothing_back() -> None:
    killed = None
    for now in range(20):
        killed = after(killed, now, 2.0, "SIGKILL", served=True)
    assert killed is not None
    assert killed.failures == 1
    assert killed.until == 19 + pause_s(1)


def test_an_excused_failure_leaves_the_back_off_of_those_before_it() -> None:
    first = after(None, 100, 0.1, "exit 1")
    second = after(first, 102, 0.1, "exit 4: the engine is lost")
    assert first.excused is None
    assert second.excused is not None
    assert (second.excused.failures, second.excused.until) == (1, 103)
    memory = Memory().failed(0, "a", 0, "x").failed(0, "a", 0, "y").failed(0, "b", 0, "z").excused("a").excused("b")
    assert {name: one.failures for name, one in memory.failures.items()} == {"a": 1}
    assert memory.excused("never seen") == memory


def test_models_fail_each_for_itself() -> None:
    memory = Memory().failed(0, "a", 0, "x").failed(0, "a", 0, "y").failed(0, "b", 0, "z")
    assert {name: one.failures for name, one in memory.failures.items()} == {"a": 2, "b": 1}
