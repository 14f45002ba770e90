"""A store of results: what is published is found, once, whatever the partition and however often it was published."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpusmith.pipelines.buckets import Bucket, all_buckets, bucket_bits
from corpusmith.pipelines.state import ATTEMPT, DIGEST, ERROR, Store, read_range, result_schema
from corpusmith.pipelines.storage import Storage
from corpusmith.schemas.columns import MEDIA, Column

SCORE = Column("score", pa.int64(), "a number")


def uid_of(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()[:32]


def digest_of(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()[:16]


def results_of(
    numbers: Iterable[int], *, digest: str = "d", score: int | None = None, root: int | None = None
) -> pa.Table:
    """Results as a step hands them over; the score is the row's number, or `score` for all."""
    numbers = list(numbers)
    uids = [uid_of(i) for i in numbers]
    return pa.table(
        {
            "uid": uids,
            "root_uid": uids if root is None else [uid_of(root)] * len(uids),
            DIGEST: pa.array([digest_of(digest)] * len(uids), pa.binary(16)),
            ERROR: pa.array(["Timeout" if i % 10 == 3 else None for i in numbers], pa.string()),
            "result_message": pa.nulls(len(uids), pa.string()),
            "score": pa.array([i if score is None else score for i in numbers], pa.int64()),
        }
    )


def publish(store: Store, table: pa.Table, bits: int) -> None:
    """Publish results, a fragment for each bucket."""
    for bucket in all_buckets(bits):
        roots = table.column("root_uid")
        piece = table.filter(pc.and_(pc.greater_equal(roots, bucket.low), pc.less(roots, bucket.high)))
        if piece.num_rows:
            store.publish(bucket, piece)


def scores(store: Store, numbers: Iterable[int], bits: int, digest: str = "d") -> list[int | None]:
    """What a look-up of rows by uid and digest gives, through the bucket of each."""
    store.refresh()
    found: list[int | None] = []
    for number in numbers:
        uid = uid_of(number)
        bucket = Bucket(bits, int(uid[:4], 16) >> (16 - bits))
        results = store.results(bucket, uid, uid)
        (position,) = results.find(pa.array([uid]), pa.array([digest_of(digest)], pa.binary(16)))
        found.append(None if position < 0 else results.table.column("score")[int(position)].as_py())
    return found


def rows_of(store: Store, bits: int) -> list[dict[str, Any]]:
    return [row for bucket in all_buckets(bits) for row in store.read_bucket(bucket).to_pylist()]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(Storage(str(tmp_path)), "results/op-0", [SCORE])


def test_what_is_published_is_found_by_uid_and_digest(store: Store) -> None:
    publish(store, results_of(range(50)), 2)
    assert scores(store, range(60), 2) == [*range(50), *[None] * 10]
    assert scores(store, range(5), 2, digest="other") == [None] * 5


def test_an_empty_store_finds_nothing(store: Store) -> None:
    assert scores(store, range(3), 0) == [None] * 3
    assert store.compact(3) == 0
    assert store.bits == 0
    assert rows_of(store, 2) == []


def test_both_digests_of_a_row_are_kept(store: Store) -> None:
    publish(store, results_of([1], digest="a", score=10), 0)
    publish(store, results_of([1], digest="b", score=20), 0)
    store.compact(0)
    assert scores(store, [1], 0, digest="a") == [10]
    assert scores(store, [1], 0, digest="b") == [20]


def test_of_two_attempts_every_reader_takes_the_same(store: Store) -> None:
    for score in (7, 8, 9):
        publish(store, results_of(range(20), score=score), 1)
    before = scores(store, range(20), 1)
    store.compact(1)
    assert scores(store, range(20), 1) == before
    rows = rows_of(store, 1)
    assert len(rows) == 20
    assert len({row[ATTEMPT] for row in rows}) <= 2  # one for each bucket
    # a straggler that publishes after compaction
    publish(store, results_of(range(20), score=1), 1)
    store.compact(1)
    assert len(rows_of(store, 1)) == 20


def test_compaction_sorts_and_leaves_one_file_a_bucket(store: Store) -> None:
    for start in range(0, 300, 30):
        publish(store, results_of(range(start, start + 30)), 2)
    store.compact(2)
    assert sorted(Path(f.path).name for f in store.files) == [f"{b.name}.parquet" for b in all_buckets(2)]
    roots = [row["root_uid"] for row in rows_of(store, 2)]
    assert roots == sorted(roots)
    assert len(roots) == 300


def test_compaction_again_writes_nothing(store: Store, tmp_path: Path) -> None:
    publish(store, results_of(range(40)), 1)
    store.compact(1)
    stamps = {p: p.stat().st_mtime_ns for p in (tmp_path / "results").rglob("*.parquet")}
    store.compact(1)
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "results").rglob("*.parquet")} == stamps


@pytest.mark.parametrize(("old", "new"), [(0, 3), (3, 0), (2, 4), (4, 1), (3, 3)])
def test_another_partition_holds_the_same_results(store: Store, old: int, new: int) -> None:
    publish(store, results_of(range(60)), old)
    assert scores(store, range(60), new) == list(range(60))
    store.compact(old)
    publish(store, results_of(range(60, 80)), new)
    assert scores(store, range(80), new) == list(range(80))
    store.compact(new)
    assert {f.bucket.bits for f in store.files} == {new}
    assert store.bits == new
    assert scores(store, range(80), new) == list(range(80))


