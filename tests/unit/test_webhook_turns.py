"""Whose webhook is delivered next."""

from __future__ import annotations

from gateway.webhooks.turns import AT_ONCE, FAILING, OF_TENANT, TO_HOST, WAITING, Turn, Turns


def turns_of(turns: Turns[int], count: int = AT_ONCE, now: float = 0.0) -> list[Turn[int]]:
    found = [turns.next(now) for _ in range(count)]
    return [turn for turn in found if turn is not None]


def wait(turns: Turns[int], tenant: str, count: int, host: str = "", until: float = 1.0) -> None:
    for number in range(count):
        turns.add(Turn(tenant, host or f"host{number}", number, until))


def test_a_tenant_has_a_few_places_and_others_the_rest() -> None:
    turns: Turns[int] = Turns()
    wait(turns, "alice", 100)
    assert [turn.tenant for turn in turns_of(turns)] == ["alice"] * OF_TENANT
    wait(turns, "bob", 2)
    assert [turn.tenant for turn in turns_of(turns)] == ["bob"] * 2


def test_tenants_take_turns() -> None:
    turns: Turns[int] = Turns()
    for tenant in ("alice", "bob", "carol"):
        wait(turns, tenant, 3)
    assert [turn.tenant for turn in turns_of(turns, 6)] == ["alice", "bob", "carol"] * 2


def test_a_host_that_is_full_holds_up_no_other_of_its_tenant() -> None:
    turns: Turns[int] = Turns()
    wait(turns, "alice", 20, "slow")
    wait(turns, "alice", 2, "fast")
    assert [turn.host for turn in turns_of(turns)] == ["slow"] * TO_HOST + ["fast"] * 2


def test_who_fails_has_two_places_until_it_succeeds() -> None:
    turns: Turns[int] = Turns()
    wait(turns, "alice", 60)
    for turn in turns_of(turns, FAILING):
        turns.ended(turn, succeeded=False)
    trial, _ = turns_of(turns)
    turns.ended(trial, succeeded=None)
    (trial,) = turns_of(turns)
    turns.ended(trial, succeeded=True)
    assert len(turns_of(turns)) == OF_TENANT - 1


def test_a_failing_host_leaves_its_tenants_others_alone() -> None:
    turns: Turns[int] = Turns()
    wait(turns, "alice", 20, "bad")
    for turn in turns_of(turns, FAILING):
        turns.ended(turn, succeeded=False)
    wait(turns, "alice", 1, "good")
    for turn in turns_of(turns):
        if turn.host == "good":
            turns.ended(turn, succeeded=True)
    wait(turns, "alice", 10, "good")
    assert sorted(turn.host for turn in turns_of(turns)) == ["good"] * TO_HOST


def test_what_has_waited_too_long_is_left_to_others() -> None:
    turns: Turns[int] = Turns()
    wait(turns, "alice", 5, until=1.0)
    wait(turns, "alice", 1, "late", until=3.0)
    assert [turn.host for turn in turns_of(turns, now=2.0)] == ["late"]


def test_there_is_a_bound_of_what_waits() -> None:
    turns: Turns[int] = Turns()
    wait(turns, "alice", WAITING)
    assert not turns.add(Turn("alice", "", 0, 1.0))
    assert turns.add(Turn("bob", "", 0, 1.0))
