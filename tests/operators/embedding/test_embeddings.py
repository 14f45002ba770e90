"""embeddings: entries of files found by any key, in both layouts, files that do not fit together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError
from shuffled import table_of

from corpusmith.operators.embedding import entries, files
from corpusmith.operators.embedding.embeddings import FileEmbeddings
from corpusmith.operators.registry import operator_class
from corpusmith.schemas.errors import UserError

COUNT, DIMENSION = 50, 6


def matrix(count: int = COUNT, dimension: int = DIMENSION, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, dimension)).astype(np.float16)


def urls(count: int = COUNT) -> list[str]:
    return [f"http://web/{i}.jpg" for i in range(count)]


def write_clip_retrieval(folder: Path, vectors: np.ndarray, keys: dict[str, list[Any]], cuts: list[int]) -> Path:
    """Vectors and their keys as clip-retrieval's inference writes them."""
    (folder / "img_emb").mkdir(parents=True)
    (folder / "metadata").mkdir()
    table = pa.table(keys)
    for number, (start, stop) in enumerate(zip([0, *cuts], [*cuts, len(vectors)], strict=True)):
        np.save(folder / "img_emb" / f"img_emb_{number:02d}.npy", vectors[start:stop])
        pq.write_table(table.slice(start, stop - start), folder / "metadata" / f"metadata_{number:02d}.parquet")
    return folder


def write_parquet(path: Path, vectors: list[Any], keys: dict[str, list[Any]]) -> Path:
    pq.write_table(pa.table({**keys, "embedding": pa.array(vectors, pa.list_(pa.float32()))}), path)
    return path


def added(rows: pa.Table, **config: Any) -> tuple[list[Any], dict[int, tuple[str, str]]]:
    operator = FileEmbeddings(FileEmbeddings.Config(**config))
    operator.setup()
    part = operator.process(rows)
    operator.close()
    column: Any = part.columns[config.get("name", "embedding")]
    assert column.type == pa.list_(pa.float16())
    return column.to_pylist(), {i: (error.error, error.message) for i, error in part.errors.items()}


def assert_units(found: list[Any], vectors: np.ndarray) -> None:
    wide = vectors.astype(np.float64)
    np.testing.assert_allclose(found, wide / np.linalg.norm(wide, axis=1, keepdims=True), atol=5e-4)


@pytest.mark.parametrize("layout", ["clip-retrieval", "parquet"])
@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_entries_by_url_in_any_order(layout: str, kind: type, tmp_path: Path) -> None:
    vectors = matrix().astype(kind)
    if layout == "parquet":
        for number, part in enumerate((slice(0, 20), slice(20, 50))):
            write_parquet(tmp_path / f"{number}.parquet", vectors[part].tolist(), {"link": urls()[part]})
    else:
        write_clip_retrieval(tmp_path, vectors, {"link": urls(), "caption": urls()}, [7, 7, 30])
    places = [*np.random.default_rng(1).permutation(COUNT).tolist(), 3, 3]
    rows = table_of(url=[*(urls()[i] for i in places), "http://web/none", None])
    found, errors = added(rows, path=str(tmp_path), on="url", key="link")
    assert_units(found[:-2], vectors[places])
    assert found[-2:] == [None, None]
    assert errors == {len(places) + i: ("missing embedding", "no entry of this url") for i in range(2)}


def test_entries_by_uid_and_numbers_as_text(tmp_path: Path) -> None:
    rows = table_of(source_uid=[str(i) for i in range(COUNT)])
    uids = rows["uid"].to_pylist()
    write_clip_retrieval(tmp_path / "a", matrix(), {"uid": uids, "key": list(range(COUNT))}, [])
    assert FileEmbeddings(FileEmbeddings.Config(path=str(tmp_path / "a"))).requires == ()
    for config in ({}, {"on": "source_uid", "key": "key"}):
        found, errors = added(rows, path=str(tmp_path / "a"), name="clip", **config)
        assert not errors
        assert_units(found, matrix())


def test_rows_of_a_bad_entry_fail(tmp_path: Path) -> None:
    vectors = matrix().astype(np.float32)
    vectors[1], vectors[2, 3], vectors[4, 0] = 0, np.nan, np.inf
    write_clip_retrieval(tmp_path / "a", vectors, {"url": urls()}, [3])
    lists: list[Any] = vectors.tolist()
    lists[5], lists[6] = None, [1.0, 2.0]
    write_parquet(tmp_path / "b.parquet", lists, {"url": urls()})
    rows = table_of(url=urls())
    expected = {
        1: ("malformed embedding", "all values are zero"),
        2: ("malformed embedding", "holds a value that is not finite"),
        4: ("malformed embedding", "holds a value that is not finite"),
    }
    found, errors = added(rows, path=str(tmp_path / "a"), on="url")
    assert errors == expected
    assert [i for i, value in enumerate(found) if value is None] == [1, 2, 4]
    found, errors = added(rows, path=str(tmp_path / "b.parquet"), on="url")
    expected[5] = ("missing embedding", "")
    expected[6] = ("malformed embedding", "2 values, where the pool's embeddings have 6")
    assert errors == expected
    sound = [i for i in range(COUNT) if i not in expected]
    assert_units([found[i] for i in sound], vectors[sound])


