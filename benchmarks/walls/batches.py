"""A tenant with 8, then 500 open Batches for a model without a worker, and another's Batch of three lines."""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path
from typing import Any

import httpx2

from benchmarks.bars import Bar
from benchmarks.chaos.arena import wait_for

from .stage import Fleet, Say

FEW, MANY, QUICK_MANY = 8, 500, 40
RATIO = 2.0
TIMES, QUICK_TIMES = 5, 2
"""Batches of three lines that are timed; the median counts."""


def run(folder: Path, say: Say, *, quick: bool) -> list[Bar]:
    """Time another's Batch alone, behind few, and behind many."""
    many, times = (QUICK_MANY, QUICK_TIMES) if quick else (MANY, TIMES)
    with Fleet(folder) as fleet:
        fleet.arena.spawn("batches", "gateway.batches")
        with _client(fleet, "alice") as alice, _client(fleet, "bob") as bob:
            _timed(bob, 1)
            alone = _timed(bob, times)
            bars = []
            opened = refused = 0
            file = _upload(alice, "asleep")
            for count in (FEW, many):
                while opened + refused < count:
                    if _open(alice, file).is_success:
                        opened += 1
                    else:
                        refused += 1
                took = _timed(bob, times)
                note = f"{took:.2f} s, alone {alone:.2f} s; {opened} of {count} were accepted"
                say(f"   behind {count} of another tenant: {note}")
                bars.append(
                    Bar(f"batches: behind {count} of another, times alone", round(took / alone, 2), RATIO, note=note)
                )
    return bars


def _client(fleet: Fleet, tenant: str) -> httpx2.Client:
    headers = {"Authorization": f"Bearer {fleet.key(tenant)}"}
    return httpx2.Client(base_url=f"http://127.0.0.1:{fleet.port}/v1", headers=headers, timeout=60)


def _upload(client: httpx2.Client, model: str) -> str:
    lines = [
        {"custom_id": str(number), "method": "POST", "url": "/v1/completions", "body": {"model": model, "prompt": "x"}}
        for number in range(3)
    ]
    content = "".join(json.dumps(line) + "\n" for line in lines).encode()
    answer = client.post("/files", data={"purpose": "batch"}, files={"file": ("in.jsonl", content)})
    return str(answer.raise_for_status().json()["id"])


def _open(client: httpx2.Client, file: str) -> httpx2.Response:
    asked = {"input_file_id": file, "endpoint": "/v1/completions", "completion_window": "24h"}
    return client.post("/batches", json=asked)


def _timed(client: httpx2.Client, times: int) -> float:
    """Seconds, from its creation to its end, of a Batch of three lines: the median of some."""
    return statistics.median([_one(client) for _ in range(times)])


def _one(client: httpx2.Client) -> float:
    file, began = _upload(client, "talk"), time.monotonic()
    batch = _open(client, file).raise_for_status().json()

    def ended() -> dict[str, Any] | None:
        found: dict[str, Any] = client.get(f"/batches/{batch['id']}").raise_for_status().json()
        return found if found["status"] in ("completed", "failed", "expired", "cancelled") else None

    found = wait_for(ended, f"batch {batch['id']}")
    if found["status"] != "completed" or found["request_counts"]["completed"] != 3:
        raise RuntimeError(f"a batch of three lines ended as {found}")
    return time.monotonic() - began
