"""What streaming costs: a real worker process, with readers of every stream, and the same jobs without any.

One server, one worker, one client; the runs take turns. The worker's throughput is what counts, from the first claim to
the last result: the jobs are queued while it is stopped.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from deploy.machine.server import Server
from producer import AsyncClient, Client, Settings
from producer.contract import heartbeat
from producer.contract.errors import StokerError
from producer.contract.heartbeat import WorkerState
from producer.contract.message.job import Result
from producer.contract.server.connection import close, connect

from .workload import Ask, Run

MODEL = "generator"
READY_S = 300.0
RESULTS_S = 600.0


class Worker:
    """A worker that is ready, and a client."""

    def __init__(self, settings: Settings, process: psutil.Process) -> None:
        self._settings = settings
        self._process = process
        self.pieces = 0
        """Pieces that were read."""

    def run(self, asks: Sequence[Ask], *, stream: bool) -> Run:
        """Answer them all; with ``stream``, each of them read while it is made."""
        with Client(self._settings) as client:
            jobs = [
                client.job(MODEL, ask.prompt, parameters={"max_new_tokens": ask.max_new_tokens}, stream=stream)
                for ask in asks
            ]
            self._process.send_signal(signal.SIGSTOP)
            ids = client.submit_many(jobs)
            readers = threading.Thread(target=lambda: asyncio.run(self._read(ids)), daemon=True)
            if stream:
                readers.start()
            begun, cpu_begun = time.perf_counter(), self._cpu_s()
            self._process.send_signal(signal.SIGCONT)
            results: list[Result] = []
            for _, found in client.results(ids, RESULTS_S):
                if isinstance(found, StokerError):
                    raise found
                results.append(found)
            run = Run(
                time.perf_counter() - begun,
                sum(result.usage["output_tokens"] for result in results),
                self._cpu_s() - cpu_begun,
            )
            if stream:
                readers.join()
        assert len(results) == len(asks)
        return run

    async def _read(self, ids: list[str]) -> None:
        async with AsyncClient(self._settings) as client:

            async def read(job_id: str) -> None:
                async for _ in client.stream(job_id):
                    self.pieces += 1

            await asyncio.gather(*map(read, ids))

    def _cpu_s(self) -> float:
        times = self._process.cpu_times()
        return float(times.user + times.system)


@contextmanager
def worker(folder: Path, places: int, *, source: str, device: str, memory_gb: float) -> Iterator[Worker]:
    """Run a worker with ``places`` slots on a Redis server of its own; both end with the block."""
    server = Server(folder / "server")
    server.start()
    fleet = folder / "fleet.toml"
    fleet.write_text(
        f'[redis]\nurl = "{server.url}"\n[models.{MODEL}]\nengine = "generate"\nsource = "{source}"\n'
        f"memory_gb = {memory_gb}\nmax_concurrency = {places}\n"
    )
    log = folder / "worker.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "workers", "--model", MODEL, "--device", device],
            env={**os.environ, "STOKER_FLEET": str(fleet), "OMP_NUM_THREADS": "1"},
            stdout=output,
            stderr=output,
        )
    settings = Settings.load(fleet)
    try:
        _wait_until_ready(settings, process, log)
        yield Worker(settings, psutil.Process(process.pid))
    finally:
        process.kill()
        process.wait()
        server.stop()


def _wait_until_ready(settings: Settings, process: subprocess.Popen[bytes], log: Path) -> None:
    redis = connect(settings)
    deadline = time.monotonic() + READY_S
    while not any(beat.state == WorkerState.READY for beat in heartbeat.read_all(redis)):
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the worker did not get ready: {log.read_text()[-2000:]}")
        time.sleep(0.1)
    close(redis)
