"""Shards are the state of `corpusmith download`: what is done stays, what is not is made again."""

from __future__ import annotations

import os
import signal
import subprocess
import sysconfig
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from small_web import Web, members, records, stats, write_input

from corpusmith.schemas.errors import UserError

COMMAND = Path(sysconfig.get_path("scripts")) / "corpusmith"
SHARD = {"input_format": "parquet", "output_format": "webdataset", "number_sample_per_shard": 2}


def times(out: Path, stem: str) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in out.glob(f"{stem}*")}


def keys(out: Path) -> list[str]:
    return sorted(row["key"] for path in out.glob("*.parquet") for row in records(out, path.stem))


def test_only_unfinished_shards_are_made(web: Web, download: Any, tmp_path: Path) -> None:
    source = write_input(tmp_path / "in.parquet", {"url": [f"{web.url('/small')}?{i}" for i in range(5)]})
    out = tmp_path / "out"
    download(source, output_folder=out, **SHARD)
    before = times(out, "00000") | times(out, "00002")
    (out / "00001_stats.json").unlink()
    (out / "00001.tar").write_bytes(b"half")
    web.asked.clear()
    download(source, output_folder=out, **SHARD)
    assert sorted(web.asked) == ["/small?2", "/small?3"]
    assert times(out, "00000") | times(out, "00002") == before
    assert len(members(out / "00001.tar")) == 4
    assert "to do: 0 rows" in download(source, "--dry_run", output_folder=out, **SHARD)


@pytest.mark.parametrize("form", ["webdataset", "files"])
def test_kill_loses_unfinished_shards_only(form: str, web: Web, download: Any, tmp_path: Path) -> None:
    """After kill -9 no final name holds half a shard; the next run goes on, and every key is there once."""
    paths = ["/small?0", "/small?1", "/small?2", "/held?3"]
    source = write_input(tmp_path / "in.parquet", {"url": [web.url(path) for path in paths]})
    out = tmp_path / "out"
    flags = SHARD | {"output_format": form, "allow_hosts": "127.0.0.1", "timeout": 20, "processes_count": 1}
    words = [f"--{name}={value}" for name, value in (flags | {"output_folder": out}).items()]
    with subprocess.Popen([COMMAND, "download", source, *words], stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        scratch = out / "_tmp" / ("00001.tar" if form == "webdataset" else "00001")
        while not ((out / "00000_stats.json").exists() and scratch.exists() and web.arrived.is_set()):
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
    before = times(out, "00000")
    assert [path.name for path in out.glob("00001*")] == []
    web.gate.set()
    download(source, output_folder=out, **SHARD | {"output_format": form})
    assert times(out, "00000") == before
    assert keys(out) == ["000000", "000001", "000010", "000011"]
    assert not (out / "_tmp").exists()
    assert web.asked.count("/small?0") == 1


def test_overwrite_and_extend(web: Web, download: Any, tmp_path: Path) -> None:
    first = write_input(tmp_path / "first.parquet", {"url": [web.url("/small")] * 3})
    second = write_input(tmp_path / "second.parquet", {"url": [web.url("/wide")]})
    out = tmp_path / "out"
    download(first, output_folder=out, **SHARD)
    download(second, output_folder=out, incremental_mode="extend", **SHARD)
    assert keys(out) == ["000000", "000001", "000010", "000020"]
    assert records(out, "00002")[0]["original_width"] == 600
    (out / "notes").mkdir()
    download(second, output_folder=out, incremental_mode="overwrite", **SHARD)
    assert sorted(p.name for p in out.iterdir()) == ["00000.parquet", "00000.tar", "00000_stats.json"]


@pytest.mark.parametrize("form", ["webdataset", "files", "parquet"])
def test_retry_takes_failed_rows_alone(form: str, web: Web, download: Any, tmp_path: Path) -> None:
    """Successes keep their bytes and are not asked for again; shards without failures are not touched."""
    paths = ["/wide", "/late", "/small", "/png"]
    columns = {"url": [web.url(path) for path in paths], "caption": ["a", "b", "c", "d"]}
    source = write_input(tmp_path / "in.parquet", columns)
    out = tmp_path / "out"
    flags = SHARD | {"output_format": form, "caption_col": "caption"}
    download(source, output_folder=out, **flags)
    assert stats(out)["successes"] == 1
    old, untouched = _image(out, form, "000000"), times(out, "00001")
    web.bodies["/late"] = web.bodies["/tall"]
    web.asked.clear()
    assert "to do: 1 rows" in download(source, "--dry_run", output_folder=out, incremental_mode="retry", **flags)
    download(source, output_folder=out, incremental_mode="retry", **flags)
    assert web.asked == ["/late"]
    assert stats(out)["successes"] == 2 and stats(out)["status_dict"] == {"success": 2}
    rows = sorted(records(out), key=lambda row: row["key"])
    assert [(row["key"], row["original_width"], row["caption"]) for row in rows] == [
        *(("000000", 600, "a"), ("000001", 300, "b"))
    ]
    assert _image(out, form, "000000") == old and len(_image(out, form, "000001")) > 1000
    assert times(out, "00001") == untouched


def _image(out: Path, form: str, key: str) -> bytes:
    if form == "webdataset":
        return members(out / "00000.tar")[f"{key}.jpg"]
    if form == "files":
        return (out / "00000" / f"{key}.jpg").read_bytes()
    return next(row["jpg"] for row in records(out) if row["key"] == key)


def test_retry_wants_the_same_input(web: Web, download: Any, tmp_path: Path) -> None:
    first = write_input(tmp_path / "first.parquet", {"url": [web.url("/late"), web.url("/small")]})
    second = write_input(tmp_path / "second.parquet", {"url": [web.url("/wide"), web.url("/small")]})
    out = tmp_path / "out"
    download(first, output_folder=out, **SHARD)
    with pytest.raises(UserError, match="made of other rows"):
        download(second, output_folder=out, incremental_mode="retry", **SHARD)


def test_a_stalled_server_holds_up_its_own_shard_alone(web: Web, download: Any, tmp_path: Path) -> None:
    """All later shards are complete while a row of the first one still waits for its answer."""
    paths = ["/held", *(f"/small?{i}" for i in range(11))]
    source = write_input(tmp_path / "in.parquet", {"url": [web.url(path) for path in paths]})
    out = tmp_path / "out"
    others = [out / f"0000{i}_stats.json" for i in range(1, 6)]

    def release() -> None:
        deadline = time.monotonic() + 60
        while not all(path.exists() for path in others) and time.monotonic() < deadline:
            time.sleep(0.02)
        web.gate.set()

    releasing = threading.Thread(target=release)
    releasing.start()
    download(source, output_folder=out, **SHARD | {"timeout": 100, "thread_count": 2})
    releasing.join()
    assert stats(out)["successes"] == 2
    assert all(stats(out)["end_time"] > stats(out, path.name[:5])["end_time"] for path in others)


def test_an_output_that_cannot_be_written_ends_the_run(web: Web, download: Any, tmp_path: Path) -> None:
    source = write_input(tmp_path / "in.parquet", {"url": [web.url("/small")]})
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "00000.tar").mkdir()
    (tmp_path / "out" / "00000.tar" / "x").write_text("in the way")
    with pytest.raises(UserError, match="cannot write"):
        download(source, output_folder=tmp_path / "out", **SHARD)
