"""Traces: a tiny sample of each public format, written by hand."""

import gzip
import io
import json
import tarfile
from collections import Counter
from pathlib import Path

import pytest

from producer.contract.errors import UnknownTier
from producer.contract.fleet.fleet_schema import Model
from producer.contract.fleet.settings import Settings
from simulator.traces.readers import read
from simulator.traces.synthetic import generate, popularity
from simulator.traces.trace import Trace, TraceError, assign

AZURE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:17:03.9799600,4808,10
2023-11-16 18:17:05.0319601,3180,0
2023-11-16 18:17:04.0000000,7,8
"""

SETTINGS = Settings(models={"big": Model(engine="echo"), "small": Model(engine="echo", tiers=("batch",))})


def test_azure_is_read_in_order_from_its_first_request(tmp_path: Path) -> None:
    file = tmp_path / "trace.csv.gz"
    file.write_bytes(gzip.compress(AZURE.encode()))
    trace = read(file)
    assert trace.at == pytest.approx([0, 0.02004, 1.0520001], abs=1e-6)
    assert trace.input_tokens == [4808, 7, 3180]
    assert trace.output_tokens == [10, 8, 1]
    assert len(read(file, lasts_s=1.0)) == 2


def test_mooncake_is_read_with_milliseconds(tmp_path: Path) -> None:
    file = tmp_path / "trace.jsonl"
    rows = [
        {"timestamp": 27482, "input_length": 6955, "output_length": 52, "hash_ids": [46, 47]},
        {"timestamp": 30535, "input_length": 6472, "output_length": 26, "hash_ids": [46]},
    ]
    file.write_text("\n".join(map(json.dumps, rows)) + "\n")
    trace = read(file)
    assert trace.at == pytest.approx([0, 3.053])
    assert (trace.input_tokens, trace.output_tokens) == ([6955, 6472], [52, 26])


CLIENTS = {
    "data/reason/r1/chunk-1-trace.csv": "0,0.5,1.5,Gamma,0.44,4.5\n600,0,0,,0,0\n1200,0.5,2,Weibull,0.6,9.9\n",
    "data/reason/r1/chunk-1-dataset.json": json.dumps(
        {"0": {"input_tokens": "{100: 1.0}", "output_tokens": "{7: 0.5, 9: 0.5}", "reason_ratio": "{0.0: 1.0}"}}
    ),
    "data/multimodal/mm/chunk-2-trace.csv": "0,0.1,1.0,Gamma,1.0,10\n",
    "data/multimodal/mm/chunk-2-dataset.json": json.dumps(
        {"0": {"text_tokens": "{50: 1.0}", "image_tokens": "{4: 1.0}", "output_tokens": "{3: 1.0}"}}
    ),
}


def servegen(folder: Path) -> Path:
    file = folder / "clients.tgz"
    with tarfile.open(file, "w:gz") as archive:
        for name, text in CLIENTS.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    return file


def test_servegen_draws_the_rates_and_lengths_of_its_clients(tmp_path: Path) -> None:
    trace = read(servegen(tmp_path), seed=1)
    assert [Path(tenant).name for tenant in trace.tenants] == ["chunk-2", "chunk-1"]
    own = [n for n, tenant in enumerate(trace.tenant) if tenant == 1]
    assert len(own) == pytest.approx(2 * 300, rel=0.25)
    assert all(not 600 <= trace.at[n] < 1200 for n in own)
    assert {trace.input_tokens[n] for n in own} == {100}
    assert {trace.output_tokens[n] for n in own} == {7, 9}
    assert {trace.input_tokens[n] for n in range(len(trace)) if n not in own} == {54}
    assert list(trace.at) == sorted(trace.at)


def test_servegen_from_a_folder_is_the_same_and_another_seed_is_not(tmp_path: Path) -> None:
    folder = tmp_path / "unpacked"
    with tarfile.open(servegen(tmp_path)) as archive:
        archive.extractall(folder, filter="data")
    assert read(folder, seed=1).at == read(tmp_path / "clients.tgz", seed=1).at
    assert read(folder, seed=2).at != read(folder, seed=1).at


HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens\n"


def test_azure_of_2024_has_an_offset_and_a_spreadsheet_a_mark_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "trace.csv"
    file.write_text(f"\ufeff{HEADER}2024-05-10 00:00:00.5+00:00,1,2\n\n2024-05-10 02:00:02+02:00,3,4\n")
    trace = read(file)
    assert (trace.at, trace.input_tokens) == ([0, 1.5], [1, 3])


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.csv", "when,what\n1,2\n", "line 1: expected the columns TIMESTAMP,ContextTokens,GeneratedTokens"),
        ("a.csv", f"{HEADER}never,1,2\n", "line 2: TIMESTAMP = 'never'"),
        ("a.csv", f"{HEADER}2023-11-16 18:17:03,1,2\n2023-11-16 18:17:03,many,2\n", "line 3: ContextTokens = 'many'"),
        ("a.csv", f"{HEADER}2023-11-16 18:17:03,1\n", "line 2: GeneratedTokens"),
        ("a.csv", f"{HEADER}2023-11-16 18:17:03,1,-2\n", "expected a line such as 2023-11-16"),
        ("a.csv", HEADER, "has no requests"),
        ("a.csv", "", "line 1: expected the columns"),
        ("a.jsonl", '{"timestamp": 1, "input_length": 2}\n', "line 1: output_length is missing"),
        ("a.jsonl", '{"timestamp": NaN, "input_length": 2, "output_length": 2}\n', "finite"),
        ("a.jsonl", "\n[]\n", "line 2: it = '[]'"),
        ("a.jsonl", "{\n", "line 1: "),
        ("a.csv.gz", "not compressed", "Not a gzipped file"),
        ("a.tgz", "no archive", "could not be opened"),
        ("a.txt", "", "no known format"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, name: str, content: str, says: str) -> None:
    file = tmp_path / name
    file.write_text(content)
    with pytest.raises(TraceError, match=r"a\.") as caught:
        read(file)
    assert says in str(caught.value)


def test_a_file_that_was_cut_off_says_so(tmp_path: Path) -> None:
    whole = gzip.compress("".join(f"2023-11-16 18:17:{n % 60:02},{n},{n * 7 % 1000}\n" for n in range(5000)).encode())
    file = tmp_path / "a.csv.gz"
    file.write_bytes(gzip.compress(HEADER.encode()) + whole[: len(whole) // 2])
    with pytest.raises(TraceError, match=r"a\.csv\.gz, after line [1-9]\d+: .*is it whole"):
        read(file)


DATASET = '{"0": {"input_tokens": "{100: 1.0}", "output_tokens": "{7: 0.5}"}}'


@pytest.mark.parametrize(
    ("trace", "dataset", "says"),
    [
        ("0,1,1,Gamma,1,1\n600,1,1,Gamma,1\n", DATASET, "chunk-1-trace.csv, line 2: 5 values; expected begin, rate"),
        ("0,1,1,Pareto,1,1\n", DATASET, "chunk-1-trace.csv, line 1: family = 'Pareto'"),
        ("0,1,1,Gamma,0,1\n", DATASET, "chunk-1-trace.csv, line 1: shape = '0'"),
        ("0,1,1,Gamma,1,1\n", None, "chunk-1 has no chunk-1-dataset.json"),
        ("0,1,1,Gamma,1,1\n", "{}", "chunk-1-dataset.json"),
        ("0,1,1,Gamma,1,1\n", '{"0": 3}', "chunk-1-dataset.json: 0 = '3'"),
        ("0,1,1,Gamma,1,1\n", '{"0": {"input_tokens": "{1: 1}"}}', "chunk-1-dataset.json: no output_tokens at 0 s"),
        ("0,1,1,Gamma,1,1\n", DATASET.replace("100: 1.0", "100: 0"), "input_tokens at 0 s: expected shares"),
        ("0,1,1,Gamma,1,1\n", DATASET.replace("100: 1.0", "exit()"), "input_tokens at 0 s: expected shares"),
    ],
)
def test_what_cannot_be_read_of_a_client_is_named(tmp_path: Path, trace: str, dataset: str | None, says: str) -> None:
    (tmp_path / "chunk-1-trace.csv").write_text(trace)
    if dataset is not None:
        (tmp_path / "chunk-1-dataset.json").write_text(dataset)
    with pytest.raises(TraceError) as caught:
        read(tmp_path)
    assert says in str(caught.value)


def test_a_trace_that_is_not_there_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="does not exist"):
        read(tmp_path / "none.csv")


def test_models_and_tiers_are_assigned_in_their_shares_by_seed() -> None:
    trace = Trace([float(n) for n in range(4000)], [1] * 4000, [1] * 4000)
    shares = {"interactive": 3.0, "batch": 1.0}
    one = assign(trace, SETTINGS, 1, models={"big": 1.0}, tiers=shares)
    assert Counter(one.tier)[0] == pytest.approx(3000, rel=0.05)
    assert one.tier == assign(trace, SETTINGS, 1, models={"big": 1.0}, tiers=shares).tier
    assert one.tier != assign(trace, SETTINGS, 2, models={"big": 1.0}, tiers=shares).tier
    assert assign(trace, SETTINGS).tiers == ("batch",)  # the only tier that both models serve
    with pytest.raises(UnknownTier):
        assign(trace, SETTINGS, tiers=shares)


def test_synthetic_load_has_the_rate_and_the_popularity_that_were_published() -> None:
    trace = generate(20_000, per_s=50, seed=3, cv=2.0, swing=0.0)
    assert len(trace) / trace.lasts_s == pytest.approx(50, rel=0.1)
    shares = popularity(86)
    assert shares[0] == pytest.approx(0.31)
    assert sum(shares[:5]) == pytest.approx(0.70)
    assert sum(shares) == pytest.approx(1)
    assert sorted(popularity(3), reverse=True) == popularity(3)
    assert sorted(trace.input_tokens)[10_000] == pytest.approx(1020, rel=0.05)
