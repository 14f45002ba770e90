"""Tables of URLs and texts: what is found, what is read, and that nothing is lost on the way."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpusmith.operators.sources import csv_table, json_table, lines, parquet_table
from corpusmith.operators.sources.tables import input_schema, list_files, read_tables
from corpusmith.schemas.errors import UserError
from corpusmith.schemas.identity import uid_of, uids_of_urls
from corpusmith.schemas.recipe import InputSpec

HEAD = ["uid", "source_uid", "url", "caption", "fate", "fate_step", "fate_error", "fate_reason"]


def read(paths: Any, batch_rows: int = 65536, **spec: Any) -> pa.Table:
    files = list_files(str(paths) if isinstance(paths, Path) else paths)
    batches = list(read_tables(files, InputSpec(**spec), batch_rows=batch_rows))
    table = pa.Table.from_batches(batches)
    table.validate(full=True)
    assert table.schema.names[:8] == HEAD
    assert all(field.type == pa.string() for field in list(table.schema)[:8])
    assert table["uid"].null_count == 0
    assert all(batch.num_rows <= batch_rows for batch in batches)
    return table


def write(path: Path, data: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def pairs(table: pa.Table) -> list[tuple[Any, Any]]:
    """URL and caption of the rows that can be used."""
    return [(row["url"], row["caption"]) for row in table.to_pylist() if row["fate"] is None]


def failures(table: pa.Table) -> list[tuple[str, str]]:
    failed = [row for row in table.to_pylist() if row["fate"] is not None]
    assert all((row["fate"], row["fate_step"]) == ("failed", "input") for row in failed)
    return [(row["fate_error"], row["fate_reason"]) for row in failed]


def refusal(paths: Any, **spec: Any) -> UserError:
    with pytest.raises(UserError) as caught:
        read(paths, **spec)
    return caught.value


def test_every_format_gives_the_same_rows(tmp_path: Path) -> None:
    rows = [("http://a/1", 'one, "two"\nthree', "5"), ("http://a/2", None, "6"), ("http://a/3", "é — 漢字", None)]
    plain = [dict(zip(("url", "caption", "w"), row, strict=True)) for row in rows]
    for name, delimiter in (("a.csv", ","), ("a.tsv", "\t")):
        out = io.StringIO(newline="")
        csv.writer(out, delimiter=delimiter).writerows([("url", "caption", "w"), *rows])
        write(tmp_path / name, out.getvalue())
    write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, plain)))
    pq.write_table(pa.Table.from_pylist(plain), tmp_path / "a.parquet")
    tables = [read(tmp_path / name) for name in ("a.csv", "a.tsv", "a.jsonl", "a.parquet")]
    for table in tables:
        assert table.to_pylist() == tables[0].to_pylist()
        assert table["uid"].to_pylist() == uids_of_urls(*zip(*[row[:2] for row in rows], strict=True))
        assert failures(table) == []


@pytest.mark.parametrize(
    ("suffix", "pack"),
    [
        (".gz", gzip.compress),
        (".bz2", bz2.compress),
        (".xz", lzma.compress),
        (".zst", lambda data: pa.compress(data, "zstd", asbytes=True)),
    ],
)
def test_compression_goes_by_suffix(tmp_path: Path, suffix: str, pack: Any) -> None:
    lines = "".join(f"http://a/{i},caption {i}\n" for i in range(5000))
    parts = [b"url,caption\n" + lines.encode(), b"http://a/last,end\n"]
    path = write(tmp_path / f"a.CSV{suffix}", b"".join(map(pack, parts)))
    table = read(path, batch_rows=1000)
    assert table.num_rows == 5001
    assert pairs(table)[-1] == ("http://a/last", "end")
    jsonl = write(tmp_path / f"b.jsonl{suffix}", pack(b'{"url": "http://a", "caption": "c"}\n'))
    assert pairs(read(jsonl)) == [("http://a", "c")]
    damaged = write(tmp_path / f"c.csv{suffix}", pack(parts[0])[:-20])
    assert (refusal(damaged).where, "damaged" in str(refusal(damaged))) == (str(damaged), True)
    nonsense = write(tmp_path / f"d.csv{suffix}", b"url,caption\nhttp://a,b\n")
    assert refusal(nonsense).where == str(nonsense)


def test_bad_csv_rows_cost_themselves_alone(tmp_path: Path) -> None:
    text = (
        b"\xef\xbb\xbfurl,caption,tag\r\n"
        b'http://a/1,"two\r\nlines, and ""quotes""",x\r\n'
        b"http://a/2,too few\r\n"
        b"\r\n"
        b"http://a/3,too,many,columns\r\n"
        b"http://a/4,\xff\xfe not text,x\r\n"
        b'http://a/5,"never closed,x\r\n'
        b"http://a/6,fine,x\r\n"
        b'http://a/7,"closed"badly,x\r\n'
        b",no address,x\r\n"
        b"   ,blank address,x\r\n"
        b"http://a/8,\x00 nul,x\r\n"
        b'http://a/9,"end of file'
    )
    table = read(write(tmp_path / "a.csv", text))
    assert pairs(table) == [
        ("http://a/1", 'two\r\nlines, and "quotes"'),
        ("http://a/6", "fine"),
        ("http://a/8", "\x00 nul"),
    ]
    told = failures(table)
    assert [error for error, _ in told] == ["bad row"] * 5 + ["missing url"] * 2 + ["bad row"]
    assert [reason.split(":")[:2] for _, reason in told[:5]] == [["a.csv", str(n)] for n in (4, 6, 7, 8, 10)]
    assert told[0][1] == "a.csv:4: 2 columns, not 3"
    assert told[2][1] == "a.csv:7: invalid UTF-8 in 'caption'"
    assert told[7][1].startswith("a.csv:14: ")
    by_reason = {row["fate_reason"]: row["uid"] for row in table.to_pylist()}
    assert by_reason["a.csv:4: 2 columns, not 3"] == uid_of("bad", b"http://a/2,too few\r\n")
    assert len(set(table["uid"].to_pylist())) == table.num_rows


