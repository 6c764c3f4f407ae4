"""The users of a server, one for each role, as the lines of an ACL file; passwords are in it as hashes only."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from producer.contract.fleet.settings import Settings

from .rules import ROLES, rules

ADMIN = "default"
"""The user who may do everything. It has no role: it makes the other users, and is for its operator alone."""


def name_of(role: str) -> str:
    """The name of a role's user."""
    return f"stoker-{role}"


def user(role: str, settings: Settings, password: str) -> list[str]:
    """The rules of a role's user, to follow ``ACL SETUSER name reset``."""
    return ["on", _hashed(password), *rules(role, settings)]


def acl_file(settings: Settings, admin: str, passwords: Mapping[str, str]) -> str:
    """The ACL file of a server for the whole fleet.

    Args:
        admin: the password of :data:`ADMIN`.
        passwords: of each role.
    """
    lines = [f"user {ADMIN} on {_hashed(admin)} ~* &* +@all"]
    lines += [f"user {name_of(role)} {' '.join(user(role, settings, passwords[role]))}" for role in ROLES]
    return "".join(f"{line}\n" for line in lines)


def _hashed(password: str) -> str:
    return "#" + hashlib.sha256(password.encode()).hexdigest()
