"""The picture of figure 3: what each trace would take of full replicas, and how many devices each policy held."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np

mpl.use("Agg")  # no screen is needed
import matplotlib.pyplot as plt

from .azure import LOAD_S, SEQUENCES, SERVICE

if TYPE_CHECKING:
    from simulator.traces.trace import Trace

    from .azure import Run

TICK_S = 10.0
COLOURS = {"slack": "#d1495b", "threshold": "#edae49", "clairvoyant": "#30638e"}


def save(traces: Sequence[tuple[str, Trace, Mapping[str, Run]]], file: Path) -> None:
    """Draw a row for each trace, given with its name and its runs by policy."""
    figure, rows = plt.subplots(len(traces), 1, figsize=(10, 3.4 * len(traces)), squeeze=False, constrained_layout=True)
    for axes, (name, trace, runs) in zip(rows[:, 0], traces, strict=True):
        lengths = zip(trace.input_tokens, trace.output_tokens, strict=True)
        work = [SERVICE.device_s(inputs, outputs, SEQUENCES) for inputs, outputs in lengths]
        place = (np.array(trace.at) / TICK_S).astype(int)
        demand = np.bincount(place, weights=work) / TICK_S
        axes.fill_between(np.arange(len(demand)) * TICK_S / 60, demand, step="post", color="#e5e7eb", label="demand")
        for policy, run in runs.items():
            ahead_s = LOAD_S if policy == "clairvoyant" else 0.0
            at = [(sample.at - ahead_s) / 60 for sample in run.outcome.samples]
            held = [sum(sample.held) for sample in run.outcome.samples]
            label = f"{policy}: {run.hours:.2f} device hours, {run.missed} missed"
            axes.step(at, held, where="post", color=COLOURS[policy], label=label)
        axes.set(title=name, ylabel="devices", xlim=(-LOAD_S / 60, trace.lasts_s / 60), ylim=(0, 16.5))
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(loc="upper left", fontsize=8, frameon=False)
    rows[-1, 0].set_xlabel("minutes")
    figure.savefig(file, dpi=110)
    plt.close(figure)
