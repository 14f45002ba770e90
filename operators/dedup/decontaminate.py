"""decontaminate: what looks like something in an evaluation set does not go on.

A select and no reduce: a row is compared with sets that are fixed when the recipe is read, and with no other row. So it
runs within the stream, on every worker, before anything costly, and never waits for all rows.

A row is near a set if its hash differs from one of the set's in at most `radius` bits (`hamming`, exact), if its sha256
is among the set's, or if the cosine of its embedding and one of the set's is at least `cosine`: 0.604 is DataComp's
bound for the copy detector of the Image Similarity Challenge (Gadre et al., "DataComp", 2023, section 3.2 and appendix
on deduplication against evaluation sets); other encoders need their own. Embeddings are compared as `vectors` stores
them: 16-bit unit vectors, whose dot products are exact, so that no decision depends on the batch a row comes in.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, ValidationInfo, field_validator

from corpusmith.operators.contract import Config as BaseConfig
from corpusmith.operators.contract import Decision, Select
from corpusmith.operators.dedup.evaluation_sets import (
    DIGITS,
    SHA256,
    EvaluationSet,
    Hashes,
    Vectors,
    read_hashes,
    read_vectors,
)
from corpusmith.operators.dedup.hamming import MAX_RADIUS, Nearest
from corpusmith.operators.dedup.perceptual import RADIUS
from corpusmith.operators.embedding.vectors import check_type, dots, unit_vectors
from corpusmith.schemas.columns import EMBEDDING
from corpusmith.schemas.errors import UserError
from corpusmith.schemas.fates import RowError

COSINE = 0.604
_NAME = r"[\w.-]+( [\w.-]+)*"
_SHOWN_CHARS = 80
_MARGIN = 1e-3
"""Products of 32-bit floats that are so close to the largest are computed again, exactly."""
_QUERIES, _OTHERS = 1024, 8192
"""Rows and vectors multiplied at once: 32 MB of products."""

Ints = npt.NDArray[np.int64]
Found = tuple[dict[int, str], dict[int, RowError]]
"""Of a batch's rows: how near a row is to what, in words; why a row cannot be compared."""


