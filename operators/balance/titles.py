"""Titles of pages that are looked at often: the fourth source of MetaCLIP's entries.

`build_metadata.py` of MetaCLIP sums the views of a title over sampled days of Wikipedia's page view dumps and keeps
titles of at least 70; MetaCLIP 2 (`build_metadata.py`, `build_title.py`) takes 76 % of a language's titles, the most
viewed, at most 61,235. Underscores are spaces, and titles with a colon, which are pages about pages, are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from corpusmith.operators.duck import spilling

TITLE = "title"

_STREAM = pa.schema([("language", pa.string()), ("title", pa.large_string()), ("views", pa.int64())])
_SCHEMA = pa.schema(
    [("entry", pa.large_string()), ("source", pa.string()), ("language", pa.string()), ("views", pa.int64())]
)


@dataclass(frozen=True)
class TitleChoice:
    """Which titles become entries, language by language.

    Args:
        min_views: views that a title needs, all its rows together.
        share: of a language's distinct titles, the most viewed.
        max_titles: a language's most viewed titles; None for all.
    """

    min_views: int = 70
    share: float = 1.0
    max_titles: int | None = None


@dataclass(frozen=True)
class Titles:
    """Titles that were chosen.

    Args:
        table: `entry`, `source`, `language`, `views`; languages in alphabetical order, in each by falling views, equals
            in byte order.
        distinct: titles that were looked at.
        unusable: rows without a title, or whose views are no whole number of zero or more.
        with_colon: rows whose titles were left out for their colon.
    """

    table: pa.Table
    distinct: int
    unusable: int
    with_colon: int


def count_titles(
    rows: Iterable[tuple[pa.Array, pa.Array, pa.Array | None]], choice: TitleChoice, scratch_dir: str
) -> Titles:
    """Sum the views of titles and choose among them.

    Args:
        rows: batches of titles, views (numbers, or texts of numbers) and languages (None or null for none), in any
            order.
        choice: the rule.
        scratch_dir: a local folder, to which sums are spilled.
    """
    left_out = {"unusable": 0, "with_colon": 0}

    def batches() -> Iterator[pa.RecordBatch]:
        for titles, views, languages in rows:
            yield _usable(titles, views, languages, left_out)

    with spilling(pa.RecordBatchReader.from_batches(_STREAM, batches()), scratch_dir) as connection:
        connection.execute(
            "CREATE TABLE titles AS SELECT language, title, sum(views)::BIGINT AS views FROM stream GROUP BY ALL"
        )
        totals = connection.sql("SELECT language, count(*) FROM titles GROUP BY language ORDER BY language").fetchall()
        tables = [_SCHEMA.empty_table()]
        for language, distinct in totals:
            most = min(int(distinct * choice.share), distinct if choice.max_titles is None else choice.max_titles)
            query = (
                "SELECT title, views FROM titles WHERE language = $language AND views >= $least "
                f"ORDER BY views DESC, title LIMIT {most}"
            )
            values = {"language": language, "least": choice.min_views}
            tables.append(_chosen(connection.sql(query, params=values).to_arrow_table(), language))
    return Titles(pa.concat_tables(tables), sum(distinct for _, distinct in totals), **left_out)


def _usable(titles: pa.Array, views: pa.Array, languages: pa.Array | None, left_out: dict[str, int]) -> pa.RecordBatch:
    """The rows with a title and views; titles with spaces for underscores."""
    texts = pc.utf8_trim_whitespace(pc.replace_substring(titles.cast(pa.large_string()), "_", " "))
    numbers = _whole_numbers(views)
    is_usable = pc.fill_null(pc.and_(pc.not_equal(texts, ""), pc.greater_equal(numbers, 0)), False)
    has_colon = pc.and_(is_usable, pc.fill_null(pc.match_substring(texts, ":"), False))
    left_out["unusable"] += len(texts) - is_usable.true_count
    left_out["with_colon"] += has_colon.true_count
    named = pa.nulls(len(texts), pa.string()) if languages is None else languages.cast(pa.string())
    batch = pa.record_batch([pc.fill_null(named, ""), texts, numbers], schema=_STREAM)
    return batch.filter(pc.and_not(is_usable, has_colon))


def _whole_numbers(values: pa.Array) -> pa.Array:
    """int64; null for what is no whole number."""
    if pa.types.is_integer(values.type):
        return values.cast(pa.int64(), safe=False)
    texts = pc.utf8_trim_whitespace(values.cast(pa.string()))
    is_whole = pc.match_substring_regex(texts, r"^[0-9]{1,18}(\.0*)?$")
    whole = pc.replace_substring_regex(texts, r"\.0*$", "")
    return pc.if_else(is_whole, whole, pa.scalar(None, pa.string())).cast(pa.int64())


def _chosen(found: pa.Table, language: str) -> pa.Table:
    rows = found.num_rows
    columns = [
        found.column("title").cast(pa.large_string()),
        pa.repeat(pa.scalar(TITLE, pa.string()), rows),
        pa.repeat(pa.scalar(language or None, pa.string()), rows),
        found.column("views"),
    ]
    return pa.table(columns, schema=_SCHEMA)
