"""The tables of ``stoker simulate``: one run, or several compared."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from simulator.results.report import Report

from .duration import duration


def single(found: Report) -> Table:
    """The tiers of one report as a table."""
    table = Table(
        "tier", "requests", "attained", "wait p50", "wait p99", "refused",
        title=f"policy {found.policy}", title_justify="left", caption=_summary(found), caption_justify="left",
    )  # fmt: skip
    for tier in found.tiers:
        table.add_row(
            tier.tier, f"{tier.requests:,}", f"{tier.attained:.2%}", _wait(tier.wait_p50_s), _wait(tier.wait_p99_s),
            f"{tier.refused:,}",
        )  # fmt: skip
    return table


def _summary(found: Report) -> str:
    dead = f", {found.dead:,} dead" if found.dead else ""
    return (
        f"{found.requests:,} requests over {duration(found.lasted_s)}: {found.attained:.2%} attained, "
        f"{found.refused:,} refused{dead}\n"
        f"{found.device_hours:.2f} device hours, cost {found.cost:.2f}, {found.starts:,} workers started"
    )


def compared(reports: Sequence[Report], bounds: Sequence[float]) -> Table:
    """The reports as a table with one column per policy."""
    table = Table("", *(found.policy for found in reports))
    for n, tier in enumerate(reports[0].tiers):
        own = [found.tiers[n] for found in reports]
        table.add_row(f"{tier.tier}: attained", *(f"{one.attained:.2%}" for one in own))
        table.add_row("  wait p50", *(_wait(one.wait_p50_s) for one in own))
        table.add_row("  wait p99", *(_wait(one.wait_p99_s) for one in own))
    table.add_section()
    table.add_row("missed targets", *(f"{found.missed:,}" for found in reports))
    table.add_row("refused", *(f"{found.refused:,}" for found in reports))
    table.add_row("workers started", *(f"{found.starts:,}" for found in reports))
    table.add_row("cost", *(f"{found.cost:.2f}" for found in reports))
    table.add_row("device hours", *(f"{found.device_hours:.2f}" for found in reports))
    table.add_row("clairvoyant, attaining the same", *(f"{bound:.2f}" for bound in bounds))
    ratios = [found.device_hours / bound if bound else 1.0 for found, bound in zip(reports, bounds, strict=True)]
    table.add_row("times the clairvoyant", *(f"{ratio:.2f}" for ratio in ratios))
    return table


def _wait(seconds: float) -> str:
    return "-" if seconds != seconds else duration(seconds) if seconds >= 10 else f"{seconds:.2f} s"
