"""Validation of an input file before any of it runs: its number of requests, and every mistake in it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from producer.contract.errors import StokerError
from producer.contract.message import celery_message

from ...openai.api_error import problem_of
from ..storage.records import FileMistake
from .custom_ids import FirstLines
from .line_translation import Terms
from .lines import LineError, parse

MOST_MISTAKES = 100
"""Most mistakes that are listed; reading stops there."""

STEP = 1000
"""Lines between two yields, at which the lease is renewed."""


@dataclass(slots=True)
class ValidationReport:
    """The findings so far: the number of lines that are not blank, and the mistakes."""

    total: int = 0
    mistakes: list[FileMistake] = field(default_factory=list)


def check(
    lines: Iterable[tuple[int, bytes]], longest: int, terms: Terms, most: int, checked: ValidationReport
) -> Iterator[None]:
    """Validate lines and add the findings to ``checked``; yields every ``STEP`` lines.

    Args:
        longest: the most bytes of a line.
        most: the most lines there may be.
    """
    seen = FirstLines()
    for number, raw in lines:
        checked.total += 1
        if checked.total > most:
            message = f"more than {most} requests (gateway.max_file_lines): split the file"
            checked.mistakes.append(FileMistake(code="too_many_requests", message=message, line=number))
        else:
            checked.mistakes += _mistakes(number, raw, longest, terms, seen)
        if checked.total > most or len(checked.mistakes) >= MOST_MISTAKES:
            return
        if checked.total % STEP == 0:
            yield
    if not checked.total:
        checked.mistakes.append(FileMistake(code="empty_file", message="the file holds no requests"))


def _mistakes(number: int, raw: bytes, longest: int, terms: Terms, seen: FirstLines) -> Iterator[FileMistake]:
    line = parse(number, raw, longest)
    try:
        celery_message.write(terms.read(line).job, terms.settings)
    except LineError as error:
        yield FileMistake(code=error.code, message=str(error), line=number, param=error.param)
    except StokerError as error:
        problem = problem_of(error)
        yield FileMistake(code=problem.code or "invalid_request", message=str(error), line=number, param=problem.param)
    if line.error is None and line.is_openai and not line.given:
        yield FileMistake(code="missing_custom_id", message="custom_id is missing", line=number, param="custom_id")
    elif (first := seen.add(line.custom_id, number)) != number:
        message = f"custom_id {line.custom_id!r:.80} was given on line {first} already"
        yield FileMistake(code="duplicate_custom_id", message=message, line=number, param="custom_id")
