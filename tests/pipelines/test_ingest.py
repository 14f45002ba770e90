"""Ingest: every row of the input once, in units that cover all of them, and read again only when the files changed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpora import write_rows

import corpusmith.pipelines.buckets
import corpusmith.pipelines.ingest
from corpusmith.operators.sources.tables import list_files, read_tables
from corpusmith.pipelines.ingest import Source, ingest
from corpusmith.pipelines.plan import make_plan
from corpusmith.pipelines.storage import Storage
from corpusmith.schemas.errors import UserError
from corpusmith.schemas.recipe import InputSpec


class Input:
    """A folder of input files, and the work folder that they are read into."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "input"
        self.work = Storage(str(folder / "work"))
        self._work_folder = folder / "work"

    def ingest(self, limit: int | None = None, **spec: Any) -> Source:
        """Read it."""
        settings = InputSpec(path=f"{self.folder}/*", **spec)
        files = list_files(f"{self.folder}/*")
        plan = make_plan([], next(iter(read_tables(files, settings))).schema)
        return ingest(self.work, files, settings, plan, limit)

    def rows(self, source: Source) -> list[dict[str, Any]]:
        """Source rows, unit by unit."""
        tables = []
        for unit in source.units:
            with self.work.parquet(unit.source) as parquet:
                table = parquet.read_row_group(unit.row_group)
            uids = table.column("uid").to_pylist()
            assert (len(uids), uids[0], uids[-1]) == (unit.rows, unit.low, unit.high)
            assert uids == sorted(uids)
            assert all(unit.bucket.low <= uid < unit.bucket.high for uid in uids)
            tables.append(table)
        return [row for table in tables for row in table.to_pylist()]

    def files(self) -> dict[Path, int]:
        """Files of the work folder, and when they were written."""
        return {path: path.stat().st_mtime_ns for path in self._work_folder.rglob("*") if path.is_file()}


@pytest.fixture
def source_of(tmp_path: Path) -> Input:
    return Input(tmp_path)


def test_every_row_is_in_one_unit(source_of: Input) -> None:
    write_rows(source_of.folder / "a.parquet", range(1000))
    source = source_of.ingest()
    rows = source_of.rows(source)
    assert (source.rows, source.duplicates) == (1000, 0)
    assert sorted(row["url"] for row in rows) == sorted(f"http://web/{i}" for i in range(1000))
    assert len({row["uid"] for row in rows}) == 1000
    assert "input_order" not in rows[0]
    assert len(source.units) >= 16
    assert len({unit.name for unit in source.units}) == len(source.units)


@pytest.mark.parametrize("run_rows", [100, 1 << 20])
def test_of_duplicates_the_first_in_input_order_stays(
    source_of: Input, monkeypatch: pytest.MonkeyPatch, run_rows: int
) -> None:
    # in one sorted run or in several, in one batch or in many files: the order of the input decides
    monkeypatch.setattr(corpusmith.pipelines.ingest, "RUN_ROWS", run_rows)
    source_of.folder.mkdir()
    for number, name in enumerate(["a", "b", "c"]):
        urls = [f"http://web/{i % 120}" for i in range(number * 10, number * 10 + 150)]
        table = pa.table({"url": urls, "caption": ["same"] * 150, "place": [f"{name}{i}" for i in range(150)]})
        pq.write_table(table, source_of.folder / f"{name}.parquet")
    source = source_of.ingest()
    rows = source_of.rows(source)
    assert (source.rows, source.duplicates) == (120, 330)
    assert {row["url"]: row["place"] for row in rows} == {f"http://web/{i}": f"a{i}" for i in range(120)}


def test_one_url_under_two_texts_is_two_samples(source_of: Input) -> None:
    write_rows(source_of.folder / "a.parquet", [1, 1], caption=lambda i: "x")
    write_rows(source_of.folder / "b.parquet", [1, 2], caption=lambda i: "y")
    source = source_of.ingest()
    assert (source.rows, source.duplicates) == (3, 1)


