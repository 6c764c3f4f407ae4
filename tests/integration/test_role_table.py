"""Every command of the server, by every role, on every kind of key: what docs/roles.md tells works, and no more."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis as redis_py

from deploy import acl
from deploy.acl import scripts, table
from deploy.acl.rules import CONNECTION, ROLES, scope
from deploy.machine.server import Server
from producer import Settings

FLEET = '[models.m]\nengine = "echo"\ntiers = ["batch"]\n[models.other]\nengine = "echo"\ntiers = ["batch"]\n'
ALWAYS = {"auth", "quit", "reset"}
"""Commands that the server lets everybody give, as they do nothing but to the connection."""
UNKNOWN = hashlib.sha1(b"a script of somebody", usedforsecurity=False).hexdigest()
PARTS = ("producer", "gateway", "scheduler", "workers", "autoscaler")
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def admin(server: Server) -> Iterator[redis_py.Redis]:
    with redis_py.Redis.from_url(server.url) as client:
        client.set_response_callback("ACL DRYRUN", lambda answer: answer in (b"OK", "OK"))
        yield client
        for role in ROLES:
            client.execute_command("ACL", "DELUSER", f"table-{role}")


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    file = tmp_path_factory.mktemp("fleet") / "fleet.toml"
    file.write_text(FLEET)
    return Settings.load(file)


def commands(redis: redis_py.Redis) -> dict[str, dict[str, Any]]:
    """What the server says of each of its commands and subcommands, by the name that ACL rules give it."""
    found: dict[str, dict[str, Any]] = {}

    def take(told: list[Any]) -> None:
        name, arity, subcommands = told[0].decode(), told[1], told[9]
        if subcommands:
            for each in subcommands:
                take(each)
        else:
            found[name] = {"arity": abs(arity), "keys": [_paired(spec) for spec in told[8]]}

    redis.set_response_callback("COMMAND", lambda answer: answer)
    for told in redis.execute_command("COMMAND"):
        take(told)
    return found


def _paired(flat: Any) -> Any:
    """Lists of names and values as dicts, throughout."""
    if isinstance(flat, dict):
        return {_text(name): _paired(value) for name, value in flat.items()}
    if isinstance(flat, list) and len(flat) % 2 == 0 and flat and all(isinstance(each, bytes) for each in flat[::2]):
        return {_text(name): _paired(value) for name, value in zip(flat[::2], flat[1::2], strict=True)}
    return flat


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)


def call(name: str, about: dict[str, Any], key: str) -> list[str]:
    """A call of a command with the key in each place where it takes one."""
    words = name.split("|")
    for spec in about["keys"]:
        search, found = spec["begin_search"], spec["find_keys"]
        if _text(search["type"]) == "keyword":
            words += ["1"] * (search["spec"]["startfrom"] - len(words))
            words += [_text(search["spec"]["keyword"]), key, "0"]
            continue
        if _text(search["type"]) == "unknown":  # further keys, of options that this call has not
            continue
        index, how = search["spec"]["index"], found["spec"]
        words += ["1"] * (index - len(words))
        if _text(found["type"]) == "keynum":
            words += ["1"] * (index + how["firstkey"] - len(words)) + [key]
        else:
            words[index:] = [key, *words[index + 1 :]]
            last = how["lastkey"]
            words += [key] * (last if last > 0 else 0)
    words += ["1"] * (about["arity"] - len(words))
    return words


def allowed(redis: redis_py.Redis, user: str, calls: list[list[str]]) -> list[bool]:
    """Which of the calls the user may make."""
    with redis.pipeline(transaction=False) as pipe:
        for words in calls:
            pipe.execute_command("ACL", "DRYRUN", user, *words)
        answers = pipe.execute(raise_on_error=False)
    return [answer in (b"OK", "OK", True) for answer in answers]


@pytest.fixture(scope="module")
def known(admin: redis_py.Redis) -> dict[str, dict[str, Any]]:
    return commands(admin)


@pytest.fixture(scope="module")
def categories(admin: redis_py.Redis) -> dict[str, set[str]]:
    return {f"@{_text(name)}": {_text(each) for each in admin.acl_cat(_text(name))} for name in admin.acl_cat()}


def expanded(granted: set[str], categories: dict[str, set[str]]) -> set[str]:
    return {each for one in granted for each in categories.get(one, {one})}


@pytest.mark.parametrize("role", ROLES)
def test_a_role_may_do_what_the_table_tells_and_nothing_else(
    admin: redis_py.Redis,
    settings: Settings,
    known: dict[str, dict[str, Any]],
    categories: dict[str, set[str]],
    role: str,
) -> None:
    user, grants = f"table-{role}", ROLES[role](scope(settings, ["m"]))
    admin.execute_command("ACL", "SETUSER", user, "reset", "on", ">x", *acl.rules(role, settings, ["m"]))
    keyed = {name: about for name, about in known.items() if about["keys"] and name != "evalsha"}
    digests = [*table.script_names(), UNKNOWN]
    for model in ("m", "other"):
        for kind, key in table.kinds(model).items():
            names = [*keyed, *(f"evalsha|{digest}" for digest in digests)]
            calls = [call(name, about, key) for name, about in keyed.items()]
            calls += [["EVALSHA", digest, "1", key] for digest in digests]
            told = {name for name, may in zip(names, allowed(admin, user, calls), strict=True) if may}
            wanted = expanded(table.granted(grants, key), categories) & set(names)
            assert told == wanted, (model, kind)
    others = [name for name, about in known.items() if not about["keys"]]
    keyless = [name for name in others if name not in ("publish", "subscribe", "psubscribe")]
    told = {
        name
        for name, may in zip(
            keyless, allowed(admin, user, [call(each, known[each], "") for each in keyless]), strict=True
        )
        if may
    }
    free = {each for grant in grants if not grant.keys and not grant.channels for each in grant.commands}
    granted_anywhere = expanded({each for grant in grants for each in grant.commands}, categories)
    assert set(CONNECTION) | free <= told | set(keyed)
    assert told <= set(CONNECTION) | ALWAYS | free | granted_anywhere


def test_no_role_reaches_a_key_of_another_model(admin: redis_py.Redis, settings: Settings) -> None:
    own, other = table.kinds("m"), table.kinds("other")
    for role in ROLES.values():
        grants = role(scope(settings, ["m"]))
        for kind in own:
            if own[kind] != other[kind] and kind != "queue":
                assert not table.granted(grants, other[kind]), (role.__name__, kind)
    assert admin.ping()


def test_every_script_belongs_to_a_role() -> None:
    run = {each for role in ROLES.values() for grant in role(scope_of_one()) for each in grant.commands}
    assert {f"evalsha|{digest}" for digest in table.script_names()} <= run
    files = [file for part in PARTS for file in (ROOT / part).rglob("*.lua")]
    lines = [line for file in files for line in file.read_text().splitlines() if line.startswith("-- include ")]
    included = {line.split()[-1].rpartition("/")[2] for line in lines}
    alone = [file for file in files if file.name not in included]
    assert len(alone) == len(table.script_names()) - len(scripts.LEADER)


def scope_of_one() -> Any:
    return scope(Settings.model_validate({"models": {"m": {"engine": "echo"}}}))


def test_the_page_is_the_table() -> None:
    assert (ROOT / "docs" / "roles.md").read_text() == table.page()
