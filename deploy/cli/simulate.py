"""``stoker simulate``: runs the fleet's own decisions on recorded or synthetic requests, on a virtual clock."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from producer.contract.errors import ConfigError
from producer.contract.fleet.settings import Settings
from simulator import hardware as hardwares
from simulator import policy_spec as schemes
from simulator.results.report import Report, report
from simulator.run import Simulation
from simulator.traces import readers, synthetic
from simulator.traces.trace import Trace, assign, faster
from simulator.zoo.workload import Half

from .simulation_tables import compared, single
from .zoo import compare_on_zoo

if TYPE_CHECKING:
    from simulator.hardware import Hardware
    from simulator.results.outcome import RunOutcome

SYNTHETIC = "synthetic"
LASTS_S = 3600.0
"""Default duration of synthetic load, in seconds."""
SAMPLES = 1000
ASSIGNED = ("models", "tiers", "tenants")
EXIT_INTERRUPTED = 130

console = Console(highlight=False)
progress_console = Console(stderr=True, highlight=False)


def simulate(
    trace: Annotated[str | None, typer.Option("--trace", "-t", help="A trace, or [bold]synthetic[/bold].")] = None,
    fleet: Annotated[
        str | None,
        typer.Option(help="The fleet file, or [bold]synthetic[/bold]. [dim]Default: fleet.toml here[/dim]"),
    ] = None,
    policy: Annotated[
        str | None,
        typer.Option("--policy", "-p", help="As above. [dim]Default: the fleet file's, fair-share, pull[/dim]"),
    ] = None,
    compare: Annotated[str, typer.Option(help="Policies to compare: a,b+c,d.")] = "",
    assigned: Annotated[
        list[str] | None,
        typer.Option("--assign", help="Shares: models=a:3,b:1 or tiers=... or tenants=...; repeatable."),
    ] = None,
    lasts_s: Annotated[
        float | None,
        typer.Option("--for", min=1, help="Seconds to simulate. [dim]Default: all; 3600 of synthetic load[/dim]"),
    ] = None,
    times: Annotated[float, typer.Option("--times", min=1e-3, help="Factor on the arrival rate.")] = 1.0,
    busy: Annotated[
        float, typer.Option(min=1e-3, max=2, help="Synthetic load: share of the devices' capacity.")
    ] = synthetic.BUSY,
    seed: Annotated[int, typer.Option(help="Seed of all random draws.")] = 0,
    zoo: Annotated[bool, typer.Option("--zoo", help="Compare policies on generated families of load.")] = False,
    half: Annotated[
        Half, typer.Option(help="Of each family; policies may be tuned on development only.")
    ] = Half.HELD_OUT,
    workloads: Annotated[int, typer.Option(min=1, help="Workloads of each family of the zoo.")] = 1,
    plot: Annotated[Path | None, typer.Option(help="Save a plot of queues, workers and devices over time.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object for each policy, for programs.")] = False,
) -> None:
    """Try a fleet, or a policy, on recorded requests: the live decisions run on a virtual clock.

    [bold]Traces[/bold] are recognised by name: [bold].csv[/bold] (Azure's LLM inference traces), [bold].jsonl[/bold]
    (Mooncake), both also with .gz; a folder or [bold].tgz[/bold] of ServeGen's clients, from which requests are drawn;
    or [bold]synthetic[/bold]: with the burstiness and the proportions measured in production clusters.

    [bold]The fleet file[/bold] describes in its table [bold]simulation[/bold] the devices (types, counts, speeds,
    prices, failures) and the speed of each model. [bold]synthetic[/bold] is 86 models on 64 devices.

    [bold]Assigned[/bold]: no public trace has models or tiers, and most have no tenants. They are drawn at random for
    each request, independently, by --seed, in the shares of --assign: models=smollm2:3,minilm:1,
    tiers=interactive:2,batch, or tenants=8 for eight equal ones. By default all models and all tiers that every model
    serves have equal shares (in synthetic load the first model has 31% and the first five 70%), and ServeGen's clients
    are the tenants.

    [bold]Policies[/bold]: one, or one of each kind, as in threshold+fifo+round-robin.
    The default of each kind is that of the live fleet: the fleet file's policy, fair-share, pull.

    How many replicas:
    [bold]slack[/bold]: for the queue, and the arrivals forecast while a replica loads
    [bold]backlog[/bold]: for the queue and the arrivals, within each tier's target wait
    [bold]forecast[/bold]: for the forecast arrival rate, at 80% of the capacity
    [bold]target-tracking[/bold]: replicas x utilisation / target
    [bold]threshold[/bold]: adds a replica above 80% busy, removes one below 30%

    Which request is next:
    [bold]fair-share[/bold]: of the most urgent tier, of the tenant served least
    [bold]ageing[/bold]: of the most urgent tier, the oldest of any tenant
    [bold]fifo[/bold]: first in, first out, over all tiers
    [bold]strict[/bold]: of the tier with the largest weight, always
    [bold]edf[/bold]: earliest deadline first; the deadline is arrival plus the tier's target

    Which worker gets it:
    [bold]pull[/bold]: the first worker with room claims it from one shared queue
    [bold]round-robin[/bold]: the next worker in turn, on arrival; it waits in that worker's queue
    [bold]least-connections[/bold]: the worker with the fewest requests, on arrival
    [bold]affinity[/bold]: on arrival, the same worker for each tenant; a random one without tenants

    [bold]The zoo[/bold] needs neither a trace nor a fleet file: 18 families of load, each in a development half and a
    held-out half, which share no seed and no value of a parameter. Minutes for all policies.

    [bold]Attained[/bold] is the share of all requests that started within their tier's target.
    With --compare, each policy is compared with the [bold]clairvoyant bound[/bold]: the least device hours of any
    schedule with the same attainment.

    [bold]Examples[/bold]

      stoker simulate --trace synthetic --fleet synthetic --plot out.png

      stoker simulate --trace azure_conv.csv.gz --fleet fleet.toml --assign tiers=interactive:4,batch:1

      stoker simulate --trace clients.tgz --for 7200 --compare slack,threshold,strict+round-robin

      stoker simulate --zoo --compare slack,threshold --plot zoo.png
    """
    if zoo:
        _require_solver()
        with _interruptible():
            compare_on_zoo(half, compare, workloads, plot, as_json)
        return
    if trace is None:
        raise ConfigError("--trace is missing; allowed: a file, synthetic, or --zoo in its place")
    if compare:
        _require_solver()
    settings, hardware = _fleet(fleet)
    fleets_own = settings.scaling.policy
    chosen = [schemes.named(name, fleets_own) for name in (compare.split(",") if compare else [policy or fleets_own])]
    shares = dict(_shares(one) for one in assigned or ())
    requests = _requests(trace, settings, hardware, shares, seed, lasts_s, times, busy)
    with _interruptible():
        runs = [_run(one, settings, hardware, requests, seed) for one in chosen]
        bounds = _bounds(settings, hardware, [outcome for _, outcome in runs]) if compare else []
        if plot is not None:
            from ..plot_simulation import save

            save([(found.policy, outcome) for found, outcome in runs], hardware, plot)
    _print([found for found, _ in runs], bounds, as_json)
    if plot is not None and not as_json:
        console.print(f"picture: {plot}", markup=False, soft_wrap=True)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C ends the command with its exit code."""
    try:
        yield
    except KeyboardInterrupt:
        progress_console.print("interrupted: nothing was saved", markup=False)
        raise typer.Exit(EXIT_INTERRUPTED) from None


def _require_solver() -> None:
    """Fail before the runs rather than after them if the solver of the clairvoyant bound is not installed."""
    from simulator.results import clairvoyant  # noqa: F401


def _run(
    policy: schemes.PolicySpec, settings: Settings, hardware: Hardware, requests: Trace, seed: int
) -> tuple[Report, RunOutcome]:
    """Simulate one policy, with a progress bar."""
    sample_s = max(settings.scaling.interval_s, requests.lasts_s / SAMPLES)
    run = Simulation(settings, hardware, requests, policy.scaling, policy.order, seed, sample_s, routing=policy.routing)
    with _bar(policy.name, len(requests)) as bar:
        outcome = run.run(bar)
    return report(policy.name, settings, hardware, outcome), outcome


def _bounds(settings: Settings, hardware: Hardware, outcomes: Sequence[RunOutcome]) -> list[float]:
    """The clairvoyant bound of each run, in device hours."""
    from simulator.results.clairvoyant import clairvoyant  # only this needs a linear program, and its solver

    with progress_console.status("the clairvoyant bound"):
        return [clairvoyant(settings, hardware, outcome).device_hours for outcome in outcomes]


def _print(reports: Sequence[Report], bounds: Sequence[float], as_json: bool) -> None:
    """Print the reports; ``bounds`` are their clairvoyant bounds, empty unless policies are compared."""
    if not as_json:
        console.print(compared(reports, bounds) if bounds else single(reports[0]))
        return
    for n, found in enumerate(reports):
        extra = {"clairvoyant_device_hours": bounds[n]} if bounds else {}
        print(json.dumps({**found.line(), **extra}))


def _fleet(name: str | None) -> tuple[Settings, Hardware]:
    if name == SYNTHETIC:
        return synthetic.cluster()
    settings = Settings.load(name)
    return settings, hardwares.read(settings)


def _requests(
    name: str,
    settings: Settings,
    hardware: Hardware,
    shares: Mapping[str, Mapping[str, float]],
    seed: int,
    lasts_s: float | None,
    times: float,
    busy: float,
) -> Trace:
    models = shares.get("models")
    if name == SYNTHETIC:
        models = models or dict(zip(settings.models, synthetic.popularity(len(settings.models)), strict=True))
        per_s = synthetic.rate(busy, settings, hardware, models)
        count = max(1, round(per_s * (lasts_s or LASTS_S)))
        trace = synthetic.generate(count, per_s, seed)
    else:
        trace = readers.read(Path(name), seed, lasts_s)
    return assign(faster(trace, times), settings, seed, models, shares.get("tiers"), shares.get("tenants"))


def _shares(text: str) -> tuple[str, Mapping[str, float]]:
    """Parse a value of --assign: ``models=a:3,b`` is ("models", {"a": 3, "b": 1}); ``tenants=2`` has two equal shares.

    Raises:
        ConfigError: the text is of no allowed form; names the forms.
    """
    what, _, rest = text.partition("=")
    try:
        if what == "tenants" and rest.isdecimal() and int(rest):
            return what, {f"tenant-{n}": 1.0 for n in range(1, int(rest) + 1)}
        pairs = [part.partition(":") for part in rest.split(",")]
        weights = {name: float(weight or 1) for name, _, weight in pairs}
        if what not in ASSIGNED or not all(name and 0 <= weight < 1e9 for name, weight in weights.items()):
            raise ValueError
        if not sum(weights.values()):
            raise ValueError
    except ValueError:
        raise ConfigError(
            f"--assign {text}: allowed are models=NAME:WEIGHT,..., tiers=NAME:WEIGHT,..., tenants=NAME:WEIGHT,... "
            "and tenants=COUNT; a weight is a number, 1 when it is left out"
        ) from None
    return what, weights


@contextmanager
def _bar(name: str, total: int) -> Iterator[Callable[[int], None]]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=progress_console, transient=True) as bar:
        task = bar.add_task(name, total=total)
        yield lambda done: bar.update(task, completed=done)
