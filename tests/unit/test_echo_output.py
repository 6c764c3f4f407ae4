"""The echo engine's answers as another engine's: words of any text."""

from workers.engines.echo_output import Speech
from workers.engines.protocol import Request


def said(text: str) -> str:
    speech = Speech(Request("id", [text]), "generate")
    (output,) = speech.outcome(1, 0.0).outputs or []
    return str(output["text"])


def test_words_come_with_the_spaces_before_them() -> None:
    assert said("  one\u2028two\tthree ") == "  one\u2028two\tthree"


def test_a_text_of_spaces_takes_no_longer_than_any_other() -> None:
    """With a search for words that tries every space, this takes hours, and hangs the worker."""
    assert said(" " * 1_000_000) == ""
    assert said("x" + " " * 1_000_000) == "x"
