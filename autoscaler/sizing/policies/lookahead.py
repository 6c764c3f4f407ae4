"""Looking ahead: the history of every model after another look, for the policies that forecast."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ...roster import by_model
from ..history import History, remember

if TYPE_CHECKING:
    from ...observation import Memory, Observation


def remember_all(seen: Observation, memory: Memory) -> Mapping[str, History]:
    """The histories of all models whose demand is known, by model."""
    own, models = by_model(seen.workers), seen.settings.models
    return {
        name: remember(memory.histories.get(name), seen.now, demand, own[name], models[name].max_concurrency)
        for name, demand in seen.demands.items()
    }
