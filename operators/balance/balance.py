"""balance: even out the pool over what its texts speak of, by the published rule of MetaCLIP.

Xu et al., "Demystifying CLIP Data", section 3.3: entries are counted over all texts that they occur in. An entry of
more than t texts lets each of them through with probability t / count, others let all through; a row stays if any of
its entries does. So the head is cut to about t rows an entry and the tail stays whole. A row has one draw, against
1 - product(1 - p), which is as probable as one draw for each entry.

Two passes over the stream, one that counts and one that decides (and one before them where the entries are made of the
pool). Only the list, its counts and the decisions are held. A row's factors are multiplied in the order of the
entries, so that its probability is the same to the last bit in whatever batch it comes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from pydantic import Field, ValidationInfo, field_validator, model_validator

from corpusmith.operators.balance.entries import (
    WORDNET_FOLDER,
    fingerprint,
    pool_entries,
    read_entries,
    wordnet_entries,
)
from corpusmith.operators.balance.matching import Ints, Matcher, Matches
from corpusmith.operators.contract import Config as BaseConfig
from corpusmith.operators.contract import Reduce, Reduced, Rows
from corpusmith.schemas.columns import UID, Column
from corpusmith.schemas.errors import UserError
from corpusmith.schemas.fates import Fate

DEFAULT_TAIL_SHARE = 0.06
"""About the tail's share of MetaCLIP's matches at t = 20,000 and 400M pairs."""
CURVE_POINTS = 200
TOP_ENTRIES = 20
SHOWN_ENTRIES = 3
SHOWN_CHARS = 60

BALANCE_PROBABILITY = Column(
    "balance_probability", pa.float64(), "probability with which the balance lets the row through"
)
BALANCE_MATCHES = Column("balance_matches", pa.int64(), "entries of the balance that the row's text matches", "entries")

_DECISIONS = pa.schema(
    [
        *(pa.field(name, pa.string()) for name in (UID.name, "fate", "reason", "error")),
        *(pa.field(column.name, column.type) for column in (BALANCE_PROBABILITY, BALANCE_MATCHES)),
    ]
)

Floats = npt.NDArray[np.float64]


class Balance(Reduce, name="balance", version=1):
    """Even out the pool over the entries that its texts match: thin the frequent, keep the rare (MetaCLIP)."""

    class Config(BaseConfig):
        column: str = Field(default="caption", description="column of the texts; a row without a text fails")
        entries: str = Field(
            default="pool",
            description="what texts are matched against: pool (frequent words and word pairs of the texts themselves), "
            "wordnet, pool+wordnet, or a file: a list in .json, one entry a line in .txt; rows that match none are "
            "dropped",
        )
        t: int | None = Field(
            default=None, ge=1, description="rows up to which an entry keeps all; MetaCLIP: 20000 for 400M"
        )
        tail_share: float | None = Field(
            default=None,
            gt=0,
            lt=1,
            description="instead of t, for pools of any size: t is the count for which entries of fewer rows have "
            f"nearest to this share of all matches; {DEFAULT_TAIL_SHARE} where neither is given, as about MetaCLIP's t "
            "of 20000 does in 400M pairs",
        )
        min_count: int = Field(
            default=5,
            ge=1,
            description="occurrences that a word or pair of the pool needs to be an entry; MetaCLIP: 100",
        )
        min_pmi: float = Field(
            default=5.0,
            description="pointwise mutual information that a word pair of the pool needs to be an entry, in bits",
        )
        wordnet_path: str = Field(
            default=WORDNET_FOLDER, description="folder with WordNet's data.noun and its siblings"
        )
        entries_sha256: str | None = Field(
            default=None,
            validate_default=True,
            description="fingerprint of the list that comes from WordNet or a file, filled in when the recipe is read "
            "so that a changed list is a changed step; give it to insist on a list",
        )

        @field_validator("entries")
        @classmethod
        def _is_known(cls, entries: str) -> str:
            if entries not in ("pool", "wordnet", "pool+wordnet") and not entries.endswith((".json", ".txt")):
                raise ValueError("write pool, wordnet, pool+wordnet, or the path of a .json or .txt file")
            return entries

        @field_validator("entries_sha256")
        @classmethod
        def _is_the_list(cls, given: str | None, info: ValidationInfo) -> str | None:
            if "entries" not in info.data or info.data["entries"] == "pool":
                return given
            try:
                found = fingerprint(_listed(info.data["entries"], info.data["wordnet_path"]))
            except UserError as error:
                raise ValueError(str(error)) from error
            if given not in (None, found):
                raise ValueError(f"the list of entries is another one: {found}")
            return found

        @model_validator(mode="after")
        def _one_rule(self) -> Balance.Config:
            if self.t is not None and self.tail_share is not None:
                raise ValueError("give t or tail_share, not both")
            return self

    seeded = True
    config: Config

    @property
    def requires(self) -> tuple[str, ...]:
        return (self.config.column,)

    @property
    def produces(self) -> tuple[Column, ...]:
        return (BALANCE_PROBABILITY, BALANCE_MATCHES)

    def reduce(self, rows: Rows) -> Reduced:
        entries = self._entries(rows)
        matcher = Matcher(entries)
        counts, kept_counts = np.zeros(len(entries), np.int64), np.zeros(len(entries), np.int64)
        for batch in rows.reader(self.requires):
            counts += np.bincount(matcher.match(batch.column(self.config.column)).entries, minlength=len(entries))
        t = self.config.t or tail_threshold(counts, self.config.tail_share or DEFAULT_TAIL_SHARE)
        misses = 1 - np.minimum(1, t / np.maximum(counts, 1))
        decisions: list[pa.RecordBatch] = []
        for batch in rows.reader(self.requires):
            matches = matcher.match(batch.column(self.config.column))
            decided = self._decide(batch, matches, misses, _Labels(t, self.config.column, entries))
            is_kept = decided.column("fate").is_null().to_numpy(zero_copy_only=False)
            kept_counts += np.bincount(matches.entries[is_kept[matches.rows]], minlength=len(entries))
            decisions.append(decided)
        table = pa.Table.from_batches(decisions, _DECISIONS)
        return Reduced(table, _summary(table, t, entries, counts, kept_counts))

    def _entries(self, rows: Rows) -> list[str]:
        config = self.config
        listed = [] if config.entries == "pool" else _listed(config.entries, config.wordnet_path)
        if config.entries != "pool" and fingerprint(listed) != config.entries_sha256:
            raise UserError("the list of entries changed after the recipe was read", where=config.entries)
        if config.entries not in ("pool", "pool+wordnet"):
            return listed
        own = pool_entries(
            (batch.column(config.column) for batch in rows.reader(self.requires)),
            min_count=config.min_count,
            min_pmi=config.min_pmi,
            scratch_dir=rows.scratch_dir,
        )
        return list(dict.fromkeys([*listed, *own]))

    def _decide(self, batch: pa.RecordBatch, matches: Matches, misses: Floats, labels: _Labels) -> pa.RecordBatch:
        """Decisions over a batch, in its order."""
        uids, texts = batch.column(UID.name), batch.column(self.config.column)
        numbers = np.bincount(matches.rows, minlength=len(uids))
        probabilities = _probabilities(matches.entries, numbers, misses)
        draws = np.array([draw(uid, self.seed) for uid in uids.to_pylist()], np.float64)
        is_missing = texts.is_null().to_numpy(zero_copy_only=False)
        dropped = np.flatnonzero((draws >= probabilities) & ~is_missing)
        fates = np.full(len(uids), None, object)
        reasons, errors = fates.copy(), fates.copy()
        fates[dropped], fates[is_missing] = Fate.REJECTED.value, Fate.FAILED.value
        errors[is_missing] = f"missing {self.config.column}"
        firsts = np.cumsum(numbers) - numbers
        for i in dropped.tolist():
            matched = matches.entries[firsts[i] : firsts[i] + numbers[i]]
            reasons[i] = (
                labels.drawn(probabilities[i], draws[i], matched) if len(matched) else labels.unmatched(texts[i])
            )
        columns = [uids, *(pa.array(values, pa.string()) for values in (fates, reasons, errors))]
        columns += [pa.array(probabilities, mask=is_missing), pa.array(numbers, pa.int64(), mask=is_missing)]
        return pa.record_batch([column.cast(f.type) for column, f in zip(columns, _DECISIONS, strict=True)], _DECISIONS)


@dataclass(frozen=True)
class _Labels:
    """Words for what becomes of a row."""

    t: int
    column: str
    entries: Sequence[str]

    def drawn(self, probability: float, drawn: float, matched: Ints) -> str:
        shown = ", ".join(_quoted(self.entries[k]) for k in map(int, matched[:SHOWN_ENTRIES]))
        more = ", …" if len(matched) > SHOWN_ENTRIES else ""
        return f"balance t={self.t}: p = {probability:.3g}, draw = {drawn:.3g}, matched {shown}{more}"

    def unmatched(self, text: pa.Scalar) -> str:
        return f"no entry matched: {self.column} = {_quoted(str(text.as_py()))}"


def draw(uid: str, seed: int) -> float:
    """A row's draw, uniform in [0, 1): 53 bits of a hash of seed and uid, apart from the draws of other operators."""
    return (xxhash.xxh64_intdigest(f"balance {uid}".encode(), seed % (1 << 64)) >> 11) / (1 << 53)


