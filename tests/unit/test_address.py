"""Passwords in addresses: every library finds them, and no message shows them."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kombu.transport import redis as stock

from producer.contract.errors import ConfigError
from producer.contract.fleet.settings import Settings
from producer.contract.server.redis_url import OPTIONS, concealed, options_of, shown, usable, without_options

SECRET = "open-sesame"  # noqa: S105  a made-up one, which must show up nowhere


@pytest.mark.parametrize(
    ("url", "as_shown"),
    [
        ("redis://localhost:6379/0", "redis://localhost:6379/0"),
        (f"redis://:{SECRET}@10.0.0.1:6379/3", "redis://***@10.0.0.1:6379/3"),
        (f"rediss://user:{SECRET}@[::1]:6379/0?ssl_ca_certs=/ca.pem", "rediss://***@[::1]:6379/0"),
        (f"rediss://host/0?password={SECRET}", "rediss://host/0"),
        (f"sentinel://:{SECRET}@a:26379;sentinel://:{SECRET}@b:26379", "sentinel://***@a:26379;sentinel://***@b:26379"),
        (f"sentinel://a:1;sentinel://b:1/0?password={SECRET}", "sentinel://a:1;sentinel://b:1/0"),
        (f"unix://user:{SECRET}@/run/redis.sock?db=0", "unix://***@/run/redis.sock"),
        (f"redis://:x@{SECRET}@host:1/0", "redis://***@host:1/0"),
        (f"redis://:/{SECRET}@host:1/0", "***"),
        (f"redis://:?{SECRET}@host:1/0", "***"),
        (f"redis://u:1?{SECRET}@host:1/0", "***"),
        (f"redis://:#{SECRET}@host:1/0", "***"),
        (f"redis://host/0?password=x@{SECRET}", "***"),
        (f"redis://:;{SECRET}@host:1/0", "***"),
        (SECRET, "***"),
    ],
)
def test_an_address_is_shown_without_its_secrets(url: str, as_shown: str) -> None:
    assert shown(url) == as_shown


@given(st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=10))
def test_no_password_is_shown_whatever_it_is_made_of(noise: str) -> None:
    for password in (f"{noise}{SECRET}", f"{SECRET}{noise}", f"{noise[:5]}{SECRET}{noise[5:]}"):
        for url in (f"redis://:{password}@host:6379/0", f"rediss://user:{password}@host/0?ssl_cert_reqs=none"):
            assert SECRET not in shown(url)
            assert SECRET not in concealed(f"a value: {url!r}")


@given(st.text(st.sampled_from("a:/@? \n"), max_size=12))
def test_all_behind_the_first_scheme_is_concealed_if_it_may_hold_credentials(text: str) -> None:
    assert concealed(text) == re.sub(r"(\w+://).*[@?].*", r"\1***", text, flags=re.DOTALL)


def test_a_long_text_is_looked_through_once() -> None:
    """An expression that tries every character as a beginning takes hours."""
    for text in ("a" * 1_000_000, "a://" * 250_000):
        assert concealed(text) == text
    assert concealed("a" * 1_000_000 + "://user:word@host") == "a" * 1_000_000 + "://***"


def test_every_library_gets_the_form_that_it_understands() -> None:
    for same in (
        "redis://h:1/0",
        "redis://u:p%2F@h:1/0?socket_timeout=5",
        "unix:///s?db=0",
        "sentinel://a:1;sentinel://b:2/0",
    ):
        assert usable(same) == same
    assert usable("rediss://h/0") == "rediss://h/0?ssl_cert_reqs=required"
    assert usable("rediss://h/0?ssl_cert_reqs=CERT_NONE&ssl_ca_certs=/a/b") == (
        "rediss://h/0?ssl_cert_reqs=none&ssl_ca_certs=/a/b"
    )
    assert usable("redis://h:1/0?password=p/w&username=u") == "redis://u:p%2Fw@h:1/0"


def test_options_are_read_for_redis_py_and_taken_off_for_celery() -> None:
    url = usable("rediss://u:p%2F@h:1/?db=3&health_check_interval=30&socket_keepalive=no&ssl_ca_certs=/a/b")
    assert options_of(url) == {"health_check_interval": 30, "socket_keepalive": False}
    assert without_options(url) == "rediss://u:p%2F@h:1/3?ssl_ca_certs=/a/b&ssl_cert_reqs=required"
    sentinels = "sentinel://a:1/0?client_name=us;sentinel://b:2/0"
    assert options_of(sentinels) == {"client_name": "us"}
    assert without_options(sentinels) == "sentinel://a:1/0;sentinel://b:2/0"


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("decode_responses=true", "the option 'decode_responses', which is not known; allowed: client_name, "),
        ("ssl_ca_certs=/a", "the option 'ssl_ca_certs', which is not known"),
        ("health_check_interval=often", "health_check_interval = 'often'"),
        ("socket_keepalive=perhaps", "socket_keepalive = 'perhaps': allowed: true or false"),
        ("socket_timeout=0", "socket_timeout = '0': allowed: a number above 0"),
    ],
)
def test_an_option_that_cannot_be_used_is_refused(option: str, words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)):
        usable(f"redis://h:1/0?{option}")


def test_kombu_knows_every_option_that_it_is_given() -> None:
    assert OPTIONS.keys() <= set(stock.Channel.from_transport_options)


@pytest.mark.parametrize("password", [f"/{SECRET}", f"#{SECRET}", f"?{SECRET}", f"1/{SECRET}"])
@pytest.mark.parametrize("scheme", ["redis", "rediss", "sentinel"])
def test_an_address_that_cannot_be_read_is_refused_without_being_told(scheme: str, password: str) -> None:
    with pytest.raises(ConfigError, match="%2F for /") as refused:
        usable(f"{scheme}://:{password}@host:6379/0")
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    "tables",
    [
        f'redis = "redis://:{SECRET}@h"',
        f'[redis]\nurll = "redis://:{SECRET}@h"',
        f'[redis]\npassword = "{SECRET}"',
        f'redis = ["redis://:x y\'{SECRET}@h"]',
        f'[redis]\nurl = ["redis://:{SECRET}@h"]',
        f'[redis]\nurl = "redis://:{SECRET}@h"\n[models.m]\nengine = "echo"\ntiers = ["no"]',
    ],
)
def test_a_mistake_in_the_fleet_file_is_told_without_the_password(tmp_path: Path, tables: str) -> None:
    file = tmp_path / "fleet.toml"
    file.write_text(tables)
    with pytest.raises(ConfigError) as refused:
        Settings.load(file)
    assert SECRET not in str(refused.value)
    assert refused.value.__suppress_context__


def test_a_mistake_in_the_environment_is_told_without_the_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "fleet.toml"
    file.touch()
    monkeypatch.setenv("STOKER_REDIS", f"redis://:{SECRET}@h")
    with pytest.raises(ConfigError, match="redis") as refused:
        Settings.load(file)
    assert SECRET not in str(refused.value)


def test_settings_can_be_printed() -> None:
    settings = Settings.model_validate({"redis": {"url": f"redis://:{SECRET}@h"}})
    assert SECRET not in repr(settings) + str(settings)