def test_a_bad_rows_uid_does_not_depend_on_where_it_lies(tmp_path: Path) -> None:
    bad = b"http://a/2,too,many\nhttp://a/\xff,x\n"
    one = read(write(tmp_path / "a.csv", b"url,caption\n" + bad))
    two = read(write(tmp_path / "x/b.csv", b"url,caption\nhttp://a,b\n" + bad))
    assert one["uid"].to_pylist() == two["uid"].to_pylist()[1:]


def test_tsv_without_quoting_is_read_as_it_stands(tmp_path: Path) -> None:
    text = 'caption\turl\n"quoted" start\thttp://a/1\n"unclosed\thttp://a/2\nplain\thttp://a/3\n"x\ty"\thttp://a/4\n'
    table = read(write(tmp_path / "a.tsv", text))
    assert pairs(table) == [
        ("http://a/1", '"quoted" start'),
        ("http://a/2", '"unclosed'),
        ("http://a/3", "plain"),
        ("http://a/4", "x\ty"),
    ]


def test_many_stray_quotes_take_bounded_time(tmp_path: Path) -> None:
    text = "url,caption\n" + "".join(f'http://a/{i},"stray {i} {"x" * 60}\n' for i in range(3000))
    started = time.perf_counter()
    table = read(write(tmp_path / "a.csv", text))
    assert time.perf_counter() - started < 5
    assert table.num_rows == 3000


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.text(min_size=1, max_size=9).filter(str.strip), st.text(max_size=9)), min_size=1, max_size=9)
)
def test_what_the_csv_module_writes_is_read_back(tmp_path_factory: pytest.TempPathFactory, rows: list) -> None:
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows([("url", "caption"), *rows])
    assert pairs(read(path)) == [(url, caption or None) for url, caption in rows]


