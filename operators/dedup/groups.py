"""What all ways to deduplicate say of a row and of the pool, in the same words.

The row that represents a group goes on; the others are rejected with a reason that names it, so that `explain` finds
the twin: `LABEL: of UID (MEASURE)`, and `LABEL: of UID in CORPUS (MEASURE)` where it belongs to a finished corpus.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from corpusmith.schemas.columns import UID, Column
from corpusmith.schemas.fates import Fate
from corpusmith.schemas.identity import UID_HEX_DIGITS

DEDUP_GROUP = Column("dedup_group", pa.string(), "uid of the row that represents this row's group of duplicates")
DEDUP_SIZE = Column("dedup_size", pa.int64(), "rows in this row's group of duplicates, itself included", "rows")

_SLICE_ROWS = 1 << 18
_SCHEMA = pa.schema(
    [
        *(pa.field(name, pa.string()) for name in (UID.name, "fate", "reason", "error", DEDUP_GROUP.name)),
        pa.field(DEDUP_SIZE.name, pa.int64()),
    ]
)

_TWIN = re.compile(rf": of ([0-9a-f]{{{UID_HEX_DIGITS}}})(?: in (\S+))?(?: \(.*\))?\Z")

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Twin:
    """The row that represents a dropped row's group.

    Args:
        uid: of it.
        corpus: name of the finished corpus that it belongs to; None for the pool that the row comes from.
    """

    uid: str
    corpus: str | None = None

    @classmethod
    def named_in(cls, reason: str | None) -> Twin | None:
        """The twin that a rejected row's reason names, if it does."""
        found = _TWIN.search(reason or "")
        return cls(found[1], found[2]) if found is not None else None


@dataclass(frozen=True)
class Grouping:
    """A pool of N rows in groups, perhaps beside the rows of finished corpora.

    Args:
        uids: (M,) strings, M ≥ N: the pool's rows, then the rows of finished corpora that represent a group.
        representatives: (N,) position in `uids` of the row that represents each row's group; any for a failed row.
        sizes: (N,) rows of each row's group, those of finished corpora included.
        errors: (N,) why a row failed, null where it did not: `missing caption`.
        details: (N,) what else to say of a failed row, or null.
        corpora: (M - N,) strings: the corpus of each row that is not the pool's.
    """

    uids: pa.LargeStringArray
    representatives: Ints
    sizes: Ints
    errors: pa.Array
    details: pa.Array
    corpora: pa.Array

    def told(self, label: str, measures: Callable[[int, int], pa.Array] | None = None) -> pa.RecordBatchReader:
        """The decisions of a reduce, with DEDUP_GROUP and DEDUP_SIZE.

        Args:
            label: what the rows share: `duplicate url`, `near-duplicate phash`.
            measures: (start, stop) → for each of these rows how near it is to its representative, in words:
                `distance 3`; null where there is nothing to say.
        """
        return pa.RecordBatchReader.from_batches(_SCHEMA, self._batches(label, measures))

    def summary(self) -> dict[str, Any]:
        """Counts for the report."""
        failed = self.errors.is_valid().to_numpy(zero_copy_only=False)
        dropped = (self.representatives != np.arange(len(failed))) & ~failed
        elsewhere = (self.representatives >= len(failed)) & ~failed
        return {
            "rows": len(failed),
            "groups": len(failed) - int(dropped.sum()) - int(failed.sum()),
            "dropped": int(dropped.sum()),
            "failed": int(failed.sum()),
            "largest": int(self.sizes[~failed].max(initial=0)),
            **({"dropped_against_corpora": int(elsewhere.sum())} if len(self.corpora) else {}),
        }

    def _batches(self, label: str, measures: Callable[[int, int], pa.Array] | None) -> Iterator[pa.RecordBatch]:
        """Slices keep the texts below what one Arrow array can hold."""
        count = len(self.representatives)
        corpora = pa.concat_arrays([pa.nulls(count, pa.large_string()), self.corpora.cast(pa.large_string())])
        for start in range(0, count, _SLICE_ROWS):
            stop = min(start + _SLICE_ROWS, count)
            place = pa.array(self.representatives[start:stop])
            errors = self.errors.slice(start, stop - start)
            failed = errors.is_valid()
            kept = self.uids.take(place).cast(pa.string())
            dropped = pc.and_not(pc.not_equal(place, pa.array(np.arange(start, stop))), failed)
            of = _joined(label, ": of ", kept, _wrapped(" in ", corpora.take(place).cast(pa.string()), ""))
            measured = measures(start, stop) if measures is not None else pa.nulls(stop - start, pa.string())
            reasons = _joined(of, _wrapped(" (", measured.cast(pa.string()), ")"))
            both = pc.make_struct(failed, dropped)
            columns = [
                self.uids.slice(start, stop - start).cast(pa.string()),
                pc.case_when(both, Fate.FAILED.value, Fate.REJECTED.value),
                pc.case_when(both, self.details.slice(start, stop - start).cast(pa.string()), reasons),
                errors.cast(pa.string()),
                pc.if_else(failed, None, kept),
                pc.if_else(failed, None, pa.array(self.sizes[start:stop], pa.int64())),
            ]
            yield pa.record_batch([c.cast(f.type) for c, f in zip(columns, _SCHEMA, strict=True)], _SCHEMA)


def _joined(*parts: pa.Array | str) -> pa.Array:
    return pc.binary_join_element_wise(*parts, "")


def _wrapped(before: str, texts: pa.Array, after: str) -> pa.Array:
    """Texts between two others; an empty text where there is none."""
    return pc.fill_null(_joined(before, texts, after), "")
