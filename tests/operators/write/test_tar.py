"""The tar writer and reader against Python's tarfile and GNU tar."""

from __future__ import annotations

import io
import os
import random
import shutil
import string
import subprocess
import tarfile
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpusmith.operators.write.tar import RECORD_BYTES, DamagedTarError, Member, TarWriter, read_members

NAMES = [
    "000000000.jpg",
    "a",
    "n" * 100,
    "n" * 101,
    "d" * 60 + "/" + "n" * 60,
    "d" * 155 + "/" + "n" * 100,
    "d" * 156 + "/" + "n" * 100,
    "d" * 100 + "/" + "n" * 101,
    "e/" * 300 + "x" * 80,
    "photo naïve 写真 🎞.jpg",
    "ж" * 90,
    "with space & 'quotes'.txt",
    "a..b/..c/d..",
    "./dot/file",
]


def archive(files: list[tuple[str, bytes]]) -> tuple[bytes, list[Member]]:
    buffer = io.BytesIO()
    with TarWriter(buffer) as tar:
        for name, data in files:
            tar.add(name, data)
    return buffer.getvalue(), tar.members


def by_tarfile(raw: bytes) -> list[tuple[str, bytes]]:
    with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
        files = [(info, tar.extractfile(info)) for info in tar if info.isreg()]
        return [(info.name, file.read()) for info, file in files if file is not None]


def by_index(raw: bytes) -> list[tuple[str, bytes]]:
    return [(m.name, raw[m.offset : m.offset + m.size]) for m in read_members(io.BytesIO(raw))]


@pytest.fixture(scope="module")
def files() -> list[tuple[str, bytes]]:
    rng = random.Random(0)
    return [(name, rng.randbytes(size)) for name, size in zip(NAMES, [0, 1, 511, 512, 513, 9000] * 3, strict=False)]


def test_tarfile_reads_every_name_and_byte(files: list[tuple[str, bytes]]) -> None:
    raw, _ = archive(files)
    assert by_tarfile(raw) == files
    assert len(raw) % RECORD_BYTES == 0


def test_the_offsets_are_those_of_the_bytes(files: list[tuple[str, bytes]]) -> None:
    raw, members = archive(files)
    assert [(m.name, raw[m.offset : m.offset + m.size]) for m in members] == files
    assert list(read_members(io.BytesIO(raw))) == members


@pytest.mark.skipif(shutil.which("tar") is None, reason="needs tar")
def test_gnu_tar_lists_and_extracts(files: list[tuple[str, bytes]], tmp_path: Path) -> None:
    raw, _ = archive(files)
    (tmp_path / "x.tar").write_bytes(raw)
    env = os.environ | {"LC_ALL": "C.UTF-8"}
    listed = subprocess.run(
        ["tar", "tf", "x.tar", "--quoting-style=literal"], cwd=tmp_path, env=env, capture_output=True, check=True
    )
    assert listed.stderr == b""
    assert listed.stdout.decode().splitlines() == [name for name, _ in files]
    for name, data in files:
        out = subprocess.run(["tar", "xOf", "x.tar", name], cwd=tmp_path, env=env, capture_output=True, check=True)
        assert out.stdout == data


def test_bytes_are_those_of_tarfile_for_plain_names() -> None:
    small = [("000010005.jpg", b"j" * 700), ("dir/" * 30 + "000010005.json", b"{}"), ("empty.txt", b"")]
    expected = io.BytesIO()
    with tarfile.open(fileobj=expected, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in small:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    assert archive(small)[0] == expected.getvalue()


def test_the_same_files_give_the_same_bytes(files: list[tuple[str, bytes]]) -> None:
    assert archive(files)[0] == archive(files)[0]
    with tarfile.open(fileobj=io.BytesIO(archive(files)[0])) as tar:
        marks = {(i.mode, i.uid, i.gid, i.uname, i.gname, i.mtime) for i in tar}
    assert marks == {(0o644, 0, 0, "", "", 0)}


def test_an_empty_archive_is_one_record_of_zeros() -> None:
    raw, _ = archive([])
    assert raw == bytes(RECORD_BYTES)
    assert by_tarfile(raw) == by_index(raw) == []


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.text(string.ascii_letters + "._-/é漢 ", min_size=1, max_size=300), st.integers(0, 3000)),
        max_size=8,
    )
)
def test_any_allowed_name_survives(wanted: list[tuple[str, int]]) -> None:
    buffer = io.BytesIO()
    added: list[tuple[str, bytes]] = []
    with TarWriter(buffer) as tar:
        for name, size in wanted:
            try:
                tar.add(name, bytes([65 + size % 26]) * size)
            except ValueError:
                assert name[0] == "/" or name[-1] == "/" or ".." in name.split("/")
                continue
            added.append((name, bytes([65 + size % 26]) * size))
    assert by_index(buffer.getvalue()) == added
    assert by_tarfile(buffer.getvalue()) == added


@pytest.mark.parametrize(
    "name",
    ["", "/etc/passwd", "..", "../x", "a/../b", "a/..", "folder/", "nul\0.jpg", "line\nbreak", "cr\rx", "\ud800"],
)
def test_dangerous_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError):
        archive([(name, b"x")])


