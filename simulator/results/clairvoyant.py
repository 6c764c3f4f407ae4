"""The clairvoyant bound: the least device time that any schedule could do with, had it known every request beforehand.

Time is cut into slots of ``h`` seconds. A request brings as much work as it costs a full batch
(:meth:`~simulator.service.ServiceModel.device_s`); it may be worked on from the slot of its arrival, and has to be
done in the slot in which it would end if it were started at its target and then shared the device with a full batch.
Of a model, ``s[k]`` replicas serve in slot ``k``, ``u[k]`` of them new, and ``W[j, k]`` is the work of tier ``j`` done
by its end. Then

    least      sum(h s[k] + load u[k])                  devices are held while they load
    such that  s[k] - s[k-1] <= u[k]
               sum_j (W[j, k] - W[j, k-1]) <= h s[k]    a device does a second of work a second
               due[j, k] - P[j, k] <= W[j, k] <= arrived[j, k]
               s[k] + (those that load in k) <= devices, and none serves before the first can have loaded.

``P`` is work whose target is missed: as many requests of each model and tier as missed it in the run that is compared,
chosen as suits best (their work has to be done, too, but whenever). Whatever a real schedule does fulfils all this: its
batches are never more than full, its replicas whole, its slots shorter. So the optimum of this linear program is below
it; with ``whole`` replicas it is closer. Devices count as the fastest type, models as if each had all devices, and
requests that were refused or died are left out.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import block_array, coo_array, diags_array, eye_array

from .outcome import Fate

if TYPE_CHECKING:
    from producer.contract.fleet.settings import Settings

    from ..hardware import Hardware
    from ..service import ServiceModel
    from .outcome import RunOutcome

SLOTS, FEWEST_SLOTS = 2000, 300
"""Most slots of a run over all models, and fewest slots of each model, by default. Longer slots lower the bound, which
thus stays a lower bound."""
SHORTEST_SLOT_S = 0.5
ALIKE = 1.1
"""Requests of one slot whose work differs by less than this factor may miss their targets for each other."""
TIME_LIMIT_S = 60.0
"""For whole replicas, per model; what is proven by then is the bound."""


@dataclass(frozen=True, slots=True)
class Bound:
    """``device_hours`` is what no schedule goes below; ``serving`` is, by model, the replicas of each slot."""

    device_hours: float
    slot_s: float
    serving: Mapping[str, tuple[float, ...]]


@dataclass(slots=True)
class _Work:
    """One model's requests: seconds of work by slot, of each tier, and those that may miss: (tier, slot, size class)
    -> seconds."""

    arrived: np.ndarray[Any, np.dtype[np.float64]]
    due: np.ndarray[Any, np.dtype[np.float64]]
    classes: dict[tuple[int, int, int], float]
    missed: Counter[int]


def clairvoyant(
    settings: Settings, hardware: Hardware, outcome: RunOutcome, slot_s: float | None = None, *, whole: bool = False
) -> Bound:
    """The bound at the attainment that a run had, model by model and tier by tier.

    Args:
        slot_s: by default what makes :data:`SLOTS` slots over all models.
        whole: replicas are whole numbers, as they are; takes longer (:data:`TIME_LIMIT_S`).
    """
    models = outcome.trace.models
    slot_s = slot_s or max(SHORTEST_SLOT_S, outcome.ends_at / max(SLOTS // len(models), FEWEST_SLOTS))
    own: list[list[int]] = [[] for _ in models]
    for request, model in enumerate(outcome.trace.model):
        if outcome.fate[request] == Fate.DONE:
            own[model].append(request)
    speed = max(kind.speed for kind in hardware.devices)
    seconds, serving = 0.0, {}
    for name, done in zip(models, own, strict=True):
        service = hardware.services[name].faster(speed)
        work = _work(settings, outcome, done, service, settings.models[name].max_concurrency, slot_s)
        devices = min(hardware.count, settings.models[name].max_replicas)
        least, serving[name] = _least(work, devices, service.load_s, slot_s, whole)
        seconds += least
    return Bound(seconds / 3600, slot_s, serving)


def _work(
    settings: Settings, outcome: RunOutcome, done: Sequence[int], service: ServiceModel, concurrency: int, slot_s: float
) -> _Work:
    trace = outcome.trace
    targets = [settings.tiers[tier].target_wait_s for tier in trace.tiers]
    requests: list[tuple[int, int, int, float]] = []
    missed: Counter[int] = Counter()
    for one in done:
        tier, at = trace.tier[one], trace.at[one]
        seconds = service.device_s(trace.input_tokens[one], trace.output_tokens[one], concurrency)
        # In a full batch each request has its share of the device: one that joins at its target stays this long.
        ends_by = at + targets[tier] + concurrency * seconds
        requests.append((tier, int(at / slot_s), int(ends_by / slot_s), seconds))
        missed[tier] += outcome.started[one] - at > targets[tier]
    slots = 1 + max([int(outcome.ends_at / slot_s), *(due for _, _, due, _ in requests)])
    arrived, due_by = np.zeros((len(targets), slots)), np.zeros((len(targets), slots))
    classes: dict[tuple[int, int, int], float] = defaultdict(float)
    for tier, came, due, seconds in requests:
        arrived[tier, came] += seconds
        due_by[tier, due] += seconds
        if missed[tier] and seconds:
            classes[tier, due, math.ceil(math.log(seconds, ALIKE))] += seconds
    return _Work(arrived.cumsum(axis=1), due_by.cumsum(axis=1), classes, missed)


def _least(work: _Work, devices: int, load_s: float, slot_s: float, whole: bool) -> tuple[float, tuple[float, ...]]:
    """Seconds of devices, and the replicas that serve in each slot."""
    slots = work.arrived.shape[1]
    if not work.arrived[:, -1].any():
        return 0.0, (0.0,) * slots
    loading = int(load_s / slot_s)
    lower, upper = _bounds(work, devices, loading)
    cost = np.zeros(len(upper))
    cost[:slots], cost[slots : 2 * slots] = slot_s, load_s
    integrality = np.zeros(len(upper))
    integrality[: 2 * slots] = float(whole)
    found = milp(
        cost, constraints=_constraints(work, devices, loading, slot_s), bounds=Bounds(lower, upper),
        integrality=integrality, options={"time_limit": TIME_LIMIT_S} if whole else {},
    )  # fmt: skip
    if found.x is None:
        raise RuntimeError(f"the clairvoyant bound has no solution: {found.message}")
    least_s = found.mip_dual_bound if whole and found.mip_dual_bound is not None else found.fun
    return float(least_s), tuple(float(replicas) for replicas in found.x[:slots])


def _bounds(work: _Work, devices: int, loading: int) -> tuple[Any, Any]:
    """The lower and upper bounds of the columns; a replica loads for ``loading`` slots."""
    tiers, slots = work.arrived.shape
    begun = np.where(np.arange(slots) < loading, 0.0, float(devices))
    floor = np.zeros((tiers, slots))
    floor[:, -1] = work.arrived[:, -1]
    missable = [*work.classes.values()] or [0.0]
    lower = np.concatenate([np.zeros(2 * slots), floor.ravel(), np.zeros(tiers * slots + len(missable))])
    upper = np.concatenate([begun, begun, work.arrived.ravel(), np.full(tiers * slots, np.inf), missable])
    return lower, upper


def _constraints(work: _Work, devices: int, loading: int, slot_s: float) -> LinearConstraint:
    """The rows of the module's docstring; the columns: s, u, W of each tier, P of each tier, the missed work of each
    class."""
    tiers, slots = work.arrived.shape
    one, step = eye_array(slots), diags_array([1.0, -1.0], offsets=[0, -1], shape=(slots, slots))
    ahead = diags_array([1.0] * loading, offsets=range(1, loading + 1), shape=(slots, slots)) if loading else 0 * one
    late = _late(work, slots)
    rows: list[tuple[list[Any], float | Any, float | Any]] = [
        ([step, -1 * one, *[None] * (2 * tiers), None], -np.inf, 0.0),
        ([-slot_s * one, None, *[step] * tiers, *[None] * tiers, None], -np.inf, 0.0),
        ([one, ahead, *[None] * (2 * tiers), None], -np.inf, devices),
    ]
    for tier in range(tiers):
        own = [one if tier == other else None for other in range(tiers)]
        own_step = [step if tier == other else None for other in range(tiers)]
        rows += [
            ([None, None, *own_step, *[None] * tiers, None], 0.0, np.inf),
            ([None, None, *own, *own, None], work.due[tier], np.inf),
            ([None, None, *[None] * tiers, *own_step, -1 * late[tier]], 0.0, 0.0),
        ]
    empty = [coo_array((tiers, slots))] * (2 + 2 * tiers)
    budget = [*empty, _counted(work, tiers)]
    parts = [parts for parts, _, _ in rows]
    # A column block that no row fills has no width of its own.
    matrix = block_array([*parts, budget], format="csc")
    least = [np.broadcast_to(low, slots) for _, low, _ in rows]
    most = [np.broadcast_to(high, slots) for _, _, high in rows]
    allowed = [float(work.missed[tier]) for tier in range(tiers)]
    return LinearConstraint(matrix, np.concatenate([*least, [-np.inf] * tiers]), np.concatenate([*most, allowed]))


def _late(work: _Work, slots: int) -> list[Any]:
    """For each tier, which missed class makes work late from which slot on."""
    columns = max(1, len(work.classes))
    places: dict[int, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
    for column, (tier, due, _) in enumerate(work.classes):
        places[tier][0].append(due)
        places[tier][1].append(column)
    return [
        coo_array((np.ones(len(places[tier][0])), (places[tier][0], places[tier][1])), shape=(slots, columns))
        for tier in range(len(work.arrived))
    ]


def _counted(work: _Work, tiers: int) -> Any:
    """How many requests a second of each class stands for: at least, as each has no more than the class's bound."""
    keys = [*work.classes]
    values = [ALIKE**-size for _, _, size in keys]
    return coo_array((values, ([tier for tier, _, _ in keys], range(len(keys)))), shape=(tiers, max(1, len(keys))))
