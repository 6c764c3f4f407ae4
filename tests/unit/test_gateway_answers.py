"""Headers of the gateway's answers, from the application itself: also where a handler fails."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from gateway.app import create_app
from producer import Settings


def serving(**gateway: object) -> TestClient:
    """The gateway of a fleet without a queue; one route fails."""
    settings = Settings.model_validate({"gateway": gateway, "redis": {"url": "redis://127.0.0.1:1"}})
    app = create_app(settings)

    @app.get("/broken")
    async def broken() -> None:
        raise ZeroDivisionError

    return TestClient(app, raise_server_exceptions=False)


@pytest.fixture
def closed() -> TestClient:
    return serving()


def test_the_answer_to_an_unexpected_error_has_the_id_of_its_request(closed: TestClient) -> None:
    answer = closed.get("/broken", headers={"x-request-id": "mine"})
    assert (answer.status_code, answer.headers["x-request-id"]) == (500, "mine")


def test_web_pages_of_other_origins_are_let_in_by_name_only(closed: TestClient) -> None:
    asks = {"Origin": "https://app.example.com", "Access-Control-Request-Method": "POST"}
    asks["Access-Control-Request-Headers"] = "authorization,x-stainless-lang"
    assert closed.options("/v1/models", headers=asks).status_code == 405
    assert "access-control-allow-origin" not in closed.get("/health", headers=asks).headers
    opened = serving(cors_origins=["https://app.example.com"])
    preflight = opened.options("/v1/chat/completions", headers=asks)
    assert (preflight.status_code, preflight.headers["access-control-allow-origin"]) == (200, asks["Origin"])
    for path, status in (("/health", 200), ("/nowhere", 404), ("/broken", 500)):
        answer = opened.get(path, headers=asks)
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (status, asks["Origin"])
        assert "x-request-id" in answer.headers["access-control-expose-headers"]
    assert opened.options("/v1/models", headers={**asks, "Origin": "https://evil.example.com"}).status_code == 400


def test_a_model_with_a_slash_in_its_name_can_be_retrieved() -> None:
    assert create_app(Settings()).url_path_for("retrieve_model", model="a/B") == "/v1/models/a/B"
