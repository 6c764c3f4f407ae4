"""``stoker simulate --zoo``: every policy on every family of the workload zoo."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from autoscaler.sizing.policy_registry import POLICIES
from simulator import policy_spec
from simulator.zoo.judgement import Judged, judge
from simulator.zoo.registry import FAMILIES
from simulator.zoo.workload import Half

console = Console(highlight=False)
progress_console = Console(stderr=True, highlight=False)


def compare_on_zoo(half: Half, compared: str, count: int, plot: Path | None, as_json: bool) -> None:
    """Judge the policies on a half of the zoo, print the table, and save the plot.

    Args:
        compared: names of policies, as for ``--compare``; the first is the one that others may dominate. Empty for all
            scaling policies.
        count: workloads of each family.
    """
    names = compared.split(",") if compared else [*POLICIES]
    policies = [policy_spec.named(name, names[0] if names[0] in POLICIES else next(iter(POLICIES))) for name in names]
    judged = []
    with Progress(console=progress_console, transient=True) as bar:
        task = bar.add_task("the zoo", total=len(FAMILIES))
        for family in FAMILIES.values():
            bar.update(task, description=family.name)
            judged.append(judge(family, half, policies, count))
            bar.advance(task)
    if plot is not None:
        from ..plot_zoo import save

        save(judged, f"{half} half: device hours against missed targets", plot)
    if as_json:
        for one in judged:
            print(json.dumps({**asdict(one), "half": half.value, "dominated_by": one.dominating(names[0])}))
        return
    console.print(table(judged, half))
    for one in judged:
        console.print(f"[dim]{one.name}: {one.reason}[/dim]", soft_wrap=True)
    if plot is not None:
        console.print(f"picture: {plot}", markup=False, soft_wrap=True)


def table(judged: Sequence[Judged], half: Half) -> Table:
    """Device hours and missed targets of each policy, the clairvoyant bound of the first, and what dominates it."""
    names = [*judged[0].scores]
    found = Table(
        "family", *names, "clairvoyant", "dominated by",
        title=f"the zoo, {half} half: device hours, missed targets", title_justify="left",
        caption=f"clairvoyant: the least device hours of any schedule that attains what {names[0]} does",
        caption_justify="left",
    )  # fmt: skip
    for one in judged:
        cells = [f"{score.hours:,.2f} h\n{score.missed:,}" for score in one.scores.values()]
        bound = "" if one.bound_hours is None else f"{one.bound_hours:,.2f} h"
        found.add_row(one.name, *cells, bound, ", ".join(one.dominating(names[0])))
    return found
