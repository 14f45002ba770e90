"""Entries files: read back as they were written, lists as they are, and refused when they are none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpusmith.operators.balance.entry_files import (
    SCHEMA,
    entries_of,
    entries_table,
    fingerprint,
    list_metadata,
    read_entries,
    read_table,
)
from corpusmith.schemas.errors import UserError

LISTS = st.lists(st.tuples(st.sampled_from(["", "a", "b", "ab", "é", "1;a"]), st.sampled_from([None, "en", "e"])))


def table_of(entries: list[tuple[str, str | None]]) -> pa.Table:
    rows = [
        {"entry": e, "source": "unigram", "language": language, "count": i, "pmi": None, "views": None}
        for i, (e, language) in enumerate(entries)
    ]
    return entries_table(pa.Table.from_pylist(rows, schema=SCHEMA), {"sources": [{"source": "texts"}]})


def written(path: Path, table: pa.Table) -> str:
    pq.write_table(table, path)
    return str(path)


def test_a_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    listed = [("cat", "en"), ("猫", "ja"), ("7", None), ("cat", "en"), (".*", "fr")]
    path = written(tmp_path / "entries.parquet", table_of(listed))
    found = read_entries(path)
    assert found.texts.type == pa.large_string()
    assert found.languages is not None
    assert list(zip(found.texts.to_pylist(), found.languages.to_pylist(), strict=True)) == listed
    assert found.fingerprint == fingerprint(found.texts, found.languages)
    assert read_table(path).equals(table_of(listed))
    assert list_metadata(read_table(path)) == {
        "format_version": 1,
        "entries": 5,
        "fingerprint": found.fingerprint,
        "built": {"sources": [{"source": "texts"}]},
    }


def test_a_list_of_no_language_names_none(tmp_path: Path) -> None:
    found = read_entries(written(tmp_path / "entries.parquet", table_of([("b", None), ("a", None), ("b", None)])))
    assert found.languages is None
    assert found.texts.to_pylist() == ["b", "a", "b"]
    (tmp_path / "entries.txt").write_text("b\na\nb\n")
    assert read_entries(str(tmp_path / "entries.txt")).fingerprint == found.fingerprint


def test_a_url(tmp_path: Path) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(table_of([("a", "en")]), sink)
    with fsspec.open("memory://lists/entries.parquet", "wb") as file:
        file.write(sink.getvalue())  # type: ignore[union-attr]
    assert read_entries("memory://lists/entries.parquet").texts.to_pylist() == ["a"]


@given(LISTS, LISTS)
def test_fingerprints_are_equal_where_lists_are(one: list[Any], other: list[Any]) -> None:
    def made(listed: list[Any]) -> str:
        texts = pa.array([e for e, _ in listed], pa.large_string())
        return fingerprint(texts, pa.array([language for _, language in listed], pa.string()))

    assert (made(one) == made(other)) == (one == other)


def test_fingerprint_tells_lists_apart() -> None:
    different = [[], [""], ["", ""], ["ab"], ["a", "b"], ["b", "a"], ["a;b"], ["a", "b", "b"], ["1;a"]]
    assert len({fingerprint(entries) for entries in different}) == len(different)
    sliced = pa.array(["x", "a", "b"]).slice(1)
    assert fingerprint(sliced) == fingerprint(["a", "b"]) == entries_of(sliced).fingerprint


def test_lists_are_taken_as_they_are(tmp_path: Path) -> None:
    text, listed = tmp_path / "entries.txt", tmp_path / "entries.json"
    text.write_bytes("\ufeffcat\r\nNew York\n\n  two  \ncat\n\u2028".encode())
    assert read_entries(str(text)).texts.to_pylist() == ["cat", "New York", "  two  ", "cat", "\u2028"]
    listed.write_text(json.dumps(["cat", "", "cat", "é"]))
    assert read_entries(str(listed)).texts.to_pylist() == ["cat", "", "cat", "é"]


def test_objects_of_json(tmp_path: Path) -> None:
    path = tmp_path / "entries.json"
    path.write_text(json.dumps({"cat": "w", "7": "", "dog": "u"}))
    assert read_entries(str(path)).texts.to_pylist() == ["cat", "7", "dog"]
    path.write_text(json.dumps({"en": ["cat", "dog"], "ja": ["猫"]}))
    found = read_entries(str(path))
    assert found.texts.to_pylist() == ["cat", "dog", "猫"]
    assert found.languages is not None and found.languages.to_pylist() == ["en", "en", "ja"]


@pytest.mark.parametrize(
    "content",
    [
        *(b"{}", b"[]", b"[1]", b"[", b"[null]", b'["\\ud800"]', b"\xff\xfe\xff", b'"cat"', b"7", b""),
        *(b'{"en": [1]}', b'{"en": ["a"], "b": "c"}', b'{"en": {}}', b'{"a": 1}'),
    ],
)
def test_files_that_are_no_lists(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "entries.json"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_entries(str(path))
    assert caught.value.where == str(path)


def test_an_empty_text_file(tmp_path: Path) -> None:
    path = tmp_path / "entries.txt"
    path.write_text("\n\n")
    with pytest.raises(UserError, match="holds no entry"):
        read_entries(str(path))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    for name in ("entries.txt", "entries.parquet"):
        with pytest.raises(UserError, match="cannot be read"):
            read_entries(str(tmp_path / name))


def with_version(table: pa.Table, version: int) -> pa.Table:
    told = list_metadata(table) | {"format_version": version}
    return table.replace_schema_metadata({"corpusmith.entries": json.dumps(told)})


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda table: table.replace_schema_metadata(None), "its format version is missing"),
        (lambda table: with_version(table, 2), "of format 2; this corpusmith reads format 1"),
        (lambda table: table.slice(1), "not those that it was written with"),
        (lambda table: table.drop_columns(["views"]), "its columns are not those"),
        (lambda table: table.replace_schema_metadata({"corpusmith.entries": "{"}), "cannot be read"),
    ],
)
def test_parquets_that_are_no_entries_files(tmp_path: Path, change: Any, what: str) -> None:
    path = written(tmp_path / "entries.parquet", change(table_of([("a", "en"), ("b", None)])))
    for read in (read_entries, read_table):
        with pytest.raises(UserError, match=what) as caught:
            read(path)
        assert caught.value.where == path


def test_damaged_parquets(tmp_path: Path) -> None:
    path = Path(written(tmp_path / "entries.parquet", table_of([("a", "en")])))
    whole = path.read_bytes()
    for content in (b"", b"PAR1", whole[:-9], whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(UserError) as caught:
            read_entries(str(path))
        assert caught.value.where == str(path)


def test_invalid_utf8_in_a_parquet(tmp_path: Path) -> None:
    table = table_of([("ab", None), ("c", None)])
    bad = pa.array([b"\xff\xfe", b"c"], pa.large_binary())
    forged = pa.LargeStringArray.from_buffers(2, *bad.buffers()[1:])
    path = written(tmp_path / "entries.parquet", table.set_column(0, SCHEMA.field(0), forged))
    with pytest.raises(UserError, match="UTF8"):
        read_entries(path)
