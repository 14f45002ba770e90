"""dedup.minhash: of the rows whose texts are nearly the same one goes on.

Two texts are alike whose sets of shingles have a Jaccard similarity of at least `threshold` (see `shingles` for the
sets). MinHash with bands (Broder 1997; Leskovec, Rajaraman and Ullman, "Mining of Massive Datasets", section 3.4) says
which pairs to look at, and each such pair is decided by the similarity of the sets themselves: a pair that is found is
never wrong, a pair of similarity s is missed with a probability of (1 - s^rows)^bands.

A group is what is connected by pairs that agree in a band and are alike: it depends on no order, and the ends of a long
chain may be less alike than `threshold`. Who represents a group is fixed by the rows alone: a row of a finished corpus
before any of the pool, those of the corpus that stands first in the list first; then the highest value of `prefer`
(within the pool); then the lowest uid.

Rows are signed in parallel, in one pass; texts and keys lie in the scratch folder, and bands are joined one by one.
Equal texts are one before neighbours are looked for. At the peak a row costs about 210 bytes of memory, the mapped
texts included.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, ValidationInfo, field_validator

from corpusmith.operators.contract import Config as BaseConfig
from corpusmith.operators.contract import Reduce, Reduced, Resources, Rows
from corpusmith.operators.dedup.against import AgainstSha256, check_unchanged
from corpusmith.operators.dedup.compared_texts import ComparedTexts
from corpusmith.operators.dedup.groups import DEDUP_GROUP, DEDUP_SIZE, Grouping
from corpusmith.operators.dedup.shingles import Ints, Sizes, TextForm, sizes_of
from corpusmith.operators.dedup.signed_texts import EMPTY, GOOD, Signed, SignedTexts, Signing
from corpusmith.operators.finished import CORPUS, samples
from corpusmith.schemas.columns import CAPTION, UID, Column

MAX_PERMUTATIONS = 112
_EMPTY_DETAIL = "the text is empty"


class MinHash(Reduce, name="dedup.minhash", version=1):
    """Keep one of the rows whose texts are nearly the same: connected by pairs that share most of their shingles."""

    class Config(BaseConfig):
        column: str = Field(
            default=CAPTION.name, description="column with the text; a row without one, or with white space only, fails"
        )
        threshold: float = Field(
            default=0.8,
            gt=0,
            le=1,
            description="Jaccard similarity of two texts' shingles from which on they are near-duplicates",
        )
        recall: float = Field(
            default=0.92,
            gt=0,
            le=1,
            validate_default=True,
            description="share of the pairs just at the threshold that are found, more of those above it; decides the "
            f"bands, of {MAX_PERMUTATIONS} permutations at most. The defaults make 14 bands of 8. 1: all pairs, found "
            "by a join in memory, for pools of up to about a million rows",
        )
        shingles: Literal["auto", "words", "characters"] = Field(
            default="auto",
            description="what a shingle is made of; auto: characters in texts of fewer than `auto_words` words",
        )
        word_size: int = Field(default=5, ge=1, le=100, description="words in a shingle")
        character_size: int = Field(default=5, ge=1, le=100, description="characters (code points) in a shingle")
        auto_words: int = Field(default=10, ge=1, description="words from which on auto takes words")
        form: TextForm = Field(
            default="text",
            description="what is compared. text: the normal form, in which case, punctuation, white space, and "
            "compatible or invisible characters mean nothing; plain: texts as they are, but for runs of white space",
        )
        only_if: tuple[str, ...] = Field(
            default=(),
            description="columns that must be equal, too, such as the domain; a row without a value in one of them "
            "fails",
        )
        prefer: str | None = Field(
            default=None,
            description="column whose highest value says who represents its group, rows without a value last; "
            "ties, and all groups where it is left out, go to the lowest uid",
        )
        against: tuple[str, ...] = Field(
            default=(),
            description="folders of finished corpora: what is a near-duplicate of a sample of theirs goes, too",
        )
        against_sha256: AgainstSha256 = None

        @field_validator("recall")
        @classmethod
        def _can_be_reached(cls, recall: float, info: ValidationInfo) -> float:
            if "threshold" in info.data:
                bands_of(info.data["threshold"], recall)
            return recall

    positional = "threshold"
    resources = Resources(memory_bytes=2 << 30)
    config: Config

    @property
    def requires(self) -> tuple[str, ...]:
        wanted = (*self._columns, *([self.config.prefer] if self.config.prefer else []))
        return tuple(dict.fromkeys(name for name in wanted if name != UID.name))

    @property
    def produces(self) -> tuple[Column, ...]:
        return (DEDUP_GROUP, DEDUP_SIZE)

    def reduce(self, rows: Rows) -> Reduced:
        bands, rows_per_band = bands_of(self.config.threshold, self.config.recall)
        found = SignedTexts(rows.scratch_dir, bands)
        found.extend(rows.map(self._signing(self.config.prefer), self.requires))
        delivered = _Delivered([], [])
        found.extend(self._delivered(delivered))
        found.close()
        compared = ComparedTexts.of(found, self._sizes, self.config.threshold)
        labels = compared.connected(found, bands)
        representatives, sizes = _grouped(found, labels, delivered.places())
        grouping = _told_apart(found, representatives, sizes, delivered, self._errors)

        def measures(start: int, stop: int) -> pa.Array:
            return compared.measured(np.arange(start, stop), representatives[start:stop])

        told = grouping.told(f"near-duplicate {self.config.column}", measures)
        return Reduced(told, {**grouping.summary(), "bands": bands, "rows_per_band": rows_per_band})

    @property
    def _columns(self) -> tuple[str, ...]:
        return (self.config.column, *self.config.only_if)

    @property
    def _sizes(self) -> Sizes:
        config = self.config
        return sizes_of(config.shingles, config.word_size, config.character_size, config.auto_words)

    @property
    def _errors(self) -> list[str]:
        """By a row's state, from MALFORMED on."""
        text = self.config.column
        return [f"malformed {text}", f"missing {text}", *(f"missing {name}" for name in self._columns)]

    def _signing(self, prefer: str | None) -> Signing:
        bands, rows_per_band = bands_of(self.config.threshold, self.config.recall)
        return Signing(self._columns, prefer, self.config.form, self._sizes, bands, rows_per_band)

    def _delivered(self, delivered: _Delivered) -> Iterator[Signed]:
        """Samples of finished corpora; notes where each comes from."""
        config, signing = self.config, self._signing(None)
        check_unchanged(config.against, config.against_sha256)
        for folder in config.against:
            delivered.begin()
            for batch in samples([folder], [name for name in self._columns if name != UID.name]):
                delivered.note(batch)
                yield signing(pa.Table.from_batches([batch]))


