"""Routes of inference, and the list of models."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from ..access.authentication import Caller
from ..attempt import MayRepeat
from ..availability import outlook
from ..errors import RESPONSES
from ..http.json_body import JsonRoute
from ..openai import chat, completion, embedding
from ..openai.model_list import engine_object, model_list, model_object, permitted
from ..request import serve
from ..state import Client

router = APIRouter(prefix="/v1", tags=["OpenAI"], responses=RESPONSES, route_class=JsonRoute)

_STREAMED: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/json": {}, "text/event-stream": {}}, "description": "The answer, or its stream"}
}


@router.post("/chat/completions", response_class=Response, responses=_STREAMED)
async def create_chat_completion(
    asked: chat.ChatRequest, request: Request, caller: Caller, client: Client, attempt: MayRepeat
) -> Response:
    """Answer a chat."""
    return await serve(request, client, chat.order(asked, client.settings, caller), attempt)


@router.post("/completions", response_class=Response, responses=_STREAMED)
async def create_completion(
    asked: completion.CompletionRequest, request: Request, caller: Caller, client: Client, attempt: MayRepeat
) -> Response:
    """Go on from a text."""
    return await serve(request, client, completion.order(asked, client.settings, caller), attempt)


@router.post("/embeddings")
async def create_embedding(
    asked: embedding.EmbeddingRequest, request: Request, caller: Caller, client: Client, attempt: MayRepeat
) -> Response:
    """Embed texts."""
    return await serve(request, client, embedding.order(asked, client.settings, caller), attempt)


@router.get("/models")
async def list_models(caller: Caller, client: Client) -> dict[str, Any]:
    """The models that the caller may use."""
    return model_list(client.settings, caller)


@router.get("/models/{model:path}")
async def retrieve_model(model: str, caller: Caller, client: Client) -> dict[str, Any]:
    """Retrieve a model, with its state and what its engine takes: a request for one that is ``idle`` or ``loading``
    waits until it is ready."""
    name = permitted(model, client.settings, caller)
    found = await outlook(client, name)
    told = {"state": found.state, "ready_in_s": found.ready_in_s}
    return model_object(model) | told | engine_object(name, client.settings)