def test_bad_json_lines_cost_themselves_alone(tmp_path: Path) -> None:
    lines = [
        b'\xef\xbb\xbf{"url": "http://a/1", "caption": "one", "w": 1, "f": 1, "ok": true, "tags": ["x"], "m": 1}',
        b'{"url": "http://a/2", "caption": 5, "w": 2, "f": 0.5, "ok": false, "tags": {"y": 1}, "m": "z"}',
        b'{"url": "http://a/3", "caption"',
        b"[1, 2]",
        b"",
        b'{"url": "http://a/4", "caption": "\xff"}',
        b'{"url": "http://a/5", "caption": "\\ud800"}',
        b"[" * 200_000,
        b'{"caption": "no address"}',
        b'{"url": "http://a/6", "w": ' + b"9" * 5000 + b"}",
        b'{"url": "http://a/7", "caption": "fine", "w": null}',
    ]
    table = read(write(tmp_path / "a.jsonl", b"\n".join(lines)))
    assert pairs(table) == [("http://a/1", "one"), ("http://a/2", "5"), ("http://a/7", "fine")]
    assert table.schema.field("w").type == pa.int64()
    assert table.schema.field("f").type == pa.float64()
    assert table.schema.field("ok").type == pa.bool_()
    assert table["tags"].to_pylist()[:2] == ['["x"]', '{"y": 1}']
    assert table["m"].to_pylist()[:2] == ["1", "z"]
    told = failures(table)
    assert [error for error, _ in told] == ["bad row"] * 5 + ["missing url", "bad row"]
    assert [int(reason.split(":")[1]) for error, reason in told if error == "bad row"] == [3, 4, 6, 7, 8, 10]


def test_json_values_after_the_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_table, "JSON_SAMPLE_LINES", 2)
    rows: list[dict[str, Any]] = [{"url": f"http://a/{i}", "caption": "c", "w": i} for i in range(3)]
    rows += [{"url": "http://a/3", "caption": "c", "w": "wide"}, {"url": "http://a/4", "caption": "c", "late": [1]}]
    path = write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows)))
    table = read(path)
    assert "late" not in table.schema.names
    assert failures(table) == [("bad row", "a.jsonl:4: w = 'wide', which is no int64 as in the file's first lines")]
    assert read(path, columns=["late"])["late"].to_pylist() == [None] * 4 + ["[1]"]


def test_parquet_keeps_types_and_finds_bad_text(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    bad = pa.array([b"fine", b"\xff\xfe", None]).view(pa.string())
    table = pa.table(
        {
            "url": pa.array(["http://a/1", "http://a/2", None]).dictionary_encode(),
            "caption": bad,
            "score": pa.array([0.5, None, 1.5], pa.float32()),
            "boxes": pa.array([[[1, 2]], [], None], pa.list_(pa.list_(pa.int32()))),
            "a.b": pa.array([1, 2, 3], pa.int8()),
        }
    )
    pq.write_table(table, path, row_group_size=2)
    out = read(path, batch_rows=2)
    assert pairs(out) == [("http://a/1", "fine")]
    assert failures(out) == [
        ("bad row", "a.parquet: row 2: invalid UTF-8 in 'caption'"),
        ("missing url", "the row has no URL"),
    ]
    assert [out.schema.field(n).type for n in ("score", "boxes", "a.b")] == [
        table.schema.field(n).type for n in ("score", "boxes", "a.b")
    ]
    assert out["boxes"].to_pylist() == [[[1, 2]], [], None]


def test_schemas_of_several_files_are_united(tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"url": ["http://a"], "caption": ["a"], "w": pa.array([1], pa.int32()), "x": [1]}),
        tmp_path / "a.parquet",
    )
    pq.write_table(
        pa.table({"url": ["http://b"], "caption": ["b"], "w": pa.array([2], pa.int64()), "y": [0.5]}),
        tmp_path / "b.parquet",
    )
    write(tmp_path / "c.csv", "caption,url,x\nc,http://c,many\n")
    write(tmp_path / "d.csv", "")
    write(tmp_path / "e.csv", "anything\n")
    write(tmp_path / "f.jsonl", "\n\n")
    table = read(tmp_path)
    assert pairs(table) == [("http://a", "a"), ("http://b", "b"), ("http://c", "c")]
    assert table.schema.field("w").type == pa.int64()
    assert table["w"].to_pylist() == [1, 2, None]
    assert table["x"].to_pylist() == ["1", None, "many"]
    assert table["y"].to_pylist() == [None, 0.5, None]
    assert read(tmp_path, columns=["y"]).schema.names == [*HEAD, "y"]
    pq.write_table(pa.table({"url": ["http://b"], "caption": ["b"], "w": [[1]]}), tmp_path / "g.parquet")
    assert "the column 'w'" in refusal(tmp_path).what


