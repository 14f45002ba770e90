"""Decisions on their way to storage: joined and sorted as one table would be, however they are cut."""

from __future__ import annotations

import random
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corpusmith.pipelines import decisions
from corpusmith.pipelines.capture import OperatorContractError
from corpusmith.pipelines.decisions import settled
from corpusmith.pipelines.storage import Storage
from corpusmith.schemas.identity import child_uid, uid_of

SCHEMA = pa.schema([("uid", pa.string()), ("fate", pa.string()), ("ids", pa.list_(pa.int32()))])


def pool(count: int, children: int) -> tuple[pa.Table, pa.Table]:
    """Decisions and roots of rows, each third of which is split into so many."""
    pairs = []
    for i in range(count):
        root = uid_of(str(i))
        pairs += [(child_uid(root, "crops", str(k)), root) for k in range(children)] if i % 3 == 0 else [(root, root)]
    uids = [uid for uid, _ in pairs]
    fates = [None if i % 2 else "rejected" for i in range(len(uids))]
    decided = pa.table([uids, fates, [[i] * (i % 3) for i in range(len(uids))]], schema=SCHEMA)
    return decided, pa.table({"uid": uids, "root_uid": [root for _, root in pairs]})


def shuffled(table: pa.Table, order: int) -> list[pa.Table]:
    draw = random.Random(order)
    table = table.take(pa.array(draw.sample(range(table.num_rows), table.num_rows), pa.int64()))
    size = draw.randint(1, table.num_rows + 1)
    return [table.slice(start, size) for start in range(0, table.num_rows, size)]


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(count=st.integers(1, 60), children=st.integers(0, 3), part_rows=st.integers(1, 100), order=st.integers(0, 9))
def test_is_a_join_and_a_sort(
    tmp_path_factory: pytest.TempPathFactory, count: int, children: int, part_rows: int, order: int
) -> None:
    scratch = tmp_path_factory.mktemp("scratch")
    decided, roots = pool(count, children)
    batches = [b for table in shuffled(decided, order) for b in table.to_batches()]
    reader = pa.RecordBatchReader.from_batches(SCHEMA, batches)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decisions, "PART_ROWS", part_rows)
        found = list(settled(reader, shuffled(roots, order + 1), decided.num_rows, SCHEMA, str(scratch)))
    expected = decided.append_column("root_uid", roots.column("root_uid"))
    expected = expected.sort_by([("root_uid", "ascending"), ("uid", "ascending")])
    assert pa.concat_tables(found).to_pylist() == expected.to_pylist()
    assert not [path for path in scratch.rglob("*") if path.is_file()], "files of parts are gone when they are read"


@pytest.mark.parametrize("part_rows", [2, 1000])
@pytest.mark.parametrize("wrong", ["none for a row", "two for a row", "for no row"])
def test_each_row_has_one_decision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part_rows: int, wrong: str) -> None:
    monkeypatch.setattr(decisions, "PART_ROWS", part_rows)
    decided, roots = pool(20, 2)
    rest = decided.slice(1)
    other = {"none for a row": decided.slice(0, 0), "two for a row": rest.slice(0, 1), "for no row": stranger()}[wrong]
    changed = pa.concat_tables([rest, other])
    with pytest.raises(OperatorContractError, match="decisions for"):
        list(settled(changed.to_reader(), [roots], roots.num_rows, SCHEMA, str(tmp_path)))


def stranger() -> pa.Table:
    return pa.table([["not a uid"], [None], [[1]]], schema=SCHEMA)


def test_tables_are_published_one_after_the_other(tmp_path: Path) -> None:
    decided, _ = pool(50, 1)
    storage = Storage(str(tmp_path))
    storage.publish_tables("a/b.parquet", iter([decided.slice(0, 20), decided.slice(20)]), row_group_rows=8)
    assert storage.read_table("a/b.parquet").equals(decided)
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b.parquet"]


def test_what_goes_wrong_in_a_table_leaves_nothing_and_is_told_as_it_is(tmp_path: Path) -> None:
    def tables():
        yield pool(3, 1)[0]
        raise OSError("the scratch disk is full")

    with pytest.raises(OSError, match="the scratch disk is full"):
        Storage(str(tmp_path)).publish_tables("a/b.parquet", tables(), row_group_rows=8)
    assert not list((tmp_path / "a").iterdir())
