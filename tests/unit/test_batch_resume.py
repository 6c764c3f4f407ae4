"""Going on with a batch: its bitmap, its sidecar and its output file."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.batches.lines.line_set import LineSet
from gateway.batches.resume import BatchIdentity, claim_run, is_complete, opened_alone, sidecar, survey
from producer.contract.errors import BatchError

ASKED = BatchIdentity("/in.jsonl", 10, "abc", "m", "batch", "default")


def answer(number: int, custom_id: str = "c", **more: object) -> bytes:
    return json.dumps({"custom_id": custom_id, "line": number, **more}).encode() + b"\n"


@given(st.sets(st.integers(1, 5000)), st.sets(st.integers(1, 5000)))
def test_a_line_set_holds_what_was_added(added: set[int], asked: set[int]) -> None:
    lines = LineSet()
    for number in [*added, *added]:
        lines.add(number)
    assert len(lines) == len(added)
    assert {number for number in added | asked if number in lines} == added


def test_the_same_batch_goes_on_under_the_same_run(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    run = claim_run(out, ASKED)
    assert json.loads(sidecar(out).read_text())["run"] == run
    assert claim_run(out, ASKED) == run
    assert list(tmp_path.iterdir()) == [sidecar(out)]


@pytest.mark.parametrize("other", [{"model": "n"}, {"input": "/x"}, {"input_bytes": 11}, {"input_head_sha256": "d"}])
def test_another_batch_does_not_go_on_with_it(tmp_path: Path, other: dict[str, object]) -> None:
    out = tmp_path / "out.jsonl"
    claim_run(out, ASKED)
    with pytest.raises(BatchError, match=rf"{next(iter(other))} was .*--overwrite"):
        claim_run(out, replace(ASKED, **other))  # type: ignore[arg-type]  # one field of either type


def test_a_sidecar_that_is_none_of_ours_is_named(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    sidecar(out).write_text("[]")
    with pytest.raises(BatchError, match=r"out\.jsonl\.run is not a sidecar"):
        claim_run(out, ASKED)


def test_an_input_is_known_by_its_size_and_head(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_bytes(b"abc\n")
    first = BatchIdentity.about(source, "m", "batch", "default")
    assert BatchIdentity.about(source, "m", "batch", "default") == first
    source.write_bytes(b"abd\n")
    assert BatchIdentity.about(source, "m", "batch", "default") != first


@pytest.mark.parametrize("torn", [b"", b"{", answer(3)[:-1], answer(3)[:-2]])
def test_a_torn_last_line_is_cut_off(tmp_path: Path, torn: bytes) -> None:
    out = tmp_path / "out.jsonl"
    out.write_bytes(answer(2) + answer(9, error={}) + torn)
    with opened_alone(out) as file:
        finished, errors = survey(file, out)
        file.write(answer(1))
    assert ([n for n in range(20) if n in finished], errors) == ([2, 9], 1)
    assert out.read_bytes() == answer(2) + answer(9, error={}) + answer(1)


@pytest.mark.parametrize(
    "foreign", [b"text\n", b"[]\n", b'{"custom_id": "a"}\n', b'{"line": null, "custom_id": "a"}\n']
)
def test_an_output_that_is_none_of_ours_is_left_alone(tmp_path: Path, foreign: bytes) -> None:
    out = tmp_path / "out.jsonl"
    out.write_bytes(answer(1) + foreign)
    with pytest.raises(BatchError, match="line 2 of"), opened_alone(out) as file:
        survey(file, out)
    assert out.read_bytes() == answer(1) + foreign


def test_one_output_has_one_writer(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    with opened_alone(out), pytest.raises(BatchError, match="another process"), opened_alone(out):
        pass
    with opened_alone(out):
        pass


@pytest.mark.parametrize(
    ("lines", "complete"),
    [
        ([answer(3, "line-3"), answer(1, "a")], True),
        ([answer(1, "a")], False),
        ([answer(1, "b"), answer(3, "line-3")], False),
        ([answer(1, "a"), answer(2, "line-3")], False),
        ([answer(1, "a"), answer(3, "line-3"), answer(3, "line-3")], False),
    ],
)
def test_a_complete_output_answers_every_line_once(tmp_path: Path, lines: list[bytes], complete: bool) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_bytes(b'{"custom_id": "a", "input": "x"}\n\nnonsense\n')
    out.write_bytes(b"".join(lines))
    assert is_complete(source, out, 1000) is complete
