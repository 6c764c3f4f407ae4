"""``stoker restart``: starts a process of this machine's fleet anew, with the present fleet file."""

from __future__ import annotations

from typing import Annotated, Literal

import typer
from rich.console import Console

from producer.contract.fleet.settings import Settings

from ..machine import restart as machine

console = Console(highlight=False)

Part = Literal["autoscaler", "gateway", "batches", "flower"]


def restart(part: Annotated[Part, typer.Argument(help="The process to restart.")]) -> None:
    """Restart a process of this machine's fleet. Workers keep running.

    Tables of the fleet file that take effect only at the start of a process, such as devices and use_gpus of the
    autoscaler, then do. redis and state_dir belong to all processes: 'stoker down', then 'stoker up'.

    [bold]Example[/bold]

      stoker restart autoscaler
    """
    pid = machine.restart(Settings.load(), part)  # refuses a mistake in the file before anything ends
    console.print(f"{part} was restarted (pid {pid}); workers keep running", markup=False, soft_wrap=True)
