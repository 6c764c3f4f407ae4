"""Forecast: the arrival rate while a replica that is started now loads, and then pays for itself.

Several predictors run at once, each in constant time. Each one's predictions are scored against what arrived; the one
with the least recent error is used, and *now* unless another is clearly better.

- *now*: the rate of the last window, which is as long as the horizon.
- *smooth*: simple exponential smoothing (Brown, 1956), for rates that drift slowly.
- *level*: a mean over the last quarter of an hour, for bursty arrivals.
- *trend*: the window's rate plus its growth (Holt, 1957, damped after Gardner and McKenzie, 1985).
- *season*: the rate at the same time of earlier days, scaled to the present level.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

TICK_S = 10.0
LEVEL_S = 900.0
SMOOTH = 1 / 3
"""Half-life of *smooth*, as a part of the window."""
DAMPED = 0.6
"""Part of the growth from one window to the next that *trend* expects to continue."""
SCORE_S = 3600.0
"""Half-life of a predictor's score: a quarter of an hour has seven windows of two minutes, too few to tell skill from
chance."""
CLEARLY = 0.95
"""Another predictor replaces *now* when its error is below this part of that of *now*."""
DAY_S = 86_400.0
BINS = 96
"""Bins of a day, a quarter of an hour each."""
NEW_DAY = 0.3
"""Weight of today against the days before."""
WAYS = ("now", "smooth", "level", "trend", "season")


@dataclass(frozen=True, slots=True)
class Outlook:
    """The expected rate and one standard deviation of its error, in jobs per second, and the predictor's name."""

    per_s: float = 0.0
    spread: float = 0.0
    way: str = "now"


@dataclass(frozen=True, slots=True)
class Mean:
    """An exponentially weighted mean. ``weight`` is its effective number of values; ``value`` is 0 without any."""

    value: float = 0.0
    weight: float = 0.0

    def after(self, value: float, keep: float) -> Mean:
        """The mean with another value; the weight of the earlier ones is multiplied by ``keep``."""
        weight = self.weight * keep + 1
        return Mean((self.value * self.weight * keep + value) / weight, weight)


@dataclass(frozen=True, slots=True)
class Forecast:
    """The forecast's state for one stream of jobs. Times are Unix seconds, rates jobs per second.

    ``rates`` are those of the last ticks, the newest last; ``said`` the predictions made at each of them, in the order
    of :data:`WAYS`. ``errors`` and ``squares`` are decaying sums of the predictors' absolute and squared errors over
    ``weight`` ticks.
    """

    at: float
    arrived: int
    rates: tuple[float, ...] = ()
    smooth: Mean = Mean()
    level: Mean = Mean()
    said: tuple[tuple[float, ...], ...] = ()
    errors: tuple[float, ...] = (0.0,) * len(WAYS)
    squares: tuple[float, ...] = (0.0,) * len(WAYS)
    weight: float = 0.0
    season: tuple[float | None, ...] = ()

    def after(self, now: float, arrived: int, horizon_s: float) -> Forecast:
        """The state after another reading of the counter of arrivals; there may be many readings in a tick.

        Args:
            horizon_s: horizon of the forecast in seconds: the mean rate over it is predicted.
        """
        passed = now - self.at
        if arrived < self.arrived or passed > LEVEL_S or passed < 0:
            return Forecast(now, arrived, season=self.season)  # an emptied server, or a long silence
        if passed < TICK_S - 1e-6:
            return self
        rate = (arrived - self.arrived) / passed
        ticks = _ticks(horizon_s)
        seen = replace(
            self,
            at=now,
            arrived=arrived,
            rates=(*self.rates, rate)[-2 * ticks :],
            smooth=self.smooth.after(rate, 0.5 ** (passed / (SMOOTH * horizon_s))),
            level=self.level.after(rate, 0.5 ** (passed / LEVEL_S)),
            season=_seasoned(self.season, now, rate),
        )
        if len(seen.said) >= ticks:
            seen = seen.scored(seen.said[-ticks], _mean(seen.rates[-ticks:]), 0.5 ** (passed / SCORE_S))
        return replace(seen, said=(*seen.said, seen.ways(ticks, horizon_s))[-ticks:])

    def scored(self, said: tuple[float, ...], came: float, keep: float) -> Forecast:
        """The state after scoring a past prediction against the rate that came."""
        wrong = [one - came for one in said]
        return replace(
            self,
            errors=tuple(keep * sum_ + abs(one) for sum_, one in zip(self.errors, wrong, strict=True)),
            squares=tuple(keep * sum_ + one * one for sum_, one in zip(self.squares, wrong, strict=True)),
            weight=keep * self.weight + 1,
        )

    def ways(self, ticks: int, horizon_s: float) -> tuple[float, ...]:
        """The present prediction of each of :data:`WAYS`."""
        lately = _mean(self.rates[-ticks:])
        before = _mean(self.rates[-2 * ticks : -ticks]) if len(self.rates) > ticks else lately
        trend = max(0.0, lately + DAMPED * (lately - before))
        then, here = self._usual(self.at + horizon_s / 2), self._usual(self.at - horizon_s / 2)
        season = lately if then is None or not here else then * min(lately / here, 4.0)
        return lately, self.smooth.value, self.level.value, trend, season

    def outlook(self, horizon_s: float) -> Outlook:
        """The expected rate over the next ``horizon_s`` seconds."""
        if not self.rates:
            return Outlook()
        said = self.ways(_ticks(horizon_s), horizon_s)
        best = min(range(len(WAYS)), key=lambda way: (self.errors[way], way))
        if self.errors[best] >= CLEARLY * self.errors[0]:
            best = 0
        # Until a whole horizon was scored the error is unknown: it is then taken to be as large as the prediction
        # itself (as for an exponential distribution), and never below the Poisson noise.
        ticks = _ticks(horizon_s)
        doubt = max(0.0, 1.0 - self.weight / ticks)
        square = (self.squares[best] + doubt * said[best] ** 2) / (self.weight + doubt)
        square = max(square, said[best] / (ticks * TICK_S))
        return Outlook(said[best], math.sqrt(square), WAYS[best])

    def _usual(self, at: float) -> float | None:
        return self.season[_bin(at)] if self.season else None


def _seasoned(season: tuple[float | None, ...], now: float, rate: float) -> tuple[float | None, ...]:
    """The seasonal means after another tick: each bin is an exponentially weighted mean over the days."""
    bins = list(season or (None,) * BINS)
    place, share = _bin(now), NEW_DAY * TICK_S * BINS / DAY_S
    known = bins[place]
    bins[place] = rate if known is None else known + share * (rate - known)
    return tuple(bins)


def _bin(at: float) -> int:
    return int(at % DAY_S / DAY_S * BINS)


def _ticks(horizon_s: float) -> int:
    return max(1, round(horizon_s / TICK_S))


def _mean(values: tuple[float, ...]) -> float:
    return sum(values) / len(values) if values else 0.0
