"""What a run says while it works: rates, the share of successes and the most common reasons, in img2dataset's words."""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from typing import Any, TextIO

from corpusmith.pipelines.alarm import AlarmLimits, StepAlarm
from corpusmith.pipelines.img2dataset.records import DOWNLOAD_FAILED, RESIZE_FAILED, SUCCESS, Outcome

EVERY_S = 5.0
TOLD_REASONS = 3


class Telling:
    """Counts rows and tells of them every few seconds; a context manager.

    Args:
        stream: where to; standard error where None.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._lock = threading.Lock()
        self._statuses: Counter[str] = Counter()
        self._reasons: Counter[str] = Counter()
        self._shards = 0
        self._alarm: StepAlarm | None = None
        self._told = Counter[str]()
        self._rows_told = 0
        self._started_s = time.monotonic()
        self._ended = threading.Event()
        self._teller = threading.Thread(target=self._tell, name="telling", daemon=True)

    def __enter__(self) -> Telling:
        self._teller.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._teller.join()

    def row(self, outcome: Outcome) -> None:
        """A row has ended."""
        with self._lock:
            self._statuses[outcome.status] += 1
            if outcome.error is not None:
                self._reasons[outcome.error.error] += 1

    def shard(self, stats: dict[str, Any]) -> None:
        """A shard is complete."""
        del stats
        with self._lock:
            self._shards += 1

    def say(self, text: str) -> None:
        """Tell at once."""
        print(text, file=self._stream, flush=True)

    def summary(self) -> str:
        """Where the run stands, in the words of img2dataset's line."""
        with self._lock:
            statuses, reasons, shards = self._statuses.copy(), self._reasons.copy(), self._shards
        count = statuses.total()
        shares = {name: statuses[name] / count if count else 0.0 for name in (SUCCESS, DOWNLOAD_FAILED, RESIZE_FAILED)}
        rate = count / max(time.monotonic() - self._started_s, 1e-6)
        told = ", ".join(f"{reason} {number:,}" for reason, number in reasons.most_common(TOLD_REASONS))
        line = " - ".join(f"{name.replace('_', ' ')}: {share:.3f}" for name, share in shares.items())
        line += f" - images per sec: {rate:.0f} - count: {count} - shards: {shards}"
        return f"total   - {line}{f' - {told}' if told else ''}"

    def _tell(self) -> None:
        while not self._ended.wait(EVERY_S):
            self.say(self.summary())
            warning = self._warning()
            if warning:
                self.say(warning)

    def _warning(self) -> str | None:
        """What is to be said of a falling share of successes."""
        self._alarm = self._alarm or StepAlarm("download", AlarmLimits())
        with self._lock:
            rows, reasons = self._statuses.total(), self._reasons.copy()
        new_rows, new_reasons = rows - self._rows_told, reasons - self._told
        self._rows_told, self._told = rows, reasons
        return self._alarm.add(time.monotonic(), new_rows, new_reasons)
