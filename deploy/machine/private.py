"""Files that only their owner may read: passwords, and URLs that contain them."""

from __future__ import annotations

import os
import secrets
import tempfile
from pathlib import Path


def write(file: Path, text: str) -> None:
    """Write the file atomically, readable by its owner only from the start."""
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")  # 0600 from the start
    try:
        with os.fdopen(descriptor, "w") as output:
            output.write(text)
        Path(temporary).replace(file)
    except BaseException:  # such as a full disk
        Path(temporary).unlink(missing_ok=True)
        raise


def kept_password(file: Path) -> str:
    """The password in the file; the first call generates it and writes the file."""
    try:
        if password := file.read_text().strip():
            return password
    except FileNotFoundError:
        pass
    password = secrets.token_urlsafe(24)
    write(file, password + "\n")
    return password
