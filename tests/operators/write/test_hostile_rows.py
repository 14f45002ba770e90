"""Whatever rows hold, a shard is whole: any text in any column, any name of a column, any bytes for media."""

from __future__ import annotations

import io
import json
import math
import re
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st

from corpusmith.operators.write.check import check_shard
from corpusmith.operators.write.shards import SHARD_COLUMNS, Shards, ShardsConfig
from corpusmith.schemas.columns import MEDIA, RESERVED_NAMES

TAKEN = {*RESERVED_NAMES, MEDIA.name, "caption", *(column.name for column in SHARD_COLUMNS)}
TEXT = st.text(st.characters(codec="utf-8"), max_size=40) | st.sampled_from(
    ["../../x", "a/b", "\0", "\n", "\u2028", "</script>", "{{ 7*7 }}", "=1+1", "\u202e", '"', "\\", "'", "NULL", ""]
)
NAMES = TEXT.filter(lambda name: name not in TAKEN)
VALUES: list[tuple[pa.DataType, st.SearchStrategy[Any]]] = [
    (pa.string(), TEXT),
    (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    (pa.float64(), st.floats()),
    (pa.binary(), st.binary(max_size=20)),
    (pa.list_(pa.string()), st.lists(TEXT, max_size=3)),
    (pa.struct([("a", pa.string()), ("</b>", pa.int64())]), st.fixed_dictionaries({"a": TEXT, "</b>": st.just(1)})),
]
MAGIC = st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"<html>", b"\0" * 512, b"ustar\0"])


@st.composite
def tables(draw: st.DrawFn) -> tuple[pa.Table, list[bytes | None]]:
    """Some rows and their media."""
    count = draw(st.integers(1, 5))
    columns: dict[str, pa.Array] = {
        "uid": pa.array([f"{i:032x}" for i in range(count)]),
        "caption": pa.array(draw(st.lists(st.none() | TEXT, min_size=count, max_size=count)), pa.string()),
    }
    for name in draw(st.lists(NAMES, max_size=4, unique=True)):
        kind, values = draw(st.sampled_from(VALUES))
        columns[name] = pa.array(draw(st.lists(st.none() | values, min_size=count, max_size=count)), kind)
    media = st.none() | st.tuples(MAGIC, st.binary(max_size=600)).map(b"".join)
    return pa.table(columns), draw(st.lists(media, min_size=count, max_size=count))


def strict(raw: bytes) -> Any:
    """JSON, without the words that are none."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    return json.loads(raw, parse_constant=refuse)


def is_same(told: Any, value: Any) -> bool:
    """Whether JSON tells a value: bytes and numbers that are none are told in other words."""
    if isinstance(value, bytes):
        return isinstance(told, str)
    if isinstance(value, float) and not math.isfinite(value):
        return told is None
    return told == value


@settings(deadline=None, max_examples=60)
@given(tables())
def test_any_rows_make_a_whole_shard(given_rows: tuple[pa.Table, list[bytes | None]]) -> None:
    rows, media = given_rows
    with tempfile.TemporaryDirectory() as folder:
        tar_name, parquet_name, _ = Shards(ShardsConfig()).write_shard(7, rows, iter(media), folder)
        assert {path.name for path in Path(folder).iterdir()} == {tar_name, parquet_name, "00007_stats.json"}
        tar_bytes, table = Path(folder, tar_name).read_bytes(), pq.read_table(Path(folder, parquet_name))
        with Path(folder, parquet_name).open("rb") as file:
            assert check_shard(io.BytesIO(tar_bytes), file) == []
    with tarfile.open(fileobj=io.BytesIO(tar_bytes)) as tar:
        members = {m.name: tar.extractfile(m).read() for m in tar if m.isreg()}  # type: ignore[union-attr]
    assert all(re.fullmatch(r"00007000\d\.[a-z0-9]{2,4}", name) for name in members)
    came = rows.to_pylist()
    for i, (row, data) in enumerate(zip(table.to_pylist(), media, strict=True)):
        told = strict(members[f"{row['key']}.json"])
        assert members.get(f"{row['key']}.txt") == (None if row["caption"] is None else row["caption"].encode())
        assert all(is_same(told[name], value) for name, value in came[i].items())
        assert all(row[name] == value or value != value for name, value in came[i].items()), "but for NaN"
        if data is None:
            assert row["tar_offset"] is None
        else:
            assert tar_bytes[row["tar_offset"] : row["tar_offset"] + row["tar_size"]] == data


def test_times_that_python_has_no_value_for_are_told_as_arrow_writes_them(tmp_path: Path) -> None:
    far = pa.array([253_402_300_800_000_000, 0], pa.timestamp("us"))  # the first moment of the year 10000
    spans = pa.array([[2**62], None], pa.list_(pa.duration("s")))
    rows = pa.table({"uid": ["a", "b"], "far": far, "spans": spans})
    tar_name, parquet_name, _ = Shards(ShardsConfig()).write_shard(0, rows, iter([None, None]), str(tmp_path))
    assert pq.read_table(tmp_path / parquet_name).column("far").combine_chunks().cast(far.type).equals(far)
    with tarfile.open(tmp_path / tar_name) as tar:
        told = [strict(tar.extractfile(member).read()) for member in tar]  # type: ignore[union-attr]
    assert [row["far"] for row in told] == ["10000-01-01 00:00:00.000000", "1970-01-01T00:00:00"]
    assert [row["spans"] for row in told] == [None, None]
