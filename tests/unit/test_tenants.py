import pytest
from pydantic import ValidationError

from producer.contract.fleet.settings import Settings
from producer.contract.fleet.tenants import Tenant


def test_a_tenant_without_a_table_has_that_of_the_others() -> None:
    settings = Settings(tenants={"acme": {"weight": 2}, "*": {"max_queued": 5}})
    assert settings.tenant("acme") == Tenant(weight=2)
    assert settings.tenant("somebody") == Tenant(max_queued=5)
    assert settings.tenant("default") == Tenant(max_queued=5)


def test_tenants_come_from_the_environment_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOKER_TENANTS__ACME__MAX_IN_FLIGHT", "3")
    assert Settings().tenant("acme").max_in_flight == 3


def test_stock_producers_cannot_be_held_to_a_quota() -> None:
    with pytest.raises(ValidationError, match=r"tenants.default has max_in_flight or tokens_per_minute"):
        Settings(tenants={"default": {"max_in_flight": 5}})
    assert Settings(tenants={"default": {"weight": 5, "max_queued": 3}}).tenant("default").weight == 5


@pytest.mark.parametrize(("quota", "barred"), [("max_in_flight", True), ("tokens_per_minute", True), ("weight", False)])
def test_keys_of_default_are_barred_where_they_would_escape_a_quota(quota: str, barred: bool) -> None:
    assert Settings(tenants={"*": {quota: 5}}).bars_default is barred
    assert Settings(tenants={"acme": {quota: 5}}).bars_default is False


@pytest.mark.parametrize("wrong", [{"weight": 0}, {"max_queued": 0}, {"tokens_per_minute": -1}, {"wieght": 2}])
def test_a_bad_value_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Settings(tenants={"acme": wrong})
