"""Where the files of batches are kept: a folder, or any place that fsspec knows, such as ``s3://bucket/batches``.

A file appears whole or not at all, and is there to stay when its writing has ended: on disk, not only in a cache.
"""

from __future__ import annotations

import contextlib
import io
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

from producer.contract.errors import ConfigError
from producer.contract.settings import Settings

SOURCE = "files"
"""Folder of the files that users know, by their ids."""

PARTS = "parts"
"""Folder of what batches have written so far, in a folder of its own for each."""


class Store(Protocol):
    """Files by name, such as ``files/file-1``. Whatever may be raised is an OSError."""

    def writing(self, name: str) -> contextlib.AbstractContextManager[BinaryIO]:
        """A file to write, which appears, or replaces the one of that name, when the block ends without an error."""

    def open(self, name: str) -> BinaryIO:
        """Read a file. FileNotFoundError when there is none."""

    def delete(self, name: str) -> None:
        """Delete a file, or a folder with all that is in it; none is none."""

    def tidy(self) -> None:
        """Delete what was begun and never ended, because its writer was killed."""


def store_of(settings: Settings) -> Store:
    """The store that the fleet file names; a folder of the state directory by default.

    Raises:
        ConfigError: it is on a file system that is not installed.
    """
    where = settings.gateway.files or str(settings.state_dir / "files")
    if "://" not in where:
        return Folder(Path(where))
    try:
        import fsspec  # type: ignore[import-untyped]  # ships no types; only who keeps files elsewhere needs it

        system, root = fsspec.core.url_to_fs(where)
    except (ImportError, ValueError) as error:
        raise ConfigError(f"gateway.files = {where!r}: {error}") from None
    return Elsewhere(system, root)


UPLOAD_S = 86_400.0
"""A file that was begun so long ago, in seconds, is nobody's any more."""


class Folder:
    """A folder of this machine, or one that several share."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[BinaryIO]:
        """See ``Store``."""
        path = self._root / name
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # A name of its own: of two writers, such as a process that was taken for dead, each replaces the whole file.
        temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.new")
        try:
            with temporary.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def open(self, name: str) -> BinaryIO:
        """See ``Store``."""
        return (self._root / name).open("rb")

    def delete(self, name: str) -> None:
        """See ``Store``."""
        path = self._root / name
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)

    def tidy(self) -> None:
        """See ``Store``."""
        for path in self._root.rglob("*.new"):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > UPLOAD_S:
                    path.unlink()


class Elsewhere:
    """A file system of fsspec's (https://filesystem-spec.readthedocs.io); object stores show only whole objects."""

    def __init__(self, system: Any, root: str) -> None:
        self._system = system
        self._root = root.rstrip("/")

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[BinaryIO]:
        """See ``Store``."""
        path = f"{self._root}/{name}"
        self._system.makedirs(path.rpartition("/")[0], exist_ok=True)
        file = self._system.open(path, "wb", autocommit=False)
        try:
            yield cast("BinaryIO", file)
            file.close()
            file.commit()
        except BaseException:
            file.discard()
            raise

    def open(self, name: str) -> BinaryIO:
        """See ``Store``."""
        return io.BufferedReader(self._system.open(f"{self._root}/{name}", "rb"))  # its readline knows no limit

    def delete(self, name: str) -> None:
        """See ``Store``."""
        with contextlib.suppress(FileNotFoundError):
            self._system.rm(f"{self._root}/{name}", recursive=True)

    def tidy(self) -> None:
        """Nothing: what was not completed is not there, or the object store's own to expire."""
