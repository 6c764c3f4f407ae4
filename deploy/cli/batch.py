"""``stoker batch``: runs a file of requests and writes a file of answers, with a progress bar."""

from __future__ import annotations

import contextlib
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, BinaryIO

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from gateway.batches import local_file as batches
from producer import Client
from producer.contract.fleet.settings import Settings

from .duration import duration

LOG_EVERY_S = 5.0
STDOUT = Path("-")
EXIT_ERRORS = 1
EXIT_INTERRUPTED = 130

console = Console(stderr=True, highlight=False)


def batch(
    source: Annotated[Path, typer.Argument(metavar="IN.jsonl", help="Requests, one JSON object per line.")],
    out: Annotated[
        Path,
        typer.Option("--out", "-o", help="File for the answers, one per line; - for stdout, which cannot be resumed."),
    ],
    model: Annotated[str | None, typer.Option("--model", "-m", help="Model for lines that name none.")] = None,
    tier: Annotated[str | None, typer.Option(help="[dim]Default: the model's slowest[/dim]")] = None,
    in_flight: Annotated[int, typer.Option(min=1, help="Maximum of unanswered lines of each model.")] = 256,
    tenant: Annotated[str, typer.Option(help="Tenant that the jobs count for.")] = "default",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Start again and replace OUT.")] = False,
) -> None:
    """Run a file of requests through a model. After an interruption, the same command resumes.

    A line of IN is an object with [bold]input[/bold] (a text, an object, or a list of them), and optionally
    [bold]custom_id[/bold] (unique in the file; default: line-N), [bold]parameters[/bold] and [bold]model[/bold]. Or it
    is a line of an OpenAI batch file: [bold]custom_id[/bold], [bold]method[/bold], [bold]url[/bold] and
    [bold]body[/bold]. Blank lines are skipped.

    OUT has one line per request, in the order of completion: custom_id, line (counted from 1), and output, usage and
    timing, or error with its kind and message; for an OpenAI line, OpenAI's response. A wrong line does not stop the
    others.

    After Ctrl-C or a kill, finished lines do not run again (within redis.result_ttl_s, a day by default).
    OUT.run, beside OUT, identifies the batch until it is complete.

    [bold]Example[/bold]

      echo '{"custom_id": "fr", "input": "The capital of France is", "parameters": {"max_new_tokens": 8}}' > in.jsonl

      stoker batch in.jsonl --model smollm2 --out out.jsonl

    Exit code: 0 without errors; 1 when OUT has errors; 130 after Ctrl-C.
    """
    began = time.monotonic()
    with Client(Settings.load()) as client, _output(out) as file:
        work = batches.FileBatch(
            client, source, file, model, tier, tenant=tenant, in_flight=in_flight, overwrite=overwrite
        )
        run = _told(work.run(), file) if out == STDOUT else work.run()
        with _stopped_by_signals(work):
            last = (_bar if console.is_terminal else _log)(run)
    if not last.total:
        _say(f"{source} holds no requests: there is nothing to do")
        return
    _conclude(last, out, time.monotonic() - began)


@contextlib.contextmanager
def _output(out: Path) -> Iterator[Path]:
    """The file for the answers: that one, or a temporary one for stdout."""
    if out != STDOUT:
        yield out
        return
    with tempfile.TemporaryDirectory(prefix="stoker-batch-") as folder:
        yield Path(folder) / "out.jsonl"


def _told(run: Iterator[batches.Progress], file: Path) -> Iterator[batches.Progress]:
    """The run, whose answers are written to stdout as they come."""
    with contextlib.ExitStack() as stack:
        answers: BinaryIO | None = None
        for now in run:
            answers = answers or stack.enter_context(file.open("rb"))  # it exists once the run has begun
            shutil.copyfileobj(answers, sys.stdout.buffer)
            sys.stdout.flush()
            yield now
        if answers is not None:
            shutil.copyfileobj(answers, sys.stdout.buffer)
            sys.stdout.flush()


@contextlib.contextmanager
def _stopped_by_signals(work: batches.FileBatch) -> Iterator[None]:
    """Stop the batch in order on the first SIGINT or SIGTERM; a second Ctrl-C ends the command at once."""

    def interrupted(*_: object) -> None:
        work.stop()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = signal.signal(signal.SIGINT, interrupted)
    signal.signal(signal.SIGTERM, interrupted)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _bar(run: Iterator[batches.Progress]) -> batches.Progress:
    columns = (
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("[red]{task.fields[errors]}"),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("[yellow]{task.fields[waiting]}"),
    )
    began = time.monotonic()
    with Progress(*columns, console=console, transient=True) as bar:
        task: TaskID | None = None
        for now in run:
            if task is None:
                # Lines of an earlier run would distort the estimate of the time left.
                task = bar.add_task("", total=now.total, completed=now.resumed, errors="", rate="", waiting="")
            rate = (now.done - now.resumed) / max(1e-9, time.monotonic() - began)
            bar.update(
                task,
                completed=now.done,
                errors=_errors(now.errors) if now.errors else "",
                rate=f"{rate:.1f} lines/s",
                waiting=now.waiting,
            )
    return now


def _log(run: Iterator[batches.Progress]) -> batches.Progress:
    began = time.monotonic()
    told_at, waiting = began, ""
    for now in run:
        at = time.monotonic()
        if now.waiting != waiting:
            waiting = now.waiting
            _say(f"waiting: {waiting}" if waiting else "no longer waiting")
        if at - told_at >= LOG_EVERY_S:
            told_at = at
            rate = (now.done - now.resumed) / (at - began)
            left = f", {duration((now.total - now.done) / rate)} left" if rate else ""
            _say(f"{now.done} of {now.total} lines, {_errors(now.errors)}, {rate:.1f} lines/s{left}")
    return now


def _conclude(last: batches.Progress, out: Path, seconds: float) -> None:
    if last.done < last.total:
        _say(
            f"stopped with {last.done} of {last.total} lines in {_name(out)}. {last.inflight} more are submitted and "
            f"continue to run in the fleet. {_again(out)}"
        )
        raise typer.Exit(EXIT_INTERRUPTED)
    if last.resumed == last.total:
        _say(f"{_name(out)} is already complete: {last.total} lines, {_errors(last.errors)}")
    else:
        lines = last.done - last.resumed
        resumed = f", {last.resumed} of them from an earlier run" if last.resumed else ""
        _say(
            f"{last.total} lines in {_name(out)}{resumed}, {_errors(last.errors)}, {duration(seconds)}, "
            f"{lines / seconds:.1f} lines/s"
        )
    if last.errors:
        raise typer.Exit(EXIT_ERRORS)


def _name(out: Path) -> str:
    return "stdout" if out == STDOUT else str(out)


def _again(out: Path) -> str:
    if out == STDOUT:
        return "The same command begins anew: name a file with --out to resume"
    return "The same command resumes here and repeats no finished line"


def _errors(count: int) -> str:
    return "1 error" if count == 1 else f"{count} errors"


def _say(message: str) -> None:
    console.print(message, markup=False, soft_wrap=True)
