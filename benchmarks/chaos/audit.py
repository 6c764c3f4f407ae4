"""Reads the history of writes from the server's append-only file, so that no subscriber is needed during the run."""

from __future__ import annotations

import json
import mmap
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from producer.contract import keys

FINAL = (b'"SUCCESS"', b'"FAILURE"', b'"REVOKED"')
RESULT = keys.result("").encode()


def commands(data_dir: Path) -> Iterator[list[bytes]]:
    """Every write of a server's life, in order; a last one that a crash cut short is left out.

    Scripts stand there as the plain commands that they ran (effects replication).
    """
    for file in sorted((data_dir / "appendonlydir").glob("*.incr.aof"), key=_sequence):
        if not file.stat().st_size:
            continue
        with file.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as text:
            yield from _parse(text)


def _sequence(file: Path) -> int:
    return int(file.name.split(".")[-3])


def _parse(text: mmap.mmap) -> Iterator[list[bytes]]:
    at, end = 0, len(text)
    while at < end:
        stop = text.find(b"\r\n", at)
        if stop < 0:
            return
        head, at = text[at:stop], stop + 2
        if head.startswith(b"#"):  # an annotation, such as a time stamp
            continue
        command = []
        for _ in range(int(head[1:])):
            stop = text.find(b"\r\n", at)
            if stop < 0:
                return
            length = int(text[at + 1 : stop])
            if stop + 2 + length + 2 > end:
                return
            command.append(text[stop + 2 : stop + 2 + length])
            at = stop + 2 + length + 2
        yield command


def commits(data_dir: Path) -> Counter[str]:
    """How often a final result of each job was stored. The value starts with its status, in stock Celery too."""
    found: Counter[str] = Counter()
    for command in commands(data_dir):
        name = command[0].upper()
        if name not in (b"SET", b"SETEX", b"PSETEX") or not command[1].startswith(RESULT):
            continue
        value = command[2] if name == b"SET" else command[3]
        if value[:40].split(b",")[0].endswith(FINAL):
            found[command[1].removeprefix(RESULT).decode()] += 1
    return found


def runs(journal: Path) -> Counter[str]:
    """How often each input reached an engine (the echo engine's ``journal``)."""
    found: Counter[str] = Counter()
    if journal.exists():
        for line in journal.read_text().splitlines():
            found.update(each if isinstance(each, str) else json.dumps(each) for each in json.loads(line))
    return found
