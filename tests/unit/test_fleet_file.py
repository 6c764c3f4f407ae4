import logging
from pathlib import Path

import pytest

from producer.contract.errors import ConfigError
from producer.contract.fleet.fleet_file import FleetFile

ONE = '[models.one]\nengine = "echo"\n'
TWO = ONE + '[models.two]\nengine = "echo"\nmax_replicas = 3\n'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "fleet.toml"
    file.write_text(ONE)
    return file


def test_a_model_that_was_added_is_there_and_said_in_one_line(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    fleet = FleetFile(file)
    before = fleet.again()
    assert fleet.again() is before
    file.write_text(TWO)
    fleet.again()
    after = fleet.again()
    assert list(after.models) == ["one", "two"]
    assert after.state_dir == before.state_dir
    assert fleet.again() is after
    assert [one.getMessage() for one in caplog.records] == ["the fleet file changed and is in effect; new: two"]


def test_a_file_that_is_just_being_written_is_not_taken(file: Path) -> None:
    fleet = FleetFile(file)
    before = fleet.again()
    file.write_text("")  # valid, and without a single model
    assert fleet.again() is before
    file.write_text(TWO)
    assert fleet.again() is before
    assert list(fleet.again().models) == ["one", "two"]


@pytest.mark.parametrize("text", ['[models.one]\nengine = "ecko"\n', "models = [", "\udcff"])
def test_an_invalid_file_is_refused_once_and_the_old_one_stays(
    file: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    fleet = FleetFile(file)
    before = fleet.again()
    file.write_bytes(text.encode(errors="surrogateescape"))
    for _ in range(4):
        assert fleet.again() is before
    (refusal,) = caplog.records
    assert "is refused" in refusal.getMessage()
    assert "\n" not in refusal.getMessage()
    file.write_text(TWO)
    fleet.again()
    assert "two" in fleet.again().models


def test_a_file_that_is_gone_is_refused_once(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    fleet = FleetFile(file)
    before = fleet.again()
    file.unlink()
    for _ in range(4):
        assert fleet.again() is before
    (refusal,) = caplog.records
    assert "does not exist" in refusal.getMessage()


def test_what_only_a_restart_can_change_is_told(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    fleet = FleetFile(file, fixed=("devices",))
    file.write_text('[redis]\nurl = "redis://elsewhere"\n[[devices]]\nname = "cpu:1"\n' + ONE + "memory_gb = 2\n")
    fleet.again()
    after = fleet.again()
    assert (after.redis.url, after.devices) == (None, ())
    assert "changed: one; not before the next start: redis, devices (restart every process: 'stoker" in caplog.text


def test_what_one_process_reads_at_its_start_is_told_with_the_command(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    fleet = FleetFile(file, fixed=("devices",), part="autoscaler")
    file.write_text(f'{file.read_text()}\n[[devices]]\nname = "cpu:1"\n')
    fleet.again()
    fleet.again()
    assert "not before the next start: devices ('stoker restart autoscaler', or" in caplog.text


def test_the_first_reading_says_what_is_wrong(file: Path) -> None:
    file.write_text("models = 3")
    with pytest.raises(ConfigError, match="models = 3"):
        FleetFile(file)
