"""The entries of a balance in the form in which texts meet them: all entries for every text, or those of its language.

What is counted is a slot: an entry within a group, a group being a language, or the whole pool where languages play no
part. An entry of one language has one slot; one of all languages has a slot in each group, for it is counted and
thinned in each by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from corpusmith.operators.balance.matching import Matcher, Rule

Ints = npt.NDArray[np.int64]

NO_GROUP = -1
"""Group of a row that is in none: its language is null."""


@dataclass(frozen=True)
class Pairs:
    """Matches, each once, sorted by row and then by the entry's place in the list.

    Args:
        rows: positions of texts.
        slots: what they match.
    """

    rows: Ints
    slots: Ints


class Lexicon:
    """Entries, matched by group. It travels to workers: what is large in it are arrays.

    Args:
        texts: the entries, strings without nulls; equal ones count each.
        languages: the language of each entry, null for all; None where entries are for every text.
        groups: the languages of the pool; None for one group of all rows.
        rule: of the match.
    """

    def __init__(
        self, texts: pa.Array, languages: pa.Array | None, groups: Sequence[str] | None, rule: Rule = "metaclip"
    ) -> None:
        self.groups = tuple(groups) if groups is not None else ("",)
        by_language = languages if groups is not None and languages is not None else pa.nulls(len(texts), pa.string())
        codes = pc.fill_null(pc.index_in(by_language, value_set=pa.array(self.groups, pa.string())), NO_GROUP)
        codes = np.where(by_language.is_null().to_numpy(zero_copy_only=False), len(self.groups), codes.to_numpy())
        self._common = np.flatnonzero(codes == len(self.groups))
        order = np.argsort(codes, kind="stable")
        starts = np.searchsorted(codes[order], np.arange(len(self.groups) + 1))
        self._own = order[starts[0] : starts[-1]]
        self._own_starts = starts - starts[0]
        self.entries = np.concatenate([np.tile(self._common, len(self.groups)), self._own])
        """(slots,) position of each slot's entry in the list."""
        number = np.arange(len(self.groups))
        self.slot_groups = np.concatenate(
            [np.repeat(number, len(self._common)), np.repeat(number, np.diff(self._own_starts))]
        )
        """(slots,) group of each slot."""
        self._matcher = _matcher(texts, self._common, rule)
        self._matchers = [
            _matcher(texts, self._own[first:last], rule) for first, last in pairwise(self._own_starts.tolist())
        ]

    @property
    def slots(self) -> int:
        """Number of slots."""
        return len(self.entries)

    def match(self, texts: pa.ChunkedArray, groups: Ints) -> Pairs:
        """Find what texts match.

        Args:
            texts: (N,) strings; a null matches nothing.
            groups: (N,) group of each text; NO_GROUP matches nothing, so its text should be null.
        """
        found = self._matcher.match(texts)
        pairs = [(found.rows, groups[found.rows] * len(self._common) + found.entries)]
        shared = len(self._common) * len(self.groups)
        for group in np.unique(groups[groups != NO_GROUP]).tolist() if len(self._own) else ():
            first, last = self._own_starts[group : group + 2]
            if first == last:
                continue
            places = np.flatnonzero(groups == group)
            found = self._matchers[group].match(texts.take(pa.array(places)))
            pairs.append((places[found.rows], shared + first + found.entries))
        if len(pairs) == 1:
            return Pairs(*pairs[0])
        rows, slots = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
        order = np.lexsort((self.entries[slots], rows))
        return Pairs(rows[order], slots[order])


def _matcher(texts: pa.Array, places: Ints, rule: Rule) -> Matcher:
    return Matcher(texts.take(pa.array(places, pa.int64())), rule=rule)
