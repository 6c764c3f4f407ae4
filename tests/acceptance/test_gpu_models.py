"""The models that are made for a machine without a hub: real enough for our engines."""

from pathlib import Path

import pytest

from benchmarks.gpu.models import PRESETS, build
from producer.contract.fleet.fleet_schema import Model
from workers.engines.protocol import Outcome, Request
from workers.engines.registry import create

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return build(PRESETS["tiny"], tmp_path_factory.mktemp("models"), "cpu")


@pytest.mark.parametrize(("engine", "at", "parameters"), [("generate", 0, {"max_new_tokens": 5}), ("embed", 1, {})])
def test_our_engines_run_them(sources: tuple[Path, Path], engine: str, at: int, parameters: dict[str, int]) -> None:
    model = create(Model(engine=engine, source=str(sources[at]), max_concurrency=4, memory_gb=0.1), "cpu:0")
    model.load()
    try:
        model.submit(Request("a", ["the people of the world"], parameters))
        outcomes: list[Outcome] = []
        while not outcomes:
            outcomes = [report for report in model.step(5.0) if isinstance(report, Outcome)]
    finally:
        model.close()
    assert outcomes[0].error is None
    assert outcomes[0].usage["input_tokens"] == 5
    assert outcomes[0].usage.get("output_tokens", 5) == 5
