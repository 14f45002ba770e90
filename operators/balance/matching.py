"""Which entries occur in which texts, exactly as MetaCLIP's published substring test, at the price of a word lookup.

The test (Xu et al., "Demystifying CLIP Data", section 3): a text is spaced (`space_texts`), and entry e matches when
" " + e + " " is a substring, case and all. A spaced text starts and ends with a space, so such a substring is a run of
whole tokens between spaces, empty tokens included: only as many spans begin at a token as entries have token counts,
and each is one hash lookup. Spans are hashed from prefix sums over the bytes, so a span of any length costs the same.

Hashes only propose: every proposal is compared byte by byte, so that no collision, accidental or made by somebody, can
be a match.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

_SPACE = 32
_SLICE_BYTES = 1 << 20
"""Text bytes looked at together; working memory is some tens of times as much, and stays in the cache."""
_BASE = 0x9E6C63D0876A9A47
_BASE_INVERSE = pow(_BASE, -1, 1 << 64)
_MIX = 0x9E3779B97F4A7C15
_WORD_BYTES = 8

Ints = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]


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
    """Finds the entries of a list in texts.

    Args:
        entries: as they are: they are not spaced, so an entry such as "st. louis" can never match. Duplicates each
            count; the empty entry matches where a spaced text has two spaces in a row.
    """

    def __init__(self, entries: Sequence[str]) -> None:
        self.count = len(entries)
        self._bytes, offsets = _buffers(pa.array(entries, pa.large_string()))
        self._starts, self._lengths = offsets[:-1], np.diff(offsets)
        self._words = _words(self._bytes)
        self._powers, self._inverses = _powers(_BASE, len(self._bytes)), _powers(_BASE_INVERSE, len(self._bytes))
        self._bits = max(8, (4 * self.count).bit_length())
        self._index()

    def _index(self) -> None:
        """Lay the entries out by bucket, and note the buckets of their proper prefixes of whole tokens."""
        sums, ends = self._prefix_sums(self._bytes), self._starts + self._lengths
        hashes = self._hash(sums, self._starts, ends)
        buckets = self._buckets(hashes)
        self._order = np.argsort(buckets, kind="stable")
        self._hashes = hashes[self._order]
        self._bucket_starts = np.searchsorted(buckets[self._order], np.arange((1 << self._bits) + 1))
        spaces = np.flatnonzero(self._bytes == _SPACE)
        owners = np.searchsorted(ends, spaces, side="right")
        self._max_tokens = 1 + int(np.bincount(owners, minlength=1).max())
        self._begins_entry = np.zeros(1 << self._bits, np.bool_)
        self._begins_entry[self._buckets(self._hash(sums, self._starts[owners], spaces))] = True

    def match(self, texts: pa.Array | pa.ChunkedArray) -> Matches:
        """Find all entries in texts.

        Args:
            texts: strings; a null matches nothing.

        Returns:
            Columnar pairs; `rows` are positions in `texts`.
        """
        pairs = [np.zeros(0, np.int64)]
        for first_row, part in _slices(texts):
            rows, entries = self._match_slice(part)
            pairs.append(_distinct((rows + first_row) * max(self.count, 1) + entries))
        rows, entries = np.divmod(np.concatenate(pairs), max(self.count, 1))
        return Matches(rows, entries)

    def _match_slice(self, texts: pa.Array) -> tuple[Ints, Ints]:
        text, offsets = _buffers(pc.fill_null(space_texts(texts), ""))
        self._reach(len(text))
        sums, words = self._prefix_sums(text), _words(text)
        spaces = np.flatnonzero(text == _SPACE)
        row_of_space = np.searchsorted(offsets, spaces, side="right") - 1
        at = np.arange(len(spaces) - 1)
        found = [(at[:0], at[:0])]
        for tokens in range(1, self._max_tokens + 1):
            at = at[: np.searchsorted(at, len(spaces) - tokens)]
            at = at[row_of_space[at] == row_of_space[at + tokens]]
            starts, ends = spaces[at] + 1, spaces[at + tokens]
            hashes = self._hash(sums, starts, ends)
            buckets = self._buckets(hashes)
            spans, entries = self._proposals(hashes, buckets)
            same = self._is_same(words, starts[spans], (ends - starts)[spans], entries)
            found.append((row_of_space[at[spans[same]]], entries[same]))
            at = at[self._begins_entry[buckets]]
            if not len(at):
                break
        return np.concatenate([rows for rows, _ in found]), np.concatenate([entries for _, entries in found])

    def _proposals(self, hashes: Hashes, buckets: Ints) -> tuple[Ints, Ints]:
        """Pairs (span, entry) of equal hashes."""
        first, last = self._bucket_starts[buckets], self._bucket_starts[buckets + 1]
        filled = np.flatnonzero(last > first)
        sizes = (last - first)[filled]
        spans = np.repeat(filled, sizes)
        places = np.arange(len(spans)) + np.repeat(first[filled] - np.cumsum(sizes) + sizes, sizes)
        equal = self._hashes[places] == hashes[spans]
        return spans[equal], self._order[places[equal]]

    def _is_same(self, words: Hashes, starts: Ints, lengths: Ints, entries: Ints) -> npt.NDArray[np.bool_]:
        """Whether spans of the text are, byte by byte, the entries proposed for them."""
        same = lengths == self._lengths[entries]
        rest, done = np.flatnonzero(same & (lengths > 0)), 0
        while len(rest):
            left = lengths[rest] - done
            differing = words[starts[rest] + done] ^ self._words[self._starts[entries[rest]] + done]
            beyond = (8 * np.maximum(_WORD_BYTES - left, 0)).astype(np.uint64)
            equal = (differing << beyond) == 0
            same[rest[~equal]] = False
            done += _WORD_BYTES
            rest = rest[equal & (left > _WORD_BYTES)]
        return same

    def _reach(self, size_bytes: int) -> None:
        if size_bytes >= len(self._powers):
            self._powers, self._inverses = _powers(_BASE, size_bytes), _powers(_BASE_INVERSE, size_bytes)

    def _prefix_sums(self, text: npt.NDArray[np.uint8]) -> Hashes:
        sums = np.zeros(len(text) + 1, np.uint64)
        np.cumsum(text * self._powers[: len(text)], out=sums[1:])
        return sums

    def _hash(self, sums: Hashes, starts: Ints, ends: Ints) -> Hashes:
        """Polynomial hashes modulo 2**64 of spans, moved to position 0."""
        return (sums[ends] - sums[starts]) * self._inverses[starts]

    def _buckets(self, hashes: Hashes) -> Ints:
        return ((hashes * np.uint64(_MIX)) >> np.uint64(64 - self._bits)).astype(np.int64)


def _distinct(values: Ints) -> Ints:
    """The values in ascending order, each once; sorting is far faster here than the hashing of np.unique."""
    ascending = np.sort(values)
    return ascending[np.append(True, ascending[1:] != ascending[:-1])[: len(values)]]


def _powers(base: int, highest: int) -> Hashes:
    """base**0 … base**highest modulo 2**64."""
    factors = np.full(highest + 1, base, np.uint64)
    factors[0] = 1
    return np.multiply.accumulate(factors)


def _buffers(strings: pa.Array) -> tuple[npt.NDArray[np.uint8], Ints]:
    """Bytes of large strings without nulls, one after the other, and their n + 1 offsets."""
    _, offsets_buffer, data = strings.buffers()
    offsets = np.frombuffer(offsets_buffer, np.int64, len(strings) + 1, 8 * strings.offset)
    size_bytes = int(offsets[-1] - offsets[0])
    if not size_bytes:
        return np.zeros(0, np.uint8), offsets - offsets[0]
    return np.frombuffer(data, np.uint8, size_bytes, int(offsets[0])), offsets - offsets[0]


def _words(text: npt.NDArray[np.uint8]) -> Hashes:
    """The 8 bytes from each position on, the first lowest; zeros follow the end."""
    padded = np.concatenate([text, np.zeros(_WORD_BYTES, np.uint8)])
    return np.ndarray(len(text) + 1, "<u8", padded.data, strides=(1,))


def _slices(texts: pa.Array | pa.ChunkedArray) -> Iterator[tuple[int, pa.Array]]:
    """Runs of whole texts of about _SLICE_BYTES, each with the position of its first text."""
    first_row = 0
    for chunk in texts.chunks if isinstance(texts, pa.ChunkedArray) else [texts]:
        lengths = pc.fill_null(pc.binary_length(chunk), 0).to_numpy(zero_copy_only=False)
        runs = np.cumsum(lengths, dtype=np.int64) // _SLICE_BYTES
        cuts = [0, *(np.flatnonzero(np.diff(runs)) + 1).tolist(), len(chunk)]
        for start, end in pairwise(cuts):
            yield first_row + start, chunk.slice(start, end - start)
        first_row += len(chunk)
