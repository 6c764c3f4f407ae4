"""The fleet file, read again when it changes: a model is added without a restart."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from ..errors import ConfigError
from .settings import Settings, fleet_path

log = logging.getLogger(__name__)

FIXED = ("redis", "state_dir")
"""Tables that take effect only at the start of a process, whatever it does."""


class FleetFile:
    """A fleet file, and the settings that were last read from it.

    Args:
        path: the file; by default ``STOKER_FLEET``, then ``fleet.toml`` here.
        fixed: tables that take effect only at the start of this process, besides ``FIXED``.
        part: the name of this process for ``stoker restart``.

    Raises:
        ConfigError: the file is invalid when it is first read.
    """

    def __init__(self, path: Path | str | None = None, fixed: Sequence[str] = (), part: str = "") -> None:
        self.path = fleet_path(path).absolute()
        self._fixed = (*FIXED, *fixed)
        self._part = part
        self._read = self._before = self._mark()  # taken before the reading, so that a change meanwhile is noticed
        self.settings = Settings.load(path)

    def again(self) -> Settings:
        """The current settings: a new object when the file changed and is valid, else the same object as before.

        A change takes effect when the file is the same in two calls: a file that is being written may be valid and yet
        lack models, whose workers would be drained.
        """
        mark, before = self._mark(), self._before
        self._before = mark
        if mark == self._read or mark != before:
            return self.settings
        self._read = mark
        try:
            found = Settings.load(self.path)
        except (ConfigError, OSError, UnicodeDecodeError) as error:
            said = "; ".join(str(error).splitlines())
            log.error("the changed fleet file is refused, what was read before stays: %s", said)
            return self.settings
        self._take(found)
        return self.settings

    def _take(self, found: Settings) -> None:
        old = self.settings
        later = [table for table in self._fixed if getattr(found, table) != getattr(old, table)]
        self.settings = found.model_copy(update={table: getattr(old, table) for table in self._fixed})
        came, went = sorted(found.models.keys() - old.models.keys()), sorted(old.models.keys() - found.models.keys())
        changed = sorted(
            name for name in found.models.keys() & old.models.keys() if found.models[name] != old.models[name]
        )
        parts = [
            f"{what}: {', '.join(names)}"
            for what, names in (("new", came), ("gone", went), ("changed", changed))
            if names
        ]
        if later:
            parts.append(f"not before the next start: {', '.join(later)} ({self._cure(later)})")
        log.info("the fleet file changed and is in effect; %s", "; ".join(parts) or "no model changed")

    def _cure(self, later: Sequence[str]) -> str:
        if self._part and not set(later) & set(FIXED):
            return f"'stoker restart {self._part}', or restart this process where 'stoker up' does not run it"
        return "restart every process: 'stoker down', then 'stoker up'"

    def _mark(self) -> tuple[int, int, int] | None:
        """Modification time in ns, size in bytes and inode of the file; None when there is no file."""
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino
