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
        ('[models."M m"]\nengine = "echo"', "models.M m", "'M m'", "lower-case letters, digits, . _ -"),
        ("[tiers.a]\nweight = 1\ntarget_wait_s = -1", "tiers.a.target_wait_s", "-1", "greater than 0"),
        ("[redis]\nurll = 'x'", "redis.urll", "'x'", "did you mean url?; allowed: url, worker_url"),
        ("[modelz.m]", "modelz", "{'m'", "did you mean models?; allowed: redis, tiers"),
        (
            '[models.m]\nengine = "echo"\nlimits = { max_input = 3 }',
            "models.m.limits.max_input",
            "3",
            "did you mean max_inputs?; allowed: max_input_bytes",
        ),
        ('[models.m]\nengine = "echo"\nzzz = 1', "models.m.zzz", "1", "no such key; allowed: engine, source"),
        ("[tiers.'a.b']\nweight = 1\ntarget_wait_s = 1", "tiers.a.b", "'a.b'", "lower-case letters, digits, _ -"),
        ("[[devices]]\nname = 'slot-a'", "devices.0.name", "'slot-a'", "cpu:N or cuda:N"),
        ("[[devices]]\nname = 'cpu:0'\nmemory = 3", "devices.0.memory", "3", "did you mean memory_gb?"),
        ("devices = 3", "devices", "3", "valid tuple"),
        (
            "[[simulation.devices]]\ntype = 'h100'\ncount = 1\nmemory = 80",
            "simulation.devices.0.memory",
            "80",
            "did you mean memory_gb?",
        ),
        (
            "[simulation.models.m]\nstep_s = -1\nsequence_s = 0",
            "simulation.models.m.step_s",
            "-1",
            "greater than or equal to 0",
        ),
        ("[simulation]\ndevice = 3", "simulation.device", "3", "did you mean devices?"),
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


def test_a_file_that_cannot_be_read_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"is a folder: name the file in it, such as .*fleet\.toml"):
        Settings.load(tmp_path)
    file = tmp_path / "fleet.toml"
    file.write_bytes(b'# caf\xe9\n[models.m]\nengine = "echo"\n')
    with pytest.raises(ConfigError, match=r"is not UTF-8 \(byte 5\): save it as UTF-8"):
        Settings.load(file)
    with pytest.raises(ConfigError, match=r"cannot be read \(Not a directory\)"):
        Settings.load(file / "fleet.toml")


@pytest.mark.parametrize(
    ("text", "state_dir"),
    [
        ("[[", ".stoker"),
        ('state_dir = "kept"\nnonsense = 1', "kept"),
        ("state_dir = 3", ".stoker"),
        ('[models.m]\nengine = "gone"', ".stoker"),
    ],
)
def test_a_broken_file_is_enough_to_stop_by(tmp_path: Path, text: str, state_dir: str) -> None:
    with pytest.raises(ConfigError):
        load(tmp_path, text)
    settings = Settings.load_to_stop(tmp_path / "fleet.toml")
    assert settings.state_dir == tmp_path / state_dir
    assert settings.scaling.drain_s > 0
    assert settings.url_file.parent == settings.state_dir


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
