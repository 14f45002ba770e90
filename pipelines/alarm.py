"""The alarm: steps whose rows begin to fail are told of at once, with the reasons and what may help.

A run of days that fails quietly is lost days. For each step that brings media in or annotates, the share of failures
among the rows that it worked on lately is held against a bound, and against the step's own share before. Rows whose
failure was published by an earlier run do not count: nothing happens to them now.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

from corpusmith.pipelines.units import StepStats

TOLD_CLASSES = 4

_SLOWER_LOOKUPS = (
    "the resolver may be overloaded: fewer downloads at once, or a caching resolver on this machine, such as unbound"
)
_TOO_MUCH = "the line or the servers may be overloaded: fewer downloads at once, or a longer time-out"
_REFUSED = "sites refuse: fewer requests a second to each host, and a user agent that says whom to write to"
HINTS = {
    "DNS failure": _SLOWER_LOOKUPS,
    "Timeout": _TOO_MUCH,
    "connection failed": _TOO_MUCH,
    "HTTPStatus 403": _REFUSED,
    "HTTPStatus 429": _REFUSED,
    "HTTPStatus 503": _REFUSED,
    "missing media": "the step before brings no media",
    "worker died": "the operator crashes or is killed, perhaps for lack of memory: fewer --cpus",
}
"""Error class → what may help."""


@dataclass(frozen=True)
class AlarmLimits:
    """When the alarm is raised.

    Args:
        window_rows, window_s: the window is the last rows worked on: so many or those of so many seconds, whichever are
            more; but at most half of all so far, so that a short run has a time before.
        least_rows: a window, and a time before, of fewer rows say nothing.
        share: a share of failures above this is too much in itself, if it is no chance:
        share_z: above it by so many standard deviations.
        rise: a share so much above the one before is too much, if it is no chance:
        rise_z: the difference in standard deviations (two proportions, pooled).
        worse: an alarm that goes on is told again when the share has risen by so much more,
        worse_s: though not within so many seconds,
        again_s: and in any case after so many seconds, then twice as many, and so on.
    """

    window_rows: int = 2000
    window_s: float = 10.0
    least_rows: int = 200
    share: float = 0.5
    share_z: float = 2.0
    rise: float = 0.15
    rise_z: float = 5.0
    worse: float = 0.15
    worse_s: float = 60.0
    again_s: float = 300.0


@dataclass
class Tally:
    """Rows worked on, and the failures among them by class."""

    rows: int = 0
    errors: Counter[str] = field(default_factory=Counter)

    def add(self, other: Tally, sign: int = 1) -> None:
        """Add another's rows, or take them away."""
        self.rows += sign * other.rows
        for error, number in other.errors.items():
            self.errors[error] += sign * number

    @property
    def share(self) -> float:
        """The share of failures; 0 where there are no rows."""
        return min(1.0, self.errors.total() / self.rows) if self.rows else 0.0

    def share_of(self, error: str) -> float:
        """The share of one class of failures."""
        return self.errors[error] / self.rows if self.rows else 0.0


@dataclass
class _Raised:
    """An alarm that is on."""

    share: float
    calm_below: float
    told_at: float
    again_s: float


