"""``stoker simulate``: every trace format through a fleet file, from the command line."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from deploy.cli import app, zoo
from producer.contract.errors import ConfigError, StokerError
from simulator.run import Simulation
from simulator.zoo.registry import FAMILIES

FLEET = """
[models.big]
engine = "echo"
max_replicas = 4
max_concurrency = 4

[models.small]
engine = "echo"
max_replicas = 2

[scaling]
idle_s = 10

[[simulation.devices]]
type = "fast"
count = 2
price_per_hour = 3.0
speed = 2.0

[[simulation.devices]]
type = "slow"
count = 2
failures_per_day = 200

[simulation.models.big]
step_s = 0.02
sequence_s = 0.001
load_s = 5

[simulation.models.small]
step_s = 0.01
sequence_s = 0.001
batches = true
load_s = 2
"""


@pytest.fixture
def fleet(tmp_path: Path) -> Path:
    file = tmp_path / "fleet.toml"
    file.write_text(FLEET)
    return file


@pytest.fixture
def mooncake(tmp_path: Path) -> Path:
    file = tmp_path / "trace.jsonl"
    rows = [{"timestamp": n * 500, "input_length": 100, "output_length": 20 + n % 30} for n in range(200)]
    file.write_text("\n".join(map(json.dumps, rows)))
    return file


def run(*arguments: object) -> Result:
    found = CliRunner().invoke(app, ["simulate", *map(str, arguments)])
    if isinstance(found.exception, StokerError):
        raise found.exception
    return found


def test_a_trace_through_a_fleet_is_a_table_and_a_picture(fleet: Path, mooncake: Path, tmp_path: Path) -> None:
    picture = tmp_path / "out.png"
    found = run("--trace", mooncake, "--fleet", fleet, "--plot", picture, "--assign", "tiers=interactive:3,batch")
    assert found.exit_code == 0, found.output
    assert "interactive" in found.stdout
    assert "standard" not in found.stdout
    assert "device hours" in found.stdout
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_two_policies_stand_side_by_side_with_their_bounds(fleet: Path, mooncake: Path) -> None:
    arguments = ("--trace", mooncake, "--fleet", fleet, "--compare", "backlog,backlog", "--seed", 3)
    table = run(*arguments).stdout
    assert table.count("backlog") == 2
    assert "times the clairvoyant" in table
    one, other = map(json.loads, run(*arguments, "--json").stdout.splitlines())
    assert one == other
    assert one["requests"] == 200
    assert 0 < one["clairvoyant_device_hours"] < one["device_hours"]
    assert sum(tier["requests"] for tier in one["tiers"]) == 200


@pytest.mark.slow
def test_a_policy_may_be_of_any_kind_or_of_several(fleet: Path) -> None:
    arguments = ("--trace", "synthetic", "--fleet", fleet, "--for", 600, "--busy", 0.6, "--json")
    names = ("pull", "round-robin", "fifo+least-connections", "threshold+affinity")
    reports = [json.loads(run(*arguments, "--assign", "tenants=9", "--policy", name).stdout) for name in names]
    assert [one["policy"] for one in reports] == [*names]
    assert len({json.dumps(one["tiers"]) for one in reports}) == len(names)


@pytest.mark.slow
def test_the_zoo_is_a_table_of_all_families_that_says_which_half_and_a_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = {name: FAMILIES[name] for name in ("long answers", "long prompts")}
    monkeypatch.setattr(zoo, "FAMILIES", few)
    picture = tmp_path / "zoo.png"
    arguments = ("--zoo", "--half", "development", "--compare", "slack,threshold")
    table = run(*arguments, "--plot", picture).stdout
    assert "development half" in table
    assert all(name in table for name in (*few, "slack", "threshold", "clairvoyant"))
    assert all(family.reason.split(",")[0] in table for family in few.values())
    assert picture.read_bytes().startswith(b"\x89PNG")
    lines = [json.loads(line) for line in run(*arguments, "--json").stdout.splitlines()]
    assert [line["name"] for line in lines] == [*few]
    assert {line["half"] for line in lines} == {"development"}
    assert lines[0]["scores"]["slack"]["hours"] >= lines[0]["bound_hours"] > 0


def test_without_a_trace_it_says_what_may_take_its_place() -> None:
    with pytest.raises(ConfigError, match="--trace is missing; allowed: a file, synthetic, or --zoo"):
        run("--fleet", "synthetic")


AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.9799600,480,10\n2023-11-16 18:17:05,318,4\n"
CLIENT = {
    "chunk-1-trace.csv": "0,0.5,1.5,Gamma,0.44,4.5\n600,0,0,,0,0\n",
    "chunk-1-dataset.json": '{"0": {"input_tokens": "{100: 1.0}", "output_tokens": "{7: 0.5, 9: 0.5}"}}',
}


def test_every_format_goes_through_a_fleet(fleet: Path, mooncake: Path, tmp_path: Path) -> None:
    azure, clients = tmp_path / "azure.csv", tmp_path / "clients"
    azure.write_text(AZURE)
    clients.mkdir()
    for name, text in CLIENT.items():
        (clients / name).write_text(text)
    for trace in (azure, mooncake, clients, "synthetic"):
        found = run("--trace", trace, "--fleet", fleet, "--for", 600, "--json", "--assign", "tiers=interactive,batch:0")
        line = json.loads(found.stdout, parse_constant=pytest.fail)  # no NaN, which is not JSON
        assert line["requests"] > 0
        assert line["tokens_done"] > 0


def test_synthetic_load_keeps_as_much_of_the_fleet_busy_as_is_asked_for(fleet: Path) -> None:
    arguments = ("--trace", "synthetic", "--fleet", fleet, "--for", 300, "--json")
    some, more = (json.loads(run(*arguments, "--busy", busy).stdout) for busy in (0.1, 0.2))
    assert more["requests"] == pytest.approx(2 * some["requests"], rel=0.02)


def test_the_same_seed_is_the_same_report_and_faster_arrivals_are_more_load(fleet: Path, mooncake: Path) -> None:
    arguments = ("--trace", mooncake, "--fleet", fleet, "--json", "--assign", "tenants=3", "--assign", "models=big")
    assert run(*arguments, "--seed", 1).stdout == run(*arguments, "--seed", 1).stdout
    assert run(*arguments, "--seed", 1).stdout != run(*arguments, "--seed", 2).stdout
    one, ten = (json.loads(run(*arguments, "--times", times).stdout) for times in (1, 10))
    assert ten["lasted_s"] < 0.3 * one["lasted_s"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--policy", "wishful"], "allowed: slack, backlog"),
        (["--compare", "backlog,wishful"], "no policy 'wishful'"),
        (["--policy", "fifo+strict"], "of one kind"),
        (["--assign", "colours=red"], "allowed are models=NAME:WEIGHT"),
        (["--assign", "tiers=interactive:much"], "a weight is a number"),
        (["--assign", "models=big:0"], "--assign models=big:0"),
        (["--assign", "models=huge"], "no model 'huge'"),
        (["--plot", "/nowhere/out.png"], "cannot be written"),
    ],
)
def test_what_cannot_be_is_said(fleet: Path, mooncake: Path, arguments: list[str], says: str) -> None:
    with pytest.raises(StokerError, match=says):
        run("--trace", mooncake, "--fleet", fleet, *arguments)


def test_a_fleet_file_without_figures_says_what_to_add(tmp_path: Path, mooncake: Path) -> None:
    file = tmp_path / "fleet.toml"
    file.write_text('[models.big]\nengine = "echo"\n')
    with pytest.raises(ConfigError, match=r"(?s)no \[simulation\] table.*\[simulation.models.big\]"):
        run("--trace", mooncake, "--fleet", file)


def test_interrupted_it_says_so_and_leaves_no_picture(
    fleet: Path, mooncake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Simulation, "run", interrupted)
    found = run("--trace", mooncake, "--fleet", fleet, "--plot", tmp_path / "out.png")
    assert found.exit_code == 130
    assert not (tmp_path / "out.png").exists()
