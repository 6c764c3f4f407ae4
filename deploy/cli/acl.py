"""``stoker acl``: the least-privilege rules of a role, for redis-cli or an ACL file."""

from __future__ import annotations

from typing import Annotated

import typer

from producer.contract.settings import Settings

from ..acl import ROLES, rules


def acl(
    role: Annotated[str, typer.Argument(metavar="ROLE", help=", ".join(ROLES))],
    model: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", help="For this model alone; may be repeated. [dim]Default: all[/dim]"),
    ] = None,
    user: Annotated[str | None, typer.Option(help="The user's name. [dim]Default: stoker-ROLE[/dim]")] = None,
) -> None:
    """Print the Redis user that a role needs: put a password in the place of PASSWORD, and give it to redis-cli.

    The password then goes into the URL of that role: rediss://stoker-worker:PASSWORD@HOST:6379/0.

    [bold]Examples[/bold]

      stoker acl worker --model smollm2
      stoker acl producer | sed "s/PASSWORD/$(openssl rand -hex 24)/" | redis-cli -h HOST
    """
    quoted = (f'"{rule}"' if " " in rule else rule for rule in rules(role, Settings.load(), model or ()))
    print(f"ACL SETUSER {user or f'stoker-{role}'} reset on >PASSWORD", *quoted)
