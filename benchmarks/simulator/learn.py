"""Learning the figures of a service from requests that it served."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from producer import Result, StokerError
from producer.collect import outcome
from simulator.service import ServiceModel


@dataclass(frozen=True, slots=True)
class Served:
    """One request: when it came, was taken and ended, in seconds, and its tokens."""

    at: float
    started: float
    ended: float
    input_tokens: int
    output_tokens: int


def result(stored: bytes) -> Result:
    """The result as stored.

    Raises:
        StokerError: the job failed.
    """
    found = outcome(stored)
    if isinstance(found, StokerError):
        raise found
    return found


def service(served: Sequence[Served]) -> ServiceModel:
    """The continuous engine's figures: least squares of the relative errors, none negative.

    A request of ``k`` tokens takes ``k`` steps; each takes ``step_s``, and ``sequence_s`` for each request that ran
    meanwhile; its own prompt and those that came while it ran stopped it for ``prompt_token_s`` a token.
    """
    rows, taken = [], []
    for one in served:
        lasted = one.ended - one.started
        beside = sum(max(0.0, min(one.ended, other.ended) - max(one.started, other.started)) for other in served)
        prompts = one.input_tokens + sum(
            other.input_tokens for other in served if one.started < other.started < one.ended
        )
        rows.append([one.output_tokens, one.output_tokens * beside / lasted, prompts])
        taken.append(lasted)
    scaled = np.array(rows) / np.array(taken)[:, None]
    step_s, sequence_s, prompt_token_s = nnls(scaled, np.ones(len(taken)))[0]
    return ServiceModel(float(step_s), float(sequence_s), float(prompt_token_s))
