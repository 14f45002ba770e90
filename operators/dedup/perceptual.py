"""dedup.perceptual: of the pictures that look alike one goes on.

Two pictures look alike whose hashes differ in at most `radius` bits; a group is whatever is connected by such steps, so
that it does not depend on any order, and the ends of a long chain may differ by more than `radius`. Who represents a
group is fixed by the rows alone: a sample of a finished corpus before all (the lowest uid of several), then the highest
value of `prefer`, then the lowest uid.

Equal hashes are one before neighbours are looked for, by `hamming`, exactly.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from corpusmith.operators.contract import Config as BaseConfig
from corpusmith.operators.contract import Reduce, Reduced, Resources, Rows
from corpusmith.operators.dedup.against import AgainstSha256, check_unchanged
from corpusmith.operators.dedup.groups import DEDUP_GROUP, DEDUP_SIZE, Grouping
from corpusmith.operators.dedup.hamming import MAX_RADIUS, connected
from corpusmith.operators.dedup.phash import PHASH
from corpusmith.operators.dedup.ranked_hashes import Ranked, Ranking
from corpusmith.operators.duck import MEMORY_BYTES
from corpusmith.schemas.columns import Column
from corpusmith.schemas.errors import UserError

RADIUS = {64: 4, 256: 31}
"""Bits of a hash → bits in which two may differ and look alike: PDQ's by its authors (ThreatExchange)."""

_ODD = np.uint64(0x9E3779B97F4A7C15)
"""Spreads numbers over all bits (the golden ratio's)."""

Ints = npt.NDArray[np.int64]


class Perceptual(Reduce, name="dedup.perceptual", version=2):
    """Keep one of the pictures that look alike: whose hashes are connected by steps of a few bits."""

    class Config(BaseConfig):
        column: str = Field(
            default=PHASH.name,
            description="column with the hash: 16 hex digits (phash) or 64 (pdq), whichever most rows have; a row "
            "without one fails. Before PDQ's, keep: pdq_quality >= 50, as its authors advise",
        )
        radius: int | None = Field(
            default=None,
            ge=0,
            le=max(MAX_RADIUS.values()),
            description=f"bits in which two hashes may differ and still look alike, {RADIUS[64]} of 64 and "
            f"{RADIUS[256]} of 256 by default, at most {MAX_RADIUS[64]} and {MAX_RADIUS[256]}; 0: equal hashes only. "
            "By chance a million unrelated pictures hold less than one such pair of 64 bits at 4, about 7 at 6, about "
            "350 at 8",
        )
        only_if: tuple[str, ...] = Field(
            default=(),
            description="columns that must be equal, too, such as the caption; a row without a value in one of them "
            "fails",
        )
        prefer: str | None = Field(
            default=None,
            description="column whose highest value says who represents its group, rows without a value last; "
            "ties, and all groups where it is left out, go to the lowest uid",
        )
        against: tuple[str, ...] = Field(
            default=(),
            description="folders of finished corpora with the same column: a picture that looks like one of theirs is "
            "dropped, too",
        )
        against_sha256: AgainstSha256 = None

    positional = "radius"
    resources = Resources(memory_bytes=MEMORY_BYTES)
    config: Config

    @property
    def requires(self) -> tuple[str, ...]:
        return self._ranking.columns

    @property
    def produces(self) -> tuple[Column, ...]:
        return (DEDUP_GROUP, DEDUP_SIZE)

    def reduce(self, rows: Rows) -> Reduced:
        check_unchanged(self.config.against, self.config.against_sha256)
        ranked = self._ranking.of(rows)
        firsts, sizes = _grouped(ranked, self._radius(ranked))
        grouping = _grouping(ranked, firsts, sizes)

        def distances(start: int, stop: int) -> pa.Array:
            own = len(ranked.corpora) + np.arange(start, stop)
            apart = np.bitwise_count(ranked.words[own] ^ ranked.words[firsts[own]]).sum(axis=1)
            return pc.binary_join_element_wise("distance ", pa.array(apart).cast(pa.string()), "")

        told = grouping.told(f"near-duplicate {self.config.column}", distances)
        passed_over = {"passed_over_in_corpora": ranked.passed_over} if self.config.against else {}
        return Reduced(told, {**grouping.summary(), **passed_over})

    @property
    def _ranking(self) -> Ranking:
        return Ranking(self.config.column, self.config.only_if, self.config.prefer, self.config.against)

    def _radius(self, ranked: Ranked) -> int:
        bits, has_hashes = 64 * ranked.words.shape[1], ranked.errors.null_count > 0
        radius = RADIUS[bits] if self.config.radius is None else self.config.radius
        if has_hashes and radius > MAX_RADIUS[bits]:
            what = f"radius {radius} is too much for hashes of {bits} bits in column {self.config.column!r}"
            raise UserError(what, where="dedup.perceptual", hint=f"give at most {MAX_RADIUS[bits]}")
        return radius


def _grouped(ranked: Ranked, radius: int) -> tuple[Ints, Ints]:
    """For each row the first row of its group, and the rows in that; a failed row is a group of none."""
    failed = np.zeros(len(ranked.uids), bool)
    failed[len(ranked.corpora) :] = ranked.errors.is_valid().to_numpy(zero_copy_only=False)
    live = np.flatnonzero(~failed)
    words, contexts = ranked.words[live], ranked.contexts[live]
    chosen, distinct = _without_equals(words, contexts)
    groups = connected(words[chosen], contexts[chosen], radius)[distinct]
    firsts = np.full(len(chosen), len(failed))
    np.minimum.at(firsts, groups, live)
    sizes = np.bincount(groups, minlength=1)
    found, counted = np.arange(len(failed)), np.zeros(len(failed), np.int64)
    found[live], counted[live] = firsts[groups], sizes[groups]
    return found, counted


def _without_equals(words: npt.NDArray[np.uint64], contexts: Ints) -> tuple[Ints, Ints]:
    """Positions of rows that stand for all that equal them, and for each row which of those stands for it.

    Rows are sorted by a mixture of their numbers; where two mixtures collide, equals may stay apart, which costs
    nothing but time.
    """
    mixture = contexts.astype(np.uint64) * _ODD
    for word in words.T:
        mixture = (mixture ^ word) * _ODD
        mixture ^= mixture >> np.uint64(29)
    order = np.argsort(mixture)
    is_new = np.ones(len(order), bool)
    is_new[1:] = (words[order[1:]] != words[order[:-1]]).any(axis=1) | (np.diff(contexts[order]) != 0)
    distinct = np.empty(len(order), np.int64)
    distinct[order] = np.cumsum(is_new) - 1
    return order[is_new], distinct


def _grouping(ranked: Ranked, firsts: Ints, sizes: Ints) -> Grouping:
    """The pool's rows in front, then the rows of finished corpora that represent one of them."""
    before = len(ranked.corpora)
    count = len(ranked.uids) - before
    firsts = firsts[before:]
    theirs = np.unique(firsts[firsts < before])
    places = np.where(firsts < before, count + np.searchsorted(theirs, firsts), firsts - before)
    named = pa.array(theirs)
    uids = pa.concat_arrays([ranked.uids[before:], ranked.uids.take(named)])
    corpora = ranked.corpora.take(named)
    return Grouping(uids, places, sizes[before:], ranked.errors, ranked.details, corpora)
