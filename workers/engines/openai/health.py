"""The health check of a server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

PATHS = ("/health", "/v1/models", "/")
"""Paths that are asked, in this order, unless ``options.health`` names one. The first is that of vLLM, SGLang,
TensorRT-LLM and llama.cpp; the second has hosted APIs, Ollama and LM Studio; the third, anything that speaks HTTP."""
ABSENT = (401, 403, 404, 405, 410, 501)
"""HTTP statuses of a path that a server does not have; some refuse unknown paths before they look for them."""
TOO_MANY_REQUESTS = 429


class HealthCheck:
    """Asks a server for its health at the first of several paths that it has, and at that one from then on.

    Args:
        path: the only one to ask; None for the first of ``PATHS``.
    """

    def __init__(self, path: str | None) -> None:
        self._paths = (path,) if path else PATHS

    def __str__(self) -> str:
        return " or ".join(self._paths)

    async def well(self, status_of: Callable[[str], Awaitable[int]]) -> bool:
        """Whether the server is well.

        Args:
            status_of: asks for a path and returns the HTTP status; may raise.
        """
        *others, last = self._paths
        for path in (*others, last):
            status = await status_of(path)
            if status in ABSENT and path != last:
                continue
            # A server that only limits how often it is asked is well. The root may lead elsewhere.
            if well := 200 <= status < 300 or status == TOO_MANY_REQUESTS or (path == "/" and 300 <= status < 400):
                self._paths = (path,)
            return well
        raise AssertionError("unreachable: the last path returns")