def test_names_that_are_taken_are_renamed(tmp_path: Path) -> None:
    row = {
        "URL": "http://a",
        "TEXT": "t",
        "uid": "17",
        "source_uid": "s",
        "url": "u",
        "media": "m",
        "fate": "f",
        "parent_uid": "p",
        "w": "1",
        "W": "2",
    }
    path = write(tmp_path / "a.csv", ",".join(row) + "\n" + ",".join(row.values()) + "\n")
    (out,) = read(path, url="URL", caption="TEXT").to_pylist()
    assert (out["uid"], out["url"], out["caption"]) == (uid_of("url", "http://a", "t"), "http://a", "t")
    assert out["source_uid"] == "17"
    assert (out["source_source_uid"], out["source_url"], out["source_media"], out["source_fate"]) == (
        "s",
        "u",
        "m",
        "f",
    )
    assert (out["source_parent_uid"], out["w"], out["source_W"], out["fate"]) == ("p", "1", "2", None)
    (named,) = read(path, url="URL", caption="TEXT", source_uid="w", columns=["uid"]).to_pylist()
    assert (named["source_uid"], named["source_source_uid"]) == ("1", "17")


def test_an_input_may_lack_urls_or_texts(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "caption,id\nsome text,4\n,5\n")
    table = read(path, url=None, source_uid="id")
    assert table["uid"].to_pylist()[0] == uid_of("url", None, "some text")
    assert failures(table) == [("missing caption", "the row has no text")]
    assert table["source_uid"].to_pylist() == ["4", "5"]
    path = write(tmp_path / "b.csv", "url\nhttp://a\n")
    assert pairs(read(path, caption=None)) == [("http://a", None)]


@pytest.mark.parametrize(
    ("name", "data", "spec", "what", "hint"),
    [
        ("a.csv", "URL,TEXT\nx,y\n", {"url": "url"}, "no column 'url' for url", "input.url=URL? columns: URL, TEXT"),
        (
            "a.csv",
            "where,TEXT\nx,y\n",
            {},
            "no column for url, which is mostly called url, URL",
            "columns: where, TEXT",
        ),
        ("a.csv", "url,TEXT\nx,y\n", {"caption": "caption"}, "no column 'caption' for caption", "input.caption=null"),
        ("a.csv", "url,said\nx,y\n", {}, "no column for caption, which is mostly", "input.caption=null for none"),
        ("a.csv", "url,caption\nx,y\n", {"source_uid": "id"}, "no column 'id' for source_uid", "columns: url, caption"),
        ("a.csv", "url,caption\nx,y\n", {"columns": ["w"]}, "no input file has the column 'w'", "url, caption"),
        ("a.csv", "url,caption,url\nx,y,z\n", {}, "columns stand twice: url", "rename"),
        ("a.csv", b"url,caption\xff\nx,y\n", {}, "the header is no UTF-8 text", "UTF-8"),
        ("a.csv", '"url,caption\nx,y\n', {}, "the header cannot be read", ""),
        ("a.csv", "url,caption\nx,y\n".encode("utf-16"), {}, "UTF-16", "UTF-8"),
        ("a.csv", b"url,caption\n" + b"x" * (18 << 20), {}, "a line is longer", ""),
        ("a.csv", "url,caption\n", {}, "the input has no rows", "input.path"),
        ("a.jsonl", "", {}, "the input has no rows", "input.path"),
        ("a.jsonl", '{"link": "x", "caption": "y"}\n', {}, "no column for url", "columns: link"),
        ("a.parquet", b"PAR1 nothing PAR1", {}, "cannot be read", "damaged"),
        ("a.parquet", b"", {}, "cannot be read", "damaged"),
        ("a.list", "http://a\n", {}, "does not tell the table's format", "input.format"),
        ("a.parquet.gz", b"", {}, "compressed from outside", "unpack"),
        ("a.txt", " \n\n", {}, "the input has no rows", "input.path"),
        ("a.txt", "http://a\n", {"source_uid": "id"}, "no column 'id' for source_uid", "columns: url"),
        ("a.txt", "http://a\n", {"columns": ["w"]}, "no input file has the column 'w'", "columns: url"),
    ],
)
def test_what_cannot_be_read_is_refused(
    tmp_path: Path, name: str, data: str | bytes, spec: dict[str, Any], what: str, hint: str
) -> None:
    error = refusal(write(tmp_path / name, data), **spec)
    assert what in error.what
    assert hint in (error.hint or "")
    assert spec.get("columns") or str(tmp_path / name) in (error.where or "")


