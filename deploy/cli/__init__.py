"""The command line: one console script, assembled from one file per group of commands."""

from __future__ import annotations

import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import redis
import typer

from producer.contract.errors import StokerError
from producer.contract.fleet.settings import Settings
from producer.contract.server.redis_errors import trouble

from . import (
    acl,
    batch,
    batches,
    dead,
    explain,
    fleet,
    gateway,
    init,
    keys,
    purge,
    release,
    restart,
    retry,
    simulate,
    status,
)

app = typer.Typer(
    name="stoker",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="First time here? Run [bold]stoker init[/bold], then [bold]stoker up[/bold], "
    "and [bold]stoker status[/bold] in another window.",
)
for command in (
    init.init,
    fleet.up,
    batch.batch,
    status.status,
    explain.explain,
    purge.purge,
    release.release,
    retry.retry,
    restart.restart,
    fleet.down,
    fleet.worker,
    fleet.autoscaler,
    gateway.gateway,
    simulate.simulate,
    acl.acl,
):
    app.command()(command)
app.add_typer(batches.app)
app.add_typer(dead.app)
app.add_typer(keys.app)


def _tell_version(asked: bool) -> None:
    if asked:
        print(f"stoker {version('stoker')}")
        raise typer.Exit


@app.callback()
def options(
    fleet_file: Annotated[
        Path | None,
        typer.Option("--fleet", envvar="STOKER_FLEET", help="The fleet file. [dim]Default: fleet.toml here[/dim]"),
    ] = None,
    _version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=_tell_version)
    ] = False,
) -> None:
    """Keep GPUs fed: queues in Redis, workers on devices, and an autoscaler between them."""
    if fleet_file is not None:
        # Absolute, and in the environment: processes that the command starts inherit it, whatever their directory.
        os.environ["STOKER_FLEET"] = str(fleet_file.absolute())


def main() -> None:
    """Run a command. An expected error is one message on stderr and exit code 2."""
    try:
        app()
    except StokerError as error:
        _fail(str(error))
    except redis.RedisError as error:
        _fail(_redis_message(error))
    except BrokenPipeError:  # the reader closed the pipe, as in: stoker status | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _redis_message(error: redis.RedisError) -> str:
    try:
        return trouble(error, Settings.load())
    except StokerError:  # the fleet file has changed since the command began
        return f"Redis: {error}"


def _fail(message: str) -> None:
    print(f"stoker: {message}", file=sys.stderr)
    sys.exit(2)
