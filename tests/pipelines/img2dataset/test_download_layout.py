"""The layout that `corpusmith download` writes is img2dataset's, as recorded from runs of img2dataset 1.47."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import PIL.Image
import pyarrow.parquet as pq
import pytest
from small_web import Web, members, records, stats, write_input

from corpusmith.schemas.errors import UserError

MADE = [
    ("key", "string"),
    ("status", "string"),
    ("error_message", "string"),
    ("width", "int32"),
    ("height", "int32"),
    ("original_width", "int32"),
    ("original_height", "int32"),
    ("exif", "string"),
    ("sha256", "string"),
]
STATS = [
    *("count", "successes", "failed_to_download", "failed_to_resize"),
    *("duration", "start_time", "end_time", "status_dict"),
]
PATHS = ["/wide", "/missing", "/tall", "/bad", "/noai", None]


@pytest.fixture
def urls(web: Web, tmp_path: Path) -> Path:
    return write_input(
        tmp_path / "in.parquet",
        {
            "url": [path and web.url(path) for path in PATHS],
            "caption": ["a", "b", 'é "q"\n', "d", "e", None],
            "n": [0, 1, 2, 3, 4, 5],
            "score": [0.5, None, 1.5, 2.5, 3.5, 4.5],
        },
    )


def schema_of(path: Path) -> list[tuple[str, str]]:
    return [(field.name, str(field.type)) for field in pq.read_schema(path)]


def test_webdataset_shards(urls: Path, web: Web, download: Any, tmp_path: Path) -> None:
    """Columns and their order, keys, statuses, members, JSON and statistics."""
    out = tmp_path / "out"
    download(
        urls,
        input_format="parquet",
        caption_col="caption",
        output_folder=out,
        output_format="webdataset",
        save_additional_columns='["n","score"]',
    )
    assert sorted(p.name for p in out.iterdir()) == ["00000.parquet", "00000.tar", "00000_stats.json"]
    given = [("n", "int64"), ("score", "double"), ("caption", "string"), ("url", "string")]
    assert schema_of(out / "00000.parquet") == given + MADE
    rows = records(out)
    assert [row["key"] for row in rows] == [f"00000000{i}" for i in range(6)]
    assert [row["status"] for row in rows] == [
        *("success", "failed_to_download", "success", "failed_to_resize", "failed_to_download", "failed_to_download")
    ]
    failed = [row for row in rows if row["status"] != "success"]
    assert all(row[name] is None for row in failed for name, _ in MADE[3:])
    assert [row["error_message"].split(":")[0] for row in failed] == [
        *("HTTPStatus 404", "not an image", "opted out", "invalid URL")
    ]
    assert [row["n"] for row in rows] == [0, 1, 2, 3, 4, 5]
    wide = rows[0]
    assert (wide["width"], wide["height"], wide["original_width"], wide["original_height"]) == (256, 256, 600, 400)
    assert wide["exif"] == "{}"
    assert wide["sha256"] == hashlib.sha256(web.bodies["/wide"]).hexdigest()
    tar = members(out / "00000.tar")
    assert sorted(tar) == [f"00000000{i}.{end}" for i in (0, 2) for end in ("jpg", "json", "txt")]
    assert tar["000000002.txt"].decode() == 'é "q"\n'
    assert PIL.Image.open(io.BytesIO(tar["000000000.jpg"])).size == (256, 256)
    assert tar["000000002.json"].decode() == json.dumps(rows[2], indent=4)
    assert list(stats(out)) == STATS
    assert stats(out)["count"] == 6 and stats(out)["successes"] == 2 and stats(out)["failed_to_download"] == 3
    assert stats(out)["status_dict"] == {
        "success": 2,
        "HTTPStatus 404": 1,
        "not an image": 1,
        "opted out": 1,
        "invalid URL": 1,
    }


def test_files_and_parquet_and_dummy(urls: Path, download: Any, tmp_path: Path) -> None:
    for form in ("files", "parquet", "dummy"):
        download(urls, input_format="parquet", output_folder=tmp_path / form, output_format=form)
    files = sorted(str(p.relative_to(tmp_path / "files")) for p in (tmp_path / "files").rglob("*") if p.is_file())
    shard = [f"00000/00000000{i}.{end}" for i in (0, 2) for end in ("jpg", "json")]
    assert files == ["00000.parquet", *shard, "00000_stats.json"]
    assert schema_of(tmp_path / "files/00000.parquet") == [("url", "string"), *MADE]
    assert schema_of(tmp_path / "parquet/00000.parquet") == [("url", "string"), *MADE, ("jpg", "binary")]
    rows = {row["key"]: row for row in records(tmp_path / "parquet")}
    assert rows["000000000"]["jpg"] == (tmp_path / "files/00000/000000000.jpg").read_bytes()
    assert len(rows) == 6 and rows["000000003"]["jpg"] is None
    assert [p.name for p in (tmp_path / "dummy").iterdir()] == ["00000_stats.json"]


def test_shards_never_span_files(web: Web, download: Any, tmp_path: Path) -> None:
    """Files of a folder in the order of their names; digits as the shard's size needs them."""
    folder = tmp_path / "lists"
    folder.mkdir()
    (folder / "1.txt").write_text(f"{web.url('/wide')}\n\n{web.url('/tall')} \n{web.url('/png')}\n")
    (folder / "0.txt").write_text(web.url("/small"))
    (folder / "other.csv").write_text("url\n")
    out = tmp_path / "out"
    download(folder, output_folder=out, number_sample_per_shard=2, oom_shard_count=3, output_format="dummy")
    assert sorted(p.name for p in out.iterdir()) == [f"00{i}_stats.json" for i in range(3)]
    download(folder, output_folder=out, number_sample_per_shard=2, oom_shard_count=3, incremental_mode="overwrite")
    paths = [str(p.relative_to(out)) for p in sorted(out.rglob("*.jpg"))]
    assert paths == ["000/0000.jpg", "001/0010.jpg", "001/0011.jpg", "002/0020.jpg"]


