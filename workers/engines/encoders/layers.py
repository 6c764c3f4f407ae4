"""The layers after the pooling of a sentence-transformers model; parameters have the names of its weight files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch.nn import functional

from producer.contract.errors import ModelNotFound

from ..damaged_files import damage

ACTIVATIONS = ("GELU", "Identity", "ReLU", "Sigmoid", "SiLU", "Tanh")
"""Activations of a dense layer, as classes of ``torch.nn``."""


class DenseLayer(torch.nn.Module):
    """A linear layer with an activation (``sentence_transformers/base/modules/dense.py``)."""

    def __init__(self, inputs: int, outputs: int, *, bias: bool, activation: str, residual: bool) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(inputs, outputs, bias=bias)
        self.residual: torch.nn.Module | None = None
        if residual:
            same = inputs == outputs
            self.residual = torch.nn.Identity() if same else torch.nn.Linear(inputs, outputs, bias=False)
        self._activate: torch.nn.Module = getattr(torch.nn, activation)()

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """Map vectors of shape (rows, inputs) to (rows, outputs)."""
        made: torch.Tensor = self._activate(self.linear(vectors))
        return made if self.residual is None else made + self.residual(vectors)


class NormLayer(torch.nn.Module):
    """Layer normalisation (``sentence_transformers/sentence_transformer/modules/layer_norm.py``)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = torch.nn.LayerNorm(width)

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """Normalise vectors of shape (rows, width) to mean 0 and variance 1, then scale and shift them."""
        made: torch.Tensor = self.norm(vectors)
        return made


class UnitLength(torch.nn.Module):
    """L2 normalisation (``sentence_transformers/base/modules/normalize.py``)."""

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """Divide vectors of shape (rows, width) by their Euclidean norms."""
        return functional.normalize(vectors, dim=-1)


def with_weights(layer: torch.nn.Module, folder: Path) -> torch.nn.Module:
    """Load the weights in ``folder`` into ``layer`` and return it.

    Raises:
        ModelNotFound: when there are none, or their names or shapes do not fit.
    """
    files = [folder / name for name in ("model.safetensors", "pytorch_model.bin") if (folder / name).is_file()]
    if not files:
        raise ModelNotFound(f"{folder} holds no model.safetensors and no pytorch_model.bin; copy the model again")
    try:
        layer.load_state_dict(_tensors(files[0]))
    except Exception as error:  # of torch, safetensors and pickle: they share no other base
        raise ModelNotFound(
            damage(files[0]) or f"{files[0]} does not hold the weights that {folder}/config.json describes: {error}"
        ) from None
    return layer


def _tensors(file: Path) -> dict[str, Any]:
    if file.suffix == ".safetensors":
        return load_file(file)
    weights: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    return weights
