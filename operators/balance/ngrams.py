"""Frequent words and tied word pairs of a corpus: two of the four sources of MetaCLIP's entries.

Xu et al., "Demystifying CLIP Data", section 3.1, and its `build_metadata.py`: words that occur at least 100 times, and
pairs of neighbouring words whose pointwise mutual information is at least 30 bits. It is NLTK's: log2(c(ab) N /
(c(a) c(b))), N being the number of all words, and is weighed against all words, the rare ones included. A pair that
always stands together has log2(N / c) bits, so that 30 take a corpus of a billion words.

What a word is, see `words`. Counts are spilled to disk: memory does not grow with the corpus, only with what is chosen.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from corpusmith.operators.balance.words import pair_entries, words_and_pairs
from corpusmith.operators.duck import spilling

if TYPE_CHECKING:
    import duckdb

UNIGRAM, BIGRAM = "unigram", "bigram"
_BEYOND_ALL_BITS = 1000.0
"""More than any pair has, and still a power of two that a float holds."""

_COUNTS = pa.schema([("language", pa.string()), ("gram", pa.large_string()), ("count", pa.int64())])


_SCHEMA = pa.schema(
    [
        ("entry", pa.large_string()),
        ("source", pa.string()),
        ("language", pa.string()),
        ("count", pa.int64()),
        ("pmi", pa.float64()),
    ]
)


@dataclass(frozen=True)
class Choice:
    """Which words and pairs become entries, language by language.

    Args:
        min_count: occurrences that a word needs.
        word_share: of a language's distinct words, the most frequent.
        max_words: a language's most frequent words; None for all.
        min_pmi: bits that a pair needs; None for no pairs.
        min_pair_count: occurrences that a pair needs.
        max_pairs: a language's pairs of highest PMI; None for all.
    """

    min_count: int = 100
    word_share: float = 1.0
    max_words: int | None = None
    min_pmi: float | None = None
    min_pair_count: int = 1
    max_pairs: int | None = None


@dataclass(frozen=True)
class Grams:
    """Words and pairs that were chosen.

    Args:
        table: `entry`, `source` (unigram, bigram), `language`, `count`, `pmi` (of pairs). Languages in alphabetical
            order; in each the words by falling count, then the pairs by falling PMI and count; equals in byte order.
        words: number of words counted, N.
        highest_pmi: of the pairs that occur often enough, where none of them was chosen; None where there are none.
    """

    table: pa.Table
    words: int
    highest_pmi: float | None


def count_grams(texts: Iterable[tuple[pa.Array, pa.Array | None]], choice: Choice, scratch_dir: str) -> Grams:
    """Count the words and pairs of texts and choose among them.

    Args:
        texts: batches of strings with their languages, None or null for none; in any order. Null texts are skipped.
        choice: the rule.
        scratch_dir: a local folder, to which counts are spilled.
    """
    reader = pa.RecordBatchReader.from_batches(_COUNTS, _counted(texts, has_pairs=choice.min_pmi is not None))
    with spilling(reader, scratch_dir) as connection:
        connection.execute(
            "CREATE TABLE grams AS SELECT language, gram, sum(count)::BIGINT AS count FROM stream GROUP BY ALL"
        )
        totals = connection.sql(
            "SELECT language, sum(count)::BIGINT, count(*) FROM grams WHERE NOT contains(gram, ' ') "
            "GROUP BY language ORDER BY language"
        ).fetchall()
        tables = [_SCHEMA.empty_table()]
        for language, words, distinct in totals:
            tables.append(_words(connection, language, distinct, choice))
            tables.append(_pairs(connection, language, words, choice))
        table = pa.concat_tables(tables)
        highest = None
        if choice.min_pmi is not None and not pc.any(pc.equal(table.column("source"), BIGRAM)).as_py():
            ratios = [_highest_ratio(connection, language, words, choice) for language, words, _ in totals]
            highest = max((float(np.log2(ratio)) for ratio in ratios if ratio), default=None)
    return Grams(table, sum(words for _, words, _ in totals), highest)


def _chosen(found: pa.Table, source: str, language: str, pmi: np.ndarray | None) -> pa.Table:
    rows = found.num_rows
    columns = [
        found.column("gram").cast(pa.large_string()),
        pa.repeat(pa.scalar(source, pa.string()), rows),
        pa.repeat(pa.scalar(language or None, pa.string()), rows),
        found.column("count"),
        pa.nulls(rows, pa.float64()) if pmi is None else pa.array(pmi, pa.float64()),
    ]
    return pa.table(columns, schema=_SCHEMA)


def _words(connection: duckdb.DuckDBPyConnection, language: str, distinct: int, choice: Choice) -> pa.Table:
    most = min(int(distinct * choice.word_share), distinct if choice.max_words is None else choice.max_words)
    query = (
        "SELECT gram, count FROM grams WHERE language = $language AND NOT contains(gram, ' ') AND count >= $least "
        f"ORDER BY count DESC, gram LIMIT {most}"
    )
    found = connection.sql(query, params={"language": language, "least": choice.min_count}).to_arrow_table()
    return _chosen(found, UNIGRAM, language, None)


_WEIGHED = """
    SELECT p.gram, p.count, p.count::DOUBLE * $words::DOUBLE / (a.count::DOUBLE * b.count::DOUBLE) AS ratio
    FROM grams p
    JOIN grams a ON a.language = p.language AND a.gram = split_part(p.gram, ' ', 1)
    JOIN grams b ON b.language = p.language AND b.gram = split_part(p.gram, ' ', 2)
    WHERE p.language = $language AND contains(p.gram, ' ') AND p.count >= $least
