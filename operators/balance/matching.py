"""Which entries occur in which texts, exactly as MetaCLIP's published tests, at the price of a word look-up.

Both rules space a text first (`space_texts`), then look for substrings, case and all.

"metaclip" (Xu et al., "Demystifying CLIP Data", section 3, and its code's loop): entry e matches when " " + e + " " is
a substring. A spaced text starts and ends with a space, so such a substring is a run of whole tokens between spaces,
empty tokens included. The loop is the definition, not the published automaton, which keeps one of equal entries.

"metaclip2" (Chuang et al., "Meta CLIP 2: A Worldwide Scaling Recipe", and its code's `get_spaced_metadata` and
`substr_match`): the space before an entry is left out if the entry begins with a character that needs no boundary, the
one after it if it ends with one. These are Han and CJK radicals, Thai, Lao, Burmese, Khmer, Tibetan, and punctuation,
ASCII's and some of Chinese; kana and hangul are not among them. The paper speaks of languages written without spaces,
and the code lists some, Japanese among them; but its test looks at the characters alone, and so does this one. Where
the code differs: equal entries are all reported here, its automaton keeps the last; an empty entry matches nothing
here and raises there; its caller strips texts beforehand, which is left to a step before this.

The loops are in `matching_kernels`.
"""

from __future__ import annotations

import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

_SLICE_ROWS = 1 << 17
"""Texts that are looked at in one call of the loops."""
_PAIRS = 1 << 22
"""Matches that a call of the loops has room for at first."""
_BUCKETS = 4
"""Buckets of the filter for each step of the entries, at least."""

_FREE_RANGES = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF),
    (0x2CEB0, 0x2EBEF),
    (0xF900, 0xFAFF),
    (0x2E80, 0x2EFF),
    (0x2F00, 0x2FDF),
    (0x2FF0, 0x2FFF),
    (0x0E00, 0x0E7F),
    (0x0E80, 0x0EFF),
    (0x1000, 0x109F),
    (0x1780, 0x17FF),
    (0x0F00, 0x0FFF),
)
"""Code points of Han and its radicals, then Thai, Lao, Burmese, Khmer, Tibetan: metaclip2 wants no boundary there."""
_FREE_MARKS = frozenset(string.punctuation + "，。、；：？！“”‘’（）【】《》〈〉「」『』～—")

Rule = Literal["metaclip", "metaclip2"]
Ints = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Matches:
    """Pairs (text, entry) that match, each once, sorted by text and then by entry.

    Args:
        rows: position of the text, one for each pair.
        entries: index of the entry, one for each pair; of equal entries each is reported.
    """

    rows: Ints
    entries: Ints


def space_texts(texts: pa.Array) -> pa.Array:
    """Texts as the match test reads them: large strings, nulls stay null.

    A space at both ends; tab, newline and carriage return become spaces; each of , . ; : ? ! ` gets a space on both
    sides. Spaces are never merged.
    """
    spaced = pc.cast(texts, pa.large_string())
    for character in "\t\n\r":
        spaced = pc.replace_substring(spaced, character, " ")
    for character in ",.;:?!`":
        spaced = pc.replace_substring(spaced, character, f" {character} ")
    space = pa.scalar(" ", pa.large_string())
    return pc.binary_join_element_wise(space, spaced, space, pa.scalar("", pa.large_string()))


def space_text(text: str) -> str:
    """One text as the match test reads it; see `space_texts`."""
    return space_texts(pa.array([text], pa.large_string()))[0].as_py()


