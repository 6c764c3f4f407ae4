"""Which batches run: tenants share the places, and a batch that gets nowhere makes room."""

from collections.abc import Sequence

from gateway.batches.turns import AT_ONCE, IDLE_S, OF_TENANT, RunningBatch, next_batch, to_stop


def of(tenant: str, count: int, idle_s: float = 0.0) -> list[RunningBatch]:
    return [RunningBatch(f"{tenant}{n}", tenant, idle_s + n / 100) for n in range(count)]


def settled(running: Sequence[RunningBatch], waiting: dict[str, list[str]]) -> list[str]:
    """Tenants of the batches that run once everything was started and stopped that is to be."""
    now, waiting = list(running), {tenant: list(batches) for tenant, batches in waiting.items()}
    for _ in range(100):
        if (found := next_batch(now, waiting)) is not None:
            waiting[found[1]].remove(found[0])
            now.append(RunningBatch(*found))
        elif (stopped := to_stop(now, waiting)) is not None:
            gone = next(each for each in now if each.batch_id == stopped)
            now.remove(gone)
            waiting.setdefault(gone.tenant, []).append(stopped)
        else:
            return sorted(each.tenant for each in now)
    raise AssertionError("it never comes to rest")


def many(tenant: str) -> list[str]:
    return [f"{tenant}-{n}" for n in range(50)]


def test_one_tenant_leaves_a_place_for_the_next() -> None:
    assert settled([], {"a": many("a")}) == ["a"] * OF_TENANT
    assert next_batch(of("a", OF_TENANT), {"a": many("a"), "b": ["b-0"]}) == ("b-0", "b")


def test_tenants_share_the_places() -> None:
    half = AT_ONCE // 2
    assert settled(of("a", OF_TENANT), {"a": many("a"), "b": many("b")}) == ["a"] * half + ["b"] * half
    found = settled(of("a", half) + of("b", half), {name: many(name) for name in "abc"})
    assert len(found) == AT_ONCE
    assert min(found.count(name) for name in "abc") >= AT_ONCE // 3


def test_whoever_has_more_than_its_share_gives_up_what_moves_least() -> None:
    running = of("a", 5) + of("b", 3)
    assert to_stop(running, {"c": ["c-0"]}) == "a4"
    assert to_stop(running, {"a": many("a")}) is None, "its own wait"
    assert to_stop(of("a", 1), {}) is None


def test_a_batch_that_gets_nowhere_makes_room_for_the_next_of_its_tenant_too() -> None:
    stuck = of("a", OF_TENANT, IDLE_S)
    assert to_stop(stuck, {"a": ["a-0"]}) == f"a{OF_TENANT - 1}"
    assert to_stop(stuck, {}) is None
    assert to_stop(of("a", OF_TENANT), {"a": ["a-0"]}) is None
