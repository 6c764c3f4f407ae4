"""The autoscaler notices that the wall clock was set."""

from autoscaler.clock_steps import ClockSteps


def test_a_step_is_told_once_and_a_clock_that_goes_on_is_none() -> None:
    wall, steady = [100.0], [5.0]
    steps = ClockSteps(lambda: wall[0], lambda: steady[0])
    told = []
    for passed, step in ((1.0, 0.0), (1.0, 3600.0), (1.0, 0.3), (30.0, -3.0), (1.0, 0.0)):
        wall[0] += passed + step
        steady[0] += passed
        told.append(steps())
    assert told == [0.0, 3600.0, 0.0, -3.0, 0.0]
