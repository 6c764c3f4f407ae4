"""``stoker batch`` and a real worker: the answers are the worker's, with its timing and its errors."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import redis as redis_py

from deploy.machine.server import Server
from processes import Fleet
from producer.contract import keys


def test_a_file_of_requests_becomes_a_file_of_answers(
    server: Server, redis: redis_py.Redis, make_fleet: Callable[[str, str], Fleet], tmp_path: Path
) -> None:
    fleet = make_fleet(server.url, '[models.echo]\nengine = "echo"\nmax_concurrency = 16\n')
    fleet.worker("echo", "worker")
    requests: list[dict[str, object]] = [{"custom_id": f"c{n}", "input": [f"text {n}", {"n": n}]} for n in range(300)]
    requests[7]["parameters"] = {"fail": "not this one"}
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(json.dumps(request) + "\n" for request in requests))
    done = subprocess.run(
        [sys.executable, "-m", "deploy.cli", "batch", str(source), "--model", "echo", "--out", str(out)],
        env={**os.environ, "STOKER_FLEET": str(fleet.file)},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 1, done.stderr
    assert "300 lines" in done.stderr
    assert "1 error" in done.stderr
    answers = {answer["custom_id"]: answer for answer in map(json.loads, out.read_text().splitlines())}
    assert len(answers) == 300
    failed = answers.pop("c7")
    assert failed["error"] == {"kind": "InvalidJob", "message": "not this one"}
    for custom_id, answer in answers.items():
        n = int(custom_id[1:])
        assert (answer["line"], answer["output"]) == (n + 1, [f"text {n}", {"n": n}])
        assert answer["timing"]["worker"] == "worker"
    assert max(answer["timing"]["batch_size"] for answer in answers.values()) > 1
    assert redis.hgetall(keys.taken("echo")) == {b"echo.batch": b"300"}


@pytest.mark.slow
def test_lines_of_openais_form_are_answered_in_it_and_a_complete_output_is_known_again(
    server: Server, redis: redis_py.Redis, make_fleet: Callable[[str, str], Fleet], tmp_path: Path
) -> None:
    fleet = make_fleet(server.url, '[models.talk]\nengine = "echo"\noptions = { task = "generate" }\n')
    fleet.worker("talk", "worker")

    def chat(n: int, model: str) -> dict[str, object]:
        body = {"model": model, "messages": [{"role": "user", "content": f"number {n}"}]}
        return {"custom_id": f"c{n}", "method": "POST", "url": "/v1/chat/completions", "body": body}

    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    lines = [*(chat(n, "talk") for n in range(20)), chat(20, "nobody"), {"input": "ours", "model": "talk"}]
    source.write_text("".join(json.dumps(line) + "\n" for line in lines))
    command = [sys.executable, "-m", "deploy.cli", "batch", str(source), "--out", str(out)]
    environment = {**os.environ, "STOKER_FLEET": str(fleet.file)}
    for said in ("22 lines", "already complete: 22 lines, 1 error"):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)
        assert done.returncode == 1, done.stderr
        assert said in done.stderr
    answers = {answer["custom_id"]: answer for answer in map(json.loads, out.read_text().splitlines())}
    assert len(answers) == 22
    assert answers.pop("line-22")["line"] == 22
    assert answers.pop("c20")["response"]["status_code"] == 404
    for custom_id, answer in answers.items():
        said = answer["response"]["body"]["choices"][0]["message"]["content"]
        assert f"number {custom_id[1:]}" in said
