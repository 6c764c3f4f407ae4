"""The judgement of policies on the zoo: device hours against missed targets, and the clairvoyant bound below them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..results.report import report
from ..run import Simulation

if TYPE_CHECKING:
    from ..policy_spec import PolicySpec
    from ..results.outcome import RunOutcome
    from .workload import Family, Half, Workload

CLEARLY = 0.02
"""Part by which a policy must have fewer device hours, and fewer missed targets, to dominate another."""
ROUNDING = 1e-9
SAMPLE_S = 60.0
SLOTS = 400
"""Slots of the clairvoyant bound: its default takes a minute for each workload. Fewer make the bound lower."""


@dataclass(frozen=True, slots=True)
class Score:
    """What a policy took and missed on a workload, or on several together.

    ``attained`` is, by tier, the share of requests that were started within the target, of those that came.
    """

    hours: float
    missed: int
    requests: int
    attained: Mapping[str, float]

    def dominates(self, other: Score) -> bool:
        """Whether it needs clearly fewer device hours and misses clearly fewer targets."""
        fewer = self.missed < other.missed and self.missed <= (1 - CLEARLY) * other.missed + ROUNDING
        return fewer and self.hours <= (1 - CLEARLY) * other.hours + ROUNDING


@dataclass(frozen=True, slots=True)
class Judged:
    """A workload, or several of one family together, under each policy. ``bound_hours`` is the clairvoyant bound at
    what the first policy attained; None when it was not asked for."""

    name: str
    reason: str
    scores: Mapping[str, Score]
    bound_hours: float | None = None

    def dominating(self, policy: str) -> list[str]:
        """The policies that dominate one."""
        own = self.scores[policy]
        return [name for name, score in self.scores.items() if score.dominates(own)]


def judge(family: Family, half: Half, policies: Sequence[PolicySpec], count: int = 1, *, bound: bool = True) -> Judged:
    """A family's first workloads of a half, under each policy; for the bound only the first policy counts.

    Args:
        count: workloads; their hours and misses are added up.
    """
    workloads = [(family.workload(half, nth), half.seed(nth)) for nth in range(count)]
    return judge_workloads(family.name, family.reason, workloads, policies, bound=bound)


def judge_workloads(
    name: str,
    reason: str,
    workloads: Sequence[tuple[Workload, int]],
    policies: Sequence[PolicySpec],
    *,
    bound: bool = True,
) -> Judged:
    """Workloads, each with the seed of its run, under each policy; see :func:`judge`."""
    scores: dict[str, list[Score]] = {policy.name: [] for policy in policies}
    hours = 0.0
    for workload, seed in workloads:
        for place, policy in enumerate(policies):
            outcome = run(workload, policy, seed)
            scores[policy.name].append(_score(workload, policy, outcome))
            if bound and place == 0:
                hours += _bound(workload, outcome)
    added = {policy: total(found) for policy, found in scores.items()}
    return Judged(name, reason, added, hours if bound else None)


def run(workload: Workload, policy: PolicySpec, seed: int = 0) -> RunOutcome:
    """One run; the fleet remembers what a full replica does with such requests, if it has served them before."""
    settings, hardware, trace = workload.settings, workload.hardware, workload.trace
    simulation = Simulation(
        settings, hardware, trace, policy.scaling, policy.order, seed, SAMPLE_S, routing=policy.routing
    )
    for name, work_s in _work_s(workload).items() if workload.known else ():
        load_s = hardware.services[name].load_s
        simulation.rounds.measured[name].update(jobs_per_s=1 / work_s, load_s=load_s)
    return simulation.run()


def total(scores: Sequence[Score]) -> Score:
    """The sums of several workloads, and the mean of what was attained; at least one is given."""
    tiers = scores[0].attained
    attained = {tier: sum(one.attained[tier] for one in scores) / len(scores) for tier in tiers}
    hours, missed = sum(one.hours for one in scores), sum(one.missed for one in scores)
    return Score(hours, missed, sum(one.requests for one in scores), attained)


def _score(workload: Workload, policy: PolicySpec, outcome: RunOutcome) -> Score:
    found = report(policy.name, workload.settings, workload.hardware, outcome)
    attained = {tier.tier: tier.attained for tier in found.tiers}
    return Score(found.device_hours, found.missed, found.requests, attained)


def _bound(workload: Workload, outcome: RunOutcome) -> float:
    from ..results.clairvoyant import clairvoyant  # only this needs a linear program, and its solver

    slot_s = outcome.ends_at / SLOTS
    return clairvoyant(workload.settings, workload.hardware, outcome, slot_s).device_hours


def _work_s(workload: Workload) -> Mapping[str, float]:
    """Device seconds of a request of each model that has any, on average, in a full batch."""
    trace, sums = workload.trace, dict.fromkeys(workload.trace.models, 0.0)
    counts = dict.fromkeys(sums, 0)
    for model, prompt, answer in zip(trace.model, trace.input_tokens, trace.output_tokens, strict=True):
        name = trace.models[model]
        slots = workload.settings.models[name].max_concurrency
        sums[name] += workload.hardware.services[name].device_s(prompt, answer, slots)
        counts[name] += 1
    return {name: sums[name] / count for name, count in counts.items() if count}
