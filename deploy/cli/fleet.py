"""Commands for the processes of the fleet: up, down, worker, autoscaler."""

from __future__ import annotations

import os
import sys
import time
from typing import Annotated

import typer
from rich.console import Console

from producer.contract.errors import ConfigError
from producer.contract.settings import Settings

from ..machine import local, teardown

console = Console(highlight=False)


def _say(message: str) -> None:
    console.print(f"[dim]{time.strftime('%H:%M:%S')}[/dim] ", end="")
    # As it is: a log line with [brackets] is no markup, and a long path must stay one word to copy.
    console.print(message, markup=False, soft_wrap=True)


def up(
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return once all of it runs.")] = False,
    flower: Annotated[bool, typer.Option(help="Run the monitor, too.")] = True,
    gateway: Annotated[bool, typer.Option(help="Serve the OpenAI API, too, on this machine.")] = True,
) -> None:
    """Start the fleet of this machine, and keep it running.

    That is a Redis, unless one is configured; Flower; a gateway; and the autoscaler,
    which starts workers when there are jobs. Ctrl-C stops all of it.
    What is queued then stays for the next time.

    [bold]Examples[/bold]

      stoker up                               in this window
      stoker up --detach                      in the background
      REDIS_URL=redis://db:6379/0 stoker up   with a Redis that is there
    """
    settings = Settings.load()
    try:
        (local.up_detached if detach else local.up)(settings, _say, local.Besides(flower, gateway))
    except local.AlreadyRunningError as running:
        _say(str(running))  # what was asked for is the case


def down() -> None:
    """Stop everything that runs here, however it was left, and leave nothing behind.

    Workers finish what they run first, in scaling.drain_s at most.
    What is queued stays for the next time.

    [bold]Example[/bold]

      stoker down
    """
    settings = _to_stop()
    if teardown.stop_all(settings, _say, teardown.graces(settings)):
        _say("nothing runs any more")
    else:
        _say("nothing was running")


def _to_stop() -> Settings:
    """A mistake in the fleet file, made while the fleet runs, must not keep it from being stopped."""
    try:
        return Settings.load()
    except ConfigError as error:
        settings = Settings.load_to_stop()
        if not settings.state_dir.is_dir():
            raise
        _say(f"{error}\nstopping what runs in {settings.state_dir} all the same, with the default times to finish")
        return settings


def worker(
    model: Annotated[str, typer.Option(help="A model of the fleet file.")],
    device: Annotated[
        str, typer.Option(help="What it may hold: cpu:0, or cuda:1 as 'stoker status' and nvidia-smi count.")
    ],
    name: Annotated[str | None, typer.Option(help="Its name. [dim]Default: made up[/dim]")] = None,
) -> None:
    """Run one worker by hand, in this window. The autoscaler counts it and leaves it alone.

    [bold]Examples[/bold]

      stoker worker --model smollm2 --device cpu:0
      stoker worker --model smollm2 --device cuda:1
    """
    Settings.load().model(model)  # a typing error is answered here, before torch is loaded
    named = ["--name", name] if name else []
    become("workers", "--model", model, "--device", device, *named)


def autoscaler(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell what would be done; do and write nothing.")] = False,
) -> None:
    """Run the autoscaler alone, in this window. 'stoker up' runs one already; a second one waits.

    A dry run does not wait: it looks at the same fleet, beside the one that leads, and tells each decision with its
    reason and its numbers. With another fleet file it shows what that one would change.

    [bold]Examples[/bold]

      REDIS_URL=redis://db:6379/0 stoker autoscaler
      stoker --fleet tomorrow.toml autoscaler --dry-run
    """
    Settings.load()
    become("autoscaler", *(["--dry-run"] if dry_run else []))


def become(module: str, *arguments: str) -> None:
    """Become that process: signals and the exit code are then its own."""
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-P", "-m", module, *arguments])  # noqa: S606  no shell is wanted
