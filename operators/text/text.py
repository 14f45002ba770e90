"""text: clean the caption and measure it.

Cleaning undoes what the way to the web did to a text and leaves what its author wrote: HTML entities (twice, for texts
that were escaped twice, and no more: a text can be nested without end), mojibake (ftfy), control and invisible
characters, white space, NFC. Quotes, ligatures and full-width letters stay as they are. Zero-width joiners stay between
characters beyond ASCII, where Persian, Indic scripts and emoji need them. Of a run of combining marks the first 30 stay
(Unicode Standard Annex #15, stream-safe text), since normalising longer ones takes quadratic time.

Most captions are plain ASCII and need only their white space collapsed: these stay in Arrow, and so do all measures.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from corpusmith.operators.contract import Annotate, Part
from corpusmith.operators.contract import Config as BaseConfig
from corpusmith.schemas.columns import CAPTION, Column

_SPACES = r"[\t-\r\x1c-\x20\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}]+"
"""What Python's str.split() splits on, for Arrow's regular expressions."""
_NEEDS_FIXING = r"[^\t-\r\x1c-\x25\x27-\x7e]"
"""A character that is not plain ASCII, or an ampersand."""
_ASCII_SPACES = str.maketrans(dict.fromkeys("\t\n\v\f\r\x1c\x1d\x1e\x1f", " "))
_INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u00ad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e007f]"
)
_LOOSE_JOINER = re.compile(
    "(?<![^\x00-\x7f\\s\u200c\u200d])[\u200c\u200d]++"
    "|(?<![\u200c\u200d])[\u200c\u200d]++(?![^\x00-\x7f\\s\u200c\u200d])"
)
"""Zero-width (non-)joiners but the first of a run between two visible characters beyond ASCII."""
_LONG_MARKS = r"(\p{M}{30})\p{M}+"

_EXTENSIONS = (
    "jpe?g|jfif|png|gif|webp|bmp|tiff?|heic|heif|avif|svg|psd|raw|cr2|nef|arw|dng|mp4|m4v|mov|avi|mkv|webm|wmv"
)
_NUMBERED = (
    "_?img|_?dsc[nfi]?|_?mg|imag|imgp|pict?|pxl|mvimg|vid|mov|mvi|gopr|dji|sam|cimg|hpim|kif|pano|burst|fullsizerender"
    "|screen ?shot|scan|images?|photo|picture|untitled|unnamed|download|file|capture|thumbnail"
)
_FILENAME = (
    rf"(?is)^(.+\.({_EXTENSIONS})"
    rf"|({_NUMBERED})[-_ ]?[0-9]{{2,}}([-_ .:()~0-9]| at )*([-_ ]?(hdr|edit|edited|copy|small|large|thumb|[a-z]))?"
    r"|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{16,}|p?[0-9]{6,}([-_][0-9]+)*([-_][a-z])?)$"
)
"""The whole text is a name with a media extension, a camera's or program's numbered name, a UUID, a hash or digits."""


class Text(Annotate, name="text", version=1):
    """Clean the caption (entities, mojibake, invisible characters, white space) and measure it."""

    class Config(BaseConfig):
        column: str = Field(default=CAPTION.name, description="column that holds the text")
        fix: bool = Field(default=True, description="replace the text by its cleaned form; false: only measure it")

    stored = False
    isolated = False
    batch_rows = 16384
    config: Config

    @property
    def requires(self) -> tuple[str, ...]:
        return (self.config.column,)

    @property
    def produces(self) -> tuple[Column, ...]:
        name = self.config.column
        prefix = "" if name == CAPTION.name else f"{name}_"
        cleaned = (
            Column(name, pa.string(), "text, cleaned"),
            Column(f"{name}_original", pa.string(), "text as it came, before cleaning"),
        )
        return (
            *(cleaned if self.config.fix else ()),
            Column(f"{prefix}char_count", pa.int32(), "characters of the text", "characters"),
            Column(f"{prefix}word_count", pa.int32(), "words of the text, split on white space", "words"),
            Column(
                f"{name}_alnum_ratio", pa.float64(), "letters, marks and digits among the text's visible characters"
            ),
            Column(f"{name}_repetition", pa.float64(), "share of the words that came before in the text, case ignored"),
            Column(
                f"{name}_is_filename", pa.bool_(), "the text looks like a file's name: IMG_1234.JPG, DSC0001, a hash"
            ),
        )

    def process(self, batch: pa.Table) -> Part:
        original = batch.column(self.config.column).cast(pa.string()).combine_chunks()
        original.validate(full=True)
        text = clean(original) if self.config.fix else original
        measures = _measures(text if self.config.fix else _collapsed(text))
        values = [*((text, original) if self.config.fix else ()), pc.utf8_length(text), *measures]
        return Part({column.name: value for column, value in zip(self.produces, values, strict=True)})


def clean(texts: pa.Array) -> pa.Array:
    """Cleaned texts (string array); null stays null."""
    needs_fixing = pc.fill_null(pc.match_substring_regex(texts, _NEEDS_FIXING), False)
    if pc.any(needs_fixing).as_py():
        fix = _fixer()
        fixed = pa.array([fix(text) for text in texts.filter(needs_fixing).to_pylist()], pa.string())
        fixed = pc.utf8_normalize(pc.replace_substring_regex(fixed, _LONG_MARKS, r"\1"), form="NFC")
        texts = pc.replace_with_mask(texts, needs_fixing, fixed)
    return _collapsed(texts)


@cache
def _fixer() -> Callable[[str], str]:
    """What needs Python, for one text: entities, mojibake, control and invisible characters."""
    from ftfy import TextFixerConfig, fix_encoding
    from ftfy.fixes import fix_c1_controls, fix_surrogates, remove_terminal_escapes, unescape_html

    config = TextFixerConfig(explain=False)

    def fix(text: str) -> str:
        text = unescape_html(unescape_html(text)) if "&" in text else text
        text = fix_surrogates(fix_c1_controls(fix_encoding(text.translate(_ASCII_SPACES), config)))
        text = _INVISIBLE.sub("", remove_terminal_escapes(text))
        return _LOOSE_JOINER.sub("", text) if "\u200c" in text or "\u200d" in text else text

    return fix


def _collapsed(texts: pa.Array) -> pa.Array:
    """White space runs made one space, none at either end."""
    return pc.utf8_trim(pc.replace_substring_regex(texts, _SPACES, " "), characters=" ")


def _measures(texts: pa.Array) -> tuple[pa.Array, ...]:
    """Word count, alphanumeric ratio, repetition and whether it is a file's name, of texts between single spaces."""
    spaces = pc.count_substring(texts, " ")
    words = pc.if_else(pc.equal(texts, ""), 0, pc.add(spaces, 1)).cast(pa.int32())
    letters = pc.utf8_length(pc.replace_substring_regex(texts, r"[^\p{L}\p{M}\p{N}]+", ""))
    visible = pc.subtract(pc.utf8_length(texts), spaces)
    repeated = pc.subtract(words, _distinct_words(texts))
    return words, _ratio(letters, visible), _ratio(repeated, words), pc.match_substring_regex(texts, _FILENAME)


def _ratio(part: pa.Array, whole: pa.Array) -> pa.Array:
    """part / whole, 0 where the whole is 0."""
    return pc.divide(part.cast(pa.float64()), pc.max_element_wise(whole, 1, skip_nulls=False).cast(pa.float64()))


def _distinct_words(texts: pa.Array) -> pa.Array:
    """Number of different words of each text, case ignored (simple case mapping)."""
    lists = pc.split_pattern(pc.utf8_lower(texts), " ")
    words = pc.list_flatten(lists)
    is_word = pc.not_equal(words, "").to_numpy(zero_copy_only=False)
    codes = words.dictionary_encode().indices.to_numpy().astype(np.int64)[is_word]
    owners = pc.list_parent_indices(lists).to_numpy()[is_word].astype(np.int64)
    distinct = np.unique(owners * (len(words) + 1) + codes) // (len(words) + 1)
    counts = np.bincount(distinct, minlength=len(texts)).astype(np.int32)
    return pc.if_else(texts.is_valid(), pa.array(counts), None)