class Matcher:
    """Finds the entries of a list in texts. Threads may share one; pickled, it is some arrays of NumPy.

    An index of 500,000 entries takes some 30 MB and a third of a second to make.

    Args:
        entries: strings without nulls, as they are: they are not spaced, so an entry such as "st. louis" can never
            match. Duplicates each count; under "metaclip" the empty entry matches where a spaced text has two spaces
            in a row.
        rule: see the module.

    Raises:
        ValueError: an entry is null, no valid UTF-8, or longer than 256 MB.
    """

    def __init__(self, entries: Sequence[str] | pa.Array | pa.ChunkedArray, rule: Rule = "metaclip") -> None:
        listed = entries if isinstance(entries, pa.Array | pa.ChunkedArray) else pa.array(entries, pa.large_string())
        strings = _strings(listed)
        _check_entries(strings)
        self.count = len(strings)
        self.rule = rule
        self._index = _index(strings, _flags(strings, rule))

    def match(self, texts: pa.Array | pa.ChunkedArray) -> Matches:
        """Find all entries in texts.

        Args:
            texts: strings of any of Arrow's types; a null matches nothing. Invalid UTF-8 is compared as the bytes
                that it is.

        Returns:
            Columnar pairs; `rows` are positions in `texts`.
        """
        from corpusmith.operators.balance import matching_kernels as kernels

        found = [(np.zeros(0, np.int64), np.zeros(0, np.int64))]
        for first_row, part in _slices(texts):
            rows, entries = self._found(part, np.zeros(0, np.int64))
            kernels.order(rows, entries)
            found.append((rows + first_row if first_row else rows, entries))
        if len(found) == 2:
            return Matches(*found[1])
        return Matches(*(np.concatenate(column) for column in zip(*found, strict=True)))

    def counts(self, texts: pa.Array | pa.ChunkedArray) -> Ints:
        """Texts that match each entry, of shape (count,): what `match` finds, counted without being kept."""
        counts = np.zeros(self.count, np.int64)
        for _, part in _slices(texts):
            if self.count:
                self._found(part, counts)
        return counts

    def _found(self, texts: pa.Array, counts: Ints) -> tuple[Ints, Ints]:
        """Pairs of texts of one array, texts ascending; with `counts`, none are returned."""
        from corpusmith.operators.balance import matching_kernels as kernels

        text, offsets = _buffers(texts)
        is_null = texts.is_null().to_numpy(zero_copy_only=False) if texts.null_count else np.zeros(0, np.bool_)
        index = tuple(map(_frozen, self._index))
        text, offsets, is_null = map(_frozen, (text, offsets, is_null))
        size_bytes, tokens = kernels.room(text, offsets, _frozen(_kinds()))
        spaced = np.empty(size_bytes + kernels.PADDING_BYTES, np.uint8)
        stamps = np.zeros(self.count, np.int32)
        size = 0 if len(counts) else min(_PAIRS, 1024 + int(offsets[-1] - offsets[0]))
        rows, entries = np.empty(size, np.int64), np.empty(size, np.int64)
        return kernels.match(
            index, text, offsets, is_null, spaced, _words(spaced), tokens, stamps, rows, entries, counts
        )


def _check_entries(entries: pa.LargeStringArray) -> None:
    if entries.null_count:
        raise ValueError("an entry is null")
    if len(entries) >= 1 << 31 or (pc.max(pc.binary_length(entries)).as_py() or 0) >= 1 << 28:
        raise ValueError("more than 2**31 entries, or one of more than 256 MB")
    try:
        entries.validate(full=True)
    except pa.ArrowInvalid as error:
        raise ValueError(f"an entry is no valid UTF-8: {error}") from error


def _flags(entries: pa.LargeStringArray, rule: Rule) -> Bytes:
    """For each entry the edges that need a space beside them."""
    from corpusmith.operators.balance import matching_kernels as kernels

    if rule == "metaclip":
        return np.full(len(entries), kernels.BOUND, np.uint8)
    flags = np.zeros(len(entries), np.uint8)
    for start, flag in ((0, kernels.BOUND_LEFT), (-1, kernels.BOUND_RIGHT)):
        edges = pc.utf8_slice_codeunits(entries, start, 1 if start == 0 else None).dictionary_encode()
        needs = np.array([edge != "" and needs_space(edge) for edge in edges.dictionary.to_pylist()], np.bool_)
        flags[needs[edges.indices.to_numpy()]] |= flag
    flags[pc.equal(pc.binary_length(entries), 0).to_numpy(zero_copy_only=False)] = kernels.NEVER
    return flags


