"""A plot of a fleet over time: queue lengths by tier, and workers by state."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")  # renders to files, without a display
import matplotlib.pyplot as plt
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from producer.contract.heartbeat import WorkerState

from .watch import DemoSample

_TIERS = {"interactive": "#d1495b", "standard": "#edae49", "batch": "#30638e"}
_OTHER = "#6c757d"
_LOADING, _SERVING = "#c9d6df", "#3c8d5a"
_INK, _GRID = "#2b2d42", "#e5e7eb"
_BESIDE: dict[str, Any] = {"xytext": (-4, 0), "textcoords": "offset points", "ha": "right", "va": "top", "fontsize": 9}


def save(samples: Sequence[DemoSample], marks: Sequence[tuple[float, str]], title: str, file: Path) -> None:
    """Plot queue lengths and workers of every model over the seconds since the first mark, and save the figure.

    Args:
        marks: Unix times with the names of events; the first is second 0, and each other gets a vertical line.
    """
    begin = marks[0][0]
    models = sorted({model for sample in samples for model, _ in sample.queued})
    times = [sample.at - begin for sample in samples]
    style: Any = {"font.size": 10, "axes.edgecolor": _GRID, "text.color": _INK, "axes.labelcolor": _INK}
    with plt.rc_context(style):
        figure, grid = plt.subplots(
            2 * len(models),
            1,
            figsize=(11, 3.2 * len(models) + 1.2),
            sharex=True,
            height_ratios=[4, 1] * len(models),
            layout="constrained",
        )
        for row, model in enumerate(models):
            _depths(grid[2 * row], samples, times, model)
            _workers(grid[2 * row + 1], samples, times, model)
        for axes in grid:
            axes.spines[["top", "right"]].set_visible(False)
            axes.tick_params(colors=_INK, length=0)
            axes.set_xlim(0, times[-1] * 1.02)
            for at, word in marks[1:]:
                axes.axvline(at - begin, color=_INK, linewidth=0.8, linestyle=":")
                if axes in grid[::2]:
                    axes.annotate(word, (at - begin, 0.97), xycoords=("data", "axes fraction"), **_BESIDE)
        grid[-1].set_xlabel("seconds since the first job")
        figure.suptitle(title, fontsize=14, fontweight="bold", x=0.01, ha="left")
        figure.legend(handles=_legend(samples), frameon=False, loc="outside lower center", ncols=6)
        figure.savefig(file, dpi=120)
        plt.close(figure)


def _legend(samples: Sequence[DemoSample]) -> list[Patch]:
    tiers = dict.fromkeys(tier for sample in samples for (_, tier), depth in sample.queued.items() if depth)
    queues = [Patch(color=_TIERS.get(tier, _OTHER), label=f"queued, {tier}") for tier in sorted(tiers)]
    return [*queues, Patch(color=_LOADING, label="worker loading"), Patch(color=_SERVING, label="worker serving")]


def _depths(axes: Any, samples: Sequence[DemoSample], times: list[float], model: str) -> None:
    # The longest queue first, so that a shorter one is drawn over it.
    tiers = sorted(
        {tier for sample in samples for name, tier in sample.queued if name == model},
        key=lambda tier: -max(sample.queued.get((model, tier), 0) for sample in samples),
    )
    for tier in tiers:
        depths = [sample.queued.get((model, tier), 0) for sample in samples]
        color = _TIERS.get(tier, _OTHER)
        if any(depths):
            axes.fill_between(times, depths, step="post", color=color, alpha=0.18, linewidth=0)
            axes.step(times, depths, where="post", color=color, linewidth=1.8)
    axes.set_ylabel("jobs queued")
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
    axes.grid(axis="y", color=_GRID)
    axes.set_title(model, loc="left", fontsize=12, fontweight="bold")


def _workers(axes: Any, samples: Sequence[DemoSample], times: list[float], model: str) -> None:
    every = [len(sample.workers.get(model, [])) for sample in samples]
    loading = [sample.workers.get(model, []).count(WorkerState.LOADING) for sample in samples]
    serving = [count - not_yet for count, not_yet in zip(every, loading, strict=True)]
    axes.fill_between(times, every, step="post", color=_LOADING, linewidth=0)
    axes.fill_between(times, serving, step="post", color=_SERVING, linewidth=0)
    axes.set_ylabel("workers")
    axes.set_ylim(0, max(1, *every) * 1.1)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=2))
