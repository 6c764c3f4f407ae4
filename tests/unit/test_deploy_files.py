"""Ports that are kept, and files that only their owner reads."""

import socket
import stat
from pathlib import Path

from deploy.machine import private
from deploy.machine.ports import is_free, kept_port
from deploy.machine.supervise import LONGEST_S, pause_s


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
