"""The limit of open files of a worker."""

import errno
import resource
import subprocess
import sys

import pytest

from producer.contract.errors import ConfigError
from workers import open_files


def test_a_worker_raises_its_soft_limit_to_the_hard_one() -> None:
    """In a process of its own: a limit cannot be put back."""
    program = (
        "import resource; from producer.contract import open_files\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (100, 300)); open_files.raise_limit(); print(open_files.limit())"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout == "300\n"


def test_more_connections_than_the_limit_leaves_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 4096))
    open_files.require(1024 - open_files.OWN)
    with pytest.raises(ConfigError, match=r"max_concurrency = 897 takes up to 1025 open files, .* is 1024: raise the"):
        open_files.require(1024 - open_files.OWN + 1)


def test_a_lack_of_descriptors_is_found_below_the_errors_of_http_clients() -> None:
    lack = OSError(errno.EMFILE, "Too many open files")
    several = OSError("All connection attempts failed")
    several.__cause__ = ExceptionGroup("", [ConnectionRefusedError(), lack])
    outer = RuntimeError("connect")
    outer.__context__ = several
    assert open_files.are_used_up(lack)
    assert open_files.are_used_up(outer)
    assert not open_files.are_used_up(ConnectionRefusedError(errno.ECONNREFUSED, "refused"))
