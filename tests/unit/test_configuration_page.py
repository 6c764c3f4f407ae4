"""docs/configuration.md says what the schema of the fleet file says."""

from pathlib import Path

from pydantic import BaseModel

from deploy.configuration import _tables, document
from producer.contract.fleet.settings import Settings

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"


def test_the_page_is_what_the_schema_makes() -> None:
    assert PAGE.read_text() == document(), "run: python -m deploy.configuration > docs/configuration.md"


def test_every_key_says_what_it_means() -> None:
    silent = [
        f"{path}.{name}"
        for path, table in _tables(Settings, "")
        for name, field in table.model_fields.items()
        if not field.description and not _is_table(field.annotation)
    ]
    assert not silent


def _is_table(annotation: object) -> bool:
    inner = [annotation, *getattr(annotation, "__args__", ())]
    return any(isinstance(each, type) and issubclass(each, BaseModel) for each in inner)
