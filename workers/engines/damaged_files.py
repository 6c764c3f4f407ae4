"""Damaged files of a model, and the cure: the errors of the libraries that load a model name no file."""

from __future__ import annotations

import json
from pathlib import Path

LFS_POINTER = b"version https://git-lfs.github.com/spec/"
"""The first bytes of the text that a clone without Git LFS has in place of a large file. Source:
https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md"""
NEVER_EMPTY = (".safetensors", ".json", ".model", ".gguf")
LOADED = (*NEVER_EMPTY, ".txt", ".bin")
"""The suffixes of the files that are read when a model is loaded."""


def damage(file: Path) -> str:
    """What is wrong with the form of a file, and the cure; empty when nothing is."""
    with file.open("rb") as opened:
        head = opened.read(len(LFS_POINTER))
    if head == LFS_POINTER:
        return f"{file} is a Git LFS pointer, not the file itself: fetch it with 'git lfs pull', or download it"
    if not head and file.suffix in NEVER_EMPTY:
        return f"{file} is empty, copy it again"
    try:
        if file.suffix == ".safetensors":
            from safetensors import safe_open  # here, because not every engine has it

            with safe_open(file, framework="pt"):
                pass
        elif file.suffix == ".json":
            json.loads(file.read_bytes())
    except ValueError as error:
        return f"{file} is not JSON: {error}; copy it again"
    except Exception as error:  # SafetensorError has no public base
        return f"{file} is damaged, copy it again: {error}"
    return ""


def first_damage(model_dir: Path) -> str:
    """The damage of the first damaged file in the directory of a model; empty when none is."""
    files = [file for file in sorted(model_dir.iterdir()) if file.suffix in LOADED and file.is_file()]
    return next(filter(None, map(damage, files)), "")
