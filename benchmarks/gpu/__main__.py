"""The same questions on a real GPU: queue tax, window, continuous batching, streaming.

python -m benchmarks.gpu [--preset tiny|1b|8b] [--device cuda:0] [--rounds 3] [--scale 1]
                         [--only tax,window,batching,streaming] [--folder DIR]

Needs no network and no model hub: the models have the shapes of real ones and random weights, made here. They are
written to a folder that is removed at the end, 3 GB for 1b and 17 GB for 8b; the GPU needs twice their memory and more,
28 GB and 68 GB. ``--preset tiny --device cpu:0`` tries it out where there is no GPU; its figures mean nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from benchmarks.bars import Bar
from benchmarks.generation import measured as generation
from benchmarks.generation.ways import NotingEngine, Peer
from benchmarks.generation.workload import mixed
from benchmarks.queue_tax.__main__ import bars as tax_bars
from benchmarks.queue_tax.__main__ import table as tax_table
from benchmarks.queue_tax.pairs import summary
from benchmarks.queue_tax.taxed import measure
from benchmarks.queue_tax.workload import Work, bundles, prompts, single_texts
from benchmarks.window import cell, report
from benchmarks.window.devices import Real
from benchmarks.window.grid import MOST, cells
from producer.contract.fleet.engine_options import EncoderOptions, GenerateOptions
from producer.contract.fleet.fleet_schema import Model

from .models import PRESETS, Preset, build

PARTS = ("tax", "window", "batching", "streaming")
say = Console(stderr=True)
Part = tuple[list[Bar], Any]
"""What a part comes to: its bars, and what lies behind them."""


class Bench:
    """The models of a preset on a device, and what is asked of them."""

    def __init__(self, preset: Preset, folder: Path, device: str, rounds: int, scale: float) -> None:
        self._folder, self._device, self._rounds, self._scale = folder, device, rounds, scale
        say.print("making the models")
        generator, encoder = build(preset, folder, device)
        options = {"dtype": preset.dtype}
        self._generator = Model(
            engine="generate",
            source=str(generator),
            memory_gb=preset.memory_gb,
            max_concurrency=preset.places,
            options=options,
        )
        self._encoder = Model(engine="embed", source=str(encoder), max_concurrency=MOST, options=options)

    def tax(self) -> Part:
        """The fleet beside the engine by hand."""
        fleet_file = self._folder / "fleet.toml"
        fleet_file.write_text(_table("generator", self._generator) + _table("encoder", self._encoder))
        every = (
            Work("generation", "generator", "output tokens", prompts(512, longest=256), bar=0.97),
            Work("embeddings", "encoder", "inputs", single_texts(16_000), bar=0.93),
            Work("embeddings-of-32", "encoder", "inputs", bundles(2000, 32)),
        )
        works = [work.share(self._scale) for work in every]
        pairs = measure(
            works,
            self._rounds,
            fleet_file=fleet_file,
            folder=self._folder,
            device=self._device,
            say=lambda line: say.print(line),
        )
        found = {work.name: summary(each) for work, each in pairs}
        Console().print(tax_table(works, found))
        return tax_bars(works, found), found

    def window(self) -> Part:
        """The window's grid, on virtual clocks, with the cost of a batch as the device has it."""
        device = Real(self._encoder, self._device)
        line = device.line(self._device)
        device.close()
        say.print(f"a batch of n takes {1000 * line.per_job:.3f} n + {1000 * line.fixed:.3f} ms")
        jobs = max(100, round(30_000 * self._scale))
        found = cell.measure_all(list(cells((line,))), jobs, 1, os.cpu_count() or 1, say)
        Console(width=200).print(report.table(found, "window"))
        return report.bars(found, "window"), [each.line() for each in found]

    def batching(self) -> Part:
        """Our engine, continuous batching by hand, and static batches."""
        peer = Peer.load(self._generator, self._device)
        engine = NotingEngine(self._generator, self._device)
        engine.load()
        asks = mixed(max(4, round(256 * self._scale)))
        found = generation.throughput(engine, peer, self._generator, asks, self._rounds)
        engine.close()
        Console().print(generation.table(found))
        return generation.throughput_bars(found), {name: [run.rate for run in runs] for name, runs in found.items()}

    def streaming(self) -> Part:
        """Every job streamed, and none."""
        asks = mixed(max(4, round(256 * self._scale)))
        found = generation.streaming(self._generator, self._device, asks, self._rounds)
        Console().print(generation.table(found))
        return [generation.streaming_bar(found)], {name: [run.rate for run in runs] for name, runs in found.items()}


def _table(name: str, model: Model) -> str:
    """A model in a fleet file."""
    assert isinstance(model.options, EncoderOptions | GenerateOptions)
    return (
        f"[models.{name}]\nengine = {json.dumps(model.engine)}\nsource = {json.dumps(model.source)}\n"
        f"memory_gb = {model.memory_gb}\nmax_concurrency = {model.max_concurrency}\n"
        f"options = {{ dtype = {json.dumps(model.options.dtype)} }}\n"
    )


def main() -> int:
    """Measure; tables for people and a line for machines. Returns 0 when every bar is reached."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=PRESETS, default="1b")
    parser.add_argument("--device", default="cuda:0", help="cuda:N, or cpu:0 to try it out")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the requests")
    parser.add_argument("--only", default=",".join(PARTS), help="parts, with commas")
    parser.add_argument("--folder", type=Path, help="where to write the models; by default the system's temporary one")
    options = parser.parse_args()
    parts = options.only.split(",")
    if unknown := set(parts) - set(PARTS):
        parser.error(f"--only {','.join(sorted(unknown))}: allowed are {', '.join(PARTS)}")
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error(f"--device {options.device}: torch sees no GPU; try --preset tiny --device cpu:0")
    if options.device.startswith("cpu"):
        torch.set_num_threads(1)  # beside others, more threads are slower
    bars: list[Bar] = []
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        bench = Bench(PRESETS[options.preset], Path(folder), options.device, options.rounds, options.scale)
        for part in parts:
            say.rule(part)
            more, found[part] = getattr(bench, part)()
            bars += more
    name = torch.cuda.get_device_name(options.device) if options.device.startswith("cuda") else "a CPU"
    about = {"benchmark": "gpu", "device": name, "preset": options.preset, "found": found}
    print(json.dumps({**about, "bars": [bar.line() for bar in bars]}))
    return 0 if all(bar.ok for bar in bars) else 1


if __name__ == "__main__":
    raise SystemExit(main())
