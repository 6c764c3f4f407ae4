"""Both clients, and the fake ones of the testing kit, have the same calls with the same parameters."""

from __future__ import annotations

import inspect

import pytest

from producer import AsyncClient, Client
from producer.testing import FakeFleet

RENAMED = {"aclose": "close"}
ADDITIONAL = {"follow"}
"""Calls of ``AsyncClient`` alone: in an event loop, reading a stream and waiting for the result are one task."""
NOT_AWAITED = {"job"}


def calls(kind: type) -> dict[str, list[tuple[str, object, object, object]]]:
    """The public calls of a client, each with its parameters: name, kind, default and annotation."""
    return {
        RENAMED.get(name, name): [
            (each.name, each.kind, each.default, each.annotation)
            for each in inspect.signature(function).parameters.values()
        ]
        for name, function in inspect.getmembers(kind, inspect.isfunction)
        if not name.startswith("_") and name not in ADDITIONAL
    }


def test_the_client_for_asyncio_has_every_call_of_the_other() -> None:
    assert len(calls(Client)) > 12
    assert calls(AsyncClient) == calls(Client)


@pytest.mark.parametrize("made", [FakeFleet({}).client(), FakeFleet({}).async_client()])
def test_the_fake_clients_have_the_same_parameters(made: Client | AsyncClient) -> None:
    assert calls(type(made)) == calls(Client)


def test_every_call_for_asyncio_is_awaited_but_for_those_that_send_nothing() -> None:
    plain = {
        name
        for name, function in inspect.getmembers(AsyncClient, inspect.isfunction)
        if not name.startswith("_")
        and not (inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function))
    }
    assert plain == NOT_AWAITED
