"""The terminal output of the demo."""

from __future__ import annotations

import time

from rich.console import Console
from rich.status import Status

from producer.contract.published import JournalEntry

from .watch import DemoSample
from .work import CompletedJob

TELL_EVERY_S = 10.0

console = Console(highlight=False)


class Screen:
    """The demo's output: a line for each event, and below them a status line that is updated in place."""

    def __init__(self, status: Status) -> None:
        self._status = status
        self._began = self._told_at = time.monotonic()
        self._told: set[str] = set()

    def say(self, message: str, style: str = "") -> None:
        """Print a line that stays, with the seconds since the start."""
        at = f"{time.monotonic() - self._began:6.1f} s  "
        console.print(f"[dim]{at}[/dim]", end="")
        console.print(message, style=style, markup=False, soft_wrap=True)

    def show(self, sample: DemoSample) -> None:
        """Update the status line; without a terminal, print it every ``TELL_EVERY_S`` seconds."""
        parts = []
        for model, states in sorted(sample.workers.items()):
            queued = [f"{tier} {count}" for (name, tier), count in sample.queued.items() if name == model and count]
            workers = ", ".join(state.value for state in states) or "no worker"
            parts.append(f"{model}: {workers}, {sample.inflight[model]} running, queued {', '.join(queued) or '0'}")
        line = "   ".join(parts)
        self._status.update(f"[dim]{time.monotonic() - self._began:6.1f} s[/dim]  {line}")
        if not console.is_terminal and time.monotonic() - self._told_at >= TELL_EVERY_S:
            self._told_at = time.monotonic()
            self.say(line, "dim")

    def decided(self, decision: JournalEntry) -> None:
        """Print a decision of the autoscaler with its reason."""
        bad = "red" if decision.action == "lost" else "cyan"
        self.say(f"autoscaler: {decision.action} {decision.worker or decision.model}: {decision.reason}", bad)

    def answered(self, served: CompletedJob) -> None:
        """Print an answer of the generative model, once for each prompt."""
        if served.model == "smollm2" and served.asked not in self._told:
            self._told.add(served.asked)
            seconds = served.ended_at - served.submitted_at
            self.say(f"{served.asked!r} -> {served.text!r} ({seconds:.1f} s)")