@dataclass(frozen=True)
class _Delivered:
    """Where samples of finished corpora come from: the name of each corpus, and how many samples it has."""

    names: list[str]
    counts: list[int]

    def begin(self) -> None:
        self.names.append("")
        self.counts.append(0)

    def note(self, batch: pa.RecordBatch) -> None:
        self.counts[-1] += batch.num_rows
        if batch.num_rows:
            self.names[-1] = batch.column(CORPUS)[0].as_py()

    def places(self) -> Ints:
        """(M,) the place of each sample's corpus in the list."""
        return np.repeat(np.arange(len(self.counts)), self.counts)


def bands_of(threshold: float, recall: float) -> tuple[int, int]:
    """Bands and rows in each, so that a pair at the threshold t is found with a probability of at least `recall`.

    With r rows it takes ⌈ln(1 - recall) / ln(1 - t^r)⌉ bands. The most rows of which the permutations allow that many
    bands are taken, for they make the fewest pairs to look at. Recall 1 is one bucket for all: one band of no rows.

    Raises:
        ValueError: no number of rows allows it.
    """
    if recall == 1:
        return 1, 0
    for rows in range(MAX_PERMUTATIONS if threshold == 1 else 64, 0, -1):
        miss = 1 - threshold**rows
        bands = math.ceil(math.log(1 - recall) / math.log(miss)) if 0 < miss < 1 else 1 if miss <= 0 else math.inf
        if bands * rows <= MAX_PERMUTATIONS:
            return int(bands), rows
    raise ValueError(f"{MAX_PERMUTATIONS} permutations find fewer pairs at {threshold}: lower `recall`, or set it to 1")


def _grouped(found: SignedTexts, labels: Ints, places: Ints) -> tuple[Ints, Ints]:
    """For each of the pool's rows the row, of the pool or after it, that represents its group; and that group's rows.

    Args:
        found: the pool's rows, then M of finished corpora.
        labels: (N + M,) the group of each.
        places: (M,) which corpus comes first.
    """
    pool = found.count - len(places)
    sizes = np.bincount(labels, minlength=found.count)[labels]
    shared = np.flatnonzero(sizes > 1)
    corpus = np.full(len(shared), np.iinfo(np.int64).max)
    corpus[shared >= pool] = places[shared[shared >= pool] - pool]
    columns = {"corpus": pa.array(corpus), UID.name: found.uids.take(pa.array(shared))}
    orders = [("corpus", "ascending"), (UID.name, "ascending")]
    if found.preferences is not None:
        columns["preference"] = found.preferences.take(pa.array(shared))
        orders.insert(1, ("preference", "descending"))
    ranked = shared[pc.sort_indices(pa.table(columns), sort_keys=orders)]
    best = np.arange(found.count)
    best[labels[ranked[::-1]]] = ranked[::-1]
    return best[labels[:pool]], sizes[:pool]


def _told_apart(
    found: SignedTexts, representatives: Ints, sizes: Ints, delivered: _Delivered, errors: list[str]
) -> Grouping:
    """The groups as decisions take them: of finished corpora only the rows that represent one."""
    pool = len(representatives)
    states = found.states[:pool]
    is_elsewhere = representatives >= pool
    used, places = np.unique(representatives[is_elsewhere], return_inverse=True)
    uids = [*found.uids.slice(0, pool).chunks, *found.uids.take(pa.array(used)).chunks]
    positions = representatives.copy()
    positions[is_elsewhere] = pool + places
    causes = pa.array(np.maximum(states, 1) - 1, pa.int8(), mask=states == GOOD)
    details = [_EMPTY_DETAIL if state == EMPTY else None for state in range(1, len(errors) + 1)]
    corpora = np.array(delivered.names, object)[delivered.places()[used - pool]]
    return Grouping(
        uids=pa.chunked_array(uids, pa.large_string()).combine_chunks(),
        representatives=positions,
        sizes=sizes,
        errors=pa.array(errors, pa.string()).take(causes),
        details=pa.array(details, pa.string()).take(causes),
        corpora=pa.array(corpora, pa.string()),
    )
