"""Progress of a run, for a terminal and for a log file.

In a terminal a live view, redrawn in place: the phase, and below it what each of its steps has done. Elsewhere a plain
line every few seconds, so that a log file of a weekend's run can be read and searched. Both say: done of all, rate,
time left, drops so far, and for each step rows in, rows out, failures.

A teller of its own thread speaks, so that a phase whose first piece of work takes long is not silent.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from corpusmith.pipelines.units import StepStats

LINE_EVERY_S = 10.0
REDRAWS_A_SECOND = 4
RATE_WINDOW_S = 60.0
"""The rate is that of the last minute: rows whose results were published before pass far faster than the rest."""


@dataclass
class _Phase:
    """One phase of a run as it stands."""

    name: str
    total: int
    unit: str
    started: float
    done: int = 0
    drops: int = 0
    ended: float | None = None
    steps: dict[str, StepStats] = field(default_factory=dict)
    marks: deque[tuple[float, int]] = field(default_factory=deque)

    @property
    def elapsed_s(self) -> float:
        return max((self.ended or time.monotonic()) - self.started, 1e-6)

    def add(self, done: int, drops: int, steps: Mapping[str, StepStats]) -> None:
        now = time.monotonic()
        self.marks.append((now, self.done))
        while now - self.marks[0][0] > RATE_WINDOW_S and len(self.marks) > 1:
            self.marks.popleft()
        self.done += done
        self.drops += drops
        for step, count in steps.items():
            if step:
                self.steps.setdefault(step, StepStats()).add(count)

    def rate(self) -> float:
        """Units a second: of the last minute, of the whole phase once it has ended."""
        if self.ended is not None or not self.marks or self.marks[0][1] == 0:
            return self.done / self.elapsed_s
        since, before = self.marks[0]
        return (self.done - before) / max(time.monotonic() - since, 1e-6)

    def line(self) -> str:
        if not self.done and self.ended is None:
            return f"{self.name}: {self.total:,} {self.unit}, {duration(self.elapsed_s)} so far"
        share = self.done / self.total if self.total else 1.0
        rate = self.rate()
        parts = [f"{self.name}: {self.done:,} of {self.total:,} {self.unit} ({share:.0%})", f"{rate:,.0f}/s"]
        if self.ended is not None:
            parts.append(f"took {duration(self.elapsed_s)}")
        elif rate > 0 and self.done < self.total:
            parts.append(f"{duration((self.total - self.done) / rate)} left")
        if self.drops:
            parts.append(f"{self.drops:,} dropped")
        return ", ".join(parts)


class Progress:
    """Says how far a run is; to stderr, so that stdout stays for results.

    Args:
        stream: where to write.
        quiet: write nothing.
    """

    def __init__(self, stream: TextIO | None = None, *, quiet: bool = False) -> None:
        self._stream = stream if stream is not None else sys.stderr
        self._quiet = quiet
        self._is_live = self._stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self._console = Console(file=self._stream, force_terminal=self._is_live, highlight=False)
        # re-entrant: an interrupt's message is printed by whatever thread was at it
        self._lock = threading.RLock()
        self._phase: _Phase | None = None
        self._live: Live | None = None
        self._stop = threading.Event()
        self._teller: threading.Thread | None = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def say(self, text: str) -> None:
        """A line of its own."""
        if self._quiet:
            return
        if self._live is not None:
            self._console.print(Text(text))
        else:
            print(text, file=self._stream, flush=True)

    def warn(self, text: str) -> None:
        """A line that must not be overlooked."""
        if self._live is not None and not self._quiet:
            self._console.print(Text(text, style="bold yellow"))
        else:
            self.say(text)

    def start(self, phase: str, total: int, unit: str = "rows", *, steps: Sequence[str] = ()) -> None:
        """Begin a phase of `total` units.

        Args:
            phase: its name.
            total: number of units that it is done with at its end.
            unit: what is counted.
            steps: ids of the steps that work in it, in their order.
        """
        self.close()
        self._phase = _Phase(phase, total, unit, time.monotonic(), steps={step: StepStats() for step in steps})
        if self._quiet:
            return
        if self._is_live:
            self._live = Live(
                get_renderable=self._view, console=self._console, refresh_per_second=REDRAWS_A_SECOND, transient=False
            )
            self._live.start()
        else:
            self._stop.clear()
            self._teller = threading.Thread(target=self._tell_on, name="progress", daemon=True)
            self._teller.start()

    def advance(self, done: int, drops: int = 0, steps: Mapping[str, StepStats] | None = None) -> None:
        """Add work done.

        Args:
            done: units.
            drops: rows that were rejected or failed in it.
            steps: what each step did in it.
        """
        with self._lock:
            if self._phase is not None:
                self._phase.add(done, drops, steps or {})

    def end(self) -> None:
        """End the phase: its last line stays."""
        with self._lock:
            if self._phase is not None:
                self._phase.ended = time.monotonic()
        self._silence()
        if not self._quiet and not self._is_live:
            self._tell()
        self._phase = None

    def close(self) -> None:
        """Leave a phase as it stands, such as one that an error has ended; the terminal is as it was."""
        self._silence()
        self._phase = None

    def _silence(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None
        if self._teller is not None:
            self._stop.set()
            self._teller.join()
            self._teller = None

    def _tell_on(self) -> None:
        while not self._stop.wait(LINE_EVERY_S):
            self._tell()

    def _tell(self) -> None:
        with self._lock:
            if self._phase is None:
                return
            told = [self._phase.line(), *(t for step, n in self._phase.steps.items() if (t := _step_text(step, n)))]
        print(f"{time.strftime('%H:%M:%S')} {' | '.join(told)}", file=self._stream, flush=True)

    def _view(self) -> Group:
        with self._lock:
            phase = self._phase
            if phase is None:
                return Group()
            line = Text(phase.line(), style="bold", no_wrap=True, overflow="ellipsis")
            return Group(line, _step_table(phase)) if phase.steps else Group(line)


def _step_text(step: str, count: StepStats) -> str:
    """A step in a log line: `keep 1,024 → 800`; empty while it has done nothing."""
    rows = f" {count.rows_in:,}" if count.rows_in else ""
    if count.rows_out != count.rows_in:
        rows += f" → {count.rows_out:,}"
    # a step that takes rows out without having them in, such as `remove`, has nothing else to show
    rejected = count.rejected if not count.rows_in else 0
    numbers = {"failed": count.failed, "rejected": rejected, "reused": count.reused}
    told = ", ".join(f"{number:,} {name}" for name, number in numbers.items() if number)
    return f"{step}{rows}{f' ({told})' if told else ''}" if rows or told else ""


def _step_table(phase: _Phase) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("  step", no_wrap=True, overflow="ellipsis")
    for heading in ("in", "out", "rejected", "failed", "reused", "rows/s"):
        table.add_column(heading, justify="right", no_wrap=True)
    for step, count in phase.steps.items():
        numbers = (count.rows_in, count.rows_out, count.rejected, count.failed, count.reused)
        rate = f"{count.rows_in / phase.elapsed_s:,.0f}" if count.rows_in else ""
        table.add_row(f"  {step}", *(f"{number:,}" if number else "" for number in numbers), rate)
    return table


def duration(seconds: float) -> str:
    """A time span as people say it: `0.4 s`, `12 s`, `3 min 20 s`, `5 h 02 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def drops_of(stats: Mapping[str, StepStats]) -> int:
    """Rows that were rejected or failed."""
    return sum(count.rejected + count.failed for count in stats.values())
