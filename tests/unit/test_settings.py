from pathlib import Path

import pytest

from producer import ConfigError, Settings, UnknownModel, UnknownTier

FLEET = """
[models.m]
engine = "echo"
tiers = ["interactive", "batch"]
"""


def load(tmp_path: Path, text: str) -> Settings:
    file = tmp_path / "fleet.toml"
    file.write_text(text)
    return Settings.load(file)


def test_the_defaults_are_three_tiers(tmp_path: Path) -> None:
    settings = load(tmp_path, FLEET)
    assert list(settings.tiers) == ["interactive", "standard", "batch"]
    assert settings.default_tier("m") == "interactive"
    assert settings.state_dir == tmp_path / ".stoker"


def test_the_environment_overrides_one_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOKER_MODELS__M__MAX_REPLICAS", "3")
    monkeypatch.setenv("STOKER_REDIS__URL", "redis://elsewhere:1/0")
    settings = load(tmp_path, FLEET)
    assert (settings.models["m"].max_replicas, settings.models["m"].engine) == (3, "echo")
    assert settings.redis_url == "redis://elsewhere:1/0"


@pytest.mark.parametrize(
    ("text", "key", "value", "allowed"),
    [
        ('[models.m]\nengine = "genrate"', "models.m.engine", "'genrate'", "'generate'"),
        ('[models.m]\nengine = "echo"\nmax_replicas = "many"', "models.m.max_replicas", "'many'", "integer"),
        (
            '[models.m]\nengine = "echo"\nmax_replicas = 0',
            "models.m.max_replicas",
            "0",
            "greater than or equal to 1",
        ),
        (
            '[models.m]\nengine = "echo"\nmin_replicas = 4',
            "models.m",
            "min_replicas is 4",
            "up to max_replicas",
        ),
        ('[models.m]\nengine = "echo"\ntiers = ["gold"]', "whole", "'gold'", "batch, interactive, standard"),
        (
            '[models.m]\nengine = "embed"',
            "models.m",
            "source is missing",
            "package:NAME, a path, or a hub id",
        ),
        ('[models."M m"]\nengine = "echo"', "models.M m", "'M m'", "match pattern"),
        ("[tiers.a]\nweight = 1\ntarget_wait_s = -1", "tiers.a.target_wait_s", "-1", "greater than 0"),
        ("[redis]\nurll = 'x'", "redis.urll", "'x'", "not permitted"),
        ("[modelz.m]", "modelz", "{'m'", "not permitted"),
        ("devices = 3", "devices", "3", "valid tuple"),
    ],
)
def test_a_mistake_is_answered_with_key_value_and_what_is_allowed(
    tmp_path: Path, text: str, key: str, value: str, allowed: str
) -> None:
    with pytest.raises(ConfigError) as error:
        load(tmp_path, text)
    for part in (key, value, allowed, "fleet.toml"):
        assert part in str(error.value)


def test_a_file_that_is_missing_or_no_toml_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"fleet\.toml does not exist.*STOKER_FLEET"):
        Settings.load(tmp_path / "fleet.toml")
    with pytest.raises(ConfigError, match="is not TOML: "):
        load(tmp_path, "[[")


def test_unknown_names_list_the_known_ones(tmp_path: Path) -> None:
    settings = load(tmp_path, FLEET)
    with pytest.raises(UnknownModel, match=r"'n'.*allowed: m"):
        settings.model("n")
    with pytest.raises(UnknownTier, match="'standard'; allowed: interactive, batch"):
        settings.tier("m", "standard")


def test_the_broker_is_configured_or_the_one_that_up_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REDIS_URL", raising=False)
    settings = load(tmp_path, FLEET)
    with pytest.raises(ConfigError, match="stoker up"):
        _ = settings.redis_url
    settings.state_dir.mkdir()
    settings.url_file.write_text("redis://127.0.0.1:7/0\n")
    assert settings.redis_url == "redis://127.0.0.1:7/0"
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:8/0")
    assert settings.redis_url == "redis://127.0.0.1:8/0"


def test_settings_are_frozen(tmp_path: Path) -> None:
    settings = load(tmp_path, FLEET)
    with pytest.raises(ValueError, match="frozen"):
        settings.models["m"].max_replicas = 9  # type: ignore[misc]  # that it is refused is the point
