"""``docs/engines.md``, kept true: every option and parameter is named there, and what it shows can be configured."""

import re
import tomllib
from pathlib import Path

import pytest
from pydantic import BaseModel

from producer.contract.fleet_schema import Model
from workers.engines import parameters
from workers.engines.encoders import classify, pretrained, rerank
from workers.engines.generation import generate
from workers.engines.openai.options import OpenAIOptions as ServerOptions

TEXT = (Path(__file__).parents[2] / "docs" / "engines.md").read_text()
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL))
EXAMPLES = tomllib.loads("\n".join(re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)))["models"]


@pytest.mark.parametrize(
    ("section", "kind"),
    [
        ("embed, classify, rerank", pretrained.EncoderOptions),
        ("embed, classify, rerank", classify.ClassifyParameters),
        ("embed, classify, rerank", rerank.RerankParameters),
        ("generate", generate.GenerateOptions),
        ("generate", parameters.GenerationParameters),
        ("openai", ServerOptions),
    ],
)
def test_every_option_and_parameter_is_there(section: str, kind: type[BaseModel]) -> None:
    named = set(re.findall(r"`(\w+)`", SECTIONS[section])) | set(re.findall(r"`(\w+)[ ,]", SECTIONS[section]))
    assert kind.model_fields.keys() <= named


@pytest.mark.parametrize("name", EXAMPLES)
def test_what_it_shows_can_be_configured(name: str) -> None:
    model = Model.model_validate(EXAMPLES[name])
    kind = ServerOptions if model.engine == "openai" else pretrained.EncoderOptions
    kind.model_validate(model.options)
