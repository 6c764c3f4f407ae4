"""What a reader of a stream is told, whatever its entries are."""

from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producer.contract.errors import StokerError
from producer.contract.message.tool_call import call_text
from producer.stream import LOOK_S, Entry, Piece, Reading, entries


class Writer:
    """Entries as a worker writes them, each with its id."""

    def __init__(self) -> None:
        self._ids = count(1)
        self.entries: list[Entry] = []

    def write(self, at: int, text: str, tokens: int = 0, index: int = 0, *, reasoning: bool = False) -> Entry:
        fields = {b"index": b"%d" % index, b"at": b"%d" % at, b"text": text.encode(), b"tokens": b"%d" % tokens}
        return self._add({**fields, b"reasoning": b"1"} if reasoning else fields)

    def end(self) -> Entry:
        return self._add({b"end": b"1"})

    def _add(self, fields: dict[bytes, bytes]) -> Entry:
        self.entries.append((b"%d-0" % next(self._ids), fields))
        return self.entries[-1]


def put_together(pieces: list[Piece], text: str = "") -> str:
    for piece in pieces:
        text = text[: piece.at] + piece.text
    return text


@pytest.fixture
def writer() -> Writer:
    return Writer()


def test_pieces_come_as_they_were_written(writer: Writer) -> None:
    writer.write(0, " Paris", 2)
    writer.write(6, ", which", 4)
    writer.write(0, "five", 1, index=1)
    assert list(Reading().read(writer.entries)) == [
        Piece("1-0", 0, 0, " Paris", 2),
        Piece("2-0", 0, 6, ", which", 2),
        Piece("3-0", 1, 0, "five", 1),
    ]


def test_an_entry_written_twice_is_told_once(writer: Writer) -> None:
    writer.write(0, "one ", 1)
    writer.write(4, "two", 2)
    writer.write(4, "two", 2)
    writer.write(7, " three", 3)
    pieces = list(Reading().read(writer.entries))
    assert [piece.text for piece in pieces] == ["one ", "two", " three"]
    assert sum(piece.tokens for piece in pieces) == 3


def test_a_text_that_runs_again_goes_on_where_it_broke_off(writer: Writer) -> None:
    writer.write(0, "one two", 2)
    writer.write(0, "one", 1)
    writer.write(3, " two three", 3)
    pieces = list(Reading().read(writer.entries))
    assert [(piece.at, piece.text) for piece in pieces] == [(0, "one two"), (7, " three")]
    assert sum(piece.tokens for piece in pieces) == 3


def test_a_text_that_becomes_another_is_told_from_where_on(writer: Writer) -> None:
    writer.write(0, "a cold day")
    writer.write(0, "a ")
    writer.write(2, "cool night")
    pieces = list(Reading().read(writer.entries))
    assert [(piece.at, piece.text) for piece in pieces] == [(0, "a cold day"), (4, "ol night")]
    assert put_together(pieces) == "a cool night"


def test_the_result_ends_a_text_that_became_shorter(writer: Writer) -> None:
    writer.write(0, "a cold day")
    writer.write(0, "a cold")
    reading = Reading()
    pieces = [*reading.read(writer.entries), *reading.finish({"text": "a cold"})]
    assert [(piece.at, piece.text) for piece in pieces] == [(0, "a cold day"), (6, "")]


def test_a_job_that_was_not_streamed_comes_in_one_piece_and_what_is_no_text_in_none() -> None:
    outputs = [{"text": "whole"}, [0.1, 0.2], {"embedding": 1}, {"text": None}, {"text": "too"}]
    assert list(Reading().finish(outputs)) == [Piece("end-0", 0, 0, "whole"), Piece("end-4", 4, 0, "too")]


def test_reasoning_is_a_text_of_its_own_and_told_to_readers_that_want_it(writer: Writer) -> None:
    writer.write(0, "2 + ", 1, reasoning=True)
    writer.write(0, "fo", 1)
    writer.write(4, "2", 2, reasoning=True)
    writer.write(2, "ur", 2)
    final = {"text": "four", "reasoning_content": "2 + 2 = 4"}
    plain = Reading()
    assert put_together([*plain.read(writer.entries), *plain.finish(final)]) == "four"
    full = Reading(reasoning=True)
    pieces = [*full.read(writer.entries), *full.finish(final)]
    assert [(piece.at, piece.text, piece.reasoning) for piece in pieces] == [
        (0, "2 + ", True),
        (0, "fo", False),
        (4, "2", True),
        (2, "ur", False),
        (5, " = 4", True),
    ]


