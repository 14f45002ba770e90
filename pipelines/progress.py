"""Progress of a run, for a terminal and for a log file.

In a terminal one live line a phase, redrawn in place; elsewhere a plain line every few seconds, so that a log file of
a weekend's run can be read. Both say: done of all, rate, drops so far, time left.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from typing import TextIO

from corpusmith.pipelines.units import StepStats

LINE_EVERY_S = 10.0
REDRAW_EVERY_S = 0.2


@dataclass
class Progress:
    """Says how far a run is; to stderr, so that stdout stays for results."""

    stream: TextIO = field(default_factory=lambda: sys.stderr)
    quiet: bool = False
    _phase: str = ""
    _unit: str = "rows"
    _total: int = 0
    _done: int = 0
    _drops: int = 0
    _started: float = 0.0
    _told: float = 0.0
    _open: bool = False

    def say(self, text: str) -> None:
        """A line of its own."""
        self._end_line()
        if not self.quiet:
            print(text, file=self.stream, flush=True)

    def start(self, phase: str, total: int, unit: str = "rows") -> None:
        """Begin a phase of `total` units."""
        self._phase, self._unit, self._total = phase, unit, total
        self._done = self._drops = 0
        self._started = time.monotonic()
        # a phase of a few seconds needs no line of its own in a log before it ends
        self._told = self._started

    def advance(self, done: int, drops: int = 0) -> None:
        """Add work done, and rows that were rejected or failed in it."""
        self._done += done
        self._drops += drops
        every = REDRAW_EVERY_S if self.stream.isatty() else LINE_EVERY_S
        if time.monotonic() - self._told >= every:
            self._tell()

    def end(self) -> None:
        """End the phase."""
        self._tell()
        self._end_line()

    def _tell(self) -> None:
        self._told = time.monotonic()
        if self.quiet:
            return
        if self.stream.isatty():
            print(f"\r\x1b[2K{self._line()}", end="", file=self.stream, flush=True)
            self._open = True
        else:
            print(f"{time.strftime('%H:%M:%S')} {self._line()}", file=self.stream, flush=True)

    def _line(self) -> str:
        elapsed = max(time.monotonic() - self._started, 1e-6)
        rate = self._done / elapsed
        share = self._done / self._total if self._total else 1.0
        parts = [f"{self._phase}: {self._done:,} of {self._total:,} {self._unit} ({share:.0%})", f"{rate:,.0f}/s"]
        if self._drops:
            parts.append(f"{self._drops:,} dropped")
        if self._done < self._total and rate > 0:
            parts.append(f"{duration(elapsed * (1 / share - 1))} left" if share else "")
        elif self._done >= self._total:
            parts.append(f"took {duration(elapsed)}")
        return ", ".join(p for p in parts if p)

    def _end_line(self) -> None:
        if self._open:
            print(file=self.stream, flush=True)
            self._open = False


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


def drops_of(stats: dict[str, StepStats]) -> int:
    """Rows that were rejected or failed."""
    return sum(count.rejected + count.failed for count in stats.values())
