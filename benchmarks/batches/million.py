"""A million lines, one of the largest files that may be: memory, time, and that each was run and answered once."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path
from typing import Any

from benchmarks.bars import Bar
from benchmarks.chaos import audit
from benchmarks.chaos.arena import Arena

from .stage import Say, Stage, write

CONFIG = {"appendfsync": "everysec", "auto-aof-rewrite-percentage": "100"}
ENDED = ("completed", "failed", "expired", "cancelled")
TELL_S = 10.0
MEMORY_MB = 300.0


def run(folder: Path, lines: int, say: Say) -> list[Bar]:
    """Play it."""
    with (
        Arena(folder, lease_s=30.0, options="delay_s = 0", max_concurrency=256, config=CONFIG) as arena,
        closing(Stage(arena)) as stage,
    ):
        stage.start()
        source = write(folder / "in.jsonl", lines)
        began = time.monotonic()
        batch_id = stage.create(source)
        say(f"  {lines} lines, {source.stat().st_size / 1e6:.0f} MB uploaded in {time.monotonic() - began:.1f} s")
        batch = _watch(stage, batch_id, say)
        took = time.monotonic() - began
        answered = stage.answers(batch)
        once = sum(answered[number] == 1 for number in range(lines))
        runs = audit.runs(arena.journal)
        counts = batch["request_counts"]
        redis_mb = arena.redis.info("memory")["used_memory_peak"] / 1e6
        say(
            f"  {batch['status']}: {counts['completed']} completed, {counts['failed']} failed, {took:.0f} s, "
            f"{lines / took:.0f} lines/s; peak memory: gateway {stage.peak_mb('gateway')} MB, batch process "
            f"{stage.peak_mb('batches')} MB, worker {stage.peak_mb('worker')} MB, Redis {redis_mb:.0f} MB"
        )
        return [
            Bar("lines", lines, 1_000_000, "higher"),
            Bar("answered once and rightly", once, lines, "higher"),
            Bar("run more than once", sum(count > 1 for count in runs.values()), 0),
            Bar("gateway, peak MB", stage.peak_mb("gateway"), MEMORY_MB),
            Bar("batch process, peak MB", stage.peak_mb("batches"), MEMORY_MB),
        ]


def _watch(stage: Stage, batch_id: str, say: Say) -> dict[str, Any]:
    told_at = time.monotonic()
    while True:
        batch = stage.batch(batch_id)
        if batch["status"] in ENDED:
            return batch
        if time.monotonic() - told_at >= TELL_S:
            told_at = time.monotonic()
            estimate = batch["estimated_finish_at"]
            left = f", {estimate - time.time():.0f} s left" if estimate else ""
            peaks = ", ".join(f"{what} {stage.peak_mb(what)} MB" for what in ("gateway", "batches"))
            say(f"  {batch['status']}: {batch['request_counts']['completed']} lines{left}; {peaks}")
        time.sleep(0.5)
