"""How often the clients of one key may hang up."""

from __future__ import annotations

from gateway.access.hang_ups import AT_ONCE, PER_S, HangUps


def test_a_key_waits_when_its_clients_hang_up_too_often_and_others_do_not() -> None:
    hang_ups = HangUps()
    for _ in range(int(AT_ONCE) + 10):
        assert hang_ups.wait_s("other", 0.0) == 0
        hang_ups.count("busy", 0.0)
    assert hang_ups.wait_s("busy", 0.0) == 10 / PER_S
    assert hang_ups.wait_s("busy", 10 / PER_S) == 0


def test_people_who_close_pages_are_not_held_up_and_leave_nothing_behind() -> None:
    hang_ups = HangUps()
    for number in range(1000):
        hang_ups.count("usual", number / PER_S)
        assert hang_ups.wait_s("usual", number / PER_S) == 0
    assert hang_ups.wait_s("usual", 1000.0) == 0
    assert not hang_ups._buckets
