"""How long a million requests over a thousand devices take, with the live policy and its rounds of a second.

The load is synthetic: 20 models in published proportions, three tiers alike, as much as keeps half of the devices busy.
Processor time of this one thread, so that what else the machine does counts little; reading the load is not in it.
"""

from __future__ import annotations

import argparse
import time

from autoscaler.sizing.policy_registry import SLACK
from benchmarks.bars import Bar
from simulator.results.outcome import Fate
from simulator.results.report import report
from simulator.run import Simulation
from simulator.traces import synthetic
from simulator.traces.trace import assign

REQUESTS, DEVICES, MODELS = 1_000_000, 1000, 20
BUSY = 0.5


def run(options: argparse.Namespace) -> list[Bar]:
    """One run; with ``quick`` a tenth of the requests."""
    count = REQUESTS // 10 if options.quick else REQUESTS
    settings, hardware = synthetic.cluster(MODELS, DEVICES)
    shares = dict(zip(settings.models, synthetic.popularity(MODELS), strict=True))
    per_s = synthetic.rate(BUSY, settings, hardware, shares)
    trace = assign(synthetic.generate(count, per_s, options.seed), settings, options.seed, shares)
    simulation = Simulation(settings, hardware, trace, SLACK, seed=options.seed)
    began = time.process_time()
    outcome = simulation.run()
    took_s = time.process_time() - began
    found = report(SLACK.name, settings, hardware, outcome)
    most = max(sum(sample.held) for sample in outcome.samples)
    print(
        f"  {count:,} requests over {hardware.count:,} devices, of which {most:,} were held at most, and "
        f"{found.lasted_s:,.0f} s: {took_s:.1f} s of processor time for {outcome.events:,} events; "
        f"{found.attained:.1%} attained in {found.device_hours:,.0f} device hours",
        flush=True,
    )
    ended = sum(outcome.fate.count(fate) for fate in (Fate.DONE, Fate.REFUSED, Fate.DEAD))
    return [
        Bar("seconds of processor time", round(took_s, 1), 60, note=f"{count:,} requests"),
        Bar("requests that ended", ended, REQUESTS, better="higher"),
    ]