"""


def _pairs(connection: duckdb.DuckDBPyConnection, language: str, words: int, choice: Choice) -> pa.Table:
    if choice.min_pmi is None:
        return _SCHEMA.empty_table()
    limit = "" if choice.max_pairs is None else f" LIMIT {choice.max_pairs}"
    ratio = 2.0 ** min(choice.min_pmi, _BEYOND_ALL_BITS)
    values = {"language": language, "words": words, "least": choice.min_pair_count, "ratio": ratio}
    query = f"FROM ({_WEIGHED}) WHERE ratio >= $ratio ORDER BY ratio DESC, count DESC, gram{limit}"
    found = connection.sql(query, params=values).to_arrow_table()
    joined = found.set_column(0, "gram", pair_entries(found.column("gram"), language))
    return _chosen(joined, BIGRAM, language, np.log2(found.column("ratio").to_numpy()))


def _highest_ratio(connection: duckdb.DuckDBPyConnection, language: str, words: int, choice: Choice) -> float | None:
    values = {"language": language, "words": words, "least": choice.min_pair_count}
    row = connection.execute(f"SELECT max(ratio) FROM ({_WEIGHED})", values).fetchone()
    return row[0] if row else None


def _counted(texts: Iterable[tuple[pa.Array, pa.Array | None]], *, has_pairs: bool) -> Iterator[pa.RecordBatch]:
    """Counts of each batch, so that a frequent word is handed on once."""
    for batch, languages in texts:
        for language, own in _by_language(batch, languages):
            for grams in words_and_pairs(own, language, has_pairs=has_pairs):
                values, counts = pc.value_counts(grams).flatten()
                named = pa.repeat(pa.scalar(language or "", pa.string()), len(values))
                yield pa.record_batch([named, values, counts], schema=_COUNTS)


def _by_language(texts: pa.Array, languages: pa.Array | None) -> Iterator[tuple[str | None, pa.Array]]:
    if languages is None:
        yield None, texts
        return
    for language in pc.unique(languages).to_pylist():
        yield (
            language or None,
            texts.filter(pc.is_null(languages) if language is None else pc.equal(languages, language)),
        )
