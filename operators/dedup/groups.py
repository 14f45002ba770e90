"""What all ways to deduplicate say of a row and of the pool, in the same words."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from corpusmith.schemas.columns import Column
from corpusmith.schemas.fates import Fate

DEDUP_GROUP = Column("dedup_group", pa.string(), "uid of the row that represents this row's group of duplicates")
DEDUP_SIZE = Column("dedup_size", pa.int64(), "rows in this row's group of duplicates, itself included", "rows")


def summary(decisions: pa.Table) -> dict[str, Any]:
    """Counts for the report, from decisions with both columns."""
    rejected = pc.sum(pc.equal(decisions.column("fate"), Fate.REJECTED.value)).as_py() or 0
    failed = pc.sum(pc.equal(decisions.column("fate"), Fate.FAILED.value)).as_py() or 0
    groups = decisions.num_rows - rejected - failed
    largest = pc.max(decisions.column(DEDUP_SIZE.name)).as_py() or 0
    return {"rows": decisions.num_rows, "groups": groups, "dropped": rejected, "failed": failed, "largest": largest}
