"""text: clean the caption and measure it.

Cleaning undoes what the way to the web did to a text and leaves what its author wrote: HTML entities (twice, for texts
that were escaped twice, and no more: a text can be nested without end), mojibake (ftfy), control and invisible
characters, white space, NFC. Quotes, ligatures and full-width letters stay as they are. Zero-width joiners stay between
characters beyond ASCII, where Persian, Indic scripts and emoji need them. Of a run of combining marks the first 30 stay
(Unicode Standard Annex #15, stream-safe text), since normalising longer ones takes quadratic time.

Most captions are plain ASCII and need only their white space collapsed: these stay in Arrow, and so do all measures
(`measures.py`, `boilerplate.py`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from corpusmith.operators.contract import Annotate, Part
from corpusmith.operators.contract import Config as BaseConfig
from corpusmith.operators.text.boilerplate import is_boilerplate
from corpusmith.operators.text.measures import (
    alnum_ratio,
    has_contact,
    is_filename,
    longest_run,
    repetition,
    special_ratio,
    word_count,
)
from corpusmith.schemas.columns import CAPTION, Column

_SPACES = r"[\t-\r\x1c-\x20\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}]+"
"""What Python's str.split() splits on, for Arrow's regular expressions."""
_LOOSE_SPACES = _SPACES.replace(r"\x1c-\x20", r"\x1c-\x1f").removesuffix("+") + "|  |^ | $"
"""White space that is no single plain space between two words."""
_HARMLESS = r"\x{a3}\x{a9}\x{ae}\x{b0}\x{b7}\x{c0}-\x{24f}\x{2010}-\x{2027}\x{20ac}\x{2122}"
_NEEDS_FIXING = rf"[^\t-\r\x1c-\x25\x27-\x7e{_HARMLESS}]|[{_HARMLESS}]{{2}}|[ÂÃØÙŒœ]"
"""A character that is neither plain ASCII nor a Latin letter or common sign between such; or an ampersand.

What ftfy takes for mojibake has two neighbours beyond ASCII, a control character, or one of the letters at the end.
"""
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


class Text(Annotate, name="text", version=2):
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
            Column(
                f"{name}_special_ratio",
                pa.float64(),
                "symbols (| # @ * = _, emoji: no letter, digit or common punctuation) among the visible characters",
            ),
            Column(f"{name}_longest_run", pa.int32(), "longest run of one and the same character", "characters"),
            Column(f"{name}_repetition", pa.float64(), "share of the words that came before in the text, case ignored"),
            Column(
                f"{name}_is_filename", pa.bool_(), "the text looks like a file's name: IMG_1234.JPG, DSC0001, a hash"
            ),
            Column(
                f"{name}_is_boilerplate",
                pa.bool_(),
                "the text is a page's and tells of no picture: click to enlarge, logo",
            ),
            Column(f"{name}_has_contact", pa.bool_(), "a web address, e-mail address or phone number is in the text"),
        )

    def process(self, batch: pa.Table) -> Part:
        original = batch.column(self.config.column).cast(pa.string()).combine_chunks()
        original.validate(full=True)
        text = clean(original) if self.config.fix else original
        spaced = text if self.config.fix else collapsed(text)
        measures = (
            *(word_count(spaced), alnum_ratio(spaced), special_ratio(spaced), longest_run(spaced), repetition(spaced)),
            *(is_filename(spaced), is_boilerplate(spaced), has_contact(spaced)),
        )
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
    return collapsed(texts)


@cache
def _fixer() -> Callable[[str], str]:
    """What needs Python, for one text: entities, mojibake, control and invisible characters."""
    from ftfy import TextFixerConfig, fix_encoding
    from ftfy.badness import is_bad
    from ftfy.fixes import fix_c1_controls, fix_surrogates, remove_terminal_escapes, unescape_html

    config = TextFixerConfig(explain=False)

    def fix(text: str) -> str:
        text = unescape_html(unescape_html(text)) if "&" in text else text
        text = text.translate(_ASCII_SPACES)
        if is_bad(text):  # fix_encoding asks the same, at several times the cost
            text = fix_encoding(text, config)
        text = fix_surrogates(fix_c1_controls(text))
        text = _INVISIBLE.sub("", remove_terminal_escapes(text))
        return _LOOSE_JOINER.sub("", text) if "\u200c" in text or "\u200d" in text else text

    return fix


def collapsed(texts: pa.Array) -> pa.Array:
    """White space runs made one space, none at either end."""
    is_loose = pc.fill_null(pc.match_substring_regex(texts, _LOOSE_SPACES), False)
    if not pc.any(is_loose).as_py():
        return texts
    tight = pc.utf8_trim(pc.replace_substring_regex(texts.filter(is_loose), _SPACES, " "), characters=" ")
    return pc.replace_with_mask(texts, is_loose, tight)