@pytest.mark.parametrize("form", ["csv", "tsv.gz", "json", "columns.json", "jsonl"])
def test_input_formats(form: str, web: Web, download: Any, tmp_path: Path) -> None:
    import gzip

    rows = [{"link": web.url("/wide"), "text": 'a, "b"', "id": "x"}, {"link": web.url("/png"), "text": "", "id": "y"}]
    path = tmp_path / f"in.{form}"
    match form:
        case "csv":
            path.write_text("link,text,id\n" + f'{rows[0]["link"]},"a, ""b""",x\n{rows[1]["link"]},,y\n')
        case "tsv.gz":
            text = "link\ttext\tid\n" + "".join("\t".join(row.values()) + "\n" for row in rows)
            path.write_bytes(gzip.compress(text.encode()))
        case "json":
            path.write_text(json.dumps(rows))
        case "columns.json":
            path.write_text(json.dumps({name: {i: row[name] for i, row in enumerate(rows)} for name in rows[0]}))
        case _:
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    flags = {"url_col": "link", "caption_col": "text", "save_additional_columns": "[id]"}
    download(path, input_format=form.removeprefix("columns."), output_folder=tmp_path / "out", **flags)
    found = records(tmp_path / "out")
    assert [row["caption"] or "" for row in found] == ['a, "b"', ""]
    assert [row["id"] for row in found] == ["x", "y"] and {row["status"] for row in found} == {"success"}


def test_columns_of_datacomp_keep_their_names(web: Web, download: Any, tmp_path: Path) -> None:
    """A column `uid` is carried under its own name; lists stay lists; boxes are blurred."""
    columns = {"url": [web.url("/wide")] * 2, "uid": ["u1", "u2"], "face_bboxes": [[[0.1, 0.1, 0.9, 0.9]], []]}
    source = write_input(tmp_path / "in.parquet", columns)
    flags = {"save_additional_columns": '["uid"]', "bbox_col": "face_bboxes", "output_format": "webdataset"}
    download(source, input_format="parquet", output_folder=tmp_path / "out", **flags)
    assert [row["uid"] for row in records(tmp_path / "out")] == ["u1", "u2"]
    assert [row["face_bboxes"] for row in records(tmp_path / "out")] == columns["face_bboxes"]
    tar = members(tmp_path / "out/00000.tar")
    assert len(tar["000000000.jpg"]) < 0.9 * len(tar["000000001.jpg"])


def test_hashes(web: Web, download: Any, tmp_path: Path) -> None:
    """A verified hash stands before the URL, as computed; rows without it fail."""
    right = hashlib.md5(web.bodies["/wide"]).hexdigest()
    source = write_input(
        tmp_path / "in.parquet",
        {"url": [web.url("/wide")] * 3, "H": [right, "0" * 32, None], "caption": ["a", "b", "c"]},
    )
    flags = {"compute_hash": "md5", "verify_hash": '["H","md5"]', "caption_col": "caption"}
    download(source, input_format="parquet", output_folder=tmp_path / "out", **flags)
    assert schema_of(tmp_path / "out/00000.parquet")[:3] == [
        *(("caption", "string"), ("md5", "string"), ("url", "string"))
    ]
    rows = records(tmp_path / "out")
    assert [(row["status"], row["md5"]) for row in rows] == [
        *(("success", right), ("failed_to_download", None), ("failed_to_download", None))
    ]
    assert rows[1]["error_message"].startswith("hash mismatch")


