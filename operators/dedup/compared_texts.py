"""Texts beside each other: connected band by band, and how alike two of them are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from corpusmith.operators.dedup.shingles import Ints, Sizes
from corpusmith.operators.dedup.signed_texts import GOOD, SignedTexts

if TYPE_CHECKING:
    from corpusmith.operators.dedup.minhash_kernels import Room, Texts

_MEASURES = [f"Jaccard {hundredths / 100:.2f}" for hundredths in range(101)]
_POSTINGS_AT_ONCE = 1 << 16


@dataclass(frozen=True)
class ComparedTexts:
    """Texts beside each other, and the room to compare them."""

    texts: Texts
    room: Room

    @classmethod
    def of(cls, found: SignedTexts, sizes: Sizes, threshold: float) -> ComparedTexts:
        from corpusmith.operators.dedup.minhash_kernels import Texts, room_for

        offsets = found.offsets()
        longest = int(np.diff(offsets).max(initial=1))
        return cls(Texts(found.texts(), offsets, sizes, threshold), room_for(longest))

    def connected(self, found: SignedTexts, bands: int) -> Ints:
        """(N,) the lowest row of each row's group; a row that failed is alone."""
        from corpusmith.operators.dedup.minhash_kernels import settle

        live = np.flatnonzero(found.states == GOOD)
        parents = np.arange(found.count)
        self._merge_equals(live, found, parents)
        distinct = live[parents[live] == live]
        for band in range(bands):
            self._connect_band(distinct, found.keys(band)[distinct], parents)
        settle(parents)
        return parents

    def _merge_equals(self, live: Ints, found: SignedTexts, parents: Ints) -> None:
        from corpusmith.operators.dedup.minhash_kernels import merge_equals

        hashes = found.hashes[live]
        order = np.argsort(hashes, kind="stable")
        merge_equals(live[order], hashes[order], self.texts.data, self.texts.offsets, parents)

    def _connect_band(self, distinct: Ints, keys: np.ndarray, parents: Ints) -> None:
        from corpusmith.operators.dedup.minhash_kernels import FEW, connect_few, sweep

        order = np.argsort(keys)
        bounds = np.flatnonzero(np.diff(keys[order])) + 1
        starts, stops = np.append(0, bounds), np.append(bounds, len(keys))
        sizes, members = stops - starts, distinct[order]
        few, many = (sizes > 1) & (sizes <= FEW), sizes > FEW
        connect_few(members, starts[few], stops[few], self.texts, parents, self.room)
        for start, stop in zip(starts[many], stops[many], strict=True):
            if not sweep(members[start:stop], self.texts, parents, self.room):
                self._join(members[start:stop], parents)

    def _join(self, members: Ints, parents: Ints) -> None:
        """Connect within one bucket of many texts by the prefix filter; memory is some 60 bytes a shingle of theirs."""
        from corpusmith.operators.dedup.minhash_kernels import join_sharers, roots_of

        tokens, places = self._ranked_sets(members)
        keys, owners = self._prefixes(tokens, places)
        bounds = np.append(np.flatnonzero(np.diff(keys)) + 1, len(keys))
        start = 0
        while start < len(keys):
            # whole tokens; sets are looked up anew for each slice, so that a cluster is passed over once it is one
            stop = bounds[min(np.searchsorted(bounds, start + _POSTINGS_AT_ONCE), len(bounds) - 1)]
            roots = roots_of(members, parents)[owners[start:stop]]
            order = np.lexsort((roots, keys[start:stop]))
            sharers = keys[start:stop][order], owners[start:stop][order], roots[order]
            join_sharers(sharers, members, tokens, places, self.texts.threshold, parents)
            start = int(stop)

    def _ranked_sets(self, members: Ints) -> tuple[Ints, Ints]:
        """Each text's shingles as ranks, the rarest in the bucket first; and (M + 1,) where each text's begin."""
        from corpusmith.operators.dedup.minhash_kernels import hashes_of

        hashes, owners = hashes_of(members, self.texts, self.room)
        distinct, numbers = np.unique(hashes, return_inverse=True)
        sets = np.unique(owners * len(distinct) + numbers)
        owners, numbers = np.divmod(sets, len(distinct))
        ranks = np.empty(len(distinct), np.int64)
        ranks[np.argsort(np.bincount(numbers), kind="stable")] = np.arange(len(distinct))
        tokens = np.sort(owners * len(distinct) + ranks[numbers]) % len(distinct)
        return tokens, np.append(0, np.cumsum(np.bincount(owners, minlength=len(members))))

    def _prefixes(self, tokens: Ints, places: Ints) -> tuple[Ints, Ints]:
        """The tokens that a set alike enough may share first, sorted, and the owner of each."""
        from corpusmith.operators.dedup.minhash_kernels import prefix_lengths

        lengths = prefix_lengths(np.diff(places), self.texts.threshold)
        owners = np.repeat(np.arange(len(lengths)), np.diff(places))
        is_prefix = np.arange(len(tokens)) - places[owners] < lengths[owners]
        order = np.argsort(tokens[is_prefix], kind="stable")
        return tokens[is_prefix][order], owners[is_prefix][order]

    def measured(self, rows: Ints, representatives: Ints) -> pa.Array:
        """How alike each row is to the row that represents it, in words; null where it represents itself."""
        from corpusmith.operators.dedup.minhash_kernels import similarities

        others = rows != representatives
        shown = np.zeros(len(rows), np.int64)
        found = similarities(rows[others], representatives[others], self.texts, self.room)
        shown[others] = np.round(100 * found)
        return pa.array(_MEASURES).take(pa.array(shown, mask=~others))