def test_what_a_kill_leaves_between_publishing_and_deleting_is_read_once(store: Store, tmp_path: Path) -> None:
    publish(store, results_of(range(40)), 1)
    before = scores(store, range(40), 1)
    copies = {p: p.read_bytes() for p in (tmp_path / "results").rglob("*.parquet")}
    store.compact(3)
    for path, data in copies.items():
        path.write_bytes(data)
    assert scores(store, range(40), 3) == before
    assert scores(store, range(40), 1) == before
    store.compact(3)
    assert len(rows_of(store, 3)) == 40
    assert {f.bucket.bits for f in store.files} == {3}


def test_drop_leaves_out_what_it_names_and_nothing_else(store: Store) -> None:
    publish(store, results_of(range(100)), 2)
    store.compact(2)
    publish(store, results_of(range(100, 120)), 2)
    assert store.compact(2, drop=lambda table: pc.is_valid(table.column(ERROR))) == 12
    assert scores(store, range(120), 2) == [None if i % 10 == 3 else i for i in range(120)]
    # a mask that does not know is no reason to lose a result
    assert store.compact(2, drop=lambda table: pc.equal(table.column(ERROR), "Timeout")) == 0
    assert len(rows_of(store, 2)) == 108
    assert store.compact(2, drop=lambda table: pa.array([True] * table.num_rows)) == 108
    assert rows_of(store, 2) == []
    publish(store, results_of([3]), 2)
    assert scores(store, [3], 2) == [3]


def test_children_lie_with_their_root(store: Store) -> None:
    publish(store, results_of(range(100, 140), root=1), 4)
    store.compact(4)
    root = uid_of(1)
    results = store.results(Bucket(4, int(root[0], 16)), root, root)
    assert sorted(results.table.column("score").to_pylist()) == list(range(100, 140))
    uids = pa.array([uid_of(i) for i in range(99, 140)])
    found = results.find(uids, pa.array([digest_of("d")] * 41, pa.binary(16)))
    assert found[0] == -1
    assert sorted(found[1:].tolist()) == list(range(40))


def test_a_range_is_read_by_its_row_groups_and_is_exact(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    uids = sorted(uid_of(i) for i in range(1000))
    storage.publish_table("t.parquet", pa.table({"uid": uids, "n": list(range(1000))}), row_group_rows=64)
    table = read_range(storage, "t.parquet", "uid", uids[130], uids[700])
    assert table.column("n").to_pylist() == list(range(130, 701))
    assert read_range(storage, "t.parquet", "uid", "g", "h").num_rows == 0
    assert read_range(storage, "t.parquet", "uid", "", "g", ["n", "uid"]).column_names == ["n", "uid"]


def test_media_is_stored_as_reference_and_hash() -> None:
    names = result_schema([MEDIA, SCORE]).names
    assert names[-3:] == ["media_sha256", "media_ref", "score"]
    assert "media" not in names


def test_many_threads_publish_and_read(store: Store) -> None:
    def work(start: int) -> list[int | None]:
        publish(store, results_of(range(start, start + 20)), 2)
        own = Store(store.storage, store.folder, [SCORE])
        return scores(own, range(start, start + 20), 2)

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(0, 160, 20))) == [list(range(s, s + 20)) for s in range(0, 160, 20)]


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    events=st.lists(
        st.one_of(
            st.tuples(st.just("publish"), st.integers(0, 3), st.lists(st.integers(0, 12), min_size=1, max_size=6)),
            st.tuples(st.just("compact"), st.integers(0, 3), st.just([])),
        ),
        max_size=8,
    )
)
def test_any_order_of_publishing_and_compaction(
    tmp_path_factory: pytest.TempPathFactory, events: list[tuple[str, int, list[int]]]
) -> None:
    store = Store(Storage(str(tmp_path_factory.mktemp("store"))), "results/op-0", [SCORE])
    published: set[int] = set()
    for name, bits, numbers in events:
        if name == "publish":
            publish(store, results_of(dict.fromkeys(numbers)), bits)
            published.update(numbers)
        else:
            store.compact(bits)
    for bits in (0, 2):
        assert scores(store, range(13), bits) == [i if i in published else None for i in range(13)]


@given(st.integers(0, 8), st.integers(0, 8), st.integers(0, 255))
def test_buckets_that_overlap_are_those_that_share_prefixes(bits: int, others: int, index: int) -> None:
    bucket = Bucket(bits, index & ((1 << bits) - 1))
    near = [b for b in all_buckets(others) if b.low < bucket.high and bucket.low < b.high]
    assert bucket.overlapping(others) == near


def test_buckets_cover_every_uid_once_and_grow_with_the_rows() -> None:
    for bits in (0, 1, 5):
        for prefix in np.random.default_rng(0).integers(0, 1 << 16, 50):
            uid = f"{prefix:04x}" + "f" * 28
            assert sum(b.low <= uid < b.high for b in all_buckets(bits)) == 1
    assert [bucket_bits(n) for n in (0, 1, 65_536, 65_537, 1 << 40)] == [0, 0, 0, 1, 16]
    assert all(Bucket.parse(b.name) == b for b in all_buckets(3))
