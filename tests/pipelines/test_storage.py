"""Storage: the same on a file system, in memory and on S3; writes are whole or absent; errors tell what to do.

What "as on a file system" means is checked on all three. Atomicity is looked at from outside, by a reader beside the
writer and after a kill.
"""

from __future__ import annotations

import os
import pickle
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from s3_server import BUCKET, environment, s3_bucket
from s3fs import S3FileSystem

from corpusmith.pipelines import storage as storage_module
from corpusmith.pipelines.storage import TEMPORARY_PREFIX, Entry, Span, Storage
from corpusmith.schemas.errors import UserError


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with s3_bucket() as url:
        yield url


@pytest.fixture(params=["local", "memory", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """An empty root of each sort."""
    name = secrets.token_hex(4)
    if request.param == "local":
        return Storage(str(tmp_path / name))
    if request.param == "memory":
        return Storage(f"memory://{name}")
    return Storage(f"{request.getfixturevalue('bucket')}/{name}")


# --- the same everywhere ---------------------------------------------------------------------------------------------


def test_published_objects_are_found_and_replaced(storage: Storage) -> None:
    assert storage.list() == []
    assert not storage.exists("a/b.bin")
    storage.publish("a/b.bin", b"first")
    storage.publish("a/b.bin", b"second!")
    storage.publish("a/c.bin", pa.py_buffer(b"third"))
    storage.publish("a-c.bin", b"")
    assert storage.exists("a/b.bin")
    assert not storage.exists("a"), "a folder is no object"
    assert storage.read("a/b.bin") == b"second!"
    assert storage.list("a") == [Entry("a/b.bin", 7), Entry("a/c.bin", 5)]
    assert storage.list() == [Entry("a-c.bin", 0), Entry("a/b.bin", 7), Entry("a/c.bin", 5)]
    assert storage.below("a").list() == [Entry("b.bin", 7), Entry("c.bin", 5)]


def test_what_is_missing_is_not_found(storage: Storage) -> None:
    for read in (storage.read, storage.open, storage.parquet, lambda path: storage.read_range(path, 0, 3)):
        with pytest.raises(FileNotFoundError):
            read("nowhere/x")
    assert storage.list("nowhere") == []


def test_deleting_forgives_what_is_gone(storage: Storage) -> None:
    for name in ("a/1", "a/2", "b/1"):
        storage.publish(name, b"x")
    storage.delete()
    storage.delete("a/1", "a/none", "none/none")
    assert [e.path for e in storage.list()] == ["a/2", "b/1"]
    storage.delete_folder("a")
    storage.delete_folder("a")
    assert [e.path for e in storage.list()] == ["b/1"]


def test_creating_does_not_replace(storage: Storage) -> None:
    assert storage.create("lock", b"mine")
    assert not storage.create("lock", b"yours")
    assert storage.read("lock") == b"mine"
    storage.delete("lock")
    assert storage.create("lock", b"yours")


def test_one_of_many_creates(storage: Storage) -> None:
    start = threading.Barrier(6)
    created: list[bytes] = []

    def create(content: bytes) -> None:
        start.wait()
        if storage.create("lock", content):
            created.append(content)

    threads = [threading.Thread(target=create, args=(b"%d" % i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert created == [storage.read("lock")]


def test_a_file_is_moved_in(storage: Storage, tmp_path: Path) -> None:
    local = tmp_path / "shard.tar"
    local.write_bytes(b"tar" * 1000)
    storage.publish_file(local, "shards/00000.tar")
    assert not local.exists()
    assert storage.read("shards/00000.tar") == b"tar" * 1000


@pytest.mark.parametrize("small_bytes", [100, 1 << 20], ids=["large", "small"])
def test_tables(storage: Storage, monkeypatch: pytest.MonkeyPatch, small_bytes: int) -> None:
    monkeypatch.setattr(storage_module, "SMALL_BYTES", small_bytes)
    table = pa.table({"n": list(range(5000)), "text": [f"row {i}" for i in range(5000)]})
    size = storage.publish_table("t.parquet", table, row_group_rows=1000)
    assert storage.list() == [Entry("t.parquet", size)]
    assert storage.read_table("t.parquet").equals(table)
    with storage.parquet("t.parquet") as parquet:
        assert parquet.num_row_groups == 5
        assert parquet.read_row_group(3, columns=["n"]).column("n").to_pylist() == list(range(3000, 4000))


def test_a_file_can_be_read_from_anywhere(storage: Storage) -> None:
    data = os.urandom(3_000_000)
    storage.publish("big", data)
    with storage.open("big") as file:
        file.seek(2_999_990)
        assert file.read() == data[2_999_990:]
        file.seek(5)
        assert file.read(20) == data[5:25]


def test_a_copy_in_another_process_sees_the_same(storage: Storage) -> None:
    storage.publish("x", b"1")
    there: Storage = pickle.loads(pickle.dumps(storage))
    assert there.read("x") == b"1"


# --- ranges ----------------------------------------------------------------------------------------------------------

OBJECTS = {"a": bytes(range(256)) * 2, "b": b"b" * 50, "c/d": bytes(reversed(range(200)))}
SPANS = st.sampled_from(sorted(OBJECTS)).flatmap(
    lambda path: st.tuples(st.just(path), st.integers(0, len(OBJECTS[path])), st.integers(0, 80)).map(
        lambda span: (span[0], span[1], min(span[2], len(OBJECTS[span[0]]) - span[1]))
    )
)


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> list[Storage]:
    """The same objects on a disk and in memory."""
    stores = [Storage(str(tmp_path_factory.mktemp("objects"))), Storage("memory://objects")]
    for store in stores:
        for path, data in OBJECTS.items():
            store.publish(path, data)
    return stores


@settings(max_examples=150, deadline=None)
@given(spans=st.lists(SPANS, max_size=12), gap=st.integers(0, 40), longest=st.integers(1, 120))
def test_ranges_are_slices(objects: list[Storage], spans: list[Span], gap: int, longest: int) -> None:
    expected = [OBJECTS[path][start : start + size] for path, start, size in spans]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage_module, "RANGE_GAP_BYTES", gap)
        patch.setattr(storage_module, "RANGE_RUN_BYTES", longest)
        for store in objects:
            assert store.read_spans(spans) == expected


class Watched(Storage):
    """Notes what is asked for."""

    asked: tuple[Span, ...] = ()

    def _fetch(self, spans: list[Span]) -> Iterator[bytes]:  # type: ignore[override]
        self.asked = tuple(spans)
        return super()._fetch(spans)


def test_neighbours_come_in_one_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage_module, "RANGE_GAP_BYTES", 10)
    monkeypatch.setattr(storage_module, "RANGE_RUN_BYTES", 100)
    store = Watched(str(tmp_path))
    store.publish("x", bytes(1000))
    store.publish("y", bytes(1000))
    store.read_ranges("x", [(40, 20), (0, 10), (18, 10), (5, 3), (300, 60), (365, 40), (500, 400), (7, 0)])
    assert store.asked == (("x", 0, 28), ("x", 40, 20), ("x", 300, 60), ("x", 365, 40), ("x", 500, 400))
    store.read_spans([("y", 0, 5), ("x", 5, 5)])
    assert store.asked == (("x", 5, 5), ("y", 0, 5))


def test_ranges_on_s3(bucket: str) -> None:
    store = Storage(f"{bucket}/ranges")
    for path, data in OBJECTS.items():
        store.publish(path, data)
    spans = [("a", 10, 20), ("c/d", 0, 200), ("a", 500, 12), ("b", 50, 0), ("a", 0, 0), ("b", 49, 1), ("a", 10, 20)]
    assert store.read_spans(spans) == [OBJECTS[path][start : start + size] for path, start, size in spans]
    with pytest.raises(FileNotFoundError):
        store.read_spans([("a", 0, 3), ("none", 0, 3)])


def test_a_range_beyond_the_end_is_an_error(storage: Storage) -> None:
    storage.publish("media.bin", b"0123456789")
    assert storage.read_range("media.bin", 8, 2) == b"89"
    with pytest.raises(UserError, match=r"media\.bin ends at byte 10"):
        storage.read_range("media.bin", 8, 5)


# --- whole or absent -------------------------------------------------------------------------------------------------


def contents(number: int) -> bytes:
    """Something whose wholeness shows: one byte repeated as often as it says."""
    number %= 250
    return bytes([number]) * (number * 2000 + 1)


def publish_file(store: Storage, path: str, data: bytes) -> None:
    local = Path(store.root).parent / secrets.token_hex(4)
    local.write_bytes(data)
    store.publish_file(local, path)


@pytest.mark.parametrize("publish", [Storage.publish, publish_file], ids=["bytes", "file"])
def test_a_reader_never_sees_a_part(tmp_path: Path, publish: Callable[[Storage, str, bytes], None]) -> None:
    store = Storage(str(tmp_path / "root"))
    store.publish("x/object", contents(1))
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 7
            publish(store, "x/object", contents(number))

    writer = threading.Thread(target=write)
    writer.start()
    seen: set[bytes] = set()
    until = time.monotonic() + 1.0
    try:
        while time.monotonic() < until:
            data = store.read("x/object")
            assert data == contents(data[0])
            assert [e.path for e in store.list()] == ["x/object"]
            seen.add(data[:1])
    finally:
        stop.set()
        writer.join()
    assert len(seen) > 3, "the reader has not met the writer"


WRITER = """
import sys
from corpusmith.pipelines.storage import Storage
store = Storage(sys.argv[1])
number = 0
while True:
    number = (number + 7) % 250
    store.publish("x/object", bytes([number]) * (number * 20000 + 1))
    print("published", flush=True)
"""


def test_a_kill_leaves_nothing_torn(tmp_path: Path) -> None:
    store = Storage(str(tmp_path / "root"))
    writer = subprocess.Popen([sys.executable, "-c", WRITER, store.root], stdout=subprocess.PIPE)
    assert writer.stdout is not None
    for _ in range(20):
        assert writer.stdout.readline() == b"published\n"
    writer.kill()
    writer.communicate()
    data = store.read("x/object")
    assert data == bytes([data[0]]) * (data[0] * 20000 + 1)
    assert [e.path for e in store.list()] == ["x/object"]


def test_temporaries_are_no_objects(tmp_path: Path) -> None:
    store = Storage(str(tmp_path))
    store.publish("x/object", b"1")
    (tmp_path / "x" / f"{TEMPORARY_PREFIX}0123").write_bytes(b"left by a kill")
    (tmp_path / "x" / f"{TEMPORARY_PREFIX}shard-1").mkdir()
    (tmp_path / "x" / f"{TEMPORARY_PREFIX}shard-1" / "00000.tar").write_bytes(b"left by a kill")
    assert [e.path for e in store.list()] == ["x/object"]
    store.delete_folder("x")
    assert not (tmp_path / "x").exists()


def test_a_folder_goes_while_others_still_write_into_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Storage(str(tmp_path))
    store.publish("flow/a/object", b"x")
    late = ["flow/b/object", "flow/c/object"]
    remove_folder = os.rmdir

    def rmdir(path: str, **options: int) -> None:
        if path == "flow" or str(path).endswith("/flow"):  # all that was found in it is gone
            for name in late[:1]:
                store.publish(name, b"written by a worker of a run that was killed")
            del late[:1]
        remove_folder(path, **options)

    monkeypatch.setattr(os, "rmdir", rmdir)
    store.delete_folder("flow")
    assert late == []
    assert not (tmp_path / "flow").exists()


# --- what users are told ---------------------------------------------------------------------------------------------


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "local").write_bytes(b"data")
    store = Storage(str(tmp_path / "file" / "corpus"))
    for write in (
        lambda: store.publish("x", b"1"),
        lambda: store.create("x", b"1"),
        lambda: store.publish_table("x", pa.table({"a": [1]})),
        lambda: store.publish_file(tmp_path / "local", "x"),
    ):
        with pytest.raises(UserError, match="cannot write x: Not a directory") as told:
            write()
        assert told.value.where == store.root
        assert "choose another --output" in str(told.value.hint)


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_full_disk_leaves_what_was_there(full_disk: Path) -> None:
    store = Storage(str(full_disk))
    store.publish("x", b"before")
    with pytest.raises(UserError, match="cannot write x: No space left on device") as told:
        store.publish("x", os.urandom(1 << 20))
    assert "make room" in str(told.value.hint)
    assert store.read("x") == b"before"
    assert [path.name for path in full_disk.iterdir()] == ["x"], "nothing takes up the room that is missing"


def test_an_unknown_protocol_is_told() -> None:
    with pytest.raises(UserError, match="nosuch"):
        Storage("nosuch://bucket/x").list()


def test_a_bucket_that_is_not_there(bucket: str) -> None:
    store = Storage(f"{bucket}-of-nobody/x")
    assert store.list() == []
    with pytest.raises(UserError, match="bucket does not exist") as told:
        store.publish("x", b"1")
    assert "endpoint" in str(told.value.hint)


def test_what_others_do_on_s3_is_seen_at_once(bucket: str) -> None:
    store, client = Storage(f"{bucket}/others"), boto3.client("s3")
    store.publish("a", b"1")
    assert [e.path for e in store.list()] == ["a"]
    client.put_object(Bucket=BUCKET, Key="others/b", Body=b"22")
    client.put_object(Bucket=BUCKET, Key="others/a", Body=b"333")
    assert store.exists("b")
    assert store.list() == [Entry("a", 3), Entry("b", 2)]
    assert store.fs.info(store.full("a"))["size"] == 3
    client.delete_object(Bucket=BUCKET, Key="others/a")
    assert not store.exists("a")
    assert [e.path for e in store.list()] == ["b"]


def test_a_server_that_does_not_answer_is_no_empty_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """An outage must never be taken for the absence of results, and the error names no secret."""
    for name, value in environment(port=1).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr(S3FileSystem, "retries", 1)
    S3FileSystem.clear_instance_cache()
    store = Storage("s3://corpora/x")
    try:
        for use in (lambda: store.exists("a"), store.list, lambda: store.read("a"), lambda: store.publish("a", b"1")):
            with pytest.raises(UserError, match="EndpointConnectionError") as told:
                use()
            assert "kept-secret" not in str(told.value)
    finally:
        S3FileSystem.clear_instance_cache()
