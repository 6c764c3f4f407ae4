"""Resuming ``stoker batch``: the identity of a batch, its finished lines, and files that survive any crash."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from producer.contract.errors import BatchError

from .lines import lines
from .lines.line_set import LineSet

HEAD_BYTES = 65_536
"""Bytes at the start of the input that, with its size, identify it."""


@dataclass(frozen=True, slots=True)
class BatchIdentity:
    """The identity of a batch: an equal one resumes it, any other is a different batch."""

    input: str
    input_bytes: int
    input_head_sha256: str
    model: str | None
    tier: str | None
    tenant: str

    @classmethod
    def about(cls, source: Path, model: str | None, tier: str | None, tenant: str) -> BatchIdentity:
        """Describe a batch over the file ``source``."""
        with source.open("rb") as file:
            head = hashlib.sha256(file.read(HEAD_BYTES)).hexdigest()
            size = file.seek(0, os.SEEK_END)
        return cls(str(source.absolute()), size, head, model, tier, tenant)


def sidecar(out: Path) -> Path:
    """The file beside the output that identifies the run of an unfinished batch."""
    return out.with_name(out.name + ".run")


@contextlib.contextmanager
def opened_alone(out: Path) -> Iterator[BinaryIO]:
    """The output file, opened and locked. The kernel releases the lock with the process.

    Raises:
        BatchError: another process writes it.
    """
    with os.fdopen(os.open(out, os.O_RDWR | os.O_CREAT, 0o666), "r+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BatchError(f"another process writes {out} now: wait for it, or name another --out") from None
        yield file


def claim_run(out: Path, asked: BatchIdentity) -> str:
    """The id of the run to resume, or of a new one. Its sidecar file is on disk afterwards.

    Raises:
        BatchError: the output belongs to another batch.
    """
    file = sidecar(out)
    if file.exists():
        return _same(file, asked, out)
    run = str(uuid.uuid4())
    _write_whole(file, json.dumps({"run": run, **asdict(asked)}, indent=1) + "\n")
    return run


def _same(file: Path, asked: BatchIdentity, out: Path) -> str:
    try:
        kept: dict[str, Any] = json.loads(file.read_text())
        run = str(kept.pop("run"))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise BatchError(f"{file} is not a sidecar of ours: remove it, or name another --out") from None
    wanted = asdict(asked)
    if other := [key for key in wanted if kept.get(key) != wanted[key]]:
        found = "; ".join(f"{key} was {kept.get(key)!r}, is {wanted[key]!r}" for key in other)
        raise BatchError(
            f"{out} belongs to an unfinished batch that is not this one: {found}. Go on with that one by its "
            "own command, name another --out, or begin anew with --overwrite"
        )
    return run


def _write_whole(file: Path, text: str) -> None:
    """Write a file atomically and sync it to disk."""
    temporary = file.with_name(file.name + ".new")
    with temporary.open("w") as output:
        output.write(text)
        output.flush()
        os.fsync(output.fileno())
    temporary.replace(file)
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def survey(file: BinaryIO, out: Path) -> tuple[LineSet, int]:
    """The finished lines in the output, and how many of them are errors. Leaves the file position at the end.

    A torn last line, left by a process that was killed while writing, is cut off.

    Raises:
        BatchError: a line in it is not ours.
    """
    finished, errors, end = LineSet(), 0, 0
    file.seek(0)
    for position, raw in enumerate(file, 1):
        if not raw.endswith(b"\n"):
            break
        end += len(raw)
        number, _, failed = _answered(raw, position, out)
        errors += failed and number not in finished
        finished.add(number)
    file.truncate(end)
    file.seek(end)
    return finished, errors


_ID = re.compile(rb'\{"id": "batch_req_[^"]*-(\d+)"')


def number_of(told: bytes) -> int:
    """The number of the input line that an output line in OpenAI's form answers, from its first bytes.

    Raises:
        ValueError: Stoker did not write it.
    """
    if (found := _ID.match(told)) is None:
        raise ValueError("no output line of a batch")
    return int(found[1])


def _answered(raw: bytes, position: int, out: Path) -> tuple[int, str, bool]:
    """Line number, custom_id, and whether it is an error, of one output line."""
    try:
        told = json.loads(raw)
        if "line" in told:
            return int(told["line"]), str(told["custom_id"]), "error" in told
        response = told["response"]
        return number_of(raw), str(told["custom_id"]), response is None or response["status_code"] != 200
    except (ValueError, KeyError, TypeError):
        raise BatchError(
            f"line {position} of {out} is not the output of a batch: repair it, name another --out, or begin "
            "anew with --overwrite"
        ) from None


def is_complete(source: Path, out: Path, longest: int) -> bool:
    """Whether the output answers every line of the input once, by number and custom id, in any order."""
    wanted = got = count = 0
    with source.open("rb") as file:
        for number, raw in lines.read(file, longest):
            count += 1
            wanted ^= hash((number, lines.parse(number, raw, longest).custom_id))
    answered = LineSet()
    with out.open("rb") as file:
        for position, raw in enumerate(file, 1):
            number, custom_id, _ = _answered(raw, position, out)
            if number in answered:
                return False
            answered.add(number)
            got ^= hash((number, custom_id))
    return len(answered) == count and got == wanted