class StepAlarm:
    """Watches one step.

    Args:
        step: its id.
        limits: when to speak.
    """

    def __init__(self, step: str, limits: AlarmLimits) -> None:
        self.step = step
        self.limits = limits
        self.before = Tally()
        self.window = Tally()
        self._pieces: deque[tuple[float, Tally]] = deque()
        self._rows = 0
        self._raised: _Raised | None = None

    def add(self, now: float, rows: int, errors: Mapping[str, int]) -> str | None:
        """Add rows that were worked on.

        Args:
            now: seconds of a clock that never goes back.
            rows: how many.
            errors: failures among them by class.

        Returns:
            What is to be told, if anything.
        """
        if not rows and not errors:
            return None
        piece = Tally(rows, Counter(errors))
        self._rows += rows
        self._pieces.append((now, piece))
        self.window.add(piece)
        self._move_on(now)
        if self.window.rows < self.limits.least_rows:
            return None
        return self._raise(now) if self._raised is None else self._go_on(now, self._raised)

    def _move_on(self, now: float) -> None:
        """Let go of pieces that the window need not hold."""
        limits = self.limits
        while len(self._pieces) > 1:
            at, oldest = self._pieces[0]
            left = self.window.rows - oldest.rows
            is_full = left >= limits.window_rows and now - at > limits.window_s
            if left < limits.least_rows or not (is_full or left >= self._rows / 2):
                return
            self._pieces.popleft()
            self.window.add(oldest, -1)
            # what fails while the alarm is on is no measure of what is usual
            if self._raised is None:
                self.before.add(oldest)

    def _raise(self, now: float) -> str | None:
        share, usual = self.window.share, self.before.share
        if not self._is_high() and not self._has_risen():
            return None
        calm_below = min(usual + (share - usual) / 2, 0.8 * self.limits.share)
        self._raised = _Raised(max(share, self._lately().share), calm_below, now, self.limits.again_s)
        return self._warning()

    def _is_high(self) -> bool:
        bound = self.limits.share
        return self.window.share - bound > self.limits.share_z * math.sqrt(bound * (1 - bound) / self.window.rows)

    def _has_risen(self) -> bool:
        now, before = self.window, self.before
        rise = now.share - before.share
        if before.rows < self.limits.least_rows or rise < self.limits.rise:
            return False
        return proportions_z(now.errors.total(), now.rows, before.errors.total(), before.rows) > self.limits.rise_z

    def _go_on(self, now: float, raised: _Raised) -> str | None:
        share = self.window.share
        if share < raised.calm_below:
            return self._recover()
        quiet_s = now - raised.told_at
        is_worse = share >= raised.share + self.limits.worse and quiet_s >= self.limits.worse_s
        if not is_worse and quiet_s < raised.again_s:
            return None
        raised.again_s *= 1 if is_worse else 2
        raised.share, raised.told_at = max(share, raised.share), now
        return self._warning()

    def _recover(self) -> str:
        share, rows = self.window.share, self.window.rows
        # what has failed must not become what is usual
        self._raised, self.window = None, Tally()
        self._pieces.clear()
        return f"{self.step} has recovered: {_percent(share)} of the last {rows:,} rows fail"

    def _warning(self) -> str:
        window, before = self._lately(), self.before
        known = f" (before: {_percent(before.share)})" if before.rows >= self.limits.least_rows else ""
        kinds = window.errors.most_common(TOLD_CLASSES)
        told = ", ".join(f"{error} {_percent(number / window.rows)}" for error, number in kinds if number)
        hint = self._hint(window)
        of_all = f"{_percent(window.share)} of the last {window.rows:,} rows{known}"
        return f"warning: {self.step} fails for {of_all}: {told}{f'; {hint}' if hint else ''}"

    def _lately(self) -> Tally:
        """The window; or its latest part, where that is clearly worse: the window takes time to fill."""
        latest = Tally()
        for _, piece in reversed(self._pieces):
            latest.add(piece)
            if latest.rows >= self.limits.least_rows:
                break
        return latest if latest.share >= self.window.share + self.limits.rise else self.window

    def _hint(self, window: Tally) -> str:
        """What may help against the classes that have risen most, if they make up a fair part of the failures."""
        before = self.before
        rises = {
            hint: sum(window.share_of(e) - before.share_of(e) for e, h in HINTS.items() if h == hint)
            for hint in HINTS.values()
        }
        hint = max(rises, key=rises.__getitem__)
        return hint if rises[hint] >= (window.share - before.share) / 4 and rises[hint] > 0 else ""


class Alarm:
    """Watches the steps of a run.

    Args:
        steps: ids of those that bring media in or annotate.
        limits: when to speak.
    """

    def __init__(self, steps: Collection[str], limits: AlarmLimits | None = None) -> None:
        self._steps = {step: StepAlarm(step, limits or AlarmLimits()) for step in steps}

    def add(self, now: float, stats: Mapping[str, StepStats]) -> Iterator[str]:
        """Add what steps did; yields what is to be told.

        Args:
            now: seconds of a clock that never goes back.
            stats: step id → what it did since.
        """
        for step, count in stats.items():
            if step in self._steps and (told := self._steps[step].add(now, count.computed, count.errors)):
                yield told


def proportions_z(hits: int, rows: int, other_hits: int, other_rows: int) -> float:
    """How many standard deviations the share hits/rows lies above other_hits/other_rows, by the pooled share.

    The two-proportion z-test; 0 where neither share can vary.
    """
    pooled = (hits + other_hits) / (rows + other_rows)
    variance = pooled * (1 - pooled) * (1 / rows + 1 / other_rows)
    return (hits / rows - other_hits / other_rows) / math.sqrt(variance) if variance > 0 else 0.0


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.095 or not share else f"{share:.1%}"
