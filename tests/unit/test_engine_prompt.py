"""What becomes of an input before it may join a batch."""

from typing import Any

import pytest
from jinja2 import TemplateError

from producer.contract.errors import ContextLengthExceeded, InvalidJob
from workers.engines.generation.choice.generate_parameters import GenerateParameters
from workers.engines.generation.prompt import Prompts
from workers.engines.generation.vocabulary import Vocabulary


class Tokenizer:
    """One token a word, numbered by its length; the template refuses the role ``alien``."""

    chat_template: str | None = "a template"

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        return {"input_ids": [0] * add_special_tokens * bool(text) + [len(word) for word in text.split()]}

    def apply_chat_template(self, messages: list[dict[str, str]], **_: bool) -> str:
        if any(message["role"] == "alien" for message in messages):
            raise TemplateError("roles must alternate")
        return " ".join(message["content"] for message in messages) + " :"


def encode(item: Any, tokenizer: Any = None) -> list[int]:
    return Prompts(tokenizer or Tokenizer(), Vocabulary(Tokenizer(), 10, []), max_tokens=12).encode(item, 3)


def answer_tokens(prompt_tokens: int, **parameters: Any) -> int:
    prompts = Prompts(Tokenizer(), Vocabulary(Tokenizer(), 10, []), max_tokens=12)
    return prompts.answer_tokens(prompt_tokens, 3, GenerateParameters.parse(parameters))


def test_a_text_and_a_chat() -> None:
    assert encode("one three") == [0, 3, 5]
    assert encode({"messages": [{"role": "user", "content": "one three"}]}) == [3, 5, 1]


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ("", r"input 3 is empty"),
        ("unpronounceable", r"input 3 holds token id 15; this model knows 0 to 9"),
        ("half \ud800 a pair", r"input 3 holds U\+D800 alone at position 5"),
        (7, r"input 3 is of type int"),
        ({"prompt": "x"}, r"input 3 has keys \['prompt'\]; allowed: a text, or"),
        ({"messages": []}, r"at least one message"),
        ({"messages": "x"}, r"input 3 has keys"),
        ({"messages": ["x"]}, r"input 3 has a message without role or content"),
        ({"messages": [{"role": "user"}]}, r"without role or content"),
        ({"messages": [{"role": "user", "content": ["x"]}]}, r"input 3 has content of type 'str'; allowed: a text, or"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            r"content of type 'image_url'",
        ),
        ({"messages": [{"role": "user", "content": 5}]}, r"input 3 is of type int"),
        ({"messages": [{"role": "alien", "content": "x"}]}, r"does not suit .* roles must alternate"),
    ],
)
def test_what_cannot_run_is_refused(item: Any, said: str) -> None:
    with pytest.raises(InvalidJob, match=said):
        encode(item)


def test_a_chat_needs_a_template() -> None:
    tokenizer = Tokenizer()
    tokenizer.chat_template = None
    with pytest.raises(InvalidJob, match="no chat template; send a text"):
        encode({"messages": [{"role": "user", "content": "x"}]}, tokenizer=tokenizer)


def test_prompt_and_answer_may_fill_the_context() -> None:
    assert answer_tokens(4, max_new_tokens=8) == 8
    with pytest.raises(
        ContextLengthExceeded, match=r"input 3 has 4 tokens and asks for max_new_tokens = 9: ask for at"
    ):
        answer_tokens(4, max_new_tokens=9)


@pytest.mark.parametrize("parameters", [{}, {"max_new_tokens": 9, "fit": True}, {"max_new_tokens": 512, "fit": True}])
def test_an_answer_of_no_length_asked_for_is_as_long_as_fits(parameters: dict[str, Any]) -> None:
    most = GenerateParameters.parse(parameters).max_new_tokens
    assert [answer_tokens(length, **parameters) for length in (1, 4, 11)] == [min(most, 11), min(most, 8), 1]
    for length in (12, 13):
        with pytest.raises(ContextLengthExceeded, match=rf"This model's maximum context length is 12 .* has {length}"):
            answer_tokens(length, **parameters)
