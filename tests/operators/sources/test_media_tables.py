"""Tars, folders and datasets as tables: against Python's tarfile and webdataset, on bytes that lie, and in numbers."""

from __future__ import annotations

import hashlib
import io
import json
import random
import tarfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from corpusmith.operators.sources.ordered import in_order
from corpusmith.operators.sources.samples import split_name
from corpusmith.operators.sources.tables import input_names, list_files, read_tables
from corpusmith.operators.sources.tar_members import BrokenTarError, TarWalk
from corpusmith.schemas.errors import UserError
from corpusmith.schemas.identity import uid_of
from corpusmith.schemas.recipe import InputSpec

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
JPEG = b"\xff\xd8\xff\xe0" + bytes(60)


def packed(members: list[tuple[str, bytes]], format: int = tarfile.PAX_FORMAT) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=format) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return sink.getvalue()


def walked(data: bytes) -> list[tuple[str, int, int]]:
    walk = TarWalk(io.BytesIO(data), len(data))
    return [(m.name, m.offset, m.size) for m in walk.members() if not m.special]


def read(path: Path | str, **spec: Any) -> list[dict[str, Any]]:
    files = list_files(str(path), spec.get("format"), spec.get("split"))
    return pa.Table.from_batches(list(read_tables(files, InputSpec(**spec)))).to_pylist()


def refusal(path: Path | str, **spec: Any) -> UserError:
    with pytest.raises(UserError) as caught:
        read(path, **spec)
    return caught.value


@pytest.mark.parametrize("format", FORMATS)
def test_members_are_those_that_tarfile_finds(format: str) -> None:
    names = [
        "a.jpg",
        "folder/b.txt",
        "d" * 50 + "/" + "x" * 90 + ".jpg",
        *([] if format == "ustar" else ["n" * 3000 + ".jpg", "é.json"]),
    ]
    data = packed([(name, name.encode() * 3) for name in names], FORMATS[format])
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert walked(data) == [(m.name, m.offset_data, m.size) for m in tar]


def test_links_devices_and_sparse_files_are_passed() -> None:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE):
            info = tarfile.TarInfo(f"special-{kind.decode()}")
            info.type, info.linkname = kind, "a.jpg"
            tar.addfile(info)
        info = tarfile.TarInfo("a.jpg")
        info.size = 3
        tar.addfile(info, io.BytesIO(b"abc"))
    walk = TarWalk(io.BytesIO(sink.getvalue()), len(sink.getvalue()))
    assert [(m.name, m.special != "") for m in walk.members()][-2:] == [("special-6", True), ("a.jpg", False)]


@pytest.mark.parametrize(
    "size", [b"-0000000001\0", b"zzzzzzzzzzz\0", b"\xff" * 12, b"\x80" + b"\xff" * 11, b"77777777777\0"]
)
def test_sizes_that_lie_end_the_walk(size: bytes) -> None:
    block = bytearray(packed([("a.jpg", JPEG)])[:512])
    block[124:136] = size
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    with pytest.raises(BrokenTarError):
        walked(bytes(block) + bytes(4096))


def test_no_mutation_of_a_tar_is_more_than_an_error(tmp_path: Path) -> None:
    draw = random.Random(7)
    whole = packed(
        [(f"{i:03d}.{ext}", JPEG) for i in range(6) for ext in ("jpg", "txt", "json")] + [("n" * 200 + ".jpg", JPEG)]
    )
    ends: Counter[str] = Counter()
    path = tmp_path / "a.tar"
    for _ in range(200):
        data = bytearray(whole)
        for _ in range(draw.randrange(1, 6)):
            data[draw.randrange(len(data))] = draw.randrange(256)
        path.write_bytes(data[: draw.randrange(len(data))] if draw.random() < 0.5 else data)
        try:
            for row in read(path):
                ends[row["fate"] or "good"] += 1
                if row["fate"] is None:
                    place, _, span = row["media_ref"].rpartition("#")
                    offset, size, _ = span.split(":")
                    found = path.read_bytes()[int(offset) :][: int(size)]
                    assert (place, hashlib.sha256(found).hexdigest()) == (str(path), row["media_sha256"])
        except UserError as error:
            assert error.where == str(path)
            ends["refused"] += 1
    assert min(ends["good"], ends["failed"], ends["refused"]) > 5


def test_samples_are_those_of_webdataset(tmp_path: Path) -> None:
    import webdataset

    members = [
        *[(f"f/{i}.jpg", JPEG + bytes([i])) for i in range(2)],
        *[("f/a.b.c.jpg", b"1"), ("f/a.JPG", b"2"), ("f/a.seg.png", b"3"), ("f/a.txt", b"of a"), ("g/a.txt", b"of g")],
        *[
            ("g/a.jpg", b"4"),
            ("noext", b"5"),
            (".hidden.jpg", b"6"),
            ("__meta__", b"7"),
            ("h.cls", b"1"),
            ("h.webp", b"8"),
        ],
    ]
    path = tmp_path / "a.tar"
    path.write_bytes(packed(members))
    theirs = list(webdataset.WebDataset(str(path), shardshuffle=False))
    ours = read(path)
    assert [row["source_uid"] for row in ours] == [one["__key__"] for one in theirs]
    captions = {one["__key__"]: one["txt"].decode() for one in theirs if "txt" in one}
    assert {row["source_uid"]: row["caption"] for row in ours if row["caption"]} == captions
    assert split_name("f/a.b.c.jpg") == ("f/a", "b.c.jpg")
    seen = {row["source_uid"]: row["media_sha256"] for row in ours}
    assert seen["f/a"] == hashlib.sha256(b"2").hexdigest()
    passed_over: Counter[str] = Counter()
    list(read_tables(list_files(str(path)), InputSpec(), passed_over=passed_over))
    assert passed_over == {".cls": 1, ".seg.png": 1}


