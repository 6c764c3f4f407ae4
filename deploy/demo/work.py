"""The load of the demo: interactive jobs, two batch files, and a job of a stock Celery application."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from redis.exceptions import RedisError

from producer import BrokerUnavailable, Client, Result, StokerError
from producer.collect import Collector, outcome
from producer.outage import Outage

FIRST_PROMPT = "The capital of France is"
PROMPTS = (
    FIRST_PROMPT,
    "The opposite of hot is",
    "The largest planet of our solar system is",
    "Two plus two equals",
    "The color of the sky is",
    "Water freezes at",
    "A week has seven",
    "The first month of the year is",
)
QUESTIONS = ("Where is Paris?", "What freezes at zero degrees?", "Which planet is the largest?", "What do bees make?")
ANSWER_TOKENS = 12
ASK_EVERY_S = 3.0

_SUBJECTS = (
    *("Bread", "The moon", "A bicycle", "Honey", "The Sahara", "Paper", "A violin", "Coffee", "The Nile", "Glass"),
    *("A lighthouse", "Salt", "The printing press", "Rice", "A compass", "Silk", "A volcano", "Tea", "Chess", "Snow"),
)
_OPENINGS = ("{} is best described as", "A surprising fact about it: {}", "{} has changed history because")
_SENTENCES = (
    *("{} is older than most people think.", "Nobody in the village had seen {} before.", "She wrote a book about {}."),
    *("{} matters more in winter.", "The museum shows {} on its second floor.", "Trade in {} made the town rich."),
    *("Children learn about {} at school.", "There is a song about {}.", "He dreamt of {} all night long."),
    *("The price of {} rose again.", "A painting of {} hangs in the hall.", "They argued about {} for an hour."),
)
BATCH_TOKENS = 24

STOCK_PROMPT = "The chemical symbol for gold is"
STOCK_APPLICATION = f"""
import json, os, sys
from celery import Celery