def tail_threshold(counts: Ints, tail_share: float) -> int:
    """The count t for which entries of fewer rows have nearest to a share of all matches; the lower of two as near.

    Args:
        counts: rows of each entry.
        tail_share: share of the sum of counts.
    """
    distinct, numbers = np.unique(counts[counts > 0], return_counts=True)
    if not len(distinct):
        return 1
    matches = distinct * numbers
    below = (np.cumsum(matches) - matches) / matches.sum()
    return int(distinct[np.argmin(np.abs(below - tail_share))])


def _listed(entries: str, wordnet_path: str) -> list[str]:
    """The part of the entries that does not come from the pool."""
    return wordnet_entries(wordnet_path) if entries in ("wordnet", "pool+wordnet") else read_entries(entries)


def _probabilities(entries: Ints, numbers: Ints, misses: Floats) -> Floats:
    """1 - product of the misses of each row's entries; 0 for a row without any.

    Args:
        entries: matched entries, row by row.
        numbers: matched entries of each row.
        misses: for each entry the probability that it does not let a row through.
    """
    probabilities = np.zeros(len(numbers))
    matched = np.flatnonzero(numbers)
    if len(matched):
        firsts = (np.cumsum(numbers) - numbers)[matched]
        probabilities[matched] = 1 - np.multiply.reduceat(misses[entries], firsts)
    return probabilities