@pytest.mark.parametrize(
    ("columns", "names"),
    [
        ("SAMPLE_ID URL TEXT HEIGHT WIDTH LICENSE NSFW similarity", ("URL", ("TEXT",), "SAMPLE_ID")),
        ("id url text width height image_phash text_length clip_similarity_vitb32", ("url", ("text",), "id")),
        ("uid url text original_width original_height clip_b32_similarity_score sha256", ("url", ("text",), "uid")),
        ("url caption key status error_message width height exif sha256", ("url", ("caption",), "key")),
        ("Url Caption text", ("Url", ("text",), None)),
        ("image_url alt_text id key", ("image_url", ("alt_text",), "id")),
    ],
)
def test_columns_by_habit(tmp_path: Path, columns: str, names: tuple[Any, ...]) -> None:
    row = {name: f"{name} 1" for name in columns.split()}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "a.parquet")
    chosen = input_names(list_files(str(tmp_path)), InputSpec())
    assert (chosen.url, chosen.captions, chosen.source_uid) == names
    (out,) = read(tmp_path)
    url, (caption,), source_uid = names
    assert (out["url"], out["caption"]) == (row[url], row[caption])
    assert out["source_uid"] == (row[source_uid] if source_uid else None)
    carried = set(row) - {url, caption, source_uid}
    assert {name.removeprefix("source_") for name in out} >= carried


def test_several_texts(tmp_path: Path) -> None:
    rows = [
        {"url": "u", "alt": " ", "more": ["x", None, "y"]},
        {"url": "u", "alt": "a", "more": None},
        {"url": "u", "alt": None, "more": []},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    out = read(tmp_path, caption=["alt", "more"])
    assert [row["caption"] for row in out] == ["x", "a", None]
    assert out[0]["texts"] == [
        {"kind": "alt", "text": " "},
        {"kind": "more", "text": "x"},
        {"kind": "more", "text": "y"},
    ]
    assert [len(row["texts"]) for row in out] == [3, 1, 0]
    assert out[1]["uid"] == uid_of("url", "u", "a")
    assert len({row["uid"] for row in out}) == 3


def test_what_is_not_plain_is_asked(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(packed([("a.jpg", JPEG)]))
    (tmp_path / "other.csv").write_text("url,caption\nu,c\n")
    error = refusal(tmp_path)
    assert "1 tars (a.tar); 1 tables (other.csv)" in error.what
    assert "input.format" in str(error)
    assert read(tmp_path, format="webdataset")[0]["fate"] is None
    (tmp_path / "p").mkdir()
    (tmp_path / "p/a.tar.gz").write_bytes(b"x")
    assert "compressed tar" in refusal(tmp_path / "p").what
    (tmp_path / "n").mkdir()
    (tmp_path / "n/a.tar").write_bytes(b"<html>not found</html>" * 99)
    assert "no tar archive" in refusal(tmp_path / "n").what
    (tmp_path / "e").mkdir()
    assert "holds no table and no media" in refusal(tmp_path / "e").what


@pytest.mark.slow
def test_three_thousand_small_files_take_seconds(tmp_path: Path) -> None:
    for i in range(3000):
        (tmp_path / f"{i:05d}.csv").write_text(f"url,caption\nhttp://web/{i},c\n")
    started = time.process_time()
    rows = read(tmp_path)
    assert [row["url"] for row in rows] == [f"http://web/{i}" for i in range(3000)]
    assert time.process_time() - started < 10


def test_iterators_keep_their_order_and_end_early() -> None:
    running = threading.active_count()

    def numbers(start: int) -> Iterator[int]:
        for i in range(50):
            yield start * 100 + i
        if start == 7:
            raise ValueError("seven")

    starts = [lambda start=start: numbers(start) for start in range(10)]
    assert list(in_order(starts[:7], 3)) == [start * 100 + i for start in range(7) for i in range(50)]
    with pytest.raises(ValueError, match="seven"):
        list(in_order(starts, 4))
    early = in_order(starts, 4)
    assert next(early) == 0
    early.close()  # type: ignore[attr-defined]
    assert threading.active_count() == running


def test_json_columns_of_samples(tmp_path: Path) -> None:
    told = [{"n": 1, "tags": ["a"], "url": None}, {"n": "two"}, {"n": 3, "late": True}]
    members = [
        m for i, t in enumerate(told) for m in ((f"{i}.jpg", JPEG + bytes([i])), (f"{i}.json", json.dumps(t).encode()))
    ]
    (tmp_path / "a.tar").write_bytes(packed(members))
    rows = read(tmp_path / "a.tar")
    assert [(row["n"], row["tags"]) for row in rows] == [("1", '["a"]'), ("two", None), ("3", None)]
    assert [row["late"] for row in rows] == [None, None, True]