def test_no_hash_no_exif_nothing_reencoded(web: Web, download: Any, tmp_path: Path) -> None:
    source = write_input(tmp_path / "in.parquet", {"url": [web.url("/wide"), web.url("/bad")]})
    flags = {"disable_all_reencoding": True, "compute_hash": "None", "extract_exif": False}
    download(source, input_format="parquet", output_folder=tmp_path / "out", output_format="webdataset", **flags)
    assert schema_of(tmp_path / "out/00000.parquet") == [("url", "string"), *MADE[:7]]
    assert members(tmp_path / "out/00000.tar")["000000000.jpg"] == web.bodies["/wide"]
    assert {row["status"] for row in records(tmp_path / "out")} == {"success"}
    assert records(tmp_path / "out")[0]["width"] is None


SIZES = [
    ({"resize_mode": "keep_ratio"}, {"wide": (384, 256), "tall": (256, 597), "small": (320, 256)}),
    ({"resize_mode": "keep_ratio_largest"}, {"wide": (256, 171), "tall": (110, 256)}),
    ({"resize_mode": "center_crop", "encode_format": "webp"}, {"wide": (256, 256), "long": (256, 256)}),
    ({"resize_mode": "no", "encode_format": "png", "encode_quality": 5}, {"wide": (600, 400), "small": (100, 80)}),
    ({"resize_mode": "keep_ratio", "resize_only_if_bigger": True}, {"small": (100, 80), "wide": (384, 256)}),
]


@pytest.mark.parametrize(("flags", "sizes"), SIZES)
def test_resize_modes(flags: dict[str, Any], sizes: dict[str, Any], web: Web, download: Any, tmp_path: Path) -> None:
    """Sizes as img2dataset gave them for the same pictures."""
    source = write_input(tmp_path / "in.parquet", {"url": [web.url(f"/{name}") for name in sizes]})
    download(source, input_format="parquet", output_folder=tmp_path / "out", output_format="webdataset", **flags)
    assert [(row["width"], row["height"]) for row in records(tmp_path / "out")] == list(sizes.values())
    extension = flags.get("encode_format", "jpg")
    found = [
        PIL.Image.open(io.BytesIO(data))
        for name, data in sorted(members(tmp_path / "out/00000.tar").items())
        if name.endswith(extension)
    ]
    assert [image.size for image in found] == list(sizes.values())
    assert {image.format for image in found} == {{"jpg": "JPEG", "webp": "WEBP", "png": "PNG"}[extension]}


def test_size_rules_and_kept_bytes(web: Web, download: Any, tmp_path: Path) -> None:
    source = write_input(tmp_path / "in.parquet", {"url": [web.url(p) for p in ("/small", "/long", "/wide", "/png")]})
    rules = {"min_image_size": 90, "max_aspect_ratio": 3, "max_image_area": 200000}
    download(source, input_format="parquet", output_folder=tmp_path / "out", **rules)
    assert [(row["status"], (row["error_message"] or "").split(":")[0]) for row in records(tmp_path / "out")] == [
        ("failed_to_resize", "too small"),
        ("failed_to_resize", "aspect ratio"),
        ("failed_to_resize", "area too large"),
        ("success", ""),
    ]
    kept = {"image_size": 600, "resize_mode": "keep_ratio", "resize_only_if_bigger": True, "skip_reencode": True}
    download(source, input_format="parquet", output_folder=tmp_path / "kept", **kept)
    assert (tmp_path / "kept/00000/000000002.jpg").read_bytes() == web.bodies["/wide"]
    download(source, input_format="parquet", output_folder=tmp_path / "made", **kept | {"skip_reencode": False})
    assert (tmp_path / "made/00000/000000002.jpg").read_bytes() != web.bodies["/wide"]


