"""The list of models: ``GET /v1/models``."""

from __future__ import annotations

from typing import Any

from producer.contract.fleet.engine_abilities import abilities
from producer.contract.fleet.settings import Settings

from ..access.api_key import ApiKey
from .api_error import Problem


def model_list(settings: Settings, caller: ApiKey) -> dict[str, Any]:
    """The models that the caller may use."""
    names = [each for name, model in settings.models.items() if caller.may_use(name) for each in (name, *model.aliases)]
    return {"object": "list", "data": [model_object(name) for name in names]}


def permitted(name: str, settings: Settings, caller: ApiKey) -> str:
    """The name of the model of that name or alias, when there is one and the caller may use it.

    Raises:
        Problem: 404 in either case, so that callers do not learn of other models.
    """
    model = settings.named(name)
    if model in settings.models and caller.may_use(model):
        return model
    may = ", ".join(sorted(each for each in settings.models if caller.may_use(each))) or "none"
    raise Problem(
        404,
        f"the model {name!r} does not exist, or this API key may not use it; allowed: {may}",
        param="model",
        code="model_not_found",
    )


def model_object(name: str) -> dict[str, Any]:
    """One model, as the API describes it."""
    # The fleet file does not say since when there is a model.
    return {"id": name, "object": "model", "created": 0, "owned_by": "stoker"}


def engine_object(name: str, settings: Settings) -> dict[str, Any]:
    """A model's engine, and what a job of it may hold: see ``engine_abilities``."""
    model = settings.model(name)
    able = abilities(model)
    return {
        "engine": model.engine,
        "abilities": {
            "parameters": sorted(able.parameters),
            "inputs": sorted(able.inputs),
            "contents": sorted(able.contents),
            "other_parameters": able.others,
        },
    }
