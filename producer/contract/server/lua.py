"""Lua scripts, put together from the files that they include and the Python values that they share.

Three kinds of line stand for something else. Their paths are relative to the folder of the Lua file, so that they hold
when ``producer`` is installed under another name:

- ``-- include PATH.lua``: that file.
- ``-- constant NAME from PATH.py``: ``local NAME = ...``, with the value of that name in the Python module.
- ``-- insert NAME from PATH.py``: Lua text that the Python module makes.
"""

from __future__ import annotations

import hashlib
import re
from importlib import import_module
from importlib.resources import files

_INCLUDE = re.compile("^-- include ([a-z_/.]+[.]lua)\n", re.MULTILINE)
_CONSTANT = re.compile("^-- constant ([A-Z_]+) from ([a-z_/.]+)[.]py\n", re.MULTILINE)
_INSERT = re.compile("^-- insert ([A-Z_]+) from ([a-z_/.]+)[.]py\n", re.MULTILINE)


def script(package: str, name: str) -> str:
    """The script in a package's file, whole."""
    folder, _, file = name.rpartition("/")
    package = _relative(package, folder)
    text = files(package).joinpath(file).read_text()

    def value(found: re.Match[str]) -> object:
        return getattr(import_module(_relative(package, found[2])), found[1])

    text = _CONSTANT.sub(lambda found: f"local {found[1]} = {_literal(value(found))}\n", text)
    text = _INSERT.sub(lambda found: str(value(found)), text)
    return _INCLUDE.sub(lambda found: script(package, found[1]), text)


def digest(text: str) -> str:
    """The SHA-1 by which a server knows a script."""
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


def _literal(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise TypeError(f"{value!r} is no constant of Lua: allowed are numbers and strings")
    return repr(value)


def _relative(package: str, path: str) -> str:
    parts = package.split(".")
    for step in filter(None, path.split("/")):
        if step == "..":
            parts.pop()
        else:
            parts.append(step)
    return ".".join(parts)
