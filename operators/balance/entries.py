"""A list of entries from several sources, in the order and by the rules of MetaCLIP's `build_metadata.py`.

WordNet's names, words, pairs and titles are joined in this order. An entry that stands already, for its language or
for all, is not added again; neither is one of punctuation alone, or one of more than 256 characters (MetaCLIP 2's
limit). A list that somebody hands in is taken as it is, with its duplicates, for the published match test counts each
of equal entries; only what an earlier source gave is left out.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from corpusmith.operators.balance.entry_files import SCHEMA
from corpusmith.operators.balance.wordnet import NUMBERS, wordnet_entries
from corpusmith.operators.balance.words import PUNCTUATION

MAX_CHARS = 256
NUMBER, WORDNET, LISTED = "number", "wordnet", "list"

_PUNCTUATION_ALONE = f"^[{re.escape(PUNCTUATION)}]*$"
_BETWEEN = "\0"


@dataclass(frozen=True)
class Part:
    """The entries of one source.

    Args:
        table: of some columns of `entry_files.SCHEMA`, `entry`, `source` and `language` among them.
        is_listed: whether it is a list that was handed in, to be taken as it is.
    """

    table: pa.Table
    is_listed: bool = False


@dataclass(frozen=True)
class Joined:
    """A list made of several.

    Args:
        table: of `entry_files.SCHEMA`.
        left_out: why → how many entries.
    """

    table: pa.Table
    left_out: Counter[str]


def numbers_part() -> Part:
    """The numbers 0 to 99, which every list of MetaCLIP has, for all languages."""
    return Part(_named(list(map(str, range(NUMBERS))), NUMBER, None))


def wordnet_part(folder: str, language: str | None) -> Part:
    """The numbers, and names of WordNet's synsets for a language, None for all; see `wordnet.wordnet_entries`.

    Raises:
        UserError: WordNet is not there.
    """
    names = wordnet_entries(folder)[NUMBERS:]
    return Part(pa.concat_tables([numbers_part().table, _named(names, WORDNET, language)]))


def listed_part(texts: pa.Array, languages: pa.Array | None, language: str | None) -> Part:
    """A list as it was handed in; `language` is for entries that name none."""
    named = pa.nulls(len(texts), pa.string()) if languages is None else languages.cast(pa.string())
    filled = named if language is None else pc.fill_null(named, language)
    return Part(_named(texts, LISTED, filled), is_listed=True)


def _named(entries: Sequence[str] | pa.Array, source: str, languages: str | pa.Array | None) -> pa.Table:
    """Entries of one source, with one language, or one each."""
    if not isinstance(languages, pa.Array):
        languages = pa.repeat(pa.scalar(languages, pa.string()), len(entries))
    texts = entries if isinstance(entries, pa.Array) else pa.array(entries, pa.large_string())
    return pa.table({"entry": texts, "source": pa.repeat(source, len(entries)), "language": languages})


def join(parts: Sequence[Part], max_chars: int = MAX_CHARS) -> Joined:
    """Join the entries of sources, in their order.

    Args:
        parts: one for each source.
        max_chars: characters of an entry at most, but for lists that were handed in.
    """
    left_out: Counter[str] = Counter()
    taken: list[pa.Table] = [SCHEMA.empty_table()]
    seen = pa.chunked_array([], pa.large_string())
    for part in parts:
        table = _completed(part.table)
        if not part.is_listed:
            table = _proper(table, max_chars, left_out)
        own, general = _keys(table, by_language=True), _keys(table, by_language=False)
        is_new = pc.invert(pc.or_(pc.is_in(own, value_set=seen), pc.is_in(general, value_set=seen)))
        if not part.is_listed:
            is_new = pc.and_(is_new, _first_of_each(own))
        new = table.filter(is_new)
        left_out["there already"] += table.num_rows - new.num_rows
        taken.append(new)
        seen = pa.chunked_array([*seen.chunks, *own.filter(is_new).chunks], pa.large_string())
    return Joined(pa.concat_tables(taken).combine_chunks(), +left_out)


def _completed(part: pa.Table) -> pa.Table:
    columns = [
        part.column(field.name) if field.name in part.column_names else pa.nulls(part.num_rows, field.type)
        for field in SCHEMA
    ]
    return pa.table(columns, names=SCHEMA.names).cast(SCHEMA)


def _proper(table: pa.Table, max_chars: int, left_out: Counter[str]) -> pa.Table:
    entries = pc.utf8_trim_whitespace(table.column("entry"))
    is_plain = pc.match_substring_regex(entries, _PUNCTUATION_ALONE)
    is_long = pc.greater(pc.utf8_length(entries), max_chars)
    left_out["punctuation alone"] += pc.sum(is_plain.cast(pa.int64())).as_py() or 0
    left_out[f"longer than {max_chars} characters"] += pc.sum(is_long.cast(pa.int64())).as_py() or 0
    return table.set_column(0, SCHEMA.field(0), entries).filter(pc.invert(pc.or_(is_plain, is_long)))


def _keys(table: pa.Table, *, by_language: bool) -> pa.ChunkedArray:
    """What makes an entry the same as another: its text, and its language or none."""
    languages = pc.fill_null(table.column("language"), "").cast(pa.large_string())
    named = languages if by_language else pa.scalar("", pa.large_string())
    return pc.binary_join_element_wise(table.column("entry"), named, pa.scalar(_BETWEEN, pa.large_string()))


def _first_of_each(keys: pa.ChunkedArray) -> pa.Array:
    """Whether a key is the first of its like."""
    order = pa.table({"key": keys, "place": np.arange(len(keys))})
    places = order.group_by("key").aggregate([("place", "min")]).column("place_min").to_numpy()
    is_first = np.zeros(len(keys), np.bool_)
    is_first[places] = True
    return pa.array(is_first)
