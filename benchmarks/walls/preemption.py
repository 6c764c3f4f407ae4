"""Jobs of 40 s in every slot, of a tenant that may use the preemptible tier only, and another's interactive request."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack
from pathlib import Path

import httpx2

from benchmarks.bars import Bar
from benchmarks.chaos.arena import wait_for
from benchmarks.field import stage as field_stage
from producer.contract import keys

from .stage import TABLES, Fleet, Say, python

SLOTS, LONG_S, TOKEN_S = 6, 40.0, 0.1
TIMES, QUICK_TIMES = 8, 3
LATEST_S = 1.0
STUB = f"""
[models.served]
engine = "openai"
max_concurrency = {SLOTS}
options = {{{{ command = ["{{python}}", "{{stub}}", "--port", "{{{{port}}}}", "--token-s", "{TOKEN_S}"] }}}}
"""
WAYS: dict[str, dict[str, object]] = {
    "flex": {"service_tier": "flex"},
    "flex with a deadline": {"service_tier": "flex", "deadline_s": 590},
}


def run(folder: Path, say: Say, *, quick: bool) -> list[Bar]:
    """Fill every slot with each way's jobs, and time interactive requests of one word."""
    tables = TABLES + STUB.format(python=python(), stub=field_stage.STUB)
    bars = []
    with Fleet(folder, tables) as fleet:
        field_stage.worker(fleet.arena, "served")
        alice, bob = fleet.key("alice", tiers=("batch",)), fleet.key("bob")
        for name, asked in WAYS.items():
            with ExitStack() as stack:
                _fill(fleet, stack, alice, asked)
                took = [_ask(fleet, bob) for _ in range(QUICK_TIMES if quick else TIMES)]
            wait_for(lambda: not fleet.arena.redis.hlen(keys.inflight("served")), "the slots to be free again")
            note = f"{len(took)} requests, {1000 * min(took):.0f} to {1000 * max(took):.0f} ms"
            say(f"   {name}: {note}")
            bars.append(
                Bar(
                    f"preemption, {name}: longest wait of an interactive request, s",
                    round(max(took), 2),
                    LATEST_S,
                    note=note,
                )
            )
    return bars


def _fill(fleet: Fleet, stack: ExitStack, key: str, asked: dict[str, object]) -> None:
    """Have twice as many jobs as slots; they are hung up on when the stack is left."""
    words = {"model": "served", "prompt": "x", "max_tokens": int(LONG_S / TOKEN_S)}
    deadline = {name: value for name, value in asked.items() if name == "deadline_s"}
    for _ in range(2 * SLOTS):
        client = stack.enter_context(_client(fleet, key))
        if deadline:  # only jobs that are left with the gateway have one
            job = {"model": "served", "input": "x", "tier": "batch", **deadline}
            parameters = {"max_new_tokens": words["max_tokens"]}
            left = client.post("/jobs", json={**job, "parameters": parameters}).raise_for_status().json()
            stack.callback(_cancel, fleet, key, left["id"])
        else:
            thread = threading.Thread(target=_hold, args=(client, {**words, **asked}), daemon=True)
            thread.start()
            stack.callback(thread.join)
            stack.callback(client.close)
    wait_for(lambda: fleet.arena.redis.hlen(keys.inflight("served")) >= SLOTS - 1, "the slots to be taken")


def _hold(client: httpx2.Client, body: dict[str, object]) -> None:
    try:
        with client.stream("POST", "/completions", json={**body, "stream": True}) as answer:
            for _ in answer.iter_raw():
                pass
    except (httpx2.TransportError, httpx2.StreamError, RuntimeError):
        return  # hung up on


def _cancel(fleet: Fleet, key: str, job: str) -> None:
    with _client(fleet, key) as client:
        client.delete(f"/jobs/{job}")


def _ask(fleet: Fleet, key: str) -> float:
    with _client(fleet, key) as client:
        began = time.perf_counter()
        client.post("/completions", json={"model": "served", "prompt": "x", "max_tokens": 1}).raise_for_status()
        return time.perf_counter() - began


def _client(fleet: Fleet, key: str) -> httpx2.Client:
    headers = {"Authorization": f"Bearer {key}"}
    return httpx2.Client(base_url=f"http://127.0.0.1:{fleet.port}/v1", headers=headers, timeout=120)
