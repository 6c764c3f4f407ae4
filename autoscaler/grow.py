"""Growing: where missing replicas are started, and what is done when there is no room for one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from .decisions import Decision, Drain, Hold, Start
from .placement import Tenant, by_device, obstacle, place, tenants
from .roster import Phase, Worker

if TYPE_CHECKING:
    from .observation import Memory, Observation
    from .sizing import Size


@dataclass(frozen=True, slots=True)
class Rooms:
    """Who holds the devices now, and who will when all that drains is gone and all that waits has come."""

    now: tuple[Tenant, ...]
    later: tuple[Tenant, ...]


def grow(
    seen: Observation, memory: Memory, sizes: Mapping[str, Size], workers: Sequence[Worker]
) -> tuple[list[Decision], Memory]:
    """Start what is missing where it fits; say what stands in the way where it does not.

    Args:
        workers: every worker; one that was told to drain in this round is in phase ``DRAINING``.
    """
    missing, decisions = _missing(seen, memory, sizes, workers)
    held = tenants(workers, seen.devices, seen.settings.models)
    rooms = Rooms(held, tuple(tenant for tenant in held if tenant.serves))
    started = dict(memory.started_at)
    stuck: set[str] = set()
    for nth, _, name in missing:
        if name in stuck:
            continue
        replica = Tenant(f"a new {name}", name, "", seen.settings.models[name].memory_gb)
        if device := place(name, replica.memory_gb, seen.devices, rooms.now):
            placed = replace(replica, device=device.id)
            rooms = Rooms((*rooms.now, placed), (*rooms.later, placed))
            decisions.append(Start(name, device.id, device.kind, sizes[name].reason))
            started[name] = seen.now
        else:
            stuck.add(name)
            made, rooms = _make_room(seen, workers, rooms, replica, first=nth == 0)
            decisions += [_explained(one, sizes[name].reason) for one in made]
    return decisions, replace(memory, started_at=started)


def _missing(
    seen: Observation, memory: Memory, sizes: Mapping[str, Size], workers: Sequence[Worker]
) -> tuple[list[tuple[int, float, str]], list[Decision]]:
    """Replicas to start, as (how many its model has by then, minus its urgency, model), and what holds back
    others. In the order of their claim: every model's first before anybody's second, the latest first."""
    missing: list[tuple[int, float, str]] = []
    holds: list[Decision] = []
    for name, wanted in sizes.items():
        present = sum(worker.model == name and worker.serves for worker in workers)
        if present >= wanted.replicas:
            continue
        failure = memory.failures.get(name)
        cooled = seen.now - memory.started_at.get(name, 0.0) >= seen.settings.scaling.up_cooldown_s
        if failure is not None and seen.now < failure.until:
            holds.append(Hold(name, f"back-off {failure.failures}", failure.reason))
        elif present == 0 or cooled:
            missing += [(nth, -seen.demands[name].urgency, name) for nth in range(present, wanted.replicas)]
    return sorted(missing), holds


def _make_room(
    seen: Observation, workers: Sequence[Worker], rooms: Rooms, replica: Tenant, *, first: bool
) -> tuple[list[Decision], Rooms]:
    """What to do for a replica that fits nowhere: wait for what drains already, or, when its model has jobs
    waiting and no worker at all, drain a worker that nobody needs before its idle time is over."""
    model = replica.model
    if device := place(model, replica.memory_gb, seen.devices, rooms.later):
        going = [one.name for one in rooms.now if one.device == device.id and one not in rooms.later]
        reserved = Rooms(rooms.now, (*rooms.later, replace(replica, device=device.id)))
        return [Hold(model, "waiting", f"waits for {device.id}: {', '.join(going)} drains")], reserved
    for idle in _dispensable(seen, workers, rooms) if first and seen.demands[model].queued else ():
        later = tuple(one for one in rooms.later if one.name != idle.name)
        if device := place(model, replica.memory_gb, seen.devices, later):
            quiet = seen.demands[idle.model].quiet_s
            why = f"drained early: {model} has jobs waiting and no device, {idle.model} none for {quiet:.0f} s"
            drain = Drain(idle.model, idle.name, idle.device, seen.settings.scaling.drain_s, why)
            hold = Hold(model, "waiting", f"waits for {device.id}: {idle.name} drains")
            # It keeps its device until it is gone, but is nobody's to drain a second time.
            return [drain, hold], Rooms(rooms.now, (*later, replace(replica, device=device.id)))
    here = by_device(rooms.now)
    obstacles = [obstacle(model, replica.memory_gb, device, here.get(device.id, ())) for device in seen.devices]
    return [Hold(model, "no idle device", f"no idle device: {'; '.join(obstacles) or 'there is none'}")], rooms


def _dispensable(seen: Observation, workers: Sequence[Worker], rooms: Rooms) -> list[Worker]:
    """Idle workers of models that nobody asks for and that may have fewer, the longest unneeded first."""
    going = {one.name for one in rooms.now} - {one.name for one in rooms.later}
    staying = [worker for worker in workers if worker.serves and worker.name not in going]
    present = Counter(worker.model for worker in staying)

    def may_go(worker: Worker) -> bool:
        if not worker.managed or worker.phase is not Phase.READY or worker.running:
            return False
        model, demand = seen.settings.models.get(worker.model), seen.demands.get(worker.model)
        if model is None or demand is None:
            return False
        return demand.none and present[worker.model] > model.min_replicas

    return sorted(filter(may_go, staying), key=lambda worker: (-seen.demands[worker.model].quiet_s, worker.name))


def _explained(decision: Decision, demand: str) -> Decision:
    return replace(decision, reason=f"{decision.reason}. {demand}") if isinstance(decision, Hold) else decision