class Decontaminate(Select, name="decontaminate", version=1):
    """Drop what looks like something in an evaluation set: images, hashes or embeddings."""

    class Config(BaseConfig):
        sets: dict[str, EvaluationSet] = Field(
            default={},
            description="name → {images: …}, {hashes: …}, {sha256: …} or {embeddings: …}; a row that is near several "
            "is told as one of the first",
        )
        hash: Literal["phash", "pdq"] = Field(
            default="phash", description="kind of hash that images and hashes are compared by"
        )
        column: str | None = Field(
            default=None, description="column with that hash, called like its kind by default; a row without one fails"
        )
        radius: int | None = Field(
            default=None,
            ge=0,
            le=max(MAX_RADIUS.values()),
            description=f"bits in which two hashes may differ and still look alike: phash {RADIUS[64]}, pdq "
            f"{RADIUS[256]} by default, at most {MAX_RADIUS[64]} and {MAX_RADIUS[256]}",
        )
        sha256: str = Field(default=SHA256, description="column with the media's sha256, for sets of those")
        embedding: str = Field(default=EMBEDDING.name, description="column with the embedding, for sets of those")
        cosine: float = Field(
            default=COSINE, gt=0, le=1, description="cosine from which on two embeddings are of copies of one picture"
        )
        skip_unreadable: bool = Field(
            default=False, description="compare with the readable images of a set; else one that is not is an error"
        )
        sets_sha256: str | None = Field(
            default=None,
            validate_default=True,
            description="fingerprint of the sets, filled in when the recipe is read so that a changed set is a changed "
            "step; give it to insist on theirs",
        )

        @field_validator("sets")
        @classmethod
        def _are_named(cls, sets: dict[str, EvaluationSet]) -> dict[str, EvaluationSet]:
            wrong = next((name for name in sets if not re.fullmatch(_NAME, name)), None)
            if wrong is not None:
                raise ValueError(f"{wrong!r} is no name for a set: use letters, digits, _ . - and single spaces")
            return sets

        @field_validator("radius")
        @classmethod
        def _fits_the_hash(cls, radius: int | None, info: ValidationInfo) -> int | None:
            most = MAX_RADIUS[4 * DIGITS[info.data.get("hash", "pdq")]]
            if radius is not None and radius > most:
                raise ValueError(f"at most {most} of {4 * DIGITS[info.data['hash']]} bits")
            return radius

        @field_validator("sets_sha256")
        @classmethod
        def _is_theirs(cls, given: str | None, info: ValidationInfo) -> str | None:
            values = info.data
            if not {"sets", "hash", "embedding", "skip_unreadable"} <= values.keys():
                return given
            try:
                found = _fingerprint(
                    _read(values["sets"], values["hash"], values["embedding"], values["skip_unreadable"])
                )
            except UserError as error:
                raise ValueError(str(error)) from error
            if given not in (None, found):
                raise ValueError(f"the evaluation sets are others: {found}")
            return found

    positional = "sets"
    config: Config

    @property
    def requires(self) -> tuple[str, ...]:
        columns = [self._column_of(given) for given in self.config.sets.values()]
        return tuple(dict.fromkeys(columns))

    def missing(self) -> str | None:
        if self.config.sets:
            return None
        return "no evaluation set is named: sets: {NAME: {images: FOLDER}}, or hashes, sha256 or embeddings"

    def setup(self) -> None:
        config = self.config
        sets = _read(config.sets, config.hash, config.embedding, config.skip_unreadable)
        if _fingerprint(sets) != config.sets_sha256:
            raise UserError("the evaluation sets changed after the recipe was read", where=", ".join(config.sets))
        self._sets = {name: (self._column_of(config.sets[name]), self._index(name, sets[name])) for name in sets}

    def decide(self, batch: pa.Table) -> Decision:
        reasons: dict[int, str] = {}
        errors: dict[int, RowError] = {}
        for name, (column, index) in self._sets.items():
            near, failed = index.near(batch.column(column), column)
            reasons = {i: f"evaluation set {name}: {how}" for i, how in near.items()} | reasons
            errors = failed | errors
        keep = np.ones(batch.num_rows, bool)
        keep[list(reasons)] = False
        return Decision(pa.array(keep), reasons, {i: why for i, why in errors.items() if i not in reasons})

    def _column_of(self, given: EvaluationSet) -> str:
        if given.embeddings:
            return self.config.embedding
        return self.config.sha256 if given.sha256 else self.config.column or self.config.hash

    def _index(self, name: str, content: Hashes | Vectors) -> _Hashed | _Embedded:
        if isinstance(content, Vectors):
            return _Embedded(content, self.config.cosine)
        if self.config.sets[name].sha256:
            return _Hashed(content, Nearest(content.words, 0), SHA256)
        kind = self.config.hash
        radius = RADIUS[4 * DIGITS[kind]] if self.config.radius is None else self.config.radius
        return _Hashed(content, Nearest(content.words, radius), kind)


@dataclass(frozen=True)
class _Hashed:
    """A set that rows are compared with by hash."""

    content: Hashes
    nearest: Nearest
    kind: str

    def near(self, values: pa.ChunkedArray, column: str) -> Found:
        digits = DIGITS[self.kind]
        texts = values.cast(pa.string())
        is_hash = pc.match_substring_regex(texts, f"^[0-9a-fA-F]{{{digits}}}\\z").to_numpy(zero_copy_only=False)
        errors: dict[int, RowError] = {}
        for i in np.flatnonzero(is_hash != True).tolist():  # noqa: E712 - null is neither
            text = texts[i].as_py()
            told = RowError(f"malformed {column}", f"not {digits} hex digits: {(text or '')[:40]}")
            errors[i] = RowError(f"missing {column}") if text is None else told
        live = np.flatnonzero(is_hash == True)  # noqa: E712
        found, distances = self.nearest.of(_words(texts.take(pa.array(live)), digits))
        hits = np.flatnonzero(found >= 0)
        return {int(live[k]): self._told(int(found[k]), int(distances[k])) for k in hits}, errors

    def _told(self, found: int, distance: int) -> str:
        how = self.kind if self.kind == SHA256 else f"{self.kind} distance {distance}"
        return f"{how} of {_shown(self.content.names[found])}"


