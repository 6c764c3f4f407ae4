"""The steps before and after the transformer of a sentence-transformers model, read from its files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from producer.contract.errors import ModelNotFound

from ..sources import read_json
from . import sentence_files as files
from .layers import DenseLayer, NormLayer, UnitLength, with_weights
from .matryoshka import trained_dimensions
from .pooling import PoolingMode


@dataclass(frozen=True, slots=True)
class SentenceEmbedding:
    """The settings of an embedding; defaults are those of sentence-transformers for an encoder without its files.

    ``prompt`` precedes each text; with ``skips_prompt`` its tokens are not pooled. ``max_length`` is in tokens, None
    for the tokenizer's limit. ``layers`` are applied to the pooled vectors, whose first ``truncate_dim`` dimensions are
    kept.
    """

    modes: tuple[PoolingMode, ...] = ("mean",)
    prompt: str = ""
    skips_prompt: bool = False
    max_length: int | None = None
    lower_case: bool = False
    layers: tuple[torch.nn.Module, ...] = ()
    truncate_dim: int | None = None
    prompts: dict[str, str] = field(default_factory=dict)
    """Those that a text may have instead of ``prompt``, by name."""
    dimensions: tuple[int, ...] = ()
    """Those that the model was trained for, besides all."""

    @classmethod
    def read(cls, model_dir: Path) -> SentenceEmbedding:
        """Read the files in, or around, the directory of the transformer.

        Raises:
            ModelNotFound: naming file and key, when the files are incomplete or ask for what is not supported.
        """
        root = files.root(model_dir)
        if not (root / "modules.json").exists():
            return cls._without_files(model_dir)
        transformer, pooling, *others = files.modules(
            root / "modules.json", ["Transformer", "Pooling"], [*_LAYERS, "Dropout"]
        )
        pooled = files.read(files.PoolingFile, root / pooling.path / "config.json")
        whole = files.read(files.EmbeddingModelFile, root / "config_sentence_transformers.json", optional=True)
        text = files.transformer_file(files.EmbeddingTransformerFile, root / transformer.path)
        return cls(
            modes=pooled.modes,
            prompt=whole.prompt,
            skips_prompt=not pooled.include_prompt,
            max_length=text.max_seq_length,
            lower_case=text.do_lower_case,
            layers=tuple(_LAYERS[each.kind](root / each.path) for each in others if each.kind != "Dropout"),
            truncate_dim=whole.truncate_dim,
            prompts={"query": "", "document": "", **{name: text or "" for name, text in whole.prompts.items()}},
            dimensions=trained_dimensions(root, model_dir, whole.matryoshka_dims),
        )

    @classmethod
    def _without_files(cls, model_dir: Path) -> SentenceEmbedding:
        for name in ("config_sentence_transformers.json", "sentence_bert_config.json", "1_Pooling"):
            if (model_dir / name).exists():
                raise ModelNotFound(f"{model_dir} holds {name} and no modules.json; copy all of the model's files")
        architecture = str((read_json(model_dir / "config.json").get("architectures") or [""])[0])
        if architecture.endswith("ForCausalLM"):  # its pooling depends on the version of sentence-transformers
            raise ModelNotFound(
                f"{model_dir} is a model that generates ({architecture}), and no modules.json says how its tokens are "
                "pooled; save it with sentence-transformers"
            )
        return cls(dimensions=trained_dimensions(model_dir, model_dir, None))


def _dense(folder: Path) -> torch.nn.Module:
    file = files.read(files.DenseFile, folder / "config.json")
    layer = DenseLayer(
        file.in_features,
        file.out_features,
        bias=file.bias,
        activation=file.activation,
        residual=file.use_residual,
    )
    return with_weights(layer, folder)


def _norm(folder: Path) -> torch.nn.Module:
    return with_weights(NormLayer(files.read(files.NormFile, folder / "config.json").dimension), folder)


def _unit(folder: Path) -> torch.nn.Module:
    files.read(files.UnitFile, folder / "config.json", optional=True)
    return UnitLength()


_LAYERS: dict[str, Callable[[Path], torch.nn.Module]] = {"Dense": _dense, "LayerNorm": _norm, "Normalize": _unit}
