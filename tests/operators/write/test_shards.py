"""Shards: layout, determinism, offsets, loaders; and the check on shards that were damaged on purpose."""

from __future__ import annotations

import base64
import datetime
import decimal
import io
import json
import re
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from corpusmith.operators.media_type import extension_of
from corpusmith.operators.registry import operator_class
from corpusmith.operators.write.check import check_shard
from corpusmith.operators.write.shards import Shards, ShardsConfig, shard_bounds
from corpusmith.operators.write.tar import TarWriter, read_members
from corpusmith.schemas.identity import uid_of

COUNT = 23


def encoded(i: int, format_name: str, **options: Any) -> bytes:
    pixels = np.random.default_rng(i).integers(0, 255, (12 + i, 16, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format_name, **options)
    return buffer.getvalue()


def example_media(count: int = COUNT) -> list[bytes | None]:
    formats = ["JPEG", "PNG", "WEBP"]
    return [None if i == 4 else encoded(i, formats[i % 3]) for i in range(count)]


def example_rows(count: int = COUNT) -> pa.Table:
    urls = [f"http://example.org/{i}.jpg" for i in range(count)]
    captions = [None if i == 5 else "" if i == 6 else f"naïve 写真 {i}\nsecond line" for i in range(count)]
    return pa.table(
        {
            "zebra": pa.array([i / 7 for i in range(count)], pa.float32()),
            "url": urls,
            "uid": [uid_of("url", url, caption) for url, caption in zip(urls, captions, strict=True)],
            "caption": captions,
            "status": ["stale"] * count,
            "key": ["old"] * count,
            "width": pa.array([16] * count, pa.int32()),
            "language": pa.array(["en", "fr", None] * count).slice(0, count).dictionary_encode(),
            "score": pa.array([float("nan") if i == 2 else 0.5 for i in range(count)]),
            "embedding": [[0.5 * i, float("inf")] for i in range(count)],
            "phash": pa.array([bytes([0, 255, i]) for i in range(count)]),
            "seen": pa.array([datetime.datetime(2024, 1, 2, 3, 4, i) for i in range(count)]),
            "price": pa.array([decimal.Decimal("1.50")] * count),
            "nested": [{"b": i, "a": [b"x"]} for i in range(count)],
            "parent_uid": ["f" * 32 if i == count - 1 else None for i in range(count)],
            "root_uid": ["0" * 32] * count,
            "media_ref": ["a#1:2"] * count,
            "media_sha256": ["0" * 64] * count,
            "media": pa.array([b"m"] * count, pa.large_binary()),
            "fate": pa.nulls(count, pa.string()),
        }
    )


def write(folder: Path, rows: pa.Table, media: list[bytes | None], index: int = 3, **config: Any) -> list[str]:
    folder.mkdir(exist_ok=True)
    return Shards(ShardsConfig(**config)).write_shard(index, rows, iter(media), str(folder))


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shard")
    assert write(folder, example_rows(), example_media()) == ["00003.tar", "00003.parquet", "00003_stats.json"]
    return folder


def members_of(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        return {info.name: tar.extractfile(info).read() for info in tar}  # type: ignore[union-attr]


def test_the_registry_knows_it() -> None:
    assert operator_class("shards") is Shards
    assert Shards().requires == () and Shards().kind == "write"


def test_members_are_media_caption_and_metadata(shard: Path) -> None:
    members = members_of(shard / "00003.tar")
    media = example_media()
    rows = example_rows().to_pylist()
    expected: dict[str, bytes | None] = {}
    for i, (row, data) in enumerate(zip(rows, media, strict=True)):
        key = f"00003{i:04d}"
        if data is not None:
            expected[f"{key}.{['jpg', 'png', 'webp'][i % 3]}"] = data
        if row["caption"] is not None:
            expected[f"{key}.txt"] = row["caption"].encode()
        expected[f"{key}.json"] = None
    assert list(members) == list(expected)
    assert all(members[name] == data for name, data in expected.items() if data is not None)


def test_metadata_is_strict_json_with_sorted_keys(shard: Path) -> None:
    members = members_of(shard / "00003.tar")

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    raw = members["000030002.json"].decode()
    assert "naïve 写真 2" in raw
    row = json.loads(raw, parse_constant=refuse)
    assert list(row) == sorted(row) and list(row["nested"]) == ["a", "b"]
    assert row["key"] == "000030002" and row["status"] == "success" and row["error_message"] is None
    assert row["score"] is None and row["embedding"] == [1.0, None]
    assert base64.b64decode(row["phash"]) == bytes([0, 255, 2])
    assert row["seen"] == "2024-01-02T03:04:02" and row["price"] == "1.50"
    assert row["uid"] == example_rows()["uid"][2].as_py()
    assert not {"media", "media_ref", "root_uid", "media_sha256", "fate"} & row.keys()


def test_parquet_has_img2dataset_columns_first_then_the_others_by_name(shard: Path) -> None:
    table = pq.read_table(shard / "00003.parquet")
    first = ["key", "uid", "url", "caption", "status", "error_message", "width"]
    others = ["embedding", "language", "nested", "parent_uid", "phash", "price", "score", "seen", "tar_offset"]
    assert table.column_names == [*first, *others, "tar_size", "zebra"]
    assert table["key"].to_pylist() == [f"00003{i:04d}" for i in range(COUNT)]
    assert set(table["status"].to_pylist()) == {"success"} and table["error_message"].null_count == COUNT
    assert table["url"].to_pylist() == example_rows()["url"].to_pylist()
    assert table["parent_uid"].to_pylist()[-1] == "f" * 32
    assert np.isnan(table["score"][2].as_py())
    assert pq.ParquetFile(shard / "00003.parquet").metadata.row_group(0).column(0).compression == "ZSTD"


def test_a_range_read_by_the_parquet_gives_the_media(shard: Path) -> None:
    table = pq.read_table(shard / "00003.parquet", columns=["tar_offset", "tar_size"])
    read: list[bytes | None] = []
    with (shard / "00003.tar").open("rb") as file:
        for row in table.to_pylist():
            if row["tar_offset"] is None:
                read.append(None)
                continue
            file.seek(row["tar_offset"])
            read.append(file.read(row["tar_size"]))
    assert read == example_media()


def test_stats_are_those_of_img2dataset(shard: Path) -> None:
    stats = json.loads((shard / "00003_stats.json").read_text())
    times = {name: stats.pop(name) for name in ("duration", "start_time", "end_time")}
    assert times["duration"] == times["end_time"] - times["start_time"] >= 0
    assert stats == {
        "count": COUNT,
        "successes": COUNT,
        "failed_to_download": 0,
        "failed_to_resize": 0,
        "status_dict": {"success": COUNT},
    }
    assert [p.name for p in shard.iterdir() if re.fullmatch(r"\d+_.*\.json", p.name)] == ["00003_stats.json"]


def rechunked(rows: pa.Table) -> pa.Table:
    return pa.concat_tables([rows.slice(0, 1), rows.slice(1, 0), rows.slice(1, 9), rows.slice(10)])


def unified_late(rows: pa.Table) -> pa.Table:
    """The same values, with another dictionary in each chunk."""
    at = rows.column_names.index("language")
    plain = rows["language"].cast(pa.string())
    chunks = [
        plain.slice(0, 7).combine_chunks().dictionary_encode(),
        plain.slice(7).combine_chunks().dictionary_encode(),
    ]
    return rows.set_column(at, "language", pa.chunked_array(chunks))


def large_types(rows: pa.Table) -> pa.Table:
    at = rows.column_names.index("caption")
    return rows.set_column(at, "caption", rows["caption"].cast(pa.large_string()))


def offset_inside_a_buffer(rows: pa.Table) -> pa.Table:
    return pa.concat_tables([rows.slice(20), rows]).combine_chunks().slice(COUNT - 20)


def described(rows: pa.Table) -> pa.Table:
    return rows.replace_schema_metadata({"pandas": "something"}).select(rows.column_names[::-1])


@pytest.mark.parametrize(
    "change", [lambda rows: rows, rechunked, unified_late, large_types, offset_inside_a_buffer, described]
)
def test_equal_rows_give_equal_bytes(shard: Path, tmp_path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    changed = change(example_rows())
    assert changed.num_rows == COUNT
    write(tmp_path, changed, example_media())
    for name in ("00003.tar", "00003.parquet"):
        assert (tmp_path / name).read_bytes() == (shard / name).read_bytes(), name


def test_webdataset_decodes_every_sample(shard: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    samples = list(webdataset.WebDataset(str(shard / "00003.tar"), shardshuffle=False).decode("pil"))
    assert [sample["__key__"] for sample in samples] == [f"00003{i:04d}" for i in range(COUNT)]
    assert samples[0]["jpg"].size == (16, 12) and samples[1]["png"].size == (16, 13)
    assert samples[1]["txt"] == "naïve 写真 1\nsecond line" and samples[6]["txt"] == ""
    assert samples[2]["json"]["url"] == "http://example.org/2.jpg"
    assert {"jpg", "png", "webp"}.isdisjoint(samples[4]) and "txt" not in samples[5]


def test_a_table_of_uids_alone_is_enough(tmp_path: Path) -> None:
    write(tmp_path, pa.table({"uid": ["a", "b"]}), [None, None], index=0)
    assert list(members_of(tmp_path / "00000.tar")) == ["000000000.json", "000000001.json"]
    assert check_shard(tmp_path / "00000.tar", tmp_path / "00000.parquet") == []


def test_an_empty_shard_is_a_whole_shard(tmp_path: Path) -> None:
    write(tmp_path, example_rows(0), [], index=0)
    assert check_shard(tmp_path / "00000.tar", tmp_path / "00000.parquet") == []
    assert pq.read_table(tmp_path / "00000.parquet").num_rows == 0


@pytest.mark.parametrize(
    ("samples_per_shard", "expected"),
    [(1, "070000"), (100, "070000"), (10_000, "070000"), (10_001, "0700000"), (100_000, "0700000")],
)
def test_keys_have_room_for_every_place(tmp_path: Path, samples_per_shard: int, expected: str) -> None:
    write(tmp_path, pa.table({"uid": ["a"]}), [None], index=7, samples_per_shard=samples_per_shard, shard_digits=2)
    assert pq.read_table(tmp_path / "07.parquet")["key"].to_pylist() == [expected]


@pytest.mark.parametrize("media", [[b"1"], [b"1", b"2", b"3"]])
def test_media_that_do_not_match_the_rows_are_an_error(tmp_path: Path, media: list[bytes | None]) -> None:
    with pytest.raises(ValueError):
        write(tmp_path, pa.table({"uid": ["a", "b"]}), media)


def test_more_rows_than_a_shard_holds_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="shard 3 has 3 rows, above 2"):
        write(tmp_path, pa.table({"uid": ["a", "b", "c"]}), [None] * 3, samples_per_shard=2)


def test_parameters_are_bounded() -> None:
    for wrong in ({"samples_per_shard": 0}, {"shard_digits": 0}, {"sample_per_shard": 5}):
        with pytest.raises(ValidationError):
            ShardsConfig(**wrong)


@given(st.integers(0, 5000), st.integers(1, 700))
def test_bounds_are_gapless_and_balanced(rows: int, samples_per_shard: int) -> None:
    bounds = shard_bounds(rows, samples_per_shard)
    sizes = [end - start for start, end in bounds]
    assert [i for start, end in bounds for i in range(start, end)] == list(range(rows))
    assert len(bounds) == -(-rows // samples_per_shard)
    assert not sizes or (min(sizes) > 0 and max(sizes) <= samples_per_shard and max(sizes) - min(sizes) <= 1)


@pytest.mark.parametrize(
    ("format_name", "options", "expected"),
    [
        ("JPEG", {}, "jpg"),
        ("PNG", {}, "png"),
        ("WEBP", {"lossless": True}, "webp"),
        ("GIF", {}, "gif"),
        ("BMP", {}, "bmp"),
        ("TIFF", {}, "tiff"),
        ("AVIF", {}, "avif"),
    ],
)
def test_images_are_named_by_content(format_name: str, options: dict[str, Any], expected: str) -> None:
    assert extension_of(encoded(1, format_name, **options)) == expected


@pytest.mark.parametrize(
    ("codec", "container"), [("mp4v", "mp4"), ("mp4v", "mov"), ("MJPG", "avi"), ("MJPG", "mkv"), ("VP80", "webm")]
)
def test_films_are_named_by_content(codec: str, container: str, tmp_path: Path) -> None:
    path = tmp_path / f"film.{container}"
    film = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), 5, (64, 48))
    for _ in range(3):
        film.write(np.zeros((48, 64, 3), np.uint8))
    film.release()
    assert extension_of(path.read_bytes()) == container


@pytest.mark.parametrize("data", [b"", b"\xff", b"BMW is a car", b"RIFF....PAL ", b"<html>", b"\0" * 64])
def test_anything_else_is_bin(data: bytes) -> None:
    assert extension_of(data) == "bin"


# The check, on shards that were damaged on purpose.


def rewrite_parquet(folder: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    path = folder / "00003.parquet"
    pq.write_table(change(pq.read_table(path)), path)


def rewrite_tar(folder: Path, change: Callable[[list[tuple[str, bytes]]], list[tuple[str, bytes]]]) -> None:
    path = folder / "00003.tar"
    with path.open("rb") as file:
        raw = path.read_bytes()
        members = [(m.name, raw[m.offset : m.offset + m.size]) for m in read_members(file)]
    with path.open("wb") as file, TarWriter(file) as tar:
        for name, data in change(members):
            tar.add(name, data)


def set_column(name: str, change: Callable[[list[Any]], list[Any]]) -> Callable[[Path], None]:
    def edit(table: pa.Table) -> pa.Table:
        at = table.column_names.index(name)
        return table.set_column(at, name, pa.array(change(table[name].to_pylist()), table.schema.field(name).type))

    return lambda folder: rewrite_parquet(folder, edit)


def cut(name: str, count: int) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        raw = (folder / name).read_bytes()
        (folder / name).write_bytes(raw[:count])

    return edit


def without(name: str) -> Callable[[Path], None]:
    return lambda folder: rewrite_tar(folder, lambda members: [m for m in members if m[0] != name])


DAMAGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "truncated tar": (cut("00003.tar", 9000), "tar unreadable: the (archive|member)"),
    "empty tar": (cut("00003.tar", 0), "tar unreadable: the archive ends at byte 0"),
    "tar gone": (lambda folder: (folder / "00003.tar").unlink(), "tar unreadable: .*No such file"),
    "truncated parquet": (cut("00003.parquet", 900), "parquet unreadable: "),
    "parquet gone": (lambda folder: (folder / "00003.parquet").unlink(), "parquet unreadable: .*No such file"),
    "no key column": (
        lambda folder: rewrite_parquet(folder, lambda table: table.drop_columns("key")),
        "parquet unreadable: it has no column 'key'",
    ),
    "row gone": (
        lambda folder: rewrite_parquet(folder, lambda table: table.filter(pc.field("key") != "000030009")),
        "sample without a row in the parquet: 000030009$",
    ),
    "duplicate key": (
        set_column("key", lambda keys: [*keys[:7], keys[6], *keys[8:]]),
        "duplicate key in the parquet: 000030006$",
    ),
    "duplicate uid": (
        set_column("uid", lambda uids: [*uids[:-1], uids[0]]),
        "duplicate uid in the parquet: [0-9a-f]{32}$",
    ),
    "offset off by one": (
        set_column("tar_offset", lambda offsets: [offsets[0], offsets[1] + 1, *offsets[2:]]),
        r"offset in the parquet is not the media's: 000030001 at \d+, \d+ bytes$",
    ),
    "size off by one": (
        set_column("tar_size", lambda sizes: [sizes[0] - 1, *sizes[1:]]),
        r"offset in the parquet is not the media's: 000030000 at 512, \d+ bytes$",
    ),
    "media unknown to the parquet": (
        set_column("tar_offset", lambda offsets: [None, *offsets[1:]]),
        "media without an offset in the parquet: 000030000$",
    ),
    "json gone": (without("000030022.json"), "member missing in the tar: 000030022.json$"),
    "caption gone": (without("000030022.txt"), "member missing in the tar: 000030022.txt$"),
    "media gone": (without("000030022.png"), "media missing in the tar: 000030022$"),
    "samples gone": (
        lambda folder: rewrite_tar(folder, lambda members: members[:28]),
        r"sample missing in the tar: 000030010, 000030011, 000030012 and \d+ more$",
    ),
    "member twice": (
        lambda folder: rewrite_tar(folder, lambda members: [*members, members[-1]]),
        "duplicate member in the tar: 000030022.json$",
    ),
    "sample in two places": (
        lambda folder: rewrite_tar(folder, lambda members: [*members, ("000030000.cls", b"1")]),
        "sample in two places of the tar: 000030000$",
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_found_and_named(shard: Path, tmp_path: Path, name: str) -> None:
    damage, expected = DAMAGE[name]
    folder = tmp_path / "copy"
    shutil.copytree(shard, folder)
    damage(folder)
    problems = check_shard(folder / "00003.tar", folder / "00003.parquet")
    assert any(re.match(expected, problem) for problem in problems), problems


def test_a_whole_shard_has_no_problems(shard: Path) -> None:
    assert check_shard(shard / "00003.tar", str(shard / "00003.parquet")) == []
    with (shard / "00003.tar").open("rb") as tar, (shard / "00003.parquet").open("rb") as parquet:
        assert check_shard(tar, parquet) == []


def test_a_flipped_header_byte_is_found(shard: Path, tmp_path: Path) -> None:
    raw = bytearray((shard / "00003.tar").read_bytes())
    raw[3] ^= 1
    assert check_shard(io.BytesIO(bytes(raw)), shard / "00003.parquet") == [
        "tar unreadable: the header at byte 0 has a wrong checksum"
    ]


def test_shards_in_img2dataset_manner_pass(tmp_path: Path) -> None:
    """Failed rows in the Parquet, no offsets, members in another order than the rows, owners and times set."""
    webdataset = pytest.importorskip("webdataset")
    keys = [f"{i:09d}" for i in range(4)]
    writer = webdataset.TarWriter(str(tmp_path / "00000.tar"))
    for key in (keys[2], keys[0], keys[3]):
        writer.write({"__key__": key, "jpg": encoded(1, "JPEG"), "txt": "a caption", "json": {"key": key}})
    writer.close()
    status = ["success", "failed_to_download", "success", "success"]
    pq.write_table(pa.table({"key": keys, "status": status, "caption": ["a"] * 4}), tmp_path / "00000.parquet")
    assert check_shard(tmp_path / "00000.tar", tmp_path / "00000.parquet") == []
