"""What the cells come to: tables for people, bars, and a picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
from rich.table import Table

from benchmarks.bars import Bar

from .cell import BAR, BEST, Measured
from .policies import ALONE, GREEDY, OURS

HALF = 0.5


def table(found: Sequence[Measured], title: str) -> Table:
    """Every cell."""
    shown = Table(
        *("batch", "load", "uneven", "deadline"),
        *("in time: ours", "best fixed", "which", "behind", "greedy", "alone", BEST),
        *("device saved: ours", "best fixed", BEST, "p99: ours", "greedy", "alone"),
        title=title,
    )
    for measured in found:
        cell, of, best = measured.cell, measured.figures, measured.best_fixed
        shown.add_row(
            cell.line.name,
            f"{cell.load:.3f}" + (" low" if cell.low else ""),
            f"{cell.uneven:.0f}",
            f"{1000 * cell.target_s:.0f} ms",
            *(f"{100 * of[name].attained:.2f}%" for name in (OURS, best)),
            best,
            f"{measured.behind:+.2f} ± {measured.error:.2f}",
            *(f"{100 * of[name].attained:.2f}%" for name in (GREEDY, ALONE, BEST)),
            *(f"{100 * measured.saved(name):.1f}%" for name in (OURS, best, BEST)),
            *(f"{1000 * of[name].p99_s:.0f} ms" for name in (OURS, GREEDY, ALONE)),
        )
    return shown


def bars(found: Sequence[Measured], where: str) -> list[Bar]:
    """The three figures over all cells of a run. Device time is added up by job: every cell counts alike."""
    below = [measured for measured in found if measured.cell.load < HALF]
    ours, greedy = (sum(each.figures[name].device_s for each in below) for name in (OURS, GREEDY))
    mean = sum(measured.saved() for measured in below) / len(below)
    behind = max(found, key=lambda measured: measured.behind)
    low = [measured.slower for measured in found if measured.cell.low]
    within = sum(measured.behind <= BAR for measured in found)
    return [
        Bar(
            f"{where}: points behind the best fixed window in time, worst cell",
            round(behind.behind, 2),
            BAR,
            note=f"{within} of {len(found)} cells within {BAR}; "
            f"worst: {behind.cell.key}, {behind.cell.target_s:.3f} s, standard error {behind.error:.2f}",
        ),
        Bar(
            f"{where}: device time saved over greedy below half load, in % of all of it",
            round(100 * (1 - ours / greedy), 2),
            20.0,
            "higher",
            note=f"mean over the {len(below)} cells: {100 * mean:.1f}%",
        ),
        Bar(f"{where}: p99 at low load over no batching, worst cell", round(max(low), 3) if low else None, 1.1),
    ]


def draw(found: Sequence[Measured], path: Path) -> None:
    """Heat maps: above, what is in time against the best fixed window; below, the device time saved over greedy."""
    lines = list(dict.fromkeys(measured.cell.line.name for measured in found))
    uneven = sorted({measured.cell.uneven for measured in found})
    figure, axes = plt.subplots(
        2 * len(lines), len(uneven), figsize=(4.2 * len(uneven), 3.0 * len(lines)), layout="constrained", squeeze=False
    )
    for row, name in enumerate(lines):
        for column, spread in enumerate(uneven):
            here = [each for each in found if each.cell.line.name == name and each.cell.uneven == spread]
            points = _heat(axes[row][column], here, lambda each: -each.behind, (-2.0, 2.0), "RdBu", "{:+.1f}")
            saved = _heat(
                axes[len(lines) + row][column], here, lambda each: 100 * each.saved(), (0.0, 80.0), "Greens", "{:.0f}"
            )
            for at in (row, len(lines) + row):
                axes[at][column].set_title(f"{name}, unevenness {spread:.0f}", fontsize=9)
    figure.colorbar(points, ax=axes[: len(lines)], label="in time: points over the best fixed window", extend="both")
    figure.colorbar(saved, ax=axes[len(lines) :], label="device time saved over greedy, %", extend="max")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90)
    plt.close(figure)


def _heat(
    axes: Any,
    here: Sequence[Measured],
    value: Callable[[Measured], float],
    limits: tuple[float, float],
    colours: str,
    shape: str,
) -> Any:
    loads = sorted({each.cell.load for each in here})
    targets = sorted({each.cell.target_s for each in here})
    values = {(each.cell.load, each.cell.target_s): value(each) for each in here}
    image = axes.imshow(
        [[values[load, target] for load in loads] for target in targets],
        vmin=limits[0],
        vmax=limits[1],
        cmap=colours,
        aspect="auto",
        origin="lower",
    )
    axes.set_xticks(range(len(loads)), [f"{load:.2g}" for load in loads], fontsize=7)
    axes.set_yticks(range(len(targets)), [f"{1000 * target:.0f} ms" for target in targets], fontsize=7)
    for y, target in enumerate(targets):
        for x, load in enumerate(loads):
            axes.text(x, y, shape.format(values[load, target]), ha="center", va="center", fontsize=7)
    return image
