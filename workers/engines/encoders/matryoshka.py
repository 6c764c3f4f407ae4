"""The dimensions that an embedding model was trained to be cut to (Kusupati et al., Matryoshka Representation Learning,
2022), as its files tell them."""

from __future__ import annotations

import re
from pathlib import Path

from ..sources import read_json

_CARD = re.compile(r'"matryoshka_dims":\s*\[([\d,\s]+)\]')
"""In a model card, where sentence-transformers writes the parameters of the loss."""


def trained_dimensions(root: Path, model_dir: Path, stated: list[int] | None) -> tuple[int, ...]:
    """The dimensions that the files name, largest first.

    They are in config_sentence_transformers.json (``stated``), in ``matryoshka_dimensions`` of config.json, as vLLM
    reads them, or in the model card. ``root`` holds the files of sentence-transformers, ``model_dir`` the transformer.
    """
    config = model_dir / "config.json"
    found = stated or (read_json(config).get("matryoshka_dimensions") if config.exists() else None)
    card = root / "README.md"
    if not found and card.exists() and (match := _CARD.search(card.read_text(errors="replace"))):
        found = [int(each) for each in match[1].split(",") if each.strip()]
    dimensions = found if isinstance(found, list) else []
    return tuple(sorted({each for each in dimensions if isinstance(each, int) and each > 0}, reverse=True))
