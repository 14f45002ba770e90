"""DuckDB and pyarrow read the Parquets as one table, and find the media in the tars by offset."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pyarrow.dataset
import pytest
from loading import Corpus


@pytest.fixture(params=["plain", "mixed"])
def corpus(request: pytest.FixtureRequest) -> Corpus:
    """One corpus, then the other."""
    return request.getfixturevalue(request.param)


def test_duckdb(corpus: Corpus) -> None:
    pattern = f"{corpus.folder}/shards/*.parquet"
    query = f"SELECT * EXCLUDE (filename), filename FROM read_parquet('{pattern}', filename = true) ORDER BY key"
    relation = duckdb.sql(query)
    assert relation is not None
    found = relation.to_arrow_table().to_pylist()
    assert [row["key"] for row in found] == [sample.key for sample in corpus.samples]
    for row, expected in zip(found, corpus.samples, strict=True):
        tar = Path(row.pop("filename")).with_suffix(".tar")
        assert row == expected.row
        with tar.open("rb") as file:
            file.seek(row["tar_offset"])
            assert file.read(row["tar_size"]) == expected.media


def test_duckdb_counts_by_sql_without_names_of_files(corpus: Corpus) -> None:
    """The Parquets of all shards have one schema: nothing is promoted, nothing is missing."""
    (counted,) = duckdb.execute(
        f"SELECT count(*), count(DISTINCT uid), count(caption), sum(tar_size) FROM '{corpus.folder}/shards/*.parquet'"
    ).fetchall()
    captions = sum(sample.caption is not None for sample in corpus.samples)
    sizes = sum(len(sample.media) for sample in corpus.samples)
    assert counted == (len(corpus.samples), len(corpus.samples), captions, sizes)


def test_pyarrow(corpus: Corpus) -> None:
    table = pyarrow.dataset.dataset(corpus.folder / "shards", format="parquet", exclude_invalid_files=True).to_table()
    assert table.to_pylist() == [sample.row for sample in corpus.samples]
