"""balance: even out the pool over what its texts speak of, by the published rule of MetaCLIP.

Xu et al., "Demystifying CLIP Data", section 3.3: entries are counted over all texts that they occur in. An entry of
more than t texts lets each of them through with probability t / count, others let all through; a row stays if any of
its entries does. So the head is cut to about t rows an entry and the tail stays whole. A row has one draw, against
1 - product(1 - p), which is as probable as one draw for each entry. MetaCLIP 2 does the same within each language: see
`thresholds`.

Two passes over the pool, one that counts and one that decides, on all cores or workers (and one before them where the
entries are made of the pool, or languages have to be known). Only the list and its counts are held; decisions wait on
disk for the summary.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, ValidationInfo, field_validator, model_validator

from corpusmith.operators.balance.entries import Part, join, wordnet_part
from corpusmith.operators.balance.entry_files import SUFFIXES, Entries, entries_of, read_entries
from corpusmith.operators.balance.lexicon import Ints, Lexicon
from corpusmith.operators.balance.matching import Rule
from corpusmith.operators.balance.ngrams import Choice, count_grams
from corpusmith.operators.balance.rule import (
    BALANCE_MATCHES,
    BALANCE_PROBABILITY,
    DECISIONS,
    Count,
    Decide,
    Matching,
    texts_of,
    whole,
)
from corpusmith.operators.balance.tally import Tally
from corpusmith.operators.balance.thresholds import group_thresholds
from corpusmith.operators.balance.wording import quoted
from corpusmith.operators.balance.wordnet import WORDNET_FOLDER
from corpusmith.operators.contract import Config as BaseConfig
from corpusmith.operators.contract import Reduce, Reduced, Rows
from corpusmith.operators.spool import spooled
from corpusmith.schemas.columns import Column
from corpusmith.schemas.errors import UserError

DEFAULT_TAIL_SHARE = 0.06
"""About the tail's share of MetaCLIP's matches at t = 20,000 and 400M pairs."""
MADE_LISTS = ("pool", "wordnet", "pool+wordnet")
MAX_LANGUAGES = 1000


class Balance(Reduce, name="balance", version=2):
    """Even out the pool over the entries that its texts match: thin the frequent, keep the rare (MetaCLIP)."""

    class Config(BaseConfig):
        column: str = Field(default="caption", description="column of the texts; a row without a text fails")
        entries: str = Field(
            default="pool",
            description="what texts are matched against: pool (frequent words and word pairs of the texts themselves), "
            "wordnet, pool+wordnet, or a file: what `corpusmith entries build` writes (.parquet), a list in .json, one "
            "entry a line in .txt; rows that match none are dropped",
        )
        rule: Rule = Field(
            default="metaclip",
            description="how an entry is found: metaclip, between spaces; metaclip2, for all scripts: spaces only "
            "where the entry's own first and last characters need them",
        )
        language_column: str | None = Field(
            default=None,
            description="column of the texts' languages: a row then meets the entries of its language and those of "
            "none, entries are counted in each language, and each has a t; a row without a language fails",
        )
        reference_language: str = Field(
            default="en", description="with language_column and t: the language that t is of; others follow by share"
        )
        t: int | None = Field(
            default=None, ge=1, description="rows up to which an entry keeps all; MetaCLIP: 20000 for 400M"
        )
        tail_share: float | None = Field(
            default=None,
            gt=0,
            lt=1,
            description="instead of t, for pools of any size: t is the count whose cumulative share of all counts, in "
            f"ascending order, is nearest to this one; {DEFAULT_TAIL_SHARE} where neither is given, as about "
            "MetaCLIP's t of 20000 has in 400M pairs",
        )
        mode: Literal["cut", "online"] = Field(
            default="cut",
            description="cut: each row is drawn once and stays or goes; online: no row goes (one that matches no entry "
            "has weight 0), and a loader takes a row with probability balance_probability each time it comes by",
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
            if entries not in MADE_LISTS and not entries.lower().endswith(SUFFIXES):
                raise ValueError("write pool, wordnet, pool+wordnet, or the path of a .parquet, .json or .txt file")
            return entries

        @field_validator("entries_sha256")
        @classmethod
        def _is_the_list(cls, given: str | None, info: ValidationInfo) -> str | None:
            if "entries" not in info.data or info.data["entries"] == "pool":
                return given
            try:
                names = ("entries", "wordnet_path", "language_column")
                found = _listed(*(info.data[name] for name in names)).fingerprint
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
        config = self.config
        return (config.column,) if config.language_column is None else (config.column, config.language_column)

    @property
    def produces(self) -> tuple[Column, ...]:
        return (BALANCE_PROBABILITY, BALANCE_MATCHES)

    def reduce(self, rows: Rows) -> Reduced:
        counted = self.count(rows)
        tally = counted.tally
        decisions = spooled(map(tally.add, rows.map(counted.decide, self.requires)), DECISIONS, rows.scratch_dir)
        return Reduced(decisions, counted.summary())

    def count(self, rows: Rows) -> Counted:
        """The first pass: what the second one decides by.

        Raises:
            UserError: a column is no text; the list of entries changed; t is of a language that matches nothing.
        """
        empty = rows.reader(self.requires).schema.empty_table()
        for name in self.requires:
            texts_of(empty, name)
        languages = self._languages(rows)
        entries = self._entries(rows)
        lexicon = Lexicon(entries.texts, entries.languages, languages, self.config.rule)
        matching = Matching(lexicon, self.config.column, self.config.language_column)
        counts = np.zeros(lexicon.slots, np.int64)
        for found in rows.map(Count(matching), self.requires):
            found.add_to(counts)
        reference = self._reference(rows, lexicon, counts)
        thresholds = group_thresholds(
            counts,
            lexicon.slot_groups,
            len(lexicon.groups),
            t=self.config.t,
            share=self.config.tail_share or DEFAULT_TAIL_SHARE,
            reference=reference,
        )
        misses = 1 - np.minimum(1, thresholds[lexicon.slot_groups] / np.maximum(counts, 1))
        labels = quoted(entries.texts)
        is_online = self.config.mode == "online"
        decide = Decide(matching, misses, thresholds, labels, self.seed, is_online)
        return Counted(decide, Tally(lexicon, counts, thresholds, reference), entries)

    def _entries(self, rows: Rows) -> Entries:
        config = self.config
        if config.entries != "pool":
            listed = _listed(config.entries, config.wordnet_path, config.language_column)
            if listed.fingerprint != config.entries_sha256:
                raise UserError("the list of entries changed after the recipe was read", where=config.entries)
            if config.entries != "pool+wordnet":
                return listed
        choice = Choice(min_count=config.min_count, min_pmi=config.min_pmi, min_pair_count=config.min_count)
        own = count_grams(self._texts(rows), choice, rows.scratch_dir).table
        if config.entries == "pool+wordnet":
            own = join([_wordnet(config.wordnet_path, config.language_column), Part(own)]).table
        return entries_of(whole(own.column("entry")), whole(own.column("language")))

    def _texts(self, rows: Rows) -> Iterator[tuple[pa.Array, pa.Array | None]]:
        """Texts, and their languages where those play a part; texts without one take no part then."""
        for batch in rows.reader(self.requires):
            table = pa.Table.from_batches([batch])
            texts, column = whole(texts_of(table, self.config.column)), self.config.language_column
            if column is None:
                yield texts, None
                continue
            languages = whole(texts_of(table, column))
            yield texts.filter(languages.is_valid()), languages.drop_null()

    def _languages(self, rows: Rows) -> list[str] | None:
        """The languages of the pool, sorted; None where they play no part."""
        column = self.config.language_column
        if column is None:
            return None
        found: set[str] = set()
        for part in rows.map(_Distinct(column), (column,)):
            found.update(part)
            if len(found) > MAX_LANGUAGES:
                what = f"the column {column!r} has more than {MAX_LANGUAGES:,} values"
                raise UserError(what, where="language_column", hint="name a column of languages, such as language")
        return sorted(found) or [self.config.reference_language]

    def _reference(self, rows: Rows, lexicon: Lexicon, counts: Ints) -> int:
        """The group that t is of; where no language has it, the one of the most matches, the first of equals."""
        matches = np.bincount(lexicon.slot_groups, counts, minlength=len(lexicon.groups))
        config = self.config
        if config.language_column is None:
            return 0
        if config.reference_language in lexicon.groups:
            group = lexicon.groups.index(config.reference_language)
            if config.t is None or matches[group]:
                return group
        if config.t is not None and rows.count:
            what = f"no text in the reference language {config.reference_language!r} matches an entry: t has no share"
            raise UserError(what, where="balance.t", hint="give tail_share, or another reference_language")
        return int(np.argmax(matches))


@dataclass(frozen=True)
class Counted:
    """A balance between its passes."""

    decide: Decide
    tally: Tally
    entries: Entries

    def summary(self) -> dict[str, object]:
        """What the tally tells; after the second pass."""
        return self.tally.summary(self.entries.texts, self.entries.fingerprint, is_online=self.decide.is_online)


@dataclass(frozen=True)
class _Distinct:
    """The values of a column, in a piece."""

    column: str

    def __call__(self, rows: pa.Table) -> list[str]:
        return pc.unique(texts_of(rows, self.column)).drop_null().to_pylist()


def _listed(entries: str, wordnet_path: str, language_column: str | None) -> Entries:
    """The part of the entries that does not come from the pool."""
    if entries not in MADE_LISTS:
        return read_entries(entries)
    table = _wordnet(wordnet_path, language_column).table
    return entries_of(whole(table.column("entry")), whole(table.column("language")))


def _wordnet(folder: str, language_column: str | None) -> Part:
    """WordNet's names, which are English where languages play a part."""
    return wordnet_part(folder, None if language_column is None else "en")
