"""``stoker acl``: the least-privilege ACL rules of a role, for redis-cli or an ACL file."""

from __future__ import annotations

from typing import Annotated

import typer

from producer.contract.fleet.settings import Settings

from ..acl import ROLES, rules


def acl(
    role: Annotated[str, typer.Argument(metavar="ROLE", help=", ".join(ROLES))],
    model: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", help="Restrict to this model; repeatable. [dim]Default: all[/dim]"),
    ] = None,
    user: Annotated[str | None, typer.Option(help="The user's name. [dim]Default: stoker-ROLE[/dim]")] = None,
) -> None:
    """Print the command that creates the Redis user of a role. Replace PASSWORD and pass the command to redis-cli.

    The role then connects with that user and password: rediss://stoker-worker:PASSWORD@HOST:6379/0.

    [bold]Examples[/bold]

      stoker acl worker --model smollm2
      stoker acl producer | sed "s/PASSWORD/$(openssl rand -hex 24)/" | redis-cli -h HOST
    """
    quoted = (f'"{rule}"' if " " in rule else rule for rule in rules(role, Settings.load(), model or ()))
    print(f"ACL SETUSER {user or f'stoker-{role}'} reset on >PASSWORD", *quoted)