def _summary(decisions: pa.Table, t: int, entries: Sequence[str], counts: Ints, kept_counts: Ints) -> dict[str, Any]:
    """What the report shows: counts, and entries by falling count with their rows before and after."""
    ranked = np.argsort(-counts, kind="stable")[: np.count_nonzero(counts)]
    curve_ranks = np.unique(np.geomspace(1, max(len(ranked), 1), CURVE_POINTS).round().astype(np.int64))[: len(ranked)]
    curve = [[r, int(counts[ranked[r - 1]]), int(kept_counts[ranked[r - 1]])] for r in curve_ranks.tolist()]
    total = int(counts.sum())
    return {
        "t": t,
        "tail_share": int(counts[counts < t].sum()) / total if total else 0.0,
        "entries": len(entries),
        "entries_sha256": fingerprint(entries),
        "matched_entries": len(ranked),
        "rows": decisions.num_rows,
        "rows_unmatched": pc.sum(pc.equal(decisions.column(BALANCE_MATCHES.name), 0)).as_py() or 0,
        "kept": decisions.column("fate").null_count,
        "curve": curve,
        "top": [[entries[k], int(counts[k]), int(kept_counts[k])] for k in ranked[:TOP_ENTRIES]],
    }


def _quoted(text: str) -> str:
    """A text in one line, in double quotes, cut."""
    return json.dumps(text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]}…", ensure_ascii=False)