def test_opt_out_headers(web: Web, download: Any, tmp_path: Path) -> None:
    """Honoured by default, also when they address the given token; switched off by an empty list."""
    web.bodies["/mine"] = web.bodies["/other"] = web.bodies["/small"]
    web.headers |= {"/mine": {"X-Robots-Tag": "tok: noindex"}, "/other": {"X-Robots-Tag": "somebot: noindex"}}
    source = write_input(tmp_path / "in.parquet", {"url": [web.url(p) for p in ("/noai", "/mine", "/other")]})
    common = {"input_format": "parquet", "output_format": "webdataset"}
    download(source, output_folder=tmp_path / "default", user_agent_token="tok", **common)
    assert [row["status"] == "success" for row in records(tmp_path / "default")] == [False, False, True]
    assert all(agent.startswith("tok ") for agent in web.agents)
    download(source, output_folder=tmp_path / "off", disallowed_header_directives="[]", **common)
    assert {row["status"] for row in records(tmp_path / "off")} == {"success"}


def test_private_addresses_are_refused_unless_allowed(web: Web, download: Any, tmp_path: Path) -> None:
    source = write_input(tmp_path / "in.parquet", {"url": [web.url("/wide"), "file:///etc/passwd"]})
    download(source, input_format="parquet", output_folder=tmp_path / "out", allow_hosts="[]")
    messages = [row["error_message"] for row in records(tmp_path / "out")]
    assert messages[0].startswith("address refused") and messages[1].startswith("scheme refused")
    assert not web.asked


def test_hostile_captions_and_urls(web: Web, download: Any, tmp_path: Path) -> None:
    """Slashes, dots, newlines, quotes, NUL, a megabyte: nothing gets into a name, and nothing is changed."""
    captions = ["../../x", "a\nb\r\n", "\"'\\", "\0", "x" * 1_000_000, "</script>", ""]
    urls = [f"{web.url('/small')}?{i}" for i in range(len(captions))]
    urls += [f"{web.url('/small')}?" + "y" * 1_000_000, "http://[", "http://a\nb/", "../../etc/passwd", '"', "\0"]
    captions += ["bad url"] * 6
    source = write_input(tmp_path / "in.parquet", {"url": urls, "caption": captions})
    out = tmp_path / "deep" / "out"
    flags = {"input_format": "parquet", "caption_col": "caption", "output_format": "webdataset"}
    download(source, output_folder=out, **flags)
    rows = records(out)
    assert [row["url"] for row in rows] == urls and [row["caption"] for row in rows] == captions
    assert all(row["status"] == "success" for row in rows[:7]), rows[0]
    assert all(row["status"] == "failed_to_download" for row in rows[8:])
    tar = members(out / "00000.tar")
    assert all(name.partition(".")[0].isdigit() for name in tar)
    assert [tar[f"00000000{i}.txt"].decode() for i in range(7)] == captions[:7]
    assert json.loads(tar["000000004.json"])["caption"] == captions[4]
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["out"]


def test_numbers_that_json_lacks(web: Web, download: Any, tmp_path: Path) -> None:
    source = write_input(tmp_path / "in.parquet", {"url": [web.url("/small")], "x": [float("nan")], "b": [b"\xff"]})
    flags = {"input_format": "parquet", "output_format": "webdataset", "save_additional_columns": "[x,b]"}
    download(source, output_folder=tmp_path / "out", **flags)
    assert json.loads(members(tmp_path / "out/00000.tar")["000000000.json"])["x"] is None


def test_output_to_an_object_store(web: Web, download: Any, tmp_path: Path) -> None:
    """Through fsspec, with nothing left on this machine."""
    import fsspec

    source = write_input(tmp_path / "in.parquet", {"url": [web.url("/small"), web.url("/bad")]})
    fs = fsspec.filesystem("memory")
    for form in ("webdataset", "files"):
        download(source, input_format="parquet", output_folder=f"memory://{form}", output_format=form)
    assert sorted(fs.find("/webdataset")) == [f"/webdataset/00000{end}" for end in (".parquet", ".tar", "_stats.json")]
    assert fs.exists("/files/00000/000000000.jpg")
    with fs.open("/webdataset/00000.parquet") as file:
        assert pq.read_table(file).num_rows == 2
    asked = len(web.asked)
    download(source, input_format="parquet", output_folder="memory://webdataset", output_format="webdataset")
    assert len(web.asked) == asked


def test_input_errors_are_the_users(web: Web, download: Any, tmp_path: Path) -> None:
    source = write_input(tmp_path / "in.parquet", {"url": [web.url("/small")]})
    with pytest.raises(UserError, match="no column 'text'"):
        download(source, input_format="parquet", caption_col="text", output_folder=tmp_path / "out")
    with pytest.raises(UserError, match="no such file"):
        download(tmp_path / "none.txt", output_folder=tmp_path / "out")
