"""The endpoints of inference by path, for requests over HTTP and lines of a batch."""

from __future__ import annotations

from . import chat, completion, embedding
from .translation import Endpoint

ENDPOINTS: dict[str, Endpoint] = {
    endpoint.path: endpoint for endpoint in (chat.ENDPOINT, completion.ENDPOINT, embedding.ENDPOINT)
}
