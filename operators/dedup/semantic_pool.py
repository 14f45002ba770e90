"""A pool beside the samples of finished corpora, as dedup.semantic numbers them: one line of places.

Places 0 to M - 1 are the pool's rows that have an embedding, by uid; those from M on are the corpora's samples, by uid
and corpus.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from corpusmith.operators.dedup.groups import Grouping
from corpusmith.operators.dedup.semantic_groups import Groups
from corpusmith.operators.embedding.vectors import Doubles, Embeddings, Halves, Ints, gathered
from corpusmith.operators.finished import CORPUS, samples
from corpusmith.schemas.columns import UID
from corpusmith.schemas.errors import UserError

_SAMPLES = pa.schema([(UID.name, pa.string()), (CORPUS, pa.string())])


@dataclass(frozen=True)
class Pool:
    """Rows of a pool, and the samples of corpora that they are compared with."""

    own: Embeddings
    theirs: Embeddings

    @staticmethod
    def of(own: Embeddings, corpora: Sequence[str], column: str, scratch_dir: str) -> Pool:
        """Read the corpora.

        Raises:
            UserError: no sample of theirs has an embedding of the pool's dimension.
        """
        batches = samples(corpora, [column])
        told = {"schema": _SAMPLES, "columns": [CORPUS], "by": [UID.name, CORPUS]}
        theirs = gathered(batches, column, scratch_dir, **told, dimension=own.dimension)
        if theirs.rows.num_rows and own.dimension and not len(theirs.live):
            first = f"{theirs.errors[0]}: {theirs.details[0]}"
            what = (
                f"no sample has an embedding of {own.dimension} dimensions in {column!r}, as the pool's have ({first})"
            )
            raise UserError(what, where=", ".join(corpora), hint="embed both by the same encoder")
        return Pool(own, theirs)

    @property
    def is_fixed(self) -> npt.NDArray[np.bool_]:
        """Which places are the corpora's."""
        return np.arange(len(self.own.live) + len(self.theirs.live)) >= len(self.own.live)

    def take(self, places: Ints) -> Halves:
        """(B, d) vectors of places."""
        count = len(self.own.live)
        is_theirs = places >= count
        if not is_theirs.any():
            return self.own.vectors[places]
        taken = np.empty((len(places), self.own.dimension), np.float16)
        taken[~is_theirs] = self.own.vectors[places[~is_theirs]]
        taken[is_theirs] = self.theirs.vectors[places[is_theirs] - count]
        return taken

    def told(self, groups: Groups) -> tuple[Grouping, Doubles]:
        """Groups of places as groups of rows, and each row's cosine with its representative (1 for itself)."""
        own, theirs, live = self.own, self.theirs, self.own.live
        count, places = own.rows.num_rows, groups.representatives[: len(live)]
        used = np.unique(places[places >= len(live)])
        taken = theirs.rows.take(pa.array(theirs.live[used - len(live)]))
        rows_of_places = np.full(len(groups.representatives), -1)
        rows_of_places[: len(live)], rows_of_places[used] = live, count + np.arange(len(used))
        representatives, sizes, cosines = np.arange(count), np.zeros(count, np.int64), np.ones(count)
        representatives[live], sizes[live] = rows_of_places[places], groups.sizes[: len(live)]
        cosines[live] = groups.cosines[: len(live)]
        uids = pa.concat_arrays([table.column(UID.name).combine_chunks() for table in (own.rows, taken)])
        corpora = taken.column(CORPUS).combine_chunks()
        return Grouping(uids, representatives, sizes, own.errors, own.details, corpora), cosines


def preference(column: pa.ChunkedArray, name: str) -> Ints:
    """(N,) ranks of values, the highest value's first; null and NaN come last.

    Raises:
        UserError: the column's values have no order.
    """
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.uint8())
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
    try:
        ranks = pc.rank(column, sort_keys="descending", tiebreaker="dense")
    except pa.ArrowNotImplementedError as error:
        raise UserError(f"column {name!r} is {column.type}: its values have no order", where="prefer") from error
    return ranks.to_numpy(zero_copy_only=False).astype(np.int64)
