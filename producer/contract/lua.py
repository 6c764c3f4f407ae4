"""Lua scripts, put together from the files that they include."""

from __future__ import annotations

import re
from importlib.resources import files

_INCLUDE = re.compile("^-- include ([a-z_/.]+[.]lua)\n", re.MULTILINE)


def script(package: str, name: str) -> str:
    """The script in a package's file; each line ``-- include PATH`` is replaced by that file.

    Paths are relative to the folder of the including file, so that they hold when ``producer`` is installed under
    another name.
    """
    folder, _, file = name.rpartition("/")
    package = _package(package, folder)
    text = files(package).joinpath(file).read_text()
    return _INCLUDE.sub(lambda found: script(package, found[1]), text)


def _package(start: str, folder: str) -> str:
    parts = start.split(".")
    for step in filter(None, folder.split("/")):
        if step == "..":
            parts.pop()
        else:
            parts.append(step)
    return ".".join(parts)
