"""The fleet: a server, one worker process, and the client that submits and collects."""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from deploy.machine.server import Server
from producer import Client, Settings
from producer.contract import heartbeat
from producer.contract.errors import StokerError
from producer.contract.heartbeat import WorkerState
from producer.contract.message.job import Result
from producer.contract.server.connection import close, connect

from .pairs import Run
from .workload import Work

READY_S = 600.0
"""How long the worker may take to load, in seconds."""

RESULTS_S = 900.0
"""How long one run may take, in seconds."""

TIER = "batch"


class Fleet:
    """One worker of one model, on a server of its own."""

    def __init__(self, folder: Path, fleet_file: Path, model: str, device: str) -> None:
        self._model, self._device = model, device
        self._log = folder / f"{model}.log"
        self._server = Server(folder / f"{model}.server")
        settings = Settings.load(fleet_file)
        redis = settings.redis.model_copy(update={"url": self._server.url})
        self._settings = settings.model_copy(update={"redis": redis})
        self._fleet_file = fleet_file.absolute()

    def __enter__(self) -> Self:
        self._server.start()
        self._client = Client(self._settings)
        environment = {
            **os.environ,
            "STOKER_FLEET": str(self._fleet_file),
            "STOKER_REDIS__URL": self._server.url,
            "OMP_NUM_THREADS": "1",
        }
        command = [sys.executable, "-m", "workers", "--model", self._model, "--device", self._device]
        with self._log.open("ab") as output:
            process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
        self._process = process
        self._worker = psutil.Process(process.pid)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()  # it holds nothing any more; and a stopped one would not hear a SIGTERM
        self._process.wait()
        self._client.close()
        self._server.stop()

    @property
    def pid(self) -> int:
        """Process id of the worker, for profilers."""
        return self._process.pid

    def wait_until_ready(self) -> None:
        """Wait until the worker takes jobs."""
        redis = connect(self._settings)
        deadline = time.monotonic() + READY_S
        while not any(beat.state == WorkerState.READY for beat in heartbeat.read_all(redis)):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the worker of {self._model} did not get ready: see {self._log}")
            time.sleep(0.1)
        close(redis)

    def run(self, work: Work) -> Run:
        """Queue everything while the worker is stopped, let it go, and collect the results as any client does.

        The clock runs from just before the first claim until the client has read the last result.

        Raises:
            StokerError: when a job failed; then the time means nothing.
        """
        jobs = [
            self._client.job(
                work.model,
                ask.input if isinstance(ask.input, str) else [*ask.input],
                tier=TIER,
                parameters=ask.parameters,
            )
            for ask in work.asks
        ]
        self._worker.send_signal(signal.SIGSTOP)
        try:
            ids = self._client.submit_many(jobs)
            cpu_begun, begun = self._cpu_s(), time.perf_counter()
        finally:
            self._worker.send_signal(signal.SIGCONT)
        results = self._collect(ids)
        seconds, cpu_s = time.perf_counter() - begun, self._cpu_s() - cpu_begun
        units = sum(
            work.units(len(ask.inputs), results[job_id].usage) for job_id, ask in zip(ids, work.asks, strict=True)
        )
        return Run(seconds, len(ids), units, statistics.mean(r.timing.batch_size for r in results.values()), cpu_s)

    def _collect(self, ids: list[str]) -> dict[str, Result]:
        results: dict[str, Result] = {}
        for job_id, result in self._client.results(ids, RESULTS_S):
            if isinstance(result, StokerError):
                raise result
            results[job_id] = result
        return results

    def _cpu_s(self) -> float:
        times = self._worker.cpu_times()
        return float(times.user + times.system)
