"""``stoker acl``: the least-privilege ACL rules of a role, for redis-cli, or of all roles, as an ACL file."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from producer.contract.errors import ConfigError
from producer.contract.fleet.settings import Settings

from ..acl import ROLES, rules
from ..acl.users import acl_file, name_of

ADMIN_VARIABLE = "REDIS_PASSWORD"


def acl(
    role: Annotated[str | None, typer.Argument(metavar="ROLE", help=", ".join(ROLES))] = None,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", help="Restrict to this model; repeatable. [dim]Default: all[/dim]"),
    ] = None,
    user: Annotated[str | None, typer.Option(help="The user's name. [dim]Default: stoker-ROLE[/dim]")] = None,
    every: Annotated[
        bool, typer.Option("--all", help="Print an ACL file with the users of all roles, and the administrator.")
    ] = False,
) -> None:
    """Print the command that creates the Redis user of a role. Replace PASSWORD and pass the command to redis-cli.

    The role then connects with that user and password: rediss://stoker-worker:PASSWORD@HOST:6379/0.

    With --all: an ACL file for the whole server. The passwords come from the environment: WORKER_PASSWORD and so on,
    one for each role, and REDIS_PASSWORD of the administrator, who is the user default. The file holds their hashes.

    [bold]Examples[/bold]

      stoker acl worker --model smollm2
      stoker acl producer | sed "s/PASSWORD/$(openssl rand -hex 24)/" | redis-cli -h HOST
      stoker acl --all > users.acl && redis-server --aclfile users.acl
    """
    if every == (role is not None) or (every and (model or user)):
        raise typer.BadParameter("give a ROLE, or --all alone")
    settings = Settings.load()
    if role is None:
        passwords = {each: _password(variable(each)) for each in ROLES}
        print(acl_file(settings, _password(ADMIN_VARIABLE), passwords), end="")
        return
    quoted = (f'"{rule}"' if " " in rule else rule for rule in rules(role, settings, model or ()))
    print(f"ACL SETUSER {user or name_of(role)} reset on >PASSWORD", *quoted)


def variable(role: str) -> str:
    """The environment variable with the password of a role's user."""
    return f"{role.upper()}_PASSWORD"


def _password(name: str) -> str:
    if password := os.environ.get(name):
        return password
    raise ConfigError(f"{name} is not set; 'stoker acl --all' reads the password of each user from the environment")