def test_buckets_are_cut_by_the_number_of_rows(source_of: Input, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpusmith.pipelines.buckets, "TARGET_BUCKET_ROWS", 100)
    monkeypatch.setattr(corpusmith.pipelines.ingest, "RUN_ROWS", 170)
    write_rows(source_of.folder / "a.parquet", range(350))
    source = source_of.ingest()
    assert source.bits == 2
    assert {unit.bucket.index for unit in source.units} == {0, 1, 2, 3}
    assert len({row["uid"] for row in source_of.rows(source)}) == 350
    assert not [path for path in source_of.files() if path.name.startswith("run-")]


@pytest.mark.parametrize("limit", [1, 7, 64, 100, 1000])
def test_the_limit_takes_the_first_rows(source_of: Input, limit: int) -> None:
    write_rows(source_of.folder / "a.parquet", range(60))
    write_rows(source_of.folder / "b.parquet", range(60, 100))
    rows = source_of.rows(source_of.ingest(limit))
    assert sorted(int(row["url"].rsplit("/")[-1]) for row in rows) == list(range(min(limit, 100)))


def test_the_limit_counts_duplicates(source_of: Input) -> None:
    write_rows(source_of.folder / "a.parquet", [1, 1, 1, 2, 3])
    source = source_of.ingest(4)
    assert (source.rows, source.duplicates) == (2, 2)


def test_the_same_files_are_read_once(source_of: Input) -> None:
    write_rows(source_of.folder / "a.parquet", range(50))
    first = source_of.ingest()
    files = source_of.files()
    assert source_of.ingest() == first
    assert source_of.files() == files


def test_changed_files_are_read_again_and_the_old_reading_goes(source_of: Input) -> None:
    write_rows(source_of.folder / "a.parquet", range(50))
    first = source_of.ingest()
    old = set(source_of.files())
    write_rows(source_of.folder / "b.parquet", range(50, 80))
    second = source_of.ingest()
    assert (first.rows, second.rows) == (50, 80)
    assert old.isdisjoint(source_of.files())
    write_rows(source_of.folder / "a.parquet", range(49), caption="another text {}".format)
    assert source_of.ingest().rows == 79
    assert source_of.ingest(limit=10).rows == 10
    assert source_of.ingest(caption=None).rows == 79


def test_a_reading_that_was_cut_off_starts_anew(source_of: Input) -> None:
    write_rows(source_of.folder / "a.parquet", range(50))
    first = source_of.ingest()
    (index,) = [path for path in source_of.files() if path.name == "index.json"]
    index.unlink()
    (index.parent / "run-00007.parquet").write_bytes(b"half a file")
    assert source_of.ingest() == first
    assert len(source_of.rows(first)) == 50
    assert not (index.parent / "run-00007.parquet").exists()


def test_bad_rows_are_rows_too(source_of: Input) -> None:
    source_of.folder.mkdir()
    lines = ['{"url": "http://web/1", "caption": "a"}', "{broken", '{"caption": "no address"}', "{broken", "[1, 2]"]
    (source_of.folder / "a.jsonl").write_text("\n".join(lines) + "\n")
    source = source_of.ingest()
    rows = source_of.rows(source)
    ended = sorted((row["fate"] or "", row["fate_error"] or "") for row in rows)
    assert ended == [("", ""), ("failed", "bad row"), ("failed", "bad row"), ("failed", "missing url")]
    assert (source.rows, source.duplicates) == (4, 1)


@pytest.mark.parametrize("content", [{"url": [], "caption": []}, {"caption": ["a"]}])
def test_an_input_without_rows_or_columns_is_the_users_to_mend(source_of: Input, content: dict[str, Sequence]) -> None:
    source_of.folder.mkdir()
    pq.write_table(
        pa.table({name: pa.array(values, pa.string()) for name, values in content.items()}),
        source_of.folder / "a.parquet",
    )
    with pytest.raises(UserError):
        source_of.ingest()
    assert not source_of.files()
