"""The store of batch files: a folder, or a file system of fsspec's, such as ``s3://bucket/batches``.

Files appear atomically, and are on disk, not only in a cache, when their writing has ended.
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
from producer.contract.fleet.settings import Settings

SOURCE = "files"
"""Folder of uploaded and output files, by id."""

PARTS = "parts"
"""Folder of the parts of running batches, in one folder each."""


class Store(Protocol):
    """Files by name, such as ``files/file-1``. All errors are OSErrors."""

    def writing(self, name: str) -> contextlib.AbstractContextManager[BinaryIO]:
        """A file to write; it appears, or replaces the one of that name, when the block ends without an error."""

    def open(self, name: str) -> BinaryIO:
        """Read a file. FileNotFoundError when there is none."""

    def delete(self, name: str) -> None:
        """Delete a file, or a folder with its content, if it exists."""

    def tidy(self) -> None:
        """Delete unfinished files of writers that were killed."""


def store_of(settings: Settings) -> Store:
    """The store named in the fleet file; by default a folder of the state directory.

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
"""Age in seconds from which an unfinished file counts as abandoned."""


class Folder:
    """A folder of this machine, or one that several machines share."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[BinaryIO]:
        """See ``Store``."""
        path = self._root / name
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # A unique name: two writers, one of them taken for dead, then each replace the whole file.
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
        """Nothing: incomplete objects do not exist, or the object store expires them."""
