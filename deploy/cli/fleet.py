"""Commands for the processes of the fleet: up, down, worker, autoscaler."""

from __future__ import annotations

import os
import sys
import time
from typing import Annotated

import typer
from rich.console import Console

from producer.contract.errors import ConfigError
from producer.contract.fleet.settings import Settings

from ..machine import detached, local, teardown

console = Console(highlight=False)


def _say(message: str) -> None:
    console.print(f"[dim]{time.strftime('%H:%M:%S')}[/dim] ", end="")
    # Literal and unwrapped: [brackets] in a log line are not markup, and a long path can be copied whole.
    console.print(message, markup=False, soft_wrap=True)


def up(
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return once everything is running.")] = False,
    flower: Annotated[bool, typer.Option(help="Also run Flower, the monitor.")] = True,
    gateway: Annotated[bool, typer.Option(help="Also serve the OpenAI API on this machine.")] = True,
    port: Annotated[
        int | None,
        typer.Option(
            min=1, max=65535, help="Port of the OpenAI API. [dim]Default: 8000 if it is free, else another[/dim]"
        ),
    ] = None,
) -> None:
    """Start the fleet of this machine, and keep it running.

    The fleet is a Redis server, unless one is configured; Flower; a gateway; and the autoscaler, which starts workers
    when there are jobs. Ctrl-C stops everything. Queued jobs are kept for the next start.

    [bold]Examples[/bold]

      stoker up                               in the foreground
      stoker up --detach                      in the background
      stoker up --port 9000                   with the OpenAI API on port 9000
      REDIS_URL=redis://db:6379/0 stoker up   with an existing Redis
    """
    if port is not None and not gateway:
        raise typer.BadParameter("--port is the gateway's, which --no-gateway leaves out: give one of them")
    settings = Settings.load()
    try:
        (detached.up_detached if detach else local.up)(settings, _say, local.Besides(flower, gateway, port))
    except local.AlreadyRunningError as running:
        _say(str(running))  # not an error: the fleet is up, as requested


def down() -> None:
    """Stop every process of the fleet on this machine, including those of a supervisor that was killed.

    Workers first finish their running jobs, within scaling.drain_s. Queued jobs are kept for the next start.

    [bold]Example[/bold]

      stoker down
    """
    settings = _settings_to_stop()
    if teardown.stop_all(settings, _say, teardown.graces(settings)):
        _say("everything is stopped")
    else:
        _say("nothing was running")


def _settings_to_stop() -> Settings:
    """The settings, with defaults when the fleet file is invalid: a mistake in it must not prevent a stop."""
    try:
        return Settings.load()
    except ConfigError as error:
        settings = Settings.load_to_stop()
        if not settings.state_dir.is_dir():
            raise
        _say(f"{error}\nstopping the fleet in {settings.state_dir} nevertheless, with the default drain times")
        return settings


def worker(
    model: Annotated[str, typer.Option(help="A model of the fleet file.")],
    device: Annotated[
        str, typer.Option(help="Its device: cpu:0, or cuda:1 as numbered by 'stoker status' and nvidia-smi.")
    ],
    name: Annotated[str | None, typer.Option(help="Its name. [dim]Default: generated[/dim]")] = None,
) -> None:
    """Run one worker by hand, in the foreground. The autoscaler counts it but never stops it.

    [bold]Examples[/bold]

      stoker worker --model smollm2 --device cpu:0
      stoker worker --model smollm2 --device cuda:1
    """
    Settings.load().model(model)  # refuses an unknown model before torch is loaded, which takes seconds
    named = ["--name", name] if name else []
    become("workers", "--model", model, "--device", device, *named)


def autoscaler(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Report decisions without acting on them.")] = False,
) -> None:
    """Run only the autoscaler, in the foreground. 'stoker up' already runs one; a second one stands by.

    A dry run observes the same fleet beside the leader, and reports each decision with its reason and inputs. It acts
    on nothing and writes nothing. With another fleet file it shows the effect of that file.

    [bold]Examples[/bold]

      REDIS_URL=redis://db:6379/0 stoker autoscaler
      stoker --fleet tomorrow.toml autoscaler --dry-run
    """
    Settings.load()
    become("autoscaler", *(["--dry-run"] if dry_run else []))


def become(module: str, *arguments: str) -> None:
    """Replace this process by a Python module, which then gets the signals and sets the exit code."""
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-P", "-m", module, *arguments])  # noqa: S606  no shell is wanted
