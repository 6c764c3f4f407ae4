"""Ports that are kept, and files that only their owner reads."""

import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from autoscaler.launchers import records
from deploy.machine import gateway, private
from deploy.machine.local import Besides
from deploy.machine.ports import free_port, is_free, kept_port
from deploy.machine.supervise import LONGEST_S, pause_s
from producer import Settings
from producer.contract.errors import ConfigError


def mode(file: Path) -> int:
    return stat.S_IMODE(file.stat().st_mode)


def test_a_port_is_kept_from_run_to_run(tmp_path: Path) -> None:
    file = tmp_path / "made" / "port"
    assert kept_port(file) == kept_port(file) == int(file.read_text())


def test_a_kept_port_that_somebody_took_is_given_up(tmp_path: Path) -> None:
    file = tmp_path / "port"
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        file.write_text(str(taken))
        assert not is_free(taken)
        port = kept_port(file)
        assert port != taken
        assert int(file.read_text()) == port


def test_a_port_file_of_nonsense_is_written_anew(tmp_path: Path) -> None:
    file = tmp_path / "port"
    for nonsense in ("", "redis", "-1", "99999999"):
        file.write_text(nonsense)
        assert 0 < kept_port(file) < 65536


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state_dir=tmp_path / "state")


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as other:
        yield other.getsockname()[1]


def test_the_gateway_gets_the_usual_port_if_it_is_free(settings: Settings) -> None:
    usual = free_port()
    kept_port(gateway.port_file(settings))  # an earlier run found the usual port taken
    gateway.settle_port(settings, preferred=usual)
    assert gateway.url(settings) == f"http://127.0.0.1:{usual}"
    assert gateway.told_port(settings, preferred=usual) == ""


def test_another_port_is_taken_and_told_if_the_usual_one_is_not_free(settings: Settings, taken: int) -> None:
    gateway.settle_port(settings, preferred=taken)
    first = gateway.url(settings)
    assert first not in (None, f"http://127.0.0.1:{taken}")
    assert f"port {taken} was taken: 'stoker up --port'" in gateway.told_port(settings, preferred=taken)
    gateway.settle_port(settings, preferred=taken)
    assert gateway.url(settings) == first, "the same from run to run"


def test_a_port_asked_for_is_the_one_or_refused(settings: Settings, taken: int) -> None:
    with pytest.raises(ConfigError, match=rf"port {taken} is taken.*--port"):
        gateway.settle_port(settings, taken)
    asked = free_port()
    gateway.settle_port(settings, asked)
    assert gateway.url(settings) == f"http://127.0.0.1:{asked}"
    assert gateway.told_port(settings, asked) == ""


def test_a_gateway_that_still_runs_keeps_its_port(settings: Settings, taken: int) -> None:
    gateway.settle_port(settings, running := free_port())
    records.write(settings.state_dir / "run", records.of_process(os.getpid(), "gateway", "gateway"))
    gateway.settle_port(settings, preferred=free_port())
    gateway.settle_port(settings, running)
    with pytest.raises(ConfigError, match=r"still runs at .*'stoker down'"):
        gateway.settle_port(settings, free_port())
    assert gateway.url(settings) == f"http://127.0.0.1:{running}"


def test_the_port_is_handed_to_the_supervisor_in_the_background() -> None:
    assert Besides(flower=False, port=9000).options == ["--no-flower", "--port", "9000"]
    assert Besides().options == []


def test_a_private_file_is_readable_by_its_owner_alone_even_over_an_open_one(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("open")
    file.chmod(0o644)
    private.write(file, "closed")
    assert (file.read_text(), mode(file)) == ("closed", 0o600)
    assert list(tmp_path.iterdir()) == [file]


def test_a_password_is_made_once_and_kept(tmp_path: Path) -> None:
    file = tmp_path / "password"
    password = private.kept_password(file)
    assert len(password) >= 32
    assert private.kept_password(file) == password
    assert private.kept_password(tmp_path / "other") != password
    assert mode(file) == 0o600


def test_an_empty_password_file_is_not_an_empty_password(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.touch()
    assert private.kept_password(file)


def test_pauses_double_up_to_a_limit() -> None:
    assert [pause_s(failures) for failures in (1, 2, 3, 4)] == [0.5, 1.0, 2.0, 4.0]
    assert pause_s(50) == LONGEST_S
