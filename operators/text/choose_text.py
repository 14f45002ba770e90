"""choose_text: of the texts that came with a sample one becomes its caption.

A page gives a picture an alt text, a title, a caption below it; a recipe may add what a model says. `texts` holds them
all, with the kind of each. The choice is a function of the texts, and where it is drawn of the seed and the row's
identity: each text has a draw of its own, and the least of -log(draw) / weight wins, which each text does with
probability weight / sum of weights (Efraimidis and Spirakis, "Weighted random sampling with a reservoir", 2006).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from pydantic import Field, model_validator

from corpusmith.operators.contract import Annotate, Part
from corpusmith.operators.contract import Config as BaseConfig
from corpusmith.operators.text.text import collapsed
from corpusmith.schemas.columns import CAPTION, TEXTS, UID, Column
from corpusmith.schemas.fates import RowError

CAPTION_KIND = Column("caption_kind", pa.string(), "where the chosen text came from")

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class ChooseText(Annotate, name="choose_text", version=1):
    """Choose the caption among the texts of a sample; a sample without one that counts fails."""

    class Config(BaseConfig):
        by: Literal["first", "random", "longest", "shortest", "kind"] = Field(
            default="first",
            description="which text: the first; one at random; the longest or shortest by characters, the first of "
            "equals; the first of the best kind. Blank texts do not count",
        )
        kinds: tuple[str, ...] = Field(
            default=(), description="by kind: the kinds that count, best first, such as [alt, title]"
        )
        weights: dict[str, float] = Field(
            default_factory=dict,
            description="by random: weight of each kind that counts, such as {original: 0.8, synthetic: 0.2}; texts of "
            "one kind share its weight. Left out: all texts are equally likely",
        )

        @model_validator(mode="after")
        def _rules_have_their_parameters(self) -> ChooseText.Config:
            if (self.by == "kind") != bool(self.kinds):
                raise ValueError("`by: kind` goes with `kinds`, which lists them")
            if self.weights and self.by != "random":
                raise ValueError("`weights` go with `by: random`")
            if not all(0 < weight < float("inf") for weight in self.weights.values()):
                raise ValueError("weights are above 0")
            return self

    positional = "by"
    seeded = True
    stored = False
    isolated = False
    batch_rows = 4096
    config: Config

    @property
    def requires(self) -> tuple[str, ...]:
        return (TEXTS.name,)

    @property
    def produces(self) -> tuple[Column, ...]:
        return (Column(CAPTION.name, CAPTION.type, "text chosen for the sample"), CAPTION_KIND)

    def process(self, batch: pa.Table) -> Part:
        lists = batch.column(TEXTS.name).combine_chunks().cast(TEXTS.type)
        lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy()
        rows = np.repeat(np.arange(len(lists)), lengths)
        items = lists.flatten()
        texts, kinds = (pc.struct_field(items, name) for name in ("text", "kind"))
        counts = pc.fill_null(pc.not_equal(collapsed(texts), ""), False).cast(pa.float64()).to_numpy()
        ranks = self._ranks(batch.column(UID.name), rows, texts, kinds, counts)
        order = np.lexsort((ranks, rows))
        order = order[np.isfinite(ranks[order])]
        chosen_rows, firsts = np.unique(rows[order], return_index=True)
        places = np.full(batch.num_rows, -1)
        places[chosen_rows] = order[firsts]
        taken = pa.array(places, mask=places < 0)
        error = RowError("missing text", self._what_counts())
        errors = dict.fromkeys(np.flatnonzero(places < 0).tolist(), error)
        return Part({CAPTION.name: texts.take(taken), CAPTION_KIND.name: kinds.take(taken)}, errors)

    def _ranks(self, uids: pa.ChunkedArray, rows: Ints, texts: pa.Array, kinds: pa.Array, counts: Floats) -> Floats:
        """For each text a number, the lowest of a row wins and the first of equals; infinite for one that is out."""
        blank = np.where(counts > 0, 0.0, np.inf)
        lengths = pc.fill_null(pc.utf8_length(texts), 0).to_numpy().astype(np.float64)
        match self.config.by:
            case "first":
                return blank
            case "longest":
                return blank - lengths
            case "shortest":
                return blank + lengths
            case "kind":
                places = pc.index_in(kinds, value_set=pa.array(self.config.kinds, pa.string()))
                return blank + pc.fill_null(places.cast(pa.float64()), np.inf).to_numpy()
        weights = _shared_weights(rows, kinds, counts, self.config.weights) if self.config.weights else counts
        with np.errstate(divide="ignore"):
            return np.where(weights > 0, -np.log(_draws(uids, rows, self.seed)) / weights, np.inf)

    def _what_counts(self) -> str:
        kinds = self.config.kinds or tuple(self.config.weights)
        return f"none of kind {', '.join(kinds)}" if kinds else "none that is not blank"


def _shared_weights(rows: Ints, kinds: pa.Array, counts: Floats, weights: Mapping[str, float]) -> Floats:
    """The weight of each text: that of its kind, divided by the row's texts of that kind; 0 for one that is out."""
    places = pc.index_in(kinds, value_set=pa.array(list(weights), pa.string()))
    codes = pc.fill_null(places, len(weights)).to_numpy().astype(np.int64)
    _, groups = np.unique(rows * (len(weights) + 1) + codes, return_inverse=True)
    sharing = np.bincount(groups, weights=counts)[groups] if len(groups) else counts
    return np.array([*weights.values(), 0.0])[codes] * counts / np.maximum(sharing, 1)


def _draws(uids: pa.ChunkedArray, rows: Ints, seed: int) -> Floats:
    """A draw in (0, 1] for each text, of the seed, the row's uid and the text's place in the row."""
    names = uids.cast(pa.binary()).to_pylist()
    firsts = np.searchsorted(rows, rows)
    places = np.arange(len(rows)) - firsts
    hashes = [
        xxhash.xxh64_intdigest(b"choose_text %d %s" % (place, names[row]), seed % 2**64)
        for row, place in zip(rows.tolist(), places.tolist(), strict=True)
    ]
    return ((np.array(hashes, np.uint64) >> np.uint64(11)).astype(np.float64) + 1) / (1 << 53)
