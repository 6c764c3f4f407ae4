"""Reading an input file through before any of it runs: how many requests it holds, and every mistake in it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from producer.contract import celery_message
from producer.contract.errors import StokerError

from ..openai.api_error import problem_of
from .custom_ids import FirstSeen
from .line_translation import Terms
from .lines import LineError, parse
from .records import Mistake

MOST_MISTAKES = 100
"""How many mistakes are told; reading stops there."""

STEP = 1000
"""Lines between two signs of life."""


@dataclass(slots=True)
class ValidationReport:
    """What is known of a file so far: how many lines are not blank, and what is wrong with them."""

    total: int = 0
    mistakes: list[Mistake] = field(default_factory=list)


def check(
    lines: Iterable[tuple[int, bytes]], longest: int, terms: Terms, most: int, checked: ValidationReport
) -> Iterator[None]:
    """Read lines through, and say in ``checked`` what was found; yields every ``STEP`` lines.

    Args:
        longest: the most bytes of a line.
        most: the most lines there may be.
    """
    seen = FirstSeen()
    for number, raw in lines:
        checked.total += 1
        if checked.total > most:
            message = f"more than {most} requests (gateway.max_file_lines): split the file"
            checked.mistakes.append(Mistake(code="too_many_requests", message=message, line=number))
        else:
            checked.mistakes += _mistakes(number, raw, longest, terms, seen)
        if checked.total > most or len(checked.mistakes) >= MOST_MISTAKES:
            return
        if checked.total % STEP == 0:
            yield
    if not checked.total:
        checked.mistakes.append(Mistake(code="empty_file", message="the file holds no requests"))


def _mistakes(number: int, raw: bytes, longest: int, terms: Terms, seen: FirstSeen) -> Iterator[Mistake]:
    line = parse(number, raw, longest)
    try:
        celery_message.check(terms.read(line).job, terms.settings)
    except LineError as error:
        yield Mistake(code=error.code, message=str(error), line=number, param=error.param)
    except StokerError as error:
        problem = problem_of(error)
        yield Mistake(code=problem.code or "invalid_request", message=str(error), line=number, param=problem.param)
    if line.error is None and line.is_openai and not line.given:
        yield Mistake(code="missing_custom_id", message="custom_id is missing", line=number, param="custom_id")
    elif (first := seen.add(line.custom_id, number)) != number:
        message = f"custom_id {line.custom_id!r:.80} was given on line {first} already"
        yield Mistake(code="duplicate_custom_id", message=message, line=number, param="custom_id")
