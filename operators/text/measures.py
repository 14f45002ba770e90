"""Measures of texts: numbers and yes-or-no questions that tell a description from noise, all over whole Arrow arrays.

Each function takes strings whose white space is collapsed (single spaces between words, none at either end) and gives
one value a text, null for null. Regular expressions are RE2's, so no text takes more than linear time.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_EXTENSIONS = (
    "jpe?g|jfif|png|gif|webp|bmp|tiff?|heic|heif|avif|svg|psd|raw|cr2|nef|arw|dng|mp4|m4v|mov|avi|mkv|webm|wmv"
)
_NUMBERED = (
    "_?img|_?dsc[nfi]?|_?mg|imag|imgp|pict?|pxl|mvimg|vid|mov|mvi|gopr|dji|sam|cimg|hpim|kif|pano|burst|fullsizerender"
    "|screen ?shot|scan|images?|photo|picture|untitled|unnamed|download|file|capture|thumbnail"
)
_IS_FILENAME = (
    rf"(?is)^(.+\.({_EXTENSIONS})"
    rf"|({_NUMBERED})[-_ ]?[0-9]{{2,}}([-_ .:()~0-9]| at )*([-_ ]?(hdr|edit|edited|copy|small|large|thumb|[a-z]))?"
    r"|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{16,}|p?[0-9]{6,}([-_][0-9]+)*([-_][a-z])?)$"
)
"""The whole text is a name with a media extension, a camera's or program's numbered name, a UUID, a hash or digits."""

_NO_ALNUM = r"[^\p{L}\p{M}\p{N} ]"
_SPECIAL = (
    r"[^\p{L}\p{M}\p{N} .,;:!?'\"()\-\x{2010}-\x{2015}\x{2018}-\x{201f}\x{2026}«»¿¡"
    r"\x{3001}\x{3002}\x{300c}-\x{300f}，．；：！？（）]"
)
"""Neither letter, mark, digit nor what sentences are punctuated with, the typographic and East Asian forms included."""

_HAS_CONTACT = (
    r"(?i)\bhttps?://[^\s/?#]|\bwww\.[a-z0-9-]+\.[a-z]|\b[a-z0-9][a-z0-9-]*\.(com|org|co\.uk)\b"
    r"|[a-z0-9._%+-]@[a-z0-9-]+\.[a-z]"
    r"|\+[1-9][0-9 ().-]{6,18}[0-9]|\([0-9]{3}\) ?[0-9]{3}[-. ][0-9]{4}\b|\b[0-9]{3}[-.][0-9]{3}[-.][0-9]{4}\b"
    r"|\b(tel|fax|phone|whatsapp|call us( at| on)?)[.:]* ?[0-9(][0-9 ().-]{4,18}[0-9]"
)
"""A URL, www., a name below com, org or co.uk; an e-mail address; a phone number as +44 20 …, (212) 555-0100, or after
a word that announces it."""


def word_count(texts: pa.Array) -> pa.Array:
    """Words between spaces (int32)."""
    return pc.if_else(pc.equal(texts, ""), 0, pc.add(_spaces(texts), 1)).cast(pa.int32())


def alnum_ratio(texts: pa.Array) -> pa.Array:
    """Letters, marks and digits among the characters that are no space (float64)."""
    visible = pc.subtract(pc.utf8_length(texts), _spaces(texts))
    return _ratio(pc.subtract(visible, pc.count_substring_regex(texts, _NO_ALNUM)), visible)


def special_ratio(texts: pa.Array) -> pa.Array:
    """Symbols and uncommon punctuation among the characters that are no space (float64)."""
    visible = pc.subtract(pc.utf8_length(texts), _spaces(texts))
    return _ratio(pc.count_substring_regex(texts, _SPECIAL), visible)


def longest_run(texts: pa.Array) -> pa.Array:
    """Length of the longest run of one character (int32), 0 for the empty text."""
    lengths = pc.fill_null(pc.utf8_length(texts), 0).to_numpy().astype(np.int64)
    filled = np.flatnonzero(lengths)
    longest = np.zeros(len(texts), np.int32)
    if len(filled):
        codes = _code_points(texts)
        starts = (np.cumsum(lengths) - lengths)[filled]
        begins_run = np.ones(len(codes), np.bool_)
        begins_run[1:] = codes[1:] != codes[:-1]
        begins_run[starts] = True
        runs = np.flatnonzero(begins_run)
        run_lengths = np.diff(runs, append=len(codes))
        longest[filled] = np.maximum.reduceat(run_lengths, np.searchsorted(runs, starts))
    return pc.if_else(texts.is_valid(), pa.array(longest), None)


def repetition(texts: pa.Array) -> pa.Array:
    """Share of the words that came before in the text, case ignored (float64)."""
    words = word_count(texts)
    return _ratio(pc.subtract(words, _distinct_words(texts)), words)


def is_filename(texts: pa.Array) -> pa.Array:
    """Whether the text looks like the name of a file (bool)."""
    return pc.match_substring_regex(texts, _IS_FILENAME)


def has_contact(texts: pa.Array) -> pa.Array:
    """Whether an address of the web, of e-mail or of the telephone is in the text (bool)."""
    return pc.match_substring_regex(texts, _HAS_CONTACT)


def _spaces(texts: pa.Array) -> pa.Array:
    return pc.count_substring(texts, " ")


def _ratio(part: pa.Array, whole: pa.Array) -> pa.Array:
    """part / whole, 0 where the whole is 0."""
    return pc.divide(part.cast(pa.float64()), pc.max_element_wise(whole, 1, skip_nulls=False).cast(pa.float64()))


def _code_points(texts: pa.Array) -> np.ndarray:
    """Characters of all texts, one after the other; bytes where these are the characters."""
    filled = pc.fill_null(texts, "")
    _, offsets, data = filled.buffers()
    ends = np.frombuffer(offsets, np.int32)[filled.offset : filled.offset + len(filled) + 1]
    raw = bytes(memoryview(data)[ends[0] : ends[-1]])
    if raw.isascii():
        return np.frombuffer(raw, np.uint8)
    return np.frombuffer(raw.decode("utf-8").encode("utf-32-le"), np.uint32)


def _distinct_words(texts: pa.Array) -> pa.Array:
    """Number of different words of each text, case ignored (simple case mapping)."""
    lists = pc.split_pattern(pc.utf8_lower(texts), " ")
    words = pc.list_flatten(lists)
    is_word = pc.not_equal(words, "").to_numpy(zero_copy_only=False)
    codes = words.dictionary_encode().indices.to_numpy().astype(np.int64)[is_word]
    owners = pc.list_parent_indices(lists).to_numpy()[is_word].astype(np.int64)
    keys = np.sort(owners * (len(words) + 1) + codes)
    is_new = np.ones(len(keys), np.bool_)
    is_new[1:] = keys[1:] != keys[:-1]
    counts = np.bincount(keys[is_new] // (len(words) + 1), minlength=len(texts)).astype(np.int32)
    return pc.if_else(texts.is_valid(), pa.array(counts), None)