def needs_space(character: str) -> bool:
    """Whether an entry that begins or ends with a character needs a space beside it (metaclip2)."""
    return character not in _FREE_MARKS and not any(first <= ord(character) <= last for first, last in _FREE_RANGES)


def _index(entries: pa.LargeStringArray, flags: Bytes) -> Any:
    """The index that the loops read."""
    from corpusmith.operators.balance import matching_kernels as kernels

    text, offsets = _buffers(entries)
    text = np.concatenate([text, np.zeros(kernels.PADDING_BYTES, np.uint8)])
    steps = np.where(
        flags == kernels.BOUND, _int64(pc.count_substring(entries, " ")) + 1, _int64(pc.utf8_length(entries))
    )
    bits = max(16, int(_BUCKETS * steps.sum()).bit_length())
    slots = np.full(1 << max(4, (2 * len(entries)).bit_length()), kernels.EMPTY)
    records = np.zeros(int((1 + np.maximum(2, -(-np.diff(offsets) // 8))).sum()), np.uint64)
    filter_ = np.zeros(1 << (bits - 5), np.uint64)
    others, begins = np.full(len(entries), -1, np.int32), np.zeros(256, np.uint8)
    tables = (slots, records, filter_, others, begins)
    most = kernels.fill(*tables, 64 - bits, text, _words(text), _frozen(offsets), flags)
    return (slots, records, filter_, others, _kinds(), begins, 64 - bits, *most)


def _kinds() -> Bytes:
    """What spacing does with each byte."""
    from corpusmith.operators.balance import matching_kernels as kernels

    kinds = np.zeros(256, np.uint8)
    kinds[list(b" \t\n\r")] = kernels.SPLIT
    kinds[list(b",.;:?!`")] = kernels.ISOLATED
    return kinds


def _int64(values: pa.Array) -> Ints:
    return values.to_numpy(zero_copy_only=False).astype(np.int64)


def _frozen(values: Any) -> Any:
    """An array as one that cannot be written to, of whatever kind it is: the loops are compiled for one kind alone."""
    if not isinstance(values, np.ndarray):
        return values
    frozen = values.view()
    frozen.flags.writeable = False
    return frozen


def _strings(texts: pa.Array | pa.ChunkedArray) -> pa.LargeStringArray:
    """Strings of any of Arrow's types, chunked or not, as one array of large strings."""
    if isinstance(texts, pa.ChunkedArray):
        texts = texts.combine_chunks()
    if isinstance(texts, pa.DictionaryArray):
        texts = texts.dictionary_decode()
    return texts.cast(pa.large_string())


def _buffers(strings: pa.LargeStringArray) -> tuple[Bytes, Ints]:
    """All bytes up to the last string's end, and n + 1 offsets into them."""
    _, offsets_buffer, data = strings.buffers()
    if not len(strings):
        return np.zeros(0, np.uint8), np.zeros(1, np.int64)
    offsets = np.frombuffer(offsets_buffer, np.int64, len(strings) + 1, 8 * strings.offset)
    size_bytes = int(offsets[-1])
    return np.frombuffer(data, np.uint8, size_bytes) if size_bytes else np.zeros(0, np.uint8), offsets


def _words(text: Bytes) -> npt.NDArray[np.uint64]:
    """The 8 bytes from each byte on, the first lowest; none from the last 7 bytes."""
    return np.ndarray(len(text) - 7, "<u8", text.data, strides=(1,))


def _slices(texts: pa.Array | pa.ChunkedArray) -> Iterator[tuple[int, pa.LargeStringArray]]:
    """Runs of texts of one chunk, each with the position of its first text."""
    first_row = 0
    for chunk in texts.chunks if isinstance(texts, pa.ChunkedArray) else [texts]:
        for start in range(0, len(chunk), _SLICE_ROWS):
            yield first_row + start, _strings(chunk.slice(start, _SLICE_ROWS))
        first_row += len(chunk)
