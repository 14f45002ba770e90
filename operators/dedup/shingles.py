"""Texts as sets of shingles: what text is compared, what a word is, and when words or characters are counted.

Texts are compared in their normal form (`normal_forms.py`, form `text`), or `plain`, as they are; in either, each run
of white space is one space, with none at the ends. White space is what Python's `str.split()` splits at. A word is
what lies between spaces; a character is a code point. In plain texts control characters, marks of direction and
zero-width characters are characters like any other.

The shingles of a text are its runs of `size` neighbouring words or characters, as a set; a text that is shorter has one
shingle, itself. A shingle of words never equals a shingle of characters. Broder ("On the resemblance and containment of
documents", 1997) compares such sets by their Jaccard similarity.

In compiled loops a shingle is a 64-bit hash that no seed changes. Two different shingles of one pair of texts share a
hash with a probability of about n² / 2⁶⁵, n being the shingles of both: 2⁻⁵² for two captions of fifty characters, and
below one in a million for the billion pairs that a large pool compares, so that similarities are the sets' own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from corpusmith.operators.dedup.normal_forms import normal_form
from corpusmith.schemas.errors import UserError

TextForm = Literal["text", "plain"]
Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]

_ALWAYS, _NEVER = 0, 2**62


class Sizes(NamedTuple):
    """How a text is cut, as compiled loops take it.

    Args:
        word: words in a shingle of words.
        character: code points in a shingle of characters.
        words_from: texts of at least so many words are cut into words, others into characters.
    """

    word: int
    character: int
    words_from: int


@dataclass(frozen=True)
class Forms:
    """Texts in the form that is compared, end to end.

    Args:
        data: UTF-8.
        offsets: (N + 1,) where each text begins in `data`; an empty text where there was none or a malformed one.
        is_missing: (N,) whether there was no text.
        is_malformed: (N,) whether the text was no UTF-8.
    """

    data: Bytes
    offsets: Ints
    is_missing: npt.NDArray[np.bool_]
    is_malformed: npt.NDArray[np.bool_]


def sizes_of(kind: Literal["auto", "words", "characters"], word: int, character: int, auto_words: int) -> Sizes:
    """How to cut texts into words, into characters, or into words from `auto_words` words on."""
    return Sizes(word, character, {"words": _ALWAYS, "characters": _NEVER, "auto": auto_words}[kind])


def forms_of(texts: pa.Array | pa.ChunkedArray, *, form: TextForm, column: str) -> Forms:
    """Texts in the form that is compared.

    Args:
        texts: (N,) strings of any kind.
        form: see the module.
        column: named in the error.

    Raises:
        UserError: the column holds no texts.
    """
    from corpusmith.operators.dedup.shingle_kernels import collapsed

    strings = _strings(texts, column)
    is_missing = strings.is_null().to_numpy(zero_copy_only=False)
    is_malformed = _malformed(strings)
    if is_malformed.any():
        strings = pc.if_else(pa.array(is_malformed), None, strings)
    if form == "text":
        strings = normal_form(strings, "text")
    data, offsets = buffers(pc.fill_null(strings, ""))
    return Forms(*collapsed(data, offsets), is_missing, is_malformed)


def buffers(strings: pa.LargeStringArray | pa.LargeBinaryArray) -> tuple[Bytes, Ints]:
    """Bytes and (N + 1,) offsets of an array, without a copy; they are not to be written to."""
    _, offsets, data = strings.buffers()
    places = np.frombuffer(offsets, np.int64)[strings.offset : strings.offset + len(strings) + 1] if offsets else []
    if not len(places):
        places = np.zeros(1, np.int64)
    return np.frombuffer(data, np.uint8) if data else np.zeros(0, np.uint8), np.asarray(places)


def _strings(texts: pa.Array | pa.ChunkedArray, column: str) -> pa.LargeStringArray:
    kind = texts.type.value_type if pa.types.is_dictionary(texts.type) else texts.type
    known = (pa.types.is_string, pa.types.is_large_string, pa.types.is_null)
    if not any(is_kind(kind) for is_kind in known):
        raise UserError(f"column {column!r} holds {kind}, not texts", hint="name a column of texts")
    strings = texts.cast(pa.large_string())
    return strings.combine_chunks() if isinstance(strings, pa.ChunkedArray) else strings


def _malformed(strings: pa.LargeStringArray) -> npt.NDArray[np.bool_]:
    try:
        strings.validate(full=True)
        return np.zeros(len(strings), bool)
    except pa.ArrowInvalid:
        return np.array([not _is_utf8(raw) for raw in strings.cast(pa.large_binary()).to_pylist()], bool)


def _is_utf8(raw: bytes | None) -> bool:
    try:
        return raw is None or raw.decode() is not None
    except UnicodeDecodeError:
        return False
