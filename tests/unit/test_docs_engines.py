"""``docs/engines.md``, kept true: every option and parameter is named there, and what it shows can be configured."""

import re
import tomllib
from pathlib import Path

import pytest
from pydantic import BaseModel

from producer.contract.fleet.engine_options import EncoderOptions, GenerateOptions, OpenAIOptions
from producer.contract.fleet.fleet_schema import Model
from workers.engines.encoders import classify, embed, rerank
from workers.engines.generation.choice.generate_parameters import GenerateParameters

TEXT = (Path(__file__).parents[2] / "docs" / "engines.md").read_text()
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL))
EXAMPLES = tomllib.loads("\n".join(re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)))["models"]


@pytest.mark.parametrize(
    ("section", "kind"),
    [
        ("embed, classify, rerank", EncoderOptions),
        ("embed, classify, rerank", classify.ClassifyParameters),
        ("embed, classify, rerank", embed.EmbedParameters),
        ("embed, classify, rerank", rerank.RerankParameters),
        ("generate", GenerateOptions),
        ("generate", GenerateParameters),
        ("openai", OpenAIOptions),
    ],
)
def test_every_option_and_parameter_is_there(section: str, kind: type[BaseModel]) -> None:
    named = set(re.findall(r"`(\w+)`", SECTIONS[section])) | set(re.findall(r"`(\w+)[ ,]", SECTIONS[section]))
    assert kind.model_fields.keys() <= named


@pytest.mark.parametrize("name", EXAMPLES)
def test_what_it_shows_can_be_configured(name: str) -> None:
    Model.model_validate(EXAMPLES[name])


@pytest.mark.parametrize("name", [name for name in EXAMPLES if "command" in EXAMPLES[name].get("options", {})])
def test_what_takes_memory_of_a_gpu_says_how_much(name: str) -> None:
    """By default it is 1 GB, and the next model would be placed beside a server that has taken all."""
    assert EXAMPLES[name]["memory_gb"] > 1
