"""A plot of the zoo: device hours against missed targets, every policy a mark, the clairvoyant bound a line below."""

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
    from simulator.zoo.judgement import Judged

_COLOURS = ("#d1495b", "#edae49", "#30638e", "#3c8d5a", "#8d6a9f", "#6c757d")
_MARKS = ("o", "s", "^", "D", "v", "P")
_INK, _GRID = "#2b2d42", "#e5e7eb"
COLUMNS = 4


def save(judged: Sequence[Judged], title: str, file: Path) -> None:
    """Plot each workload in a panel of its own, with missed targets to the right and device hours upwards.

    Raises:
        ConfigError: the file cannot be written, or its ending is not that of an image format.
    """
    style: Any = {"font.size": 9, "axes.edgecolor": _GRID, "text.color": _INK, "axes.labelcolor": _INK}
    with plt.rc_context(style):
        rows = -(-len(judged) // COLUMNS)
        figure, grid = plt.subplots(
            rows, COLUMNS, figsize=(3.1 * COLUMNS, 2.4 * rows + 0.6), squeeze=False, layout="constrained"
        )
        panels = [axes for row in grid for axes in row]
        for axes, one in zip(panels, judged, strict=False):
            _panel(axes, one)
        for axes in panels[len(judged) :]:
            axes.set_visible(False)
        figure.supxlabel("missed targets")
        figure.supylabel("device hours")
        figure.suptitle(title)
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
        try:
            figure.savefig(file, dpi=110)
        except (OSError, ValueError) as error:
            raise ConfigError(f"the picture {file} cannot be written: {error}") from None
        finally:
            plt.close(figure)


def _panel(axes: Any, one: Judged) -> None:
    for place, (name, score) in enumerate(one.scores.items()):
        colour, mark = _COLOURS[place % len(_COLOURS)], _MARKS[place % len(_MARKS)]
        axes.scatter([score.missed], [score.hours], color=colour, marker=mark, s=34, label=name, zorder=3)
    if one.bound_hours is not None:
        axes.axhline(one.bound_hours, color=_INK, linewidth=1, linestyle="--", label="clairvoyant bound")
    axes.set_title(one.name, loc="left", fontsize=9, fontweight="bold")
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=_INK, length=0)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True, nbins=4))
    axes.grid(color=_GRID)
    axes.set_xlim(left=0, right=1.1 * max(1, *(score.missed for score in one.scores.values())))
    axes.set_ylim(bottom=0)
