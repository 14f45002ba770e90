"""Finished corpora: their samples in order, a fingerprint of nothing else, and errors that say which corpus."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pytest
from finished_corpora import write_corpus

from corpusmith.operators.finished import CORPUS, corpora_sha256, samples
from corpusmith.schemas.errors import UserError


def table(*numbers: int) -> pa.Table:
    return pa.table({"uid": [f"{i:032x}" for i in numbers], "url": [f"http://web/{i}" for i in numbers]})


def test_samples_come_by_corpus_and_shard(tmp_path: Path) -> None:
    first = write_corpus(tmp_path / "a", "alpha", [table(3, 1), table(2)])
    second = write_corpus(tmp_path / "b", "beta", [table(9), table()])
    batches = list(samples([second + "/", f"file://{first}"], ["url"]))
    rows = pa.Table.from_batches(batches).to_pylist()
    assert [(int(row["uid"], 16), row["url"], row[CORPUS]) for row in rows] == [
        (9, "http://web/9", "beta"),
        *((i, f"http://web/{i}", "alpha") for i in (3, 1, 2)),
    ]
    assert [batch.schema.names for batch in samples([first], [])] == [["uid", CORPUS]] * 2
    assert list(samples([], ["url"])) == []


def test_paths_may_be_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_corpus(tmp_path / "a", "alpha", [table(3, 1)])
    monkeypatch.chdir(tmp_path)
    assert sum(batch.num_rows for batch in samples(["a", f"..{os.sep}{tmp_path.name}/a"], ["url"])) == 4


def test_the_fingerprint_is_that_of_the_samples(tmp_path: Path) -> None:
    first = write_corpus(tmp_path / "a", "alpha", [table(3, 1), table(2)])
    second = write_corpus(tmp_path / "b", "beta", [table(9)])
    before = corpora_sha256([first, second])
    assert before == corpora_sha256([second, first])
    assert before not in (corpora_sha256([first]), corpora_sha256([first, first]), corpora_sha256([]))
    manifest = tmp_path / "a" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"created":""', '"created":"2031"'))
    assert "2031" in manifest.read_text()
    assert corpora_sha256([first, second]) == before
    moved = (tmp_path / "a").rename(tmp_path / "moved")
    assert corpora_sha256([str(moved), second]) == before
    write_corpus(moved, "alpha", [table(3, 1), table(4)])
    assert corpora_sha256([str(moved), second]) != before
    write_corpus(moved, "other", [table(3, 1), table(2)])
    assert corpora_sha256([str(moved), second]) != before, "the name stands in reasons"


@pytest.mark.parametrize("missing", ["nowhere", "a.txt", "", "file:///nowhere/at/all"])
def test_what_is_no_corpus_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.txt").touch()
    for read in (lambda: corpora_sha256([missing]), lambda: list(samples([missing], []))):
        with pytest.raises(UserError) as told:
            read()
        assert told.value.where == missing
    with pytest.raises(UserError, match="cannot be read"):
        corpora_sha256(["nosuch://bucket/corpus"])


def test_what_is_wrong_with_a_corpus_is_told(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "a", "alpha", [table(3, 1)])
    with pytest.raises(UserError, match="no column 'caption'") as told:
        list(samples([corpus], ["url", "caption"]))
    assert "uid, url" in str(told.value)
    (tmp_path / "a" / "shards" / "00000.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"00000\.parquet cannot be read"):
        list(samples([corpus], ["url"]))
    (tmp_path / "a" / "shards" / "00000.parquet").unlink()
    with pytest.raises(UserError, match=r"00000\.parquet cannot be read"):
        list(samples([corpus], ["url"]))
    (tmp_path / "a" / "manifest.json").write_text('{"format": 1}')
    with pytest.raises(UserError, match="the corpus cannot be read"):
        corpora_sha256([corpus])
