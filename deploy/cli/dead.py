"""``stoker dead``: lists, shows, requeues and purges dead letters."""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Iterator
from typing import Annotated, Any

import redis
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from producer.contract import keys
from producer.contract.fleet.settings import Settings
from producer.contract.server.connection import connect
from scheduler import dead_letters
from scheduler.dead_letters import DeadLetter, NoSuchLetter

from .printable import printable

TIMEOUT_S = 10.0
LISTED = 50
PAGE = 100
"""Letters read at a time, to bound memory: a message may have a megabyte."""

console = Console(highlight=False)
app = typer.Typer(name="dead", no_args_is_help=True, rich_markup_mode="rich")

ModelName = Annotated[str, typer.Argument(metavar="MODEL", help="A model of the fleet file.")]


def _letter_id(value: str | None) -> str | None:
    if value is not None and not re.fullmatch(r"\d{1,19}-\d{1,19}", value):
        raise typer.BadParameter(f"{value!r} is no ID, such as 1763855712345-0; 'stoker dead list' shows them")
    return value


_ID = typer.Argument(metavar="ID", help="As 'stoker dead list' shows it.", callback=_letter_id)
LetterId = Annotated[str, _ID]
OptionalLetterId = Annotated[str | None, _ID]


@app.callback()
def dead() -> None:
    """List, show, requeue or purge dead letters: messages that could not be served.

    A message becomes a dead letter when it is not a valid job, or after redis.max_losses workers died running it.
    """


@contextlib.contextmanager
def _connected() -> Iterator[tuple[redis.Redis, Settings]]:
    settings = Settings.load()
    client = connect(settings, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S)
    with contextlib.closing(client):
        yield client, settings


@app.command("list")
def list_(
    model: Annotated[str | None, typer.Argument(metavar="MODEL", help="[dim]Default: every model[/dim]")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Maximum per model, newest first.")] = LISTED,
) -> None:
    """List dead letters with their reasons, newest first.

    [bold]Examples[/bold]

      stoker dead list
      stoker dead list smollm2 --limit 500
    """
    with _connected() as (client, settings):
        names = [model] if model is not None else sorted(settings.models)
        for name in names:
            settings.model(name)
        found = [letter for name in names for letter in dead_letters.letters(client, name, limit)]
    if not found:
        console.print("no dead letters")
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("id", "queue", "given up", "workers lost", "reason"):
        table.add_column(column, header_style="dim", overflow="fold", no_wrap=column == "id")
    for letter in found:
        table.add_row(letter.id, *_line(letter))
    console.print(table)


def _line(letter: DeadLetter) -> tuple[Text, ...]:
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(letter.at))
    return Text(printable(letter.queue)), Text(at), Text(str(letter.losses)), Text(printable(letter.reason))


@app.command()
def show(model: ModelName, letter: LetterId) -> None:
    """Show a dead letter with its history, and its message as it was pushed.

    [bold]Example[/bold]

      stoker dead show smollm2 1763855712345-0
    """
    with _connected() as (client, settings):
        settings.model(model)
        found = dead_letters.letter(client, model, letter)
    for name, value in zip(("queue", "given up", "workers lost", "reason"), _line(found), strict=True):
        console.print(Text(f"{name:<13}") + value)
    for loss in found.history:
        at, _, what = loss.partition(" ")
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(float(at)))
        console.print(Text(f"{'history':<13}{when} {printable(what)}"))
    console.print()
    try:
        print(json.dumps(json.loads(found.message), indent=2))
    except (ValueError, RecursionError):  # a message that is not JSON is a dead letter for that reason
        print(ascii(found.message))


@app.command()
def requeue(
    model: ModelName,
    letter: OptionalLetterId = None,
    every: Annotated[bool, typer.Option("--all", help="All dead letters of the model.")] = False,
) -> None:
    """Put a dead letter back on its queue, as if it had never run.

    With --all, the oldest comes first, and letters that arrive meanwhile stay.

    [bold]Examples[/bold]

      stoker dead requeue smollm2 1763855712345-0
      stoker dead requeue smollm2 --all
    """
    _one_or_all(letter, every)
    with _connected() as (client, settings):
        settings.model(model)
        if letter is None:
            count = _requeue_all(client, model)
        else:
            dead_letters.requeue(client, model, letter)
            count = 1
    console.print(f"requeued {count}")


def _requeue_all(client: redis.Redis, model: str) -> int:
    """Requeue the dead letters of a model, oldest first; returns their number.

    Letters that arrive meanwhile stay, or a message that kills its workers would be requeued for ever.
    """
    count, after, last = 0, "-", _last_id(client, model)
    while last and (page := _ids(client, model, after, last)):
        for one in page:
            with contextlib.suppress(NoSuchLetter):  # purged or requeued by another command meanwhile
                dead_letters.requeue(client, model, one)
                count += 1
        after = f"({page[-1]}"
    return count


def _last_id(client: redis.Redis, model: str) -> str:
    newest: Any = client.xrevrange(keys.dead(model), count=1)
    return str(newest[0][0].decode()) if newest else ""


def _ids(client: redis.Redis, model: str, after: str, last: str) -> list[str]:
    found: Any = client.xrange(keys.dead(model), after, last, count=PAGE)
    return [entry.decode() for entry, _ in found]


@app.command()
def purge(
    model: ModelName,
    letter: OptionalLetterId = None,
    every: Annotated[bool, typer.Option("--all", help="All dead letters of the model.")] = False,
) -> None:
    """Delete a dead letter permanently.

    [bold]Examples[/bold]

      stoker dead purge smollm2 1763855712345-0
      stoker dead purge smollm2 --all
    """
    _one_or_all(letter, every)
    with _connected() as (client, settings):
        settings.model(model)
        count = dead_letters.purge(client, model, letter)
    if letter is not None and not count:
        raise NoSuchLetter(f"no dead letter {letter!r} of model {model!r}; 'stoker dead list' shows them")
    console.print(f"purged {count}")


def _one_or_all(letter: str | None, every: bool) -> None:
    if (letter is None) != every:
        raise typer.BadParameter("give either the ID of a dead letter or --all")
