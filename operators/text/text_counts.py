"""text_counts: how many rows of the pool have the same text.

A text that stands beside many pictures describes none of them: "image for", a shop's name, a default of some program.
COYO drops texts of more than 10 images. This step only counts; a `keep: "text_count <= 10"` after it decides.

Texts are compared by themselves and not by a hash of them, so a count is exact.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from corpusmith.operators.contract import Config as BaseConfig
from corpusmith.operators.contract import Reduce, Reduced, Resources, Rows
from corpusmith.operators.duck import MEMORY_BYTES, quoted, renamed, spilling
from corpusmith.operators.text.text import collapsed
from corpusmith.schemas.columns import CAPTION, UID, Column
from corpusmith.schemas.fates import Fate


class TextCounts(Reduce, name="text_counts", version=1):
    """Count the rows of the pool that have the same text."""

    class Config(BaseConfig):
        column: str = Field(default=CAPTION.name, description="column that holds the text; a row without a text fails")
        ignore_case: bool = Field(
            default=True, description="texts that differ in upper and lower case alone are the same (not: ß and ss)"
        )
        collapse_spaces: bool = Field(
            default=True, description="texts that differ in white space alone are the same (not: none and some)"
        )

    positional = "column"
    resources = Resources(memory_bytes=MEMORY_BYTES)
    config: Config

    @property
    def requires(self) -> tuple[str, ...]:
        return (self.config.column,)

    @property
    def produces(self) -> tuple[Column, ...]:
        prefix = "" if self.config.column == CAPTION.name else f"{self.config.column}_"
        meaning = "rows of the pool with the same text, this one included"
        return (Column(f"{prefix}text_count", pa.int64(), meaning, "rows"),)

    def reduce(self, rows: Rows) -> Reduced:
        stream = renamed(rows.reader(self.requires), {UID.name: UID.name}, {"key": self._keys})
        (count,) = self.produces
        query = f"""
            SELECT uid,
                CASE WHEN key IS NULL THEN '{Fate.FAILED}' END AS fate,
                CAST(NULL AS VARCHAR) AS reason,
                CASE WHEN key IS NULL THEN {quoted(f"missing {self.config.column}")} END AS error,
                count
            FROM pool LEFT JOIN (SELECT key, count(*) AS count FROM pool GROUP BY key) AS counts USING (key)
        """
        with spilling(stream, rows.scratch_dir) as connection:
            connection.execute("CREATE TEMP TABLE pool AS FROM stream")
            decisions = connection.sql(query).to_arrow_table()
        decisions = decisions.rename_columns([*decisions.schema.names[:-1], count.name])
        return Reduced(decisions, _summary(decisions.column(count.name)))

    def _keys(self, batch: pa.RecordBatch) -> pa.Array:
        """What is equal for texts that count as the same."""
        texts = batch.column(self.config.column).cast(pa.large_string())
        if self.config.collapse_spaces:
            texts = collapsed(texts)
        # Upper case first: final sigma and long s have letters of their own in lower case only.
        return pc.utf8_lower(pc.utf8_upper(texts)) if self.config.ignore_case else texts


def _summary(counts: pa.ChunkedArray) -> dict[str, Any]:
    sizes, rows = np.unique(counts.drop_null().to_numpy(), return_counts=True)
    return {
        "rows": len(counts),
        "texts": int((rows // np.maximum(sizes, 1)).sum()),
        "repeated": int(rows[sizes > 1].sum()),
        "largest": int(sizes.max(initial=0)),
        "failed": counts.null_count,
    }
