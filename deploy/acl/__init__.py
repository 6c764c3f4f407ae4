"""Least privilege: the ``ACL SETUSER`` rules of each role (Redis 7.0, Valkey 7.2, or later).

Each grant is a selector: some commands on some keys. A role therefore never has the product of all its commands and
all its keys; a producer can push to a queue and delete a result, but cannot delete a queue. A script runs with the
permissions of its caller, and a role may run the scripts that it needs, each by its SHA-1, and no other.
"""

from .rules import ROLES, rules

__all__ = ["ROLES", "rules"]