def test_a_parquet_file_that_breaks_off_inside_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"url": [f"http://a/{i}" for i in range(5000)], "caption": ["c"] * 5000}), path)
    data = bytearray(path.read_bytes())
    data[100:20000] = bytes(19900)
    path.write_bytes(data)
    assert refusal(path).where == str(path)


def test_a_parquet_file_with_a_broken_name_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"url": ["http://a"], "caption": ["c"], "größe": [1]}), path, store_schema=False)
    path.write_bytes(path.read_bytes().replace("größe".encode(), b"gr\xff\xff\xff\xffe"))
    assert "damaged" in (refusal(path).hint or "")


def test_the_format_may_be_given(tmp_path: Path) -> None:
    path = write(tmp_path / "list.txt", "url\tcaption\nhttp://a\tb\n")
    assert pairs(read(path, format="tsv")) == [("http://a", "b")]


def test_a_list_is_one_url_a_line(tmp_path: Path) -> None:
    text = b"\xef\xbb\xbfhttp://a/1\r\n\n  http://a/2?q=x,y\t\nhttp://a/\xff\n   \n# no comment\nhttp://a/3"
    path = write(tmp_path / "a.txt", text)
    urls = ["http://a/1", "http://a/2?q=x,y", "# no comment", "http://a/3"]
    table = read(path, batch_rows=2)
    assert table.schema.names == HEAD
    assert pairs(table) == [(url, None) for url in urls]
    assert failures(table) == [("bad row", "a.txt:4: invalid UTF-8")]
    assert table["uid"].to_pylist()[:2] == uids_of_urls(urls[:2], [None, None])
    packed = write(tmp_path / "b.txt.gz", gzip.compress(text))
    named = write(tmp_path / "c.urls", text)
    assert read(packed, url="URL", caption="TEXT")["url"].to_pylist() == table["url"].to_pylist()
    assert read(named, format="txt")["uid"].to_pylist() == table["uid"].to_pylist()
    assert [row["caption"] for row in read(path, url=None).to_pylist()] == table["url"].to_pylist()