def test_what_the_cap_took_is_told_by_the_result(writer: Writer) -> None:
    writer.write(4, "two ")
    writer.write(8, "three")
    reading = Reading()
    assert list(reading.read(writer.entries)) == []
    assert put_together(list(reading.finish([{"text": "one two three"}]))) == "one two three"


TEXTS = st.text(alphabet="ab", max_size=6)
RUNS = st.lists(st.tuples(st.integers(0, 1), TEXTS, st.lists(st.integers(1, 3), max_size=4)), min_size=1, max_size=5)


@given(RUNS, TEXTS, TEXTS)
def test_whoever_goes_on_after_any_piece_has_the_final_texts(
    runs: list[tuple[int, str, list[int]]], first: str, second: str
) -> None:
    """Runs of either output, in pieces of any length, then the result: to be read in one go, or broken off anywhere."""
    writer = Writer()
    for index, text, lengths in runs:
        at = 0
        for length in [*lengths, len(text)]:
            writer.write(at, text[at : at + length], index=index)
            at = min(len(text), at + length)
        writer.end()

    def read(after: str | None) -> list[Piece]:
        reading = Reading(after)
        return [*reading.read(writer.entries), *reading.finish([{"text": first}, {"text": second}])]

    whole = read(None)
    ids = [piece.id for piece in whole]
    assert len(set(ids)) == len(ids)
    for index, final in enumerate((first, second)):
        assert put_together([piece for piece in whole if piece.index == index]) == final
    for seen, piece in enumerate(whole, 1):
        assert read(piece.id) == whole[seen:]


def test_one_waits_shortly_once_a_run_has_ended(writer: Writer) -> None:
    reading = Reading()
    assert reading.wait_s == LOOK_S
    list(reading.read([writer.end()]))
    waits = []
    for _ in range(12):
        waits.append(reading.wait_s)
        list(reading.read([]))
    assert waits[0] < 0.02
    assert waits == sorted(waits)
    assert waits[-1] == LOOK_S
    list(reading.read([writer.end(), writer.write(0, "again")]))
    assert reading.wait_s == LOOK_S


def test_no_longer_than_the_caller_waits() -> None:
    assert Reading(timeout=0.0).overdue
    assert Reading(timeout=0.0).wait_s == 0.001
    patient = Reading(timeout=0.5)
    assert not patient.overdue
    assert patient.wait_s <= 0.5


@pytest.mark.parametrize("after", ["", "here", "end", "1", "1-x"])
def test_what_is_no_id_is_named(after: str) -> None:
    with pytest.raises(StokerError, match=r"after = .* is not the id of a piece"):
        Reading(after)


def test_answers_of_both_protocols() -> None:
    one: Entry = (b"1-0", {b"end": b"1"})
    assert entries([]) == entries({}) == []
    assert entries([[b"key", [one]]]) == entries({b"key": [[one]]}) == [one]


def test_tool_calls_are_texts_of_their_own_for_who_wants_them(writer: Writer) -> None:
    writer.write(0, "Let me look.", 3)
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at": 1}'}}
    whole = call_text(call)
    for at, text in ((0, whole[:9]), (9, whole[9:])):
        fields = {b"index": b"0", b"at": b"%d" % at, b"text": text.encode(), b"tokens": b"4", b"call": b"0"}
        writer._add(fields)
    result = {"text": "Let me look.", "tool_calls": [call, {**call, "id": "c2"}]}
    reading = Reading(calls=True)
    pieces = [*reading.read(writer.entries), *reading.finish([result])]
    assert [(piece.call, piece.at, piece.text) for piece in pieces] == [
        (None, 0, "Let me look."),
        (0, 0, "c1 look\n{"),
        (0, 9, '"at": 1}'),
        (1, 0, call_text({**call, "id": "c2"})),
    ]
    reading = Reading()
    assert [piece.text for piece in [*reading.read(writer.entries), *reading.finish([result])]] == ["Let me look."]
