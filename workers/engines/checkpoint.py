"""Loading of models and tokenizers, which checks that the checkpoint holds exactly the model's weights.

transformers initialises missing weights at random and ignores unexpected ones; it reports both in its log only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from producer.contract.errors import ModelNotFound
from producer.contract.fleet.fleet_schema import Model

from .damaged_files import damage, first_damage

_BUFFERS = ("position_ids", "inv_freq", "masked_bias", "attn.bias")
"""Name suffixes of buffers that old versions saved and models now compute: positions, and the masks of GPT-2."""
_NAMED = 4
"""Most weights that an error lists."""


def load_model(
    kind: Any, model_dir: Path, settings: Model, needs: Callable[[str], bool] = lambda _: True, **options: Any
) -> Any:
    """Load the model in ``model_dir`` onto the CPU.

    Args:
        kind: the class of transformers that loads it.
        settings: the model's settings, for errors.
        needs: whether the engine uses the weight of a given name.
        options: keyword arguments of ``from_pretrained``.

    Raises:
        ModelNotFound: when it cannot be loaded, or the weights of model and checkpoint differ.
    """
    named = f"source = {settings.source!r}: {model_dir}"
    generation = model_dir / "generation_config.json"
    # transformers ignores it when it is damaged, and with it the tokens that end a text.
    if generation.is_file() and (damaged := damage(generation)):
        raise ModelNotFound(f"{named} cannot be loaded: {damaged}")
    try:
        # Mismatched shapes are refused by check_weights, which lists them; the error of transformers refers to its log.
        model, report = kind.from_pretrained(
            model_dir, output_loading_info=True, ignore_mismatched_sizes=True, **options
        )
    except Exception as error:  # of transformers, safetensors, json, torch: they share no other base
        raise ModelNotFound(f"{named} cannot be loaded: {first_damage(model_dir) or error}") from error
    check_weights(model, report, named, f"engine = {settings.engine!r}", needs)
    return model


def load_tokenizer(model_dir: Path, settings: Model) -> Any:
    """Load the tokenizer in ``model_dir``.

    Raises:
        ModelNotFound: when it cannot be loaded.
    """
    try:
        return AutoTokenizer.from_pretrained(model_dir)
    except Exception as error:  # of transformers, tokenizers, json: they share no other base
        raise ModelNotFound(
            f"source = {settings.source!r}: the tokenizer in {model_dir} cannot be loaded: "
            f"{first_damage(model_dir) or error}"
        ) from error


def check_weights(
    model: Any, report: dict[str, Any], named: str, user: str, needs: Callable[[str], bool] = lambda _: True
) -> None:
    """Compare the weights of a model with those of its checkpoint, from the loading report of transformers.

    Args:
        named: the checkpoint, as errors call it.
        user: what needs the weights, as errors call it.

    Raises:
        ModelNotFound: naming weights that are missing, have another shape, or belong to layers that the configuration
            does not list.
    """
    if missing := sorted(filter(needs, report["missing_keys"])):
        raise ModelNotFound(
            f"{named} lacks weights that {user} needs: {_some(missing)}; it was trained for something else, or its "
            "files are not complete"
        )
    if mismatched := sorted(f"{key} {[*held]} instead of {[*made]}" for key, held, made in report["mismatched_keys"]):
        raise ModelNotFound(f"{named} holds weights of other shapes than its config.json says: {_some(mismatched)}")
    if stray := sorted(_within(model, report["unexpected_keys"])):
        raise ModelNotFound(
            f"{named} holds weights that its config.json does not describe: {_some(stray)}; copy all of its files again"
        )


def _within(model: Any, keys: Iterable[str]) -> list[str]:
    """The keys of modules that the model has, such as further layers, without those of a head that it lacks."""
    body = model.base_model
    prefix = f"{model.base_model_prefix}."
    in_body = {name for name, _ in body.named_children()}
    in_model = {name for name, _ in model.named_children()} - {model.base_model_prefix}
    return [
        key
        for key in keys
        if not key.endswith(_BUFFERS)
        and (key.removeprefix(prefix).partition(".")[0] in in_body or key.partition(".")[0] in in_model)
    ]


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
