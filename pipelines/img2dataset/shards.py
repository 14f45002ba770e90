"""Shards in the making: rows end in any order, and the last one completes its shard."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from corpusmith.pipelines.img2dataset.flags import Flags
from corpusmith.pipelines.img2dataset.inputs import EXPECTED, InputShard
from corpusmith.pipelines.img2dataset.previous import Previous
from corpusmith.pipelines.img2dataset.records import SUCCESS, Outcome, key_of, made_schema, output_schema, stats_of
from corpusmith.pipelines.img2dataset.sinks import SINKS
from corpusmith.pipelines.storage import Storage

STATS_SUFFIX = "_stats.json"


class OpenShard:
    """One shard while its rows are worked on; any thread may end a row.

    Args:
        shard: its rows.
        flags: form of the output.
        storage: the output folder.
        scratch: a local folder for what is not finished.
        previous: the same shard as an earlier run left it, whose failed rows are to be tried again.
    """

    def __init__(
        self, shard: InputShard, flags: Flags, storage: Storage, scratch: Path, previous: Previous | None = None
    ) -> None:
        self.number = shard.number
        self.rows = shard.rows
        self._flags = flags
        self._storage = storage
        self.stem = f"{shard.number:0{flags.oom_shard_count}d}"
        self._schema = output_schema(flags, shard.rows.schema)
        self._made = [f.name for f in made_schema(flags)]
        self._given = self._given_records()
        self._sink = SINKS[flags.output_format](storage, scratch, self.stem, flags, self._schema)
        self._values: list[dict[str, Any] | None] = [None] * shard.rows.num_rows
        self._reasons: Counter[str] = Counter()
        self._left = shard.rows.num_rows
        self._lock = threading.Lock()
        self._started_s = time.time()
        self.waiting = list(range(shard.rows.num_rows))
        """Rows that there is work for."""
        if previous is not None:
            self._take_over(previous)

    def _take_over(self, previous: Previous) -> None:
        """Take the successes of an earlier run as they are."""
        self.waiting = previous.failed
        for index, media in previous.successes(self._flags.output_format):
            self.end(index, Outcome(SUCCESS, None, media, previous.records[index]))

    def _given_records(self) -> list[dict[str, Any]]:
        names = [name for name in self._schema.names if name in self.rows.column_names and name not in self._made]
        return self.rows.select([name for name in names if name != EXPECTED]).to_pylist()

    def boxes_of(self, index: int) -> str | None:
        """The boxes to blur of a row that has not ended, as JSON."""
        assert self._flags.bbox_col is not None
        value = self._given[index][self._flags.bbox_col]
        return value if value is None or isinstance(value, str) else json.dumps(value)

    def end(self, index: int, outcome: Outcome) -> bool:
        """End a row; returns whether it was the last one."""
        made: dict[str, Any] = dict.fromkeys(self._made)
        made |= {name: value for name, value in outcome.made.items() if name in made}
        made |= {
            "key": key_of(self._flags, self.number, index),
            "status": outcome.status,
            "error_message": outcome.message,
        }
        self._sink.add(self._given[index] | made, outcome.media)
        with self._lock:
            self._values[index] = made
            self._given[index] = {}
            self._reasons[outcome.error.error if outcome.error else SUCCESS] += 1
            self._left -= 1
            return not self._left

    def publish(self) -> dict[str, Any]:
        """Write what remains and give everything its name; returns the statistics."""
        values: Sequence[dict[str, Any]] = [value or {} for value in self._values]
        self._sink.publish(self._table(values))
        statuses = [value["status"] for value in values]
        stats = stats_of(statuses, self._reasons, self._started_s, time.time())
        self._storage.publish(f"{self.stem}{STATS_SUFFIX}", json.dumps(stats, indent=4).encode())
        return stats

    def _table(self, values: Sequence[dict[str, Any]]) -> pa.Table:
        columns = []
        for column in self._schema:
            if column.name in self._made:
                columns.append(pa.array([value[column.name] for value in values], column.type))
            else:
                columns.append(self.rows.column(column.name))
        return pa.table(columns, schema=self._schema)