def test_large_members_are_written_through_and_small_ones_together() -> None:
    class Counting(io.BytesIO):
        writes = 0

        def write(self, data: bytes, /) -> int:  # type: ignore[override]
            self.writes += 1
            return super().write(data)

    buffer = Counting()
    files = [(f"{i}.txt", b"t" * 100) for i in range(1000)] + [("big.bin", b"b" * 3_000_001), ("last.txt", b"l")]
    with TarWriter(buffer) as tar:
        for name, data in files:
            tar.add(name, data)
    assert buffer.writes <= 5
    assert by_tarfile(buffer.getvalue()) == files


def test_a_short_write_is_an_error() -> None:
    class Full(io.BytesIO):
        def write(self, data: bytes, /) -> int:  # type: ignore[override]
            return super().write(data[:100])

    tar = TarWriter(Full())
    tar.add("a.txt", b"a")
    with pytest.raises(OSError, match="only 100 of"):
        tar.close()


def test_a_closed_archive_takes_no_more() -> None:
    buffer = io.BytesIO()
    tar = TarWriter(buffer)
    tar.close()
    tar.close()
    assert len(buffer.getvalue()) == RECORD_BYTES
    with pytest.raises(ValueError, match="closed"):
        tar.add("late.txt", b"")


class _Huge(bytes):
    """Bytes that only claim a size of 9 GiB: stands in for media that does not fit a test."""

    def __len__(self) -> int:
        return 9 * 2**30


@pytest.mark.parametrize("name", ["huge.mp4", "hüge.mp4"])
def test_sizes_from_8_gib_are_read_by_tarfile_and_gnu_tar(name: str, tmp_path: Path) -> None:
    class Skipping(io.RawIOBase):
        """Writes what is small and leaves a hole for what claims to be huge."""

        def __init__(self, file: io.BufferedWriter) -> None:
            self._to = file

        def write(self, data: bytes, /) -> int:  # type: ignore[override]
            self._to.seek(len(data), 1) if isinstance(data, _Huge) else self._to.write(data)
            return len(data)

    path = tmp_path / "huge.tar"
    with path.open("wb") as file, TarWriter(Skipping(file)) as tar:  # type: ignore[arg-type]
        tar.add(name, _Huge())
        tar.add("after.txt", b"still here")
    with path.open("rb") as file:
        assert list(read_members(file)) == tar.members
    with tarfile.open(path) as read:
        assert [Member(i.name, i.offset_data, i.size) for i in read] == tar.members
    if shutil.which("tar"):
        listed = subprocess.run(["tar", "tvf", path, "--quoting-style=literal"], capture_output=True, check=True).stdout
        assert [line.split()[2] for line in listed.splitlines()] == [str(9 * 2**30).encode(), b"10"]


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_the_index_reads_the_archives_of_others(kind: Literal[0, 1, 2], files: list[tuple[str, bytes]]) -> None:
    known = [(n, d) for n, d in files if kind != tarfile.USTAR_FORMAT or len(n.encode()) <= 100]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=kind) as tar:
        folder = tarfile.TarInfo("folder")
        folder.type = tarfile.DIRTYPE
        link = tarfile.TarInfo("link")
        link.type, link.linkname, link.size = tarfile.SYMTYPE, "l" * (150 if kind else 50), 0
        tar.addfile(folder)
        tar.addfile(link)
        for name, data in known:
            info = tarfile.TarInfo(name)
            info.size, info.mtime, info.uname = len(data), 1.5 if kind == tarfile.PAX_FORMAT else 1, "somebody"
            tar.addfile(info, io.BytesIO(data))
    assert by_index(buffer.getvalue()) == known == by_tarfile(buffer.getvalue())


def test_truncation_anywhere_is_found(files: list[tuple[str, bytes]]) -> None:
    raw, members = archive(files)
    end = members[-1].offset + members[-1].size
    end += -end % 512
    for cut in [0, 1, 511, 512, members[3].offset, members[3].offset + 5, members[-1].offset + 7, end, end + 512]:
        with pytest.raises(DamagedTarError):
            list(read_members(io.BytesIO(raw[:cut])))


@pytest.mark.parametrize("at", [0, 124, 150, 300])
def test_a_flipped_header_byte_is_found(at: int) -> None:
    raw = bytearray(archive([("a.txt", b"a" * 600), ("b.txt", b"b")])[0])
    raw[1536 + at] ^= 1
    with pytest.raises(DamagedTarError, match="byte 1536"):
        list(read_members(io.BytesIO(bytes(raw))))


def test_a_hostile_extended_header_costs_no_memory() -> None:
    buffer = io.BytesIO()
    info = tarfile.TarInfo("././@PaxHeader")
    info.type, info.size = tarfile.XHDTYPE, 2 << 20
    buffer.write(info.tobuf(tarfile.USTAR_FORMAT) + bytes(4 << 20))
    with pytest.raises(DamagedTarError, match="claims 2097152 bytes"):
        list(read_members(buffer))


@pytest.mark.parametrize(
    "record", [b"9999 path=x\n", b"0 path=x\n", b"-1 path=x\n", b"x path=y\n", b"11 pathxyz\n", b"\xff"]
)
def test_a_malformed_extended_header_is_found(record: bytes) -> None:
    info = tarfile.TarInfo("p")
    info.type, info.size = tarfile.XHDTYPE, len(record)
    raw = info.tobuf(tarfile.USTAR_FORMAT) + record.ljust(512, b"\0") + archive([("a", b"")])[0]
    with pytest.raises(DamagedTarError):
        list(read_members(io.BytesIO(raw)))
