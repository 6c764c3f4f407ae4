"""Lua scripts, put together from the files that they include."""

from __future__ import annotations

import re
from importlib.resources import files

_INCLUDE = re.compile("^-- include (?:([a-z]+)/)?([a-z]+[.]lua)\n", re.MULTILINE)


def script(package: str, name: str) -> str:
    """The script in a package's file, with ``-- include FILE`` or ``-- include PACKAGE/FILE`` replaced by the file."""
    text = files(package).joinpath(name).read_text()
    return _INCLUDE.sub(lambda found: script(found[1] or package, found[2]), text)