app = Celery(broker=os.environ["REDIS_URL"], backend=os.environ["REDIS_URL"])
job = app.send_task(
    "stoker.infer",
    kwargs={{"input": {STOCK_PROMPT!r}, "parameters": {{"max_new_tokens": {ANSWER_TOKENS}}}}},
    queue="smollm2.interactive",
)
answer = job.get(timeout=float(sys.argv[1]))
ours = sorted(set(sys.modules) & {{"producer", "scheduler", "workers", "autoscaler", "deploy"}})
print(json.dumps({{"answer": answer, "ours": ours}}))
"""


@dataclass(frozen=True, slots=True)
class CompletedJob:
    """A job that succeeded. Times are Unix seconds, and 0 for lines of a batch, whose times are not recorded.

    ``overtook`` is the number of batch jobs of its model that were queued before it and are still queued at its end.
    """

    model: str
    tier: str
    asked: str
    result: Result
    submitted_at: float = 0.0
    ended_at: float = 0.0
    overtook: int = 0

    @property
    def text(self) -> str:
        """The generated text, on one line."""
        return " ".join(str(self.result.output["text"]).split())


class Asker(threading.Thread):
    """Thread that submits a job to a model every ``ASK_EVERY_S`` seconds, on the model's fastest tier.

    Args:
        batch_depth: returns the number of batch jobs of a model that are queued now.
        tell: called with each answer.
    """

    def __init__(
        self,
        client: Client,
        model: str,
        texts: tuple[str, ...],
        parameters: dict[str, Any],
        batch_depth: Callable[[str], int],
        tell: Callable[[CompletedJob], None],
    ) -> None:
        super().__init__(name=f"asks {model}", daemon=True)
        self.served: list[CompletedJob] = []
        self.failure: Exception | None = None
        self._client = client
        self._model = model
        self._texts = itertools.cycle(texts)
        self._parameters = parameters
        self._batch_depth = batch_depth
        self._tell = tell
        self._open: dict[str, tuple[str, float, int]] = {}
        self._ask_at = time.monotonic()
        self._enough = False
        self._abandoned = False

    def stop(self, abandon: bool = False) -> None:
        """Submit no more jobs, and end when all are answered, or at once if they are abandoned."""
        self._enough = True
        self._abandoned = abandon

    def run(self) -> None:
        """Submit jobs and collect their results, until stopped, also through a restart of Redis; an error is kept in
        ``failure``."""
        outage = Outage(self._client.settings, "waiting for interactive jobs")
        try:
            with closing(Collector(self._client.redis)) as collector:
                while (not self._enough or self._open) and not self._abandoned:
                    try:
                        self._ask_and_collect(collector)
                        outage.end()
                    except (RedisError, BrokerUnavailable) as error:
                        cause = error.__cause__ if isinstance(error.__cause__, RedisError) else error
                        time.sleep(outage.ride_out(cause))
        except Exception as error:
            self.failure = error

    def _ask_and_collect(self, collector: Collector) -> None:
        if not self._enough and time.monotonic() >= self._ask_at:
            self._ask_at = time.monotonic() + ASK_EVERY_S
            collector.add([self._ask()])
        if not len(collector):
            time.sleep(0.05)
        for job_id, stored in collector.poll(0.1):
            self._answered(job_id, outcome(stored))

    def _ask(self) -> str:
        text, at, ahead = next(self._texts), time.time(), self._batch_depth(self._model)
        job_id = self._client.submit(self._model, text, parameters=self._parameters)
        self._open[job_id] = (text, at, ahead)
        return job_id

    def _answered(self, job_id: str, ended: Result | StokerError) -> None:
        text, at, ahead = self._open.pop(job_id)
        if isinstance(ended, StokerError):
            raise ended
        overtook = min(ahead, self._batch_depth(self._model))
        self.served.append(CompletedJob(self._model, "interactive", text, ended, at, time.time(), overtook))
        self._tell(self.served[-1])


def write_batches(folder: Path) -> dict[str, Path]:
    """Write the batch files and return them by model: prompts to complete, and sentences to embed."""
    prompts: list[dict[str, Any]] = [
        {"input": opening.format(subject), "parameters": {"max_new_tokens": BATCH_TOKENS}}
        for subject in _SUBJECTS
        for opening in _OPENINGS
    ]
    sentences: list[dict[str, Any]] = [
        {"input": frame.format(subject)} for subject in _SUBJECTS for frame in _SENTENCES
    ]
    batches: dict[str, list[dict[str, Any]]] = {"smollm2": prompts, "minilm": [*sentences]}
    files = {}
    for model, lines in batches.items():
        files[model] = folder / f"{model}.jsonl"
        # The input serves as custom_id, by which read_batch assigns each answer to its input.
        files[model].write_text("".join(json.dumps({"custom_id": line["input"], **line}) + "\n" for line in lines))
    return files


def answers_file(source: Path) -> Path:
    """The output file of a batch file."""
    return source.with_suffix(".answers.jsonl")


def start_batch(model: str, source: Path, log: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start ``stoker batch`` in a separate process."""
    arguments = [str(source), "--model", model, "--out", str(answers_file(source))]
    return _start(["-P", "-m", "deploy.cli", "batch", *arguments], log, log, {})


def read_batch(model: str, source: Path) -> list[CompletedJob]:
    """The answers of a batch.

    Raises:
        KeyError: a line of the batch has failed.
    """
    found = []
    for raw in answers_file(source).read_text().splitlines():
        line = json.loads(raw)
        result = Result(output=line["output"], usage=line["usage"], timing=line["timing"])
        found.append(CompletedJob(model, "batch", line["custom_id"], result))
    return found


def start_stock(url: str, timeout_s: float, log: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start a stock Celery application, isolated from the working directory so that it cannot import Stoker."""
    command = ["-I", "-c", STOCK_APPLICATION, str(timeout_s)]
    return _start(command, subprocess.PIPE, log, {"REDIS_URL": url})


def read_stock(output: bytes) -> CompletedJob:
    """The answer that the stock application printed.

    Raises:
        ValueError: the application imported a module of Stoker, or printed no JSON.
    """
    printed = json.loads(output)
    if printed["ours"]:
        raise ValueError(f"the stock application has imported {printed['ours']}")
    return CompletedJob("smollm2", "interactive", STOCK_PROMPT, Result.model_validate(printed["answer"]))


def _start(
    arguments: list[str], stdout: IO[bytes] | int, stderr: IO[bytes], environment: dict[str, str]
) -> subprocess.Popen[bytes]:
    # In a new session, so that Ctrl-C reaches only the demo, which stops its processes in order.
    return subprocess.Popen(
        [sys.executable, *arguments],
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        start_new_session=True,
    )
