"""How token vectors become one vector: what a sentence-transformers model's own files say."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from producer.contract.errors import ModelNotFound

Mode = Literal["mean", "cls", "max"]
_MODES: dict[str, Mode] = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
}


@dataclass(frozen=True, slots=True)
class Pooling:
    """The step after the encoder. ``max_length`` is in tokens, None for what the tokenizer allows."""

    mode: Mode = "mean"
    normalize: bool = False
    max_length: int | None = None

    @classmethod
    def read(cls, model_dir: Path) -> Pooling:
        """Read modules.json, the pooling module's config.json and sentence_bert_config.json.

        A plain encoder without them is mean-pooled, as sentence-transformers does.

        Raises:
            ModelNotFound: when the model pools in a way that is not supported.
        """
        modules = _read(model_dir / "modules.json") or []
        kinds = {module["type"].rpartition(".")[2]: module["path"] for module in modules}
        if unknown := kinds.keys() - {"Transformer", "Pooling", "Normalize"}:
            raise ModelNotFound(f"{model_dir} has modules {sorted(unknown)}; allowed: Transformer, Pooling, Normalize")
        config = _read(model_dir / kinds.get("Pooling", "1_Pooling") / "config.json") or {}
        set_modes = [key for key, value in config.items() if key.startswith("pooling_mode_") and value is True]
        if len(set_modes) > 1 or any(key not in _MODES for key in set_modes):
            raise ModelNotFound(f"{model_dir} pools by {set_modes}; allowed: one of {sorted(_MODES)}")
        mode = _MODES[set_modes[0]] if set_modes else "mean"
        sentence_bert = _read(model_dir / "sentence_bert_config.json") or {}
        return cls(mode, "Normalize" in kinds, sentence_bert.get("max_seq_length"))

    def apply(self, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Pool ``hidden`` (rows, tokens, width) where ``mask`` (rows, tokens) is 1, to (rows, width)."""
        kept = mask.unsqueeze(-1).to(hidden.dtype)
        match self.mode:
            case "mean":
                pooled = (hidden * kept).sum(1) / kept.sum(1).clamp(min=1e-9)
            case "cls":
                pooled = hidden[:, 0]
            case "max":
                pooled = hidden.masked_fill(kept == 0, float("-inf")).amax(1)
        return torch.nn.functional.normalize(pooled, dim=-1) if self.normalize else pooled


def _read(file: Path) -> Any:
    """The JSON in ``file``, None when there is no such file."""
    try:
        return json.loads(file.read_text())
    except FileNotFoundError:
        return None
