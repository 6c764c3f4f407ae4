"""Engines by name, and what each may be configured with."""

import subprocess
import sys
from pathlib import Path

import pytest

from producer.contract.errors import ConfigError
from producer.contract.fleet.engine_options import EncoderOptions
from producer.contract.fleet.fleet_schema import Model
from producer.contract.fleet.settings import Settings
from workers.engines.registry import create


@pytest.mark.parametrize(
    ("engine", "options", "said"),
    [
        ("echo", "{ delay = 1 }", r"models.m.options.delay = 1: no such key; did you mean delay_s\?; allowed: "),
        ("embed", "{ max_batch_tokens = 0 }", r"models.m.options.max_batch_tokens = 0: .*equal to 1"),
        ("classify", '{ task = "generate" }', r"models.m.options.task = 'generate': no such key; allowed: max_batch"),
        ("generate", '{ dtype = "int4" }', r"models.m.options.dtype = 'int4': .*'float32'"),
        ("generate", '{ max_length = 9, dtype = "int4" }', r"models.m.options.max_length = 9: no such key"),
        ("embed", "3", r"models.m.options = 3: "),
    ],
)
def test_a_wrong_option_is_named_when_the_fleet_file_is_read(
    tmp_path: Path, engine: str, options: str, said: str
) -> None:
    file = tmp_path / "fleet.toml"
    file.write_text(f'[models.m]\nengine = "{engine}"\nsource = "package:x"\noptions = {options}\n')
    with pytest.raises(ConfigError, match=said):
        Settings.load(file)


def test_an_option_may_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOKER_MODELS__M__OPTIONS__DTYPE", "bfloat16")
    file = tmp_path / "fleet.toml"
    file.write_text('[models.m]\nengine = "embed"\nsource = "package:x"\noptions.max_length = 9\n')
    assert Settings.load(file).model("m").options == EncoderOptions(dtype="bfloat16", max_length=9)


@pytest.mark.parametrize("device", ["cuda:99", "tpu:0", "cuda", "cuda:x"])
def test_a_device_that_is_not_there_is_named(device: str) -> None:
    with pytest.raises(ConfigError, match=f"device = '{device}'"):
        create(Model(engine="embed", source="package:x"), device)


def test_echo_needs_no_torch() -> None:
    program = (
        "import sys; from producer.contract.fleet.fleet_schema import Model; "
        "from workers.engines.registry import create; "
        "create(Model(engine='echo'), 'cpu:0').load(); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