def test_lists_and_tables_go_together(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", "link,text,w\nhttp://a,b,1\n")
    write(tmp_path / "b.txt", "http://c\n")
    files = [str(tmp_path / name) for name in ("a.csv", "b.txt")]
    table = read(files, url="link", caption="text")
    assert pairs(table) == [("http://a", "b"), ("http://c", None)]
    assert table["w"].to_pylist() == ["1", None]


def test_files_are_found(tmp_path: Path) -> None:
    names = ["b.csv", "a.parquet", "sub/c.jsonl.gz", "sub/deep/d.tsv", "notes.txt", "_tmp/e.csv", ".f.csv", "g[1].csv"]
    for name in names:
        write(tmp_path / name, "x")

    def found(*paths: str) -> list[str]:
        return [Path(file.path).relative_to(tmp_path).as_posix() for file in list_files(list(paths))]

    assert found(str(tmp_path)) == ["a.parquet", "b.csv", "g[1].csv", "sub/c.jsonl.gz", "sub/deep/d.tsv"]
    assert found(f"{tmp_path}/*.csv") == ["b.csv", "g[1].csv"]
    assert found(f"{tmp_path}/*.txt") == found(f"{tmp_path}/notes.txt") == ["notes.txt"]
    assert found(f"{tmp_path}/**/*.tsv", f"{tmp_path}/sub/") == ["sub/c.jsonl.gz", "sub/deep/d.tsv"]
    assert found(f"{tmp_path}/g[1].csv", f"{tmp_path}/b.csv", f"{tmp_path}/b.csv") == ["b.csv", "g[1].csv"]
    (file,) = list_files(f"{tmp_path}/b.csv")
    assert file.size == 1
    write(tmp_path / "b.csv", "xy")
    (changed,) = list_files(f"{tmp_path}/b.csv")
    assert changed.stamp != file.stamp


def test_origins_name_the_parts_of_the_input(tmp_path: Path) -> None:
    write(tmp_path / "a/b.csv", "url,caption,origin\nhttp://a,x,their own\n")
    write(tmp_path / "c/d.jsonl", '{"url": "http://c", "caption": "y"}\n')
    files = list_files([f"{tmp_path}/a", f"{tmp_path}/c/*"], origins=["first", "second"])
    assert [file.origin for file in files] == ["first", "second"]
    table = pa.Table.from_batches(list(read_tables(files, InputSpec())))
    assert table["origin"].to_pylist() == ["first", "second"]
    assert table["source_origin"].to_pylist() == ["their own", None]
    assert table.schema == input_schema(files, InputSpec())
    shared = list_files([f"{tmp_path}/a", f"{tmp_path}/a/b.csv"], origins=["one", "one"])
    assert [file.origin for file in shared] == ["one"]


@pytest.mark.parametrize(
    ("origins", "told"),
    [(["x"], "1 names for 2 paths"), (["x", " "], "a name is blank"), (["x", "y"], "two origins, 'x' and 'y'")],
)
def test_origins_that_cannot_be_meant(tmp_path: Path, origins: list[str], told: str) -> None:
    write(tmp_path / "a/b.csv", "url,caption\nhttp://a,x\n")
    with pytest.raises(UserError, match=told):
        list_files([f"{tmp_path}/a", f"{tmp_path}/a/b.csv"], origins=origins)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for path, what in (
        (f"{tmp_path}/none.csv", "no such file"),
        (f"{tmp_path}/*.csv", "no file matches"),
        (f"{tmp_path}/empty", "holds no table"),
        ("memory://nowhere/x.csv", "no such file"),
        ("nosuch://bucket/x.csv", "cannot be listed"),
    ):
        with pytest.raises(UserError) as caught:
            list_files(path)
        assert what in caught.value.what
        assert caught.value.where == path
        assert caught.value.hint
    with pytest.raises(UserError, match="no input files"):
        list_files([])


def test_other_file_systems(tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe("/urls/a.csv", b"url,caption\nhttp://a,b\nbad\n")
    memory.pipe("/urls/b.csv.gz", gzip.compress(b"url,caption\nhttp://c,d\n"))
    buffer = io.BytesIO()
    pq.write_table(pa.table({"url": ["http://e"], "caption": ["f"]}), buffer)
    memory.pipe("/urls/c.parquet", buffer.getvalue())
    for path in ("memory://urls/*", "memory://urls"):
        files = list_files(path)
        assert [file.path.rsplit("/", 1)[1] for file in files] == ["a.csv", "b.csv.gz", "c.parquet"]
        assert all(file.path.startswith("memory://") and file.size and file.stamp for file in files)
        table = read(path)
        assert pairs(table) == [("http://a", "b"), ("http://c", "d"), ("http://e", "f")]
        assert failures(table) == [("bad row", "a.csv:3: 1 columns, not 2")]
    memory.rm("/urls", recursive=True)


def test_a_web_server_without_ranges(tmp_path: Path) -> None:
    big = "url,caption\n" + "".join(f"http://a/{i},caption {i}\n" for i in range(20_000))
    write(tmp_path / "a.csv", big)
    write(tmp_path / "b.csv.gz", gzip.compress(big.encode()))
    handler = partial(_Quiet, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        root = f"http://127.0.0.1:{server.server_port}"
        try:
            assert read(f"{root}/a.csv?sig=SECRET").num_rows == 20_000
            assert read(f"{root}/b.csv.gz").num_rows == 20_000
            error = refusal(f"{root}/missing.csv?sig=SECRET")
        finally:
            server.shutdown()
    assert error.where == f"{root}/missing.csv?sig=REDACTED"
    assert "SECRET" not in str(error)


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


class _Breaking(_Quiet):
    """Breaks off in the middle of what it promised, but for the end of a file where Parquet keeps its footer."""

    def do_GET(self) -> None:
        data = Path(self.translate_path(self.path)).read_bytes()
        low, _, high = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
        part = data[int(low) : int(high) + 1 if high else None]
        is_footer = int(low) > 0 and int(low) + len(part) == len(data)
        self.send_response(206 if "Range" in self.headers else 200)
        self.send_header("Content-Range", f"bytes {low}-{int(low) + len(part) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part if is_footer else part[: len(part) // 2])
        self.close_connection = True


def test_a_connection_that_breaks_names_the_file(tmp_path: Path) -> None:
    big = "url,caption\n" + "".join(f"http://a/{i},caption {i}\n" for i in range(20_000))
    write(tmp_path / "a.csv", big)
    write(tmp_path / "b.csv.gz", gzip.compress(big.encode()))
    table = pa.table({"url": [f"http://a/{i}" for i in range(500_000)], "caption": ["c"] * 500_000})
    pq.write_table(table, tmp_path / "c.parquet", compression="none", use_dictionary=False)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Breaking, directory=str(tmp_path))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            for name in ("a.csv", "b.csv.gz", "c.parquet"):
                error = refusal(f"http://127.0.0.1:{server.server_port}/{name}?sig=SECRET")
                assert error.where == f"http://127.0.0.1:{server.server_port}/{name}?sig=REDACTED"
                assert error.what.startswith("cannot be read: Client")
                assert "reached" in str(error)
                assert "SECRET" not in str(error)
        finally:
            server.shutdown()


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.jsonl", "a.parquet"])
def test_an_error_in_a_reader_is_no_damaged_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def broken(*args: Any, **kwargs: Any) -> None:
        raise ValueError("a mistake of ours")

    row = {"url": "http://a", "caption": "b"}
    if name == "a.parquet":
        pq.write_table(pa.Table.from_pylist([row]), tmp_path / name)
    else:
        text = "url,caption\nhttp://a,b\n" if "csv" in name else json.dumps(row)
        write(tmp_path / name, gzip.compress(text.encode()) if name.endswith(".gz") else text)
    monkeypatch.setattr(csv_table, "Rows", broken)
    monkeypatch.setattr(json_table, "Rows", broken)
    monkeypatch.setattr(parquet_table, "Rows", broken)
    with pytest.raises(ValueError, match="a mistake of ours"):
        read(tmp_path / name)


def test_long_texts_make_small_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (lines, parquet_table):
        monkeypatch.setattr(module, "BATCH_BYTES", 1 << 20)
    rows = [{"url": f"http://a/{i}", "caption": f"{i:04d}" * 2500} for i in range(1000)]
    with (tmp_path / "a.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("url", "caption"), *(row.values() for row in rows)])
    write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows)))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet", use_dictionary=False, compression="none")
    for name in ("a.csv", "a.jsonl", "a.parquet"):
        batches = list(read_tables(list_files(str(tmp_path / name)), InputSpec()))
        assert max(batch.nbytes for batch in batches) < 6 << 20
        assert sum(batch.num_rows for batch in batches) == 1000


def test_two_hundred_thousand_rows(tmp_path: Path) -> None:
    number = 200_000
    urls = [f"https://example.com/images/{i:08d}/picture.jpg" for i in range(number)]
    captions = [f"a photograph of thing {i} on a table" for i in range(number)]
    with (tmp_path / "a.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("url", "caption"), *zip(urls, captions, strict=True)])
    pq.write_table(pa.table({"url": urls, "caption": captions}), tmp_path / "a.parquet")
    expected = uids_of_urls(urls, captions)
    for name in ("a.csv", "a.parquet"):
        files = list_files(str(tmp_path / name))
        started = time.process_time()
        batches = list(read_tables(files, InputSpec()))
        took_s = time.process_time() - started
        print(f"{name}: {number / took_s:,.0f} rows/s of one core")  # noqa: T201
        assert [uid for batch in batches for uid in batch.column(0).to_pylist()] == expected
        assert took_s < 20
