"""A plot of simulated runs: queue lengths by tier, workers by state, and devices held, over time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl

mpl.use("Agg")  # renders to files, without a display
import matplotlib.pyplot as plt
from matplotlib.ticker import MaxNLocator

from producer.contract.errors import ConfigError

if TYPE_CHECKING:
    from simulator.hardware import Hardware
    from simulator.results.outcome import RunOutcome

_TIERS = ("#d1495b", "#edae49", "#30638e", "#6c757d", "#8d6a9f", "#5d737e")
_TYPES = ("#3d5a80", "#98c1d9", "#ee6c4d", "#293241")
_LOADING, _SERVING, _DRAINING = "#c9d6df", "#3c8d5a", "#a7c4a0"
_INK, _GRID = "#2b2d42", "#e5e7eb"


def save(runs: Sequence[tuple[str, RunOutcome]], hardware: Hardware, file: Path) -> None:
    """Plot each run in a column under its title and save the figure. All columns have the same scales.

    Raises:
        ConfigError: the file cannot be written, or its ending is not that of an image format.
    """
    style: Any = {"font.size": 10, "axes.edgecolor": _GRID, "text.color": _INK, "axes.labelcolor": _INK}
    with plt.rc_context(style):
        figure, grid = plt.subplots(
            3,
            len(runs),
            figsize=(max(9, 5.5 * len(runs)), 8),
            sharex=True,
            sharey="row",
            squeeze=False,
            height_ratios=[3, 2, 2],
            layout="constrained",
        )
        for column, (title, outcome) in enumerate(runs):
            longest = max(one.ends_at for _, one in runs)
            unit, seconds = ("hours", 3600.0) if longest > 7200 else ("minutes", 60.0)
            times = [sample.at / seconds for sample in outcome.samples]
            _queues(grid[0][column], times, outcome)
            _workers(grid[1][column], times, outcome)
            _devices(grid[2][column], times, outcome, hardware)
            grid[0][column].set_title(title, loc="left", fontsize=12, fontweight="bold")
            grid[2][column].set_xlabel(unit)
        for row, label in enumerate(("requests queued", "workers", "devices held")):
            grid[row][0].set_ylabel(label)
            grid[row][-1].legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 0.98), ncols=4, fontsize=9)
            for axes in grid[row]:
                _style(axes)
        try:
            figure.savefig(file, dpi=120)
        except (OSError, ValueError) as error:
            raise ConfigError(f"the picture {file} cannot be written: {error}") from None
        finally:
            plt.close(figure)


def _style(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=_INK, length=0)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
    axes.grid(axis="y", color=_GRID)
    axes.set_ylim(bottom=0)
    axes.set_xlim(left=0)


def _queues(axes: Any, times: list[float], outcome: RunOutcome) -> None:
    for tier, name in enumerate(outcome.trace.tiers):
        depths = [sample.queued[tier] for sample in outcome.samples]
        color = _TIERS[tier % len(_TIERS)]
        axes.fill_between(times, depths, step="post", color=color, alpha=0.18, linewidth=0)
        axes.step(times, depths, where="post", color=color, linewidth=1.6, label=name)


def _workers(axes: Any, times: list[float], outcome: RunOutcome) -> None:
    phases = [[getattr(one, phase) for one in outcome.samples] for phase in ("serving", "loading", "draining")]
    colors = (_SERVING, _LOADING, _DRAINING)
    axes.stackplot(times, *phases, step="post", colors=colors, labels=("serving", "loading", "draining"), linewidth=0)


def _devices(axes: Any, times: list[float], outcome: RunOutcome, hardware: Hardware) -> None:
    held = [[sample.held[place] for sample in outcome.samples] for place in range(len(hardware.devices))]
    names = [f"{kind.type}, of {kind.count}" for kind in hardware.devices]
    axes.stackplot(times, *held, step="post", colors=_TYPES, labels=names, linewidth=0)
    if any(sample.faulty for sample in outcome.samples):
        faulty = [sample.faulty for sample in outcome.samples]
        axes.step(times, faulty, where="post", color=_TIERS[0], linewidth=1.2, label="faulty")
