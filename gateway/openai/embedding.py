"""Embeddings: ``POST /v1/embeddings``."""

from __future__ import annotations

import base64
import struct
from typing import Annotated, Any, Literal

from pydantic import Field

from producer.contract.fleet.settings import Settings
from producer.contract.message.job import Result

from ..access.api_key import ApiKey
from .api_error import Problem
from .engine_parameters import engine_parameters
from .parameters import EMBEDDING
from .text_input import Texts, texts
from .translation import Endpoint, RequestBody, TranslatedRequest, job_of, model_of


class EmbeddingRequest(RequestBody):
    """Texts to be embedded."""

    input: Annotated[Texts, Field(description="a text, its token ids, or a list of either")]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Field(ge=1, le=2**31)] | None = None
    prompt_name: str | None = None


def order(asked: EmbeddingRequest, settings: Settings, caller: ApiKey) -> TranslatedRequest:
    """What a request for embeddings asks for.

    Raises:
        Problem: naming what is wrong with it.
    """
    name, model = model_of(asked, "embeddings", settings, caller)
    passed, unheeded = engine_parameters(asked, EMBEDDING, name, model)
    job = job_of(asked, name, texts(asked.input, "input", model), passed, False, settings, caller)
    encode = _base64 if asked.encoding_format == "base64" else list[float]

    def response(_: str, result: Result, __: int) -> dict[str, Any]:
        read = result.usage.get("input_tokens", 0)
        return {
            "object": "list",
            "data": [
                {"object": "embedding", "index": index, "embedding": encode(vector)}
                for index, vector in enumerate(_vectors(result))
            ],
            "model": job.model,
            "usage": {"prompt_tokens": read, "total_tokens": read},
        }

    return TranslatedRequest(job, response, ignored=tuple(unheeded))


def _vectors(result: Result) -> list[list[float]]:
    if not isinstance(result.output, list) or not all(isinstance(vector, list) for vector in result.output):
        raise Problem(502, "the engine answered with something that is no vector", code="engine_answered_no_vector")
    return result.output


def _base64(vector: list[float]) -> str:
    """As 32-bit floats, little-endian."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


ENDPOINT = Endpoint("/v1/embeddings", "embeddings", EmbeddingRequest, EMBEDDING, order)
