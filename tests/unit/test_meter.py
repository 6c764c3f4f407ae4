"""How fast a worker measures itself to be; live and simulated workers use the same meter."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.meter import MEMORY_S, Meter
from simulator.service import ServiceModel
from simulator.traces.trace import Trace
from simulator.worker import SimulatedWorker

STEP_S = 0.1


def worker() -> SimulatedWorker:
    """A worker with slots. Its requests take one step for each of their tokens, after a prompt read in no time."""
    trace = Trace([0.0] * 8, [1] * 8, [10] * 8)
    service = ServiceModel(step_s=STEP_S, sequence_s=0.0, prompt_token_s=0.0, load_s=0.0, batches=False)
    made = SimulatedWorker("w", 0, 0, service, 8, trace, 0.0)
    made.ready(0.0)
    return made


def test_idle_time_counts_for_nothing() -> None:
    meter = Meter()
    meter.begin(10.0)
    meter.done(12.0, 4, 16, idle=True)
    meter.begin(100.0)
    meter.begin(101.0)
    meter.look(101.0)
    assert (meter.busy_s, meter.jobs_done, meter.known) == (3.0, 4, True)
    assert meter.batch_size == 4.0
    assert meter.jobs_per_s == pytest.approx(4 / 3, rel=0.1)


def test_what_is_long_ago_counts_for_little_and_a_long_job_makes_the_rate_unknown() -> None:
    meter = Meter()
    meter.begin(0.0)
    meter.done(1.0, 1, 1, idle=False)
    assert meter.known
    meter.look(100 * MEMORY_S)
    assert not meter.known
    assert meter.jobs_per_s == pytest.approx(0.0, abs=0.001)


@given(interval_s=st.floats(0.01, 60.0), jobs=st.integers(1, 50))
def test_jobs_that_end_at_a_steady_rate_have_that_rate(interval_s: float, jobs: int) -> None:
    meter = Meter()
    meter.begin(0.0)
    for job in range(1, jobs + 1):
        meter.done(job * interval_s, 1, 3, idle=False)
    assert meter.jobs_per_s == pytest.approx(1 / interval_s)
    assert meter.batch_size == pytest.approx(3.0)
    assert meter.busy_s == pytest.approx(jobs * interval_s)


def test_a_simulated_worker_tells_what_a_live_one_would_measure() -> None:
    simulated, live = worker(), Meter()
    simulated.admit([0, 1], 5.0)
    live.begin(5.0)
    assert simulated.finish(6.0) == [0, 1]
    live.done(6.0, 2, 4, idle=True)
    seen = simulated.seen("m", "d", 50.0)
    assert (seen.jobs_per_s, seen.batch_size) == (live.jobs_per_s, live.batch_size) == (2.0, 2.0)


def test_a_simulated_worker_that_was_preempted_to_nothing_is_idle() -> None:
    simulated = worker()
    simulated.admit([0], 0.0, preemptible=[0])
    simulated.preempt([0], 0.5)
    simulated.admit([1], 100.0)
    simulated.finish(101.0)
    assert simulated.seen("m", "d", 101.0).jobs_per_s == pytest.approx(1 / 1.5, rel=0.1)
