"""A newcomer's first commands: ``stoker init`` and ``stoker --version``."""

import re
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deploy.cli import app
from deploy.cli.init import TEMPLATE
from producer import Settings
from producer.contract.errors import ConfigError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "fleet.toml"
    monkeypatch.setenv("STOKER_FLEET", str(file))
    return file


def test_the_written_file_is_a_fleet(file: Path) -> None:
    done = CliRunner().invoke(app, ["init"])
    assert done.exit_code == 0, done.output
    assert str(file) in done.output
    settings = Settings.load(file)
    assert list(settings.models) == ["parrot"]
    assert [device.name for device in settings.devices] == ["cpu:0"]


def test_every_option_in_the_comments_is_valid(file: Path) -> None:
    file.write_text(re.sub(r"^#(?=\S)", "", TEMPLATE, flags=re.MULTILINE))
    settings = Settings.load(file)
    assert sorted(settings.models) == ["parrot", "smollm2"]
    assert settings.tiers == Settings().tiers, "they are said to be the defaults"
    assert settings.redis.url


def test_an_existing_file_is_never_replaced(file: Path) -> None:
    file.write_text("mine")
    done = CliRunner().invoke(app, ["init"])
    assert isinstance(done.exception, ConfigError)
    assert "exists and stays as it is" in str(done.exception)
    assert file.read_text() == "mine"


def test_the_version_is_the_installed_one() -> None:
    done = CliRunner().invoke(app, ["--version"])
    assert done.exit_code == 0
    assert done.output == f"stoker {tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']['version']}\n"
