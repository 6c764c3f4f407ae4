"""The parts of the demo, against a worker without a model; the whole of it takes minutes: ``make demo``."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest
import redis as redis_py

from autoscaler.actions.decision import Start
from autoscaler.journal import Journal
from deploy.demo import plot, report, work
from deploy.demo.watch import DemoSample, Life, Watch
from deploy.demo.work import Asker, CompletedJob
from deploy.machine.server import Server
from processes import Fleet, wait_for
from producer import Settings
from producer.contract.heartbeat import WorkerState
from producer.contract.message.job import Result, Timing
from producer.contract.published import JournalEntry

TABLES = '[models.smollm2]\nengine = "echo"\n[models.minilm]\nengine = "echo"\n'


def served(tier: str, waited_s: float, submitted_at: float = 0.0, overtook: int = 0) -> CompletedJob:
    result = Result(output={"text": " a\n b "}, timing=Timing(waited_s=waited_s, batch_size=4))
    return CompletedJob("smollm2", tier, "asked", result, submitted_at, submitted_at + 30, overtook)


def test_people_a_batch_and_a_stock_application_are_served_and_watched(
    server: Server, redis: redis_py.Redis, make_fleet: Callable[[str, str], Fleet], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    fleet = make_fleet(server.url, TABLES)
    monkeypatch.setenv("STOKER_FLEET", str(fleet.file))
    told: list[CompletedJob] = []
    watch = Watch(fleet.redis, fleet.settings, lambda _: None, lambda _: None)
    watch.start()
    asker = Asker(fleet.client, "smollm2", ("one", "two"), {}, lambda _: 5, told.append)
    asker.start()
    source = work.write_batches(tmp_path)["smollm2"]
    with (tmp_path / "log").open("wb") as log:
        batch = work.start_batch("smollm2", source, log)
        stock = work.start_stock(server.url, 60.0, log)
        wait_for(lambda: watch.samples and watch.samples[-1].queued["smollm2", "batch"] == 60, "the batch to queue")
        assert not watch.samples[-1].at_rest
        fleet.worker("smollm2", "worker")
        output, _ = stock.communicate(timeout=60)
        assert stock.returncode == 0, (tmp_path / "log").read_text()
        assert batch.wait(60) == 0, (tmp_path / "log").read_text()
    asker.stop()
    asker.join(60)
    assert not asker.is_alive()
    assert asker.failure is None
    assert asker.served == told
    assert told[0].result.output == "one"
    assert work.read_stock(output).result.output == work.STOCK_PROMPT
    assert len(work.read_batch("smollm2", source)) == 60
    wait_for(lambda: watch.lives["worker"].ready_at, "the worker's readiness to be seen")
    fleet.processes[0].terminate()
    assert fleet.processes[0].wait(60) == 0
    wait_for(lambda: watch.samples[-1].at_rest, "rest")
    watch.stop()


def test_what_the_autoscaler_writes_down_the_watch_reads(server: Server, redis: redis_py.Redis) -> None:
    """The journal's own entry, with whatever fields it has."""
    start = Start("smollm2", "cpu:0", "cpu", "one is queued", inputs={"queued": 1})
    Journal(redis, "here").decided(101.0, start, "s")
    told: list[JournalEntry] = []
    watch = Watch(redis, Settings.model_validate({"redis": {"url": server.url}}), lambda _: None, told.append)
    watch.start()
    wait_for(lambda: told, "the decision to be told")
    watch.stop()
    assert told == [JournalEntry(101.0, "smollm2", "start", "one is queued", "s", "cpu:0", {"queued": 1})]


def test_the_first_jobs_time_is_split_without_a_gap() -> None:
    first = served("interactive", 20.0, submitted_at=100.0)
    decisions = [
        JournalEntry(90.0, "minilm", "start", "", "m", "cpu:1"),
        JournalEntry(101.0, "smollm2", "start", "", "s", "cpu:0"),
    ]
    lives = {"m": Life("minilm", 95.0, 96.0), "s": Life("smollm2", 111.0, 123.0)}
    split = report.from_zero(first, decisions, lives)
    assert (split.noticing, split.starting, split.loading, split.running) == (1.0, 10.0, 12.0, 7.0)
    assert split.total == first.ended_at - first.submitted_at


def test_waits_are_told_by_tier_and_the_cold_ones_apart() -> None:
    jobs = [served("interactive", 9.0, 1.0), served("interactive", 1.0, 50.0, 12), served("batch", 40.0)]
    table = report.table(jobs, {"smollm2": 10.0})
    assert list(table.columns[1].cells) == ["batch", "interactive", "interactive (cold)"]
    assert list(table.columns[3].cells) == ["40.00 s", "1.00 s", "9.00 s"]
    said = report.overtaking(jobs, {"smollm2": 10.0})
    assert said.startswith("1 interactive jobs overtook 12 batch jobs each")
    assert "they waited 1.00 s, the batch 40.00 s" in said
    assert "too small" in report.overtaking(jobs[2:], {"smollm2": 10.0})


@pytest.mark.parametrize(("percent", "value"), [(1, 1), (50, 5), (51, 6), (99, 10), (100, 10)])
def test_percentiles_are_values_that_occurred(percent: float, value: float) -> None:
    assert report.percentile([10, 9, 8, 7, 6, 5, 4, 3, 2, 1], percent) == value


def test_the_picture_is_a_picture(tmp_path: Path) -> None:
    begin = time.time()
    samples = [
        DemoSample(begin + n, {("m", "batch"): 20 - n, ("m", "interactive"): n % 2}, {"m": 1}, {"m": [state]})
        for n, state in enumerate([WorkerState.LOADING] * 5 + [WorkerState.READY] * 15)
    ]
    file = tmp_path / "demo.png"
    plot.save(samples, [(begin, "first job"), (begin + 19, "at zero")], "A title", file)
    assert file.read_bytes().startswith(b"\x89PNG")
    assert file.stat().st_size > 10_000


def test_a_stock_application_that_is_not_on_its_own_is_told() -> None:
    with pytest.raises(ValueError, match="producer"):
        work.read_stock(b'{"answer": {"output": "x"}, "ours": ["producer"]}')
