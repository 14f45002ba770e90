"""Cuts: the k best rows of each group, exactly so many, whatever ties there are.

Selections over a whole pool (`top_fraction`, `mix`) share one question: of each group, which rows have the k lowest
keys, ties by the lowest uid? A key is 8 bytes, so the keys of a pool are held and sorted; uids are not. Those of rows
that tie with the last row that stays are looked up in a second pass, and only where such a tie has to be broken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from corpusmith.schemas.errors import UserError

Ints = npt.NDArray[np.integer[Any]]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Piece:
    """Some rows of a pool.

    Args:
        uids: (N,) strings.
        keys: (N,) numbers of one type for the whole pool, none of them NaN; the lowest is the best.
        groups: (N,) int32 number of each row's group.
    """

    uids: pa.Array
    keys: npt.NDArray[Any]
    groups: npt.NDArray[np.int32]


@dataclass(frozen=True)
class Ranking:
    """All keys of a pool, sorted within each group.

    Args:
        keys: (N,) group after group.
        starts: (groups + 1,) where each begins.
    """

    keys: npt.NDArray[Any]
    starts: Ints

    @classmethod
    def of(cls, pieces: Iterable[Piece], group_count: Callable[[], int]) -> Ranking:
        """The ranking of a pool: 8 bytes a row held, up to 28 bytes a row while it is made.

        Args:
            pieces: of the pool, in any order.
            group_count: number of groups, asked when all pieces have been read.
        """
        read = [(piece.keys, piece.groups) for piece in pieces]
        keys = np.concatenate([keys for keys, _ in read]) if read else np.zeros(0)
        groups = np.concatenate([groups for _, groups in read]) if read else np.zeros(0, np.int32)
        sizes = np.bincount(groups, minlength=group_count())
        starts = np.concatenate([[0], np.cumsum(sizes)])
        if len(sizes) > 1:
            keys = keys[np.argsort(groups, kind="stable")]
        for start, stop in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
            keys[start:stop].sort()
        return cls(keys, starts)

    @property
    def sizes(self) -> Ints:
        """(groups,) rows of each."""
        return np.diff(self.starts)

    def shares(self, piece: Piece) -> npt.NDArray[np.float64]:
        """For each row the share of its group's rows whose keys are no higher than its own, in (0, 1]."""
        found = np.zeros(len(piece.keys))
        order = np.argsort(piece.groups, kind="stable")
        for rows in np.split(order, np.flatnonzero(np.diff(piece.groups[order])) + 1):
            if len(rows):
                group = piece.groups[rows[0]]
                own = self.keys[self.starts[group] : self.starts[group + 1]]
                found[rows] = np.searchsorted(own, piece.keys[rows], side="right") / len(own)
        return found


class Cut:
    """Which rows of a pool stay: of each group the best, so many as are wanted.

    Args:
        ranking: of the pool.
        wanted: (groups,) rows that stay, at most as many as there are.
        pieces: gives the pool once more; asked only where rows tie with the last one that stays.
    """

    def __init__(self, ranking: Ranking, wanted: Ints, pieces: Callable[[], Iterable[Piece]]) -> None:
        assert (wanted <= ranking.sizes).all()
        self._is_none = wanted == 0
        place = np.where(self._is_none, 0, ranking.starts[:-1] + wanted - 1)
        self.last = ranking.keys[place] if len(ranking.keys) else np.zeros(len(wanted))
        """(groups,) key of the last row that stays; meaningless where none does."""
        admitted, tied = np.zeros(len(wanted), np.int64), np.zeros(len(wanted), np.int64)
        for group in np.flatnonzero(~self._is_none).tolist():
            own = ranking.keys[ranking.starts[group] : ranking.starts[group + 1]]
            low, high = np.searchsorted(own, self.last[group], "left"), np.searchsorted(own, self.last[group], "right")
            admitted[group], tied[group] = wanted[group] - low, high - low
        self._is_contested = tied > admitted
        self._last_uids = pa.nulls(len(wanted), pa.string())
        if self._is_contested.any():
            self._last_uids = self._settled(pieces(), admitted)

    def stays(self, piece: Piece) -> Bools:
        """Whether each row stays."""
        last = self.last[piece.groups]
        stays = piece.keys <= last
        tied = np.flatnonzero((piece.keys == last) & self._is_contested[piece.groups])
        if len(tied):
            bounds = self._last_uids.take(pa.array(piece.groups[tied]))
            within = pc.less_equal(piece.uids.take(pa.array(tied)), bounds)
            stays[tied] = within.to_numpy(zero_copy_only=False)
        return stays & ~self._is_none[piece.groups]

    def _settled(self, pieces: Iterable[Piece], admitted: Ints) -> pa.Array:
        """(groups,) uid of the last row that stays, where rows tie with it."""
        tied = pa.concat_tables([_TIED.empty_table(), *self._tied(pieces)])
        tied = tied.sort_by([("group", "ascending"), ("uid", "ascending")])
        groups = tied.column("group").to_numpy()
        contested = np.flatnonzero(self._is_contested)
        places = np.searchsorted(groups, contested) + admitted[contested] - 1
        last = np.full(len(admitted), -1)
        last[contested] = places
        return tied.column("uid").combine_chunks().take(pa.array(last, mask=last < 0))

    def _tied(self, pieces: Iterable[Piece]) -> Iterator[pa.Table]:
        for piece in pieces:
            rows = np.flatnonzero((piece.keys == self.last[piece.groups]) & self._is_contested[piece.groups])
            if len(rows):
                uids = piece.uids.take(pa.array(rows)).cast(pa.string())
                yield pa.table([pa.array(piece.groups[rows]), uids], schema=_TIED)


_TIED = pa.schema([pa.field("group", pa.int32()), pa.field("uid", pa.string())])


class Groups:
    """Values of a column as small integers, in the order in which they come: nothing may depend on it.

    Each distinct value is held once. Nulls, and NaN, have the number -1.
    """

    def __init__(self, column: str) -> None:
        self._column = column
        self._numbers: dict[Any, int] = {}

    def __len__(self) -> int:
        return len(self._numbers)

    @property
    def values(self) -> list[Any]:
        """The value of each number."""
        return list(self._numbers)

    def numbers(self, values: pa.Array) -> npt.NDArray[np.int32]:
        """The number of each value.

        Raises:
            UserError: the column holds lists or structs.
        """
        if pa.types.is_nested(values.type):
            what = f"the column {self._column!r} is {values.type}: its values make no groups"
            raise UserError(what, hint="name a column of texts or numbers, such as language")
        if pa.types.is_floating(values.type):
            values = pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), values)
        encoded = values if isinstance(values, pa.DictionaryArray) else values.dictionary_encode()
        known = [
            -1 if value is None else self._numbers.setdefault(value, len(self._numbers))
            for value in encoded.dictionary.to_pylist()
        ]
        return np.array([*known, -1], np.int32)[encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)]
