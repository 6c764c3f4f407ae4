"""Schemas of the files of sentence-transformers models, in the layouts of versions 2 to 6.

An unknown key may change every vector or score, so a model that has one is refused, with the file and the key. Source
of the keys: ``sentence_transformers/base/model.py``, ``base/modules/transformer.py`` and the modules beside it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError, model_validator

from producer.contract.errors import ModelNotFound
from producer.contract.message.job import explain

from ..sources import read_json
from .layers import ACTIVATIONS
from .pooling import PoolingMode

_LEGACY_NAMES = ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
"""The NAMEs of ``sentence_NAME_config.json``; versions in use write the first for all models."""
_NO_EFFECT = {"add_pooling_layer", "attn_implementation", "dtype", "torch_dtype", "trust_remote_code"}
"""Arguments of the model without effect here: ``options.dtype`` sets the type, and no code of models is run."""

Empty = Annotated[dict[str, Any], Field(max_length=0)]


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Module(_File):
    """An entry of ``modules.json``."""

    idx: int
    name: str
    path: str
    type: str
    kwargs: Annotated[list[Any], Field(max_length=0)] = []

    @property
    def kind(self) -> str:
        """The name of its class."""
        return self.type.rpartition(".")[2]


class TransformerFile(_File):
    """The keys of ``sentence_bert_config.json`` that embeddings and scores share."""

    max_seq_length: Annotated[int, Field(ge=1)] | None = None
    do_lower_case: bool = False
    processing_kwargs: Empty | None = None
    unpad_inputs: bool | None = None
    query_length: None = None
    document_length: None = None
    query_expansion: None = None
    model_args: Annotated[dict[str, Any], Field(validation_alias=AliasChoices("model_args", "model_kwargs"))] = {}
    tokenizer_args: Annotated[Empty, Field(validation_alias=AliasChoices("tokenizer_args", "processor_kwargs"))] = {}
    config_args: Annotated[Empty, Field(validation_alias=AliasChoices("config_args", "config_kwargs"))] = {}

    @model_validator(mode="before")
    @classmethod
    def _without_code(cls, fields: Any) -> Any:
        if not isinstance(fields, dict):
            return fields
        return {
            key: {name: each for name, each in value.items() if name != "trust_remote_code"}
            if isinstance(value, dict) and key.endswith(("_args", "_kwargs"))
            else value
            for key, value in fields.items()
        }

    @model_validator(mode="after")
    def _known_arguments(self) -> TransformerFile:
        if unknown := sorted(self.model_args.keys() - _NO_EFFECT):
            raise ValueError(f"model_args.{unknown[0]} is not known; allowed: {', '.join(sorted(_NO_EFFECT))}")
        return self


class _TextMethod(_File):
    method: Literal["forward"]


class _HiddenState(_TextMethod):
    method_output_name: Literal["last_hidden_state"]


class _Logits(_TextMethod):
    method_output_name: Literal["logits"]


class _HiddenStates(_File):
    text: _HiddenState


class _AllLogits(_File):
    text: _Logits


class EmbeddingTransformerFile(TransformerFile):
    """The ``sentence_bert_config.json`` of an embedding model."""

    transformer_task: Literal["feature-extraction"] = "feature-extraction"
    modality_config: _HiddenStates | None = None
    module_output_name: Literal["token_embeddings"] = "token_embeddings"


class ScoreTransformerFile(TransformerFile):
    """The ``sentence_bert_config.json`` of a cross-encoder."""

    transformer_task: Literal["sequence-classification"] = "sequence-classification"
    modality_config: _AllLogits | None = None
    module_output_name: Literal["scores"] = "scores"


class ModelFile(_File):
    """The keys of ``config_sentence_transformers.json`` that embeddings and scores share."""

    versions: Annotated[dict[str, str], Field(alias="__version__")] = {}
    prompts: dict[str, str | None] = {}
    default_prompt_name: str | None = None

    @property
    def prompt(self) -> str:
        """The prompt that precedes each text, or the first text of a pair."""
        return (self.prompts.get(self.default_prompt_name) or "") if self.default_prompt_name else ""

    @model_validator(mode="after")
    def _default_is_there(self) -> ModelFile:
        # These two are empty by default in sentence-transformers, and may be missing from the file.
        if self.default_prompt_name not in (None, "query", "document", *self.prompts):
            raise ValueError(f"default_prompt_name = {self.default_prompt_name!r} is not one of prompts")
        return self


class EmbeddingModelFile(ModelFile):
    """The ``config_sentence_transformers.json`` of an embedding model."""

    model_type: Literal["SentenceTransformer"] = "SentenceTransformer"
    truncate_dim: Annotated[int, Field(ge=1)] | None = None
    matryoshka_dims: list[int] | None = None
    """Dimensions that the model was trained to be cut to."""
    similarity_fn_name: str | None = None
    """The similarity for comparing vectors; without effect on the vectors."""


class ScoreModelFile(ModelFile):
    """The ``config_sentence_transformers.json`` of a cross-encoder."""

    model_type: Literal["CrossEncoder"] = "CrossEncoder"
    activation_fn: str | None = None
    keep_in_fp32_modules: list[str] | None = None
    """Without effect: ``options.dtype`` sets the type of all modules."""


class PoolingFile(_File):
    """The ``config.json`` of a pooling module: one key since version 5.4, before that one for each mode."""

    embedding_dimension: Annotated[
        int | None, Field(validation_alias=AliasChoices("embedding_dimension", "word_embedding_dimension"))
    ] = None
    pooling_mode: PoolingMode | list[PoolingMode] | None = None
    include_prompt: bool = True
    pooling_mode_cls_token: bool = False
    pooling_mode_max_tokens: bool = False
    pooling_mode_mean_tokens: bool = False
    pooling_mode_mean_sqrt_len_tokens: bool = False
    pooling_mode_weightedmean_tokens: bool = False
    pooling_mode_lasttoken: bool = False

    @property
    def modes(self) -> tuple[PoolingMode, ...]:
        """The pooling modes, in the order in which their vectors are concatenated."""
        if self.pooling_mode is not None:
            return (self.pooling_mode,) if isinstance(self.pooling_mode, str) else tuple(self.pooling_mode)
        set_ones: list[tuple[bool, PoolingMode]] = [
            (self.pooling_mode_cls_token, "cls"),
            (self.pooling_mode_max_tokens, "max"),
            (self.pooling_mode_mean_tokens, "mean"),
            (self.pooling_mode_mean_sqrt_len_tokens, "mean_sqrt_len_tokens"),
            (self.pooling_mode_weightedmean_tokens, "weightedmean"),
            (self.pooling_mode_lasttoken, "lasttoken"),
        ]
        return tuple(mode for is_set, mode in set_ones if is_set) or ("mean",)


class DenseFile(_File):
    """The ``config.json`` of a dense layer."""

    in_features: int
    out_features: int
    bias: bool = True
    activation_function: str = "torch.nn.modules.activation.Tanh"
    module_input_name: Literal["sentence_embedding"] = "sentence_embedding"
    module_output_name: Literal["sentence_embedding"] | None = None
    use_residual: bool = False

    @property
    def activation(self) -> str:
        """The class name of the activation in ``torch.nn``."""
        return self.activation_function.rpartition(".")[2]

    @model_validator(mode="after")
    def _known_activation(self) -> DenseFile:
        if not self.activation_function.startswith("torch.nn.modules.") or self.activation not in ACTIVATIONS:
            raise ValueError(
                f"activation_function = {self.activation_function!r} is not known; allowed: {', '.join(ACTIVATIONS)}"
            )
        return self


class NormFile(_File):
    """The ``config.json`` of a layer normalisation."""

    dimension: int


class UnitFile(_File):
    """The ``config.json`` of an L2 normalisation."""

    module_input_name: Literal["sentence_embedding"] = "sentence_embedding"
    module_output_name: Literal["sentence_embedding"] | None = None


File = TypeVar("File", bound=_File)


def root(model_dir: Path) -> Path:
    """The directory of ``modules.json``: that of the transformer, or the one above."""
    above = model_dir.parent / "modules.json"
    if not (model_dir / "modules.json").exists() and above.exists():
        entries = read_json(above)
        if isinstance(entries, list) and entries and entries[0].get("path") == model_dir.name:
            return model_dir.parent
    return model_dir


def modules(file: Path, first: list[str], others: list[str]) -> list[Module]:
    """The entries of a ``modules.json``, which must be of the kinds ``first``, in that order, then any of ``others``.

    Raises:
        ModelNotFound: naming the kinds, when they are different.
    """
    entries = read_json(file)
    found = [checked(Module, entry, file) for entry in entries] if isinstance(entries, list) else []
    kinds = [module.kind for module in found]
    foreign = [each.type for each in found if not each.type.startswith("sentence_transformers.")]
    foreign += [kind for kind in kinds if kind not in (*first, *others)]
    if foreign or kinds[: len(first)] != first or not set(first).isdisjoint(kinds[len(first) :]):
        behind = f", and behind them {', '.join(others)}" if others else ""
        raise ModelNotFound(
            f"{file} names the modules {', '.join(foreign) or kinds}; allowed, of those of "
            f"sentence_transformers: {', '.join(first)}{behind}"
        )
    return found


def transformer_file(kind: type[File], folder: Path) -> File:
    """The parsed configuration file of a transformer, under any of its names; the defaults if there is none."""
    for name in _LEGACY_NAMES:
        if (file := folder / f"sentence_{name}_config.json").exists():
            return read(kind, file)
    return kind()


def read(kind: type[File], file: Path, *, optional: bool = False) -> File:
    """Parse a file; with ``optional``, return the defaults if it is missing.

    Raises:
        ModelNotFound: naming the file, when it is missing, or also the key that is unknown or has a wrong value.
    """
    if not file.exists():
        if optional:
            return kind()
        raise ModelNotFound(f"{file} is missing; copy all of the model's files")
    return checked(kind, read_json(file), file)


def checked(kind: type[File], fields: Any, file: Path) -> File:
    """Validate the ``fields`` of a file; raises as :func:`read` does."""
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        raise ModelNotFound(f"{file} has keys or values that this engine does not support:\n{explain(error)}") from None