@dataclass(frozen=True)
class _Embedded:
    """A set that rows are compared with by embedding."""

    content: Vectors
    cosine: float

    def near(self, values: pa.ChunkedArray, column: str) -> Found:
        check_type(values.type, column)
        dimension = self.content.vectors.shape[1]
        if pa.types.is_null(values.type):
            return {}, {i: RowError(f"missing {column}") for i in range(len(values))}
        lengths = pc.list_value_length(values).to_numpy(zero_copy_only=False)
        live = np.flatnonzero(lengths == dimension)
        errors: dict[int, RowError] = {}
        for i in np.flatnonzero(lengths != dimension).tolist():
            is_missing = values[i].as_py() is None
            told = RowError(f"malformed {column}", f"{lengths[i]:.0f} values, where the evaluation set has {dimension}")
            errors[i] = RowError(f"missing {column}") if is_missing else told
        if not len(live):
            return {}, errors
        units, faults = unit_vectors(values.take(pa.array(live)), column)
        for k in np.flatnonzero(faults.is_valid().to_numpy(zero_copy_only=False)).tolist():
            errors[int(live[k])] = RowError(str(faults[k]), "all values are zero, or one is not finite")
        near = {}
        for start in range(0, len(live) if units.shape[1] else 0, _QUERIES):
            for k, (found, cosine) in self._nearest(units[start : start + _QUERIES].astype(np.float16)).items():
                near[int(live[start + k])] = f"cosine {cosine:.3f} of {_shown(self.content.names[found])}"
        return near, errors

    def _nearest(self, queries: npt.NDArray[np.float16]) -> Mapping[int, tuple[int, float]]:
        """For each row that is near enough the set's nearest, the first of several, and the exact cosine.

        Args:
            queries: (Q, d) unit vectors, zeros for none.
        """
        best, bests = np.full(len(queries), -1), np.full(len(queries), self.cosine)
        for start in range(0, len(self.content.vectors), _OTHERS):
            others = self.content.vectors[start : start + _OTHERS]
            products = queries.astype(np.float32) @ others.astype(np.float32).T
            bounds = np.maximum(products.max(axis=1), bests) - _MARGIN
            rows, columns = np.nonzero(products >= bounds[:, None])
            exact = _exact(queries, rows, others, columns)
            order = np.lexsort((columns, -exact, rows))
            firsts = order[np.flatnonzero(np.diff(rows[order], prepend=-1))]
            rows, columns, exact = rows[firsts], columns[firsts], exact[firsts]
            is_better = np.where(best[rows] < 0, exact >= bests[rows], exact > bests[rows])
            best[rows[is_better]], bests[rows[is_better]] = start + columns[is_better], exact[is_better]
        return {int(i): (int(best[i]), float(bests[i])) for i in np.flatnonzero(best >= 0)}


def _exact(
    queries: npt.NDArray[np.float16], rows: Ints, others: npt.NDArray[np.float16], columns: Ints
) -> npt.NDArray[np.float64]:
    """Exact products of pairs, some at a time."""
    steps = range(0, len(rows), _QUERIES)
    made = [dots(queries[rows[i : i + _QUERIES]], others[columns[i : i + _QUERIES]]) for i in steps]
    return np.concatenate([np.zeros(0), *made])


def _words(texts: pa.ChunkedArray, digits: int) -> npt.NDArray[np.uint64]:
    """(N, W) uint64 of hex digits."""
    raw = bytes.fromhex("".join(texts.to_pylist()))
    return np.frombuffer(raw, ">u8").astype(np.uint64).reshape(len(texts), digits // 16)


def _shown(name: str) -> str:
    """A name in one line, cut."""
    line = "".join(c if c.isprintable() else " " for c in name)
    return line if len(line) <= _SHOWN_CHARS else f"{line[: _SHOWN_CHARS - 1]}…"


def _read(
    sets: Mapping[str, EvaluationSet], kind: str, embedding: str, skip_unreadable: bool
) -> dict[str, Hashes | Vectors]:
    return {
        name: read_vectors(given, embedding)
        if given.embeddings
        else read_hashes(given, kind, skip_unreadable=skip_unreadable)
        for name, given in sets.items()
    }


def _fingerprint(sets: Mapping[str, Hashes | Vectors]) -> str:
    digest = hashlib.sha256()
    for name, content in sets.items():
        digest.update(name.encode() + b"\n" + content.content + b"\n")
    return digest.hexdigest()
