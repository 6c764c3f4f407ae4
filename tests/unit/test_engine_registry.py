"""Engines by name, and what each may be configured with."""

import subprocess
import sys

import pytest

from producer.contract.errors import ConfigError
from producer.contract.fleet_schema import Model
from workers.engines.registry import create


@pytest.mark.parametrize(
    ("engine", "options", "said"),
    [
        ("echo", {"delay": 1}, r"options of an echo model:\ndelay = 1"),
        ("embed", {"max_batch_tokens": 0}, r"options of an embed model:\nmax_batch_tokens = 0: .*equal to 1"),
        ("generate", {"dtype": "int4"}, r"options of a generate model:\ndtype = 'int4': .*'float32'"),
    ],
)
def test_a_wrong_option_is_named(engine: str, options: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        create(Model.model_validate({"engine": engine, "source": "package:x", "options": options}), "cpu:0")


@pytest.mark.parametrize("device", ["cuda:99", "tpu:0", "cuda", "cuda:x"])
def test_a_device_that_is_not_there_is_named(device: str) -> None:
    with pytest.raises(ConfigError, match=f"device = '{device}'"):
        create(Model(engine="embed", source="package:x"), device)


def test_echo_needs_no_torch() -> None:
    program = (
        "import sys; from producer.contract.fleet_schema import Model; from workers.engines.registry import create; "
        "create(Model(engine='echo'), 'cpu:0').load(); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
