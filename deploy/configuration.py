"""``python -m deploy.configuration``: generates ``docs/configuration.md``, the reference of the fleet file's keys."""

from __future__ import annotations

import re
from collections.abc import Iterator
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from producer.contract.fleet.settings import Settings

OPENING = """# Configuration

Every key of the fleet file (`fleet.toml`). A key that is left out has its default; an unknown key or a wrong value is
refused when the file is read. An environment variable overrides the file: `STOKER_SCALING__IDLE_S=60` sets `idle_s` of
`[scaling]`.

This page is generated: `python -m deploy.configuration > docs/configuration.md`.
"""

HEAD = "| key | type | default | meaning |\n| --- | --- | --- | --- |\n"


def document() -> str:
    """The page in Markdown."""
    return "\n".join([OPENING, *(_section(name, table) for name, table in _tables(Settings, ""))])


def _tables(table: type[BaseModel], path: str) -> Iterator[tuple[str, type[BaseModel]]]:
    yield path, table
    for name, field in table.model_fields.items():
        for inner, step in _inner(field.annotation):
            yield from _tables(inner, f"{path}.{name}{step}".strip("."))


def _section(path: str, table: type[BaseModel]) -> str:
    rows = [_row(name, field) for name, field in table.model_fields.items() if not _inner(field.annotation)]
    title = f"`[{path}]`" if path and "[]" not in path else f"`[[{path.removesuffix('[]')}]]`" if path else "Top level"
    about = [] if not path else [f"{_plain(table.__doc__ or '')}\n"]
    keys = [f"{HEAD}{''.join(rows)}"] if rows else []
    return "\n".join([f"## {title}\n", *about, *keys])


def _row(name: str, field: FieldInfo) -> str:
    default = "required" if field.is_required() else _shown(field.get_default(call_default_factory=True))
    return f"| `{name}` | {_type(field)} | {default} | {_plain(field.description or '')} |\n"


def _inner(annotation: Any) -> list[tuple[type[BaseModel], str]]:
    """The tables that a field may hold, each with the placeholder for its name in a path."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [(annotation, "")]
    steps = {dict: ".NAME", UnionType: "", Union: ""}
    arguments = [each for each in get_args(annotation) if isinstance(each, type) and issubclass(each, BaseModel)]
    return [(each, steps.get(get_origin(annotation), "[]")) for each in arguments]


def _type(field: FieldInfo) -> str:
    return ", ".join([_name(field.annotation), *_limits(field.metadata)])


def _name(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return " or ".join(f"`{each}`" for each in get_args(annotation))
    if get_origin(annotation) in (Union, UnionType):
        return _name(next(each for each in get_args(annotation) if each is not NoneType))
    if get_origin(annotation) is tuple:
        return "list of strings"
    if get_origin(annotation) is dict:
        return "table"
    if hasattr(annotation, "__metadata__"):
        return ", ".join(
            [_name(annotation.__origin__), *_limits([m for f in annotation.__metadata__ for m in _parts(f)])]
        )
    names = {int: "integer", float: "number", str: "string", bool: "true or false"}
    return names.get(annotation, "string")


def _parts(annotation: Any) -> list[Any]:
    return list(annotation.metadata) if isinstance(annotation, FieldInfo) else [annotation]


def _limits(metadata: list[Any]) -> list[str]:
    words: dict[type, tuple[str, str]] = {
        Ge: ("ge", "at least"),
        Gt: ("gt", "above"),
        Le: ("le", "at most"),
        Lt: ("lt", "below"),
    }
    return [
        f"{words[type(each)][1]} {_shown(getattr(each, words[type(each)][0])).strip('`')}"
        for each in metadata
        if type(each) in words
    ]


def _shown(value: Any) -> str:
    if value is None or value in ("", (), {}):
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return ", ".join(f"`{each}`" for each in value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return f"`{value}`"


def _plain(text: str) -> str:
    return re.sub(r"\s+", " ", text.replace("``", "`")).strip()


if __name__ == "__main__":
    print(document(), end="")