def test_of_several_entries_with_a_key_the_first_counts(tmp_path: Path) -> None:
    keys = ["a", "b", None, "a", "b", ""]
    write_clip_retrieval(tmp_path, matrix(6), {"url": keys}, [2, 4])
    found, errors = added(table_of(url=["b", "a", "", None]), path=str(tmp_path), on="url")
    assert_units(found[:3], matrix(6)[[1, 0, 5]])
    assert list(errors) == [3]


def test_keys_whose_first_halves_are_equal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def digests(keys: Any) -> np.ndarray:
        return np.array([[len(key or ""), sum((key or "").encode())] for key in keys.to_pylist()], np.uint64)

    monkeypatch.setattr(entries, "_digests", digests)
    keys = [f"{i:03d}" for i in (7, 6, 5, 4, 30, 21)]
    write_clip_retrieval(tmp_path, matrix(4), {"url": keys[:4]}, [1])
    found, errors = added(table_of(url=[*keys[::-1], "1000", "0"]), path=str(tmp_path), on="url")
    assert_units(found[2:6], matrix(4)[::-1])
    assert {error for error, _ in errors.values()} == {"missing embedding"}
    assert sorted(errors) == [0, 1, 6, 7]


def test_nothing_in_the_files(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", [], {"url": pa.array([], pa.string())})  # pyright: ignore
    found, errors = added(table_of(url=["a"]), path=str(tmp_path / "a.parquet"), on="url")
    assert found == [None]
    assert list(errors) == [0]


def test_changed_files_are_a_changed_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        write_clip_retrieval(tmp_path / name, matrix(), {"url": urls()}, [20])

    def digest(name: str) -> str | None:
        return FileEmbeddings.Config(path=str(tmp_path / name), on="url").files_sha256

    first = digest("a")
    config = FileEmbeddings.Config(path=str(tmp_path / "a"), on="url")
    assert first == digest("b")
    changed = matrix()
    changed[49, 5] += 1
    np.save(tmp_path / "a/img_emb/img_emb_01.npy", changed[20:])
    assert digest("a") != first
    with pytest.raises(UserError, match="changed after the recipe was read"):
        FileEmbeddings(config).setup()
    with pytest.raises(ValidationError, match="the embeddings are others"):
        FileEmbeddings.Config(path=str(tmp_path / "a"), on="url", files_sha256=first)
    monkeypatch.setattr(files, "_SAMPLED_BLOCKS", 3)
    monkeypatch.setattr(files, "_BLOCK_BYTES", 64)
    sampled = digest("b")
    np.save(tmp_path / "b/img_emb/img_emb_01.npy", changed[20:])
    assert digest("b") != sampled  # the last block is always among those


def test_files_that_do_not_fit_together(tmp_path: Path) -> None:
    def refusal(path: Path | str, **config: Any) -> str:
        with pytest.raises(ValidationError) as raised:
            FileEmbeddings.Config(path=str(path), on="url", **config)
        return str(raised.value)

    folder = write_clip_retrieval(tmp_path / "a", matrix(), {"url": urls()}, [20])
    assert "there is nothing" in refusal(tmp_path / "none")
    assert "local files" in refusal("s3://bucket/embeddings")
    assert "there is no column 'link'" in refusal(folder, key="link")
    assert "there are no matrices" in refusal(folder, vectors="text_emb")
    np.save(folder / "img_emb/img_emb_01.npy", matrix(29))
    assert "29 vectors for 30 rows" in refusal(folder)
    np.save(folder / "img_emb/img_emb_01.npy", matrix(30, 7))
    assert "vectors of different dimensions: 6 in img_emb_00.npy and 7 in img_emb_01.npy" in refusal(folder)
    np.save(folder / "img_emb/img_emb_01.npy", np.array([{}]), allow_pickle=True)
    assert "cannot be read" in refusal(folder)
    np.save(folder / "img_emb/img_emb_01.npy", np.zeros((30, 6), np.int64))
    assert "holds int64 of shape (30, 6)" in refusal(folder)
    (folder / "img_emb/img_emb_01.npy").write_bytes(b"")
    assert "cannot be read" in refusal(folder)
    (folder / "img_emb/img_emb_01.npy").unlink()
    assert "there is only metadata_01.parquet" in refusal(folder)
    (tmp_path / "empty").mkdir()
    assert "no files of embeddings" in refusal(tmp_path / "empty")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1")
    assert "the Parquet cannot be read" in refusal(tmp_path / "bad.parquet")
    write_parquet(tmp_path / "c.parquet", matrix().tolist(), {"url": urls(), "text": urls()})
    assert "'text' is string: embeddings are lists of floats" in refusal(tmp_path / "c.parquet", vectors="text")
    assert "there is no column 'clip'" in refusal(tmp_path / "c.parquet", vectors="clip")


def test_is_an_operator() -> None:
    assert operator_class("embeddings") is FileEmbeddings
