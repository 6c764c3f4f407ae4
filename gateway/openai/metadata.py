"""Metadata of a request, within OpenAI's limits (https://platform.openai.com/docs/api-reference/batch/create)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

Metadata = Annotated[
    dict[
        Annotated[str, StringConstraints(max_length=64)],
        Annotated[str, StringConstraints(max_length=512)],
    ],
    Field(max_length=16),
]
"""Up to 16 texts of up to 512 characters, by names of up to 64."""
