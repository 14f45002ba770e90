"""Rows for tests of reduces: a table whose rows come in another order each time, for an order means nothing."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cloudpickle
import pyarrow as pa

from corpusmith.operators.contract import Reduced
from corpusmith.schemas.identity import uid_of


class ShuffledRows:
    """Live rows over a table, in an order and in batches that each reader draws anew."""

    def __init__(self, table: pa.Table, scratch_dir: Path, order: int = 0, seed: int = 0) -> None:
        self.seed = seed
        self.count = table.num_rows
        self.scratch_dir = str(scratch_dir)
        self._table = table
        self._random = random.Random(order)

    def reader(self, columns: Sequence[str]) -> pa.RecordBatchReader:
        places = self._random.sample(range(self.count), self.count)
        shuffled = self._table.select(list(dict.fromkeys(["uid", *columns]))).take(pa.array(places, pa.int64()))
        batches = shuffled.to_batches(max_chunksize=self._random.randint(1, 1 + self.count // 3))
        return pa.RecordBatchReader.from_batches(shuffled.schema, batches)

    def map(self, work: Callable[[pa.Table], Any], columns: Sequence[str]) -> Iterator[Any]:
        work = cloudpickle.loads(cloudpickle.dumps(work))
        for batch in self.reader(columns):
            yield work(pa.Table.from_batches([batch]))


def decided(reduced: Reduced) -> pa.Table:
    """The decisions of a reduce as a table, in whatever form they came; consumes a reader."""
    found = reduced.decisions
    return found if isinstance(found, pa.Table) else found.read_all()


def table_of(**columns: Any) -> pa.Table:
    """A table of these columns with a uid for each row."""
    count = len(next(iter(columns.values())))
    return pa.table({"uid": pa.array([uid_of(str(i)) for i in range(count)], pa.string()), **columns})
