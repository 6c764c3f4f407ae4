"""The examples of a page of the docs, as they stand there."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"

ECHOES = """
[models.smollm2]
engine = "echo"
options = { task = "generate" }

[models.minilm]
engine = "echo"
options = { task = "embeddings" }
"""
"""The models of the pages, each answered by an echo."""


def examples(page: str, language: str) -> list[str]:
    """The blocks of code of a page that are in that language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)


NODE_CLIENT = "openai@7.57.0"


def install_node_client(folder: Path) -> None:
    """The official client for Node.js, for a script in that folder."""
    quiet = ("--no-audit", "--no-fund", "--loglevel", "error")
    done = subprocess.run(
        ["npm", "install", *quiet, "--prefix", str(folder), NODE_CLIENT], cwd=folder, timeout=150, capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()
