"""Exponential smoothing by statsmodels, in an environment of its own: ``python ets.py`` < JSON > JSON.

In: ``{"counts": [...], "at": [...], "ahead": n, "memory": m}``. Out: for each index of ``at``, the mean that is
expected of the ``ahead`` counts that follow it, from the last ``memory`` up to it; and the processor seconds of it all.
"""

import json
import sys
import time
import warnings

import numpy as np
from statsmodels.tsa.exponential_smoothing.ets import ETSModel

TRENDS: tuple[dict[str, str | bool], ...] = ({}, {"trend": "add", "damped_trend": True})
"""As automatic ETS has it (Hyndman et al., 2002): each is fitted, and what describes the past best, by its AICc, is
believed. A season is none of them: no trace lasts two days."""


def expected(counts: np.ndarray, ahead: int) -> float:
    """The mean of the next counts; what they are now when nothing can be fitted, as to constant ones."""
    fits = []
    for trend in TRENDS:
        try:
            fits.append(ETSModel(counts, **trend).fit(disp=False))
        except (ValueError, np.linalg.LinAlgError):
            continue
    if not fits:
        return float(counts[-1])
    best = min(fits, key=lambda fit: fit.aicc)
    return max(0.0, float(np.mean(best.forecast(ahead))))


def main() -> None:
    """Read, forecast, write."""
    asked = json.load(sys.stdin)
    counts = np.array(asked["counts"], dtype=float)
    warnings.simplefilter("ignore")  # of fits that did not converge: they are used as they are
    began = time.process_time()
    said = [expected(counts[max(0, at - asked["memory"]) : at], asked["ahead"]) for at in asked["at"]]
    json.dump({"said": said, "cpu_s": time.process_time() - began}, sys.stdout)


if __name__ == "__main__":
    main()
