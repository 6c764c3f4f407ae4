"""Forecast: how fast jobs will arrive while a replica that is started now loads, and then pays for itself.

Several ways of looking ahead are kept up at once, each in constant time. What each said is held against what came, and
the best of the last while is believed: "tomorrow is like now", unless another is clearly better.

- *now*: the rate of the last window, as long as the one that is forecast.
- *smooth*: the newest ticks count most (simple exponential smoothing; Brown, 1956), for what moves a little.
- *level*: a mean over the last quarter of an hour, for what comes in bursts.
- *trend*: the window's rate, and on with what it grew by (Holt, 1957, damped as of Gardner and McKenzie, 1985).
- *season*: the rate at that time of the day, as of the days before, scaled to how today differs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

TICK_S = 10.0
LEVEL_S = 900.0
SMOOTH = 1 / 3
"""Half of what *smooth* remembers, as a part of the window."""
DAMPED = 0.6
"""Part of the growth from one window to the next that is expected to go on."""
SCORE_S = 3600.0
"""Half of what a score remembers: a quarter of an hour has seven windows of two minutes, too few to tell skill from
luck."""
CLEARLY = 0.95
"""Another way is believed when its error is less than this part of that of *now*."""
DAY_S = 86_400.0
BINS = 96
"""Of a day: a quarter of an hour each."""
NEW_DAY = 0.3
"""Weight of today against the days before."""
WAYS = ("now", "smooth", "level", "trend", "season")


@dataclass(frozen=True, slots=True)
class Outlook:
    """The expected rate in jobs per second, one standard deviation of what it is wrong by, and the way that says so."""

    per_s: float = 0.0
    spread: float = 0.0
    way: str = "now"


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean that forgets: ``weight`` is how many values it stands on, ``value`` 0 of none."""

    value: float = 0.0
    weight: float = 0.0

    def after(self, value: float, keep: float) -> Mean:
        """With one more; of the others ``keep`` is remembered."""
        weight = self.weight * keep + 1
        return Mean((self.value * self.weight * keep + value) / weight, weight)


@dataclass(frozen=True, slots=True)
class Forecast:
    """What is remembered of one stream of jobs. Times are Unix seconds, rates jobs per second.

    ``rates`` are of the last ticks, the newest last; ``said`` what each way said at each of them. ``errors`` are
    decaying sums of what each was wrong by, ``squares`` of its square, over ``weight`` ticks.
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
        """After another look at the counter of arrivals, of which there may be many in a tick.

        Args:
            horizon_s: how far ahead is looked: the mean rate over so long is what is forecast.
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
        """With one more forecast held against what came."""
        wrong = [one - came for one in said]
        return replace(
            self,
            errors=tuple(keep * sum_ + abs(one) for sum_, one in zip(self.errors, wrong, strict=True)),
            squares=tuple(keep * sum_ + one * one for sum_, one in zip(self.squares, wrong, strict=True)),
            weight=keep * self.weight + 1,
        )

    def ways(self, ticks: int, horizon_s: float) -> tuple[float, ...]:
        """What each of :data:`WAYS` says now."""
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
        # Until as much was scored as is forecast, nobody knows: it may be wrong by as much as it says (half of what is
        # exponentially distributed is), and by chance (Poisson) at least.
        ticks = _ticks(horizon_s)
        doubt = max(0.0, 1.0 - self.weight / ticks)
        square = (self.squares[best] + doubt * said[best] ** 2) / (self.weight + doubt)
        square = max(square, said[best] / (ticks * TICK_S))
        return Outlook(said[best], math.sqrt(square), WAYS[best])

    def _usual(self, at: float) -> float | None:
        return self.season[_bin(at)] if self.season else None


def _seasoned(season: tuple[float | None, ...], now: float, rate: float) -> tuple[float | None, ...]:
    """With one more tick of its time of day: a mean that forgets, so that a bin follows the days."""
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
