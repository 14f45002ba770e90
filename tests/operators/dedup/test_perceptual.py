"""dedup.perceptual: the groups that all pairs make, the same representative in any order, clusters in little time."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from corpora import fates, run_recipe
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from shuffled import ShuffledRows, table_of

from corpusmith.operators.contract import Reduced
from corpusmith.operators.dedup import components, hamming, perceptual
from corpusmith.operators.dedup.perceptual import Perceptual
from corpusmith.operators.registry import operator_class


def decide(table: pa.Table, folder: Path, order: int = 0, **config: Any) -> tuple[dict[str, dict[str, Any]], Reduced]:
    reduced = Perceptual(Perceptual.Config(**config)).reduce(ShuffledRows(table, folder, order))
    decisions = {row["uid"]: row for row in reduced.decisions.to_pylist()}
    assert len(decisions) == reduced.decisions.num_rows == table.num_rows
    return decisions, reduced


def by_all_pairs(count: int, is_edge: Any) -> list[set[int]]:
    """Connected components, by looking at all pairs."""
    waiting, found = set(range(count)), []
    while waiting:
        group, ends = set(), [waiting.pop()]
        while ends:
            at = ends.pop()
            group.add(at)
            near = {other for other in waiting if is_edge(at, other)}
            waiting -= near
            ends += near
        found.append(group)
    return found


def expected(
    table: pa.Table, radius: int, only_if: Sequence[str] = (), prefer: str | None = None
) -> dict[str, dict[str, Any]]:
    """The rule, in plain Python."""
    decisions: dict[str, dict[str, Any]] = {}
    rows = []
    for row in table.to_pylist():
        absent = [name for name in ("phash", *only_if) if row[name] is None]
        blank = {"uid": row["uid"], "fate": None, "reason": None, "error": None}
        decisions[row["uid"]] = {**blank, "dedup_group": None, "dedup_size": None}
        if absent:
            decisions[row["uid"]] |= {"fate": "failed", "error": f"missing {absent[0]}"}
        else:
            rows.append(row)

    def distance(a: dict[str, Any], b: dict[str, Any]) -> int:
        return (int(a["phash"], 16) ^ int(b["phash"], 16)).bit_count()

    def is_edge(i: int, j: int) -> bool:
        agree = all(rows[i][name] == rows[j][name] for name in only_if)
        return agree and distance(rows[i], rows[j]) <= radius

    for group in by_all_pairs(len(rows), is_edge):
        members = [rows[i] for i in group]
        scores = [row[prefer] for row in members if row[prefer] is not None] if prefer else []
        best = [row for row in members if prefer and scores and row[prefer] == max(scores)] or members
        kept = min(best, key=lambda row: row["uid"])
        for row in members:
            decision = decisions[row["uid"]]
            decision |= {"dedup_group": kept["uid"], "dedup_size": len(members)}
            if row is not kept:
                reason = f"near-duplicate phash: of {kept['uid']} (distance {distance(row, kept)})"
                decision |= {"fate": "rejected", "reason": reason}
    return decisions


BASES = (0, 2**64 - 1, 0xB5E09A4F3C71D286)
HASH = st.builds(
    lambda base, flips: f"{base ^ sum({1 << bit for bit in flips}):016x}",
    st.sampled_from(BASES),
    st.lists(st.integers(0, 63), max_size=7),
)
ROW = st.tuples(st.none() | HASH, st.none() | st.sampled_from(["", "a", "A"]), st.none() | st.integers(-1, 1))


@given(
    rows=st.lists(ROW, max_size=40),
    radius=st.integers(0, hamming.MAX_RADIUS),
    only_if=st.sampled_from([[], ["caption"], ["caption", "score"]]),
    prefer=st.sampled_from([None, "score"]),
    order=st.integers(0, 99),
)
@example(rows=[("0" * 16, "a", 1)] * 3, radius=0, only_if=["caption"], prefer="score", order=0)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_is_the_rule(
    tmp_path: Path, rows: list[tuple[Any, ...]], radius: int, only_if: list[str], prefer: str | None, order: int
) -> None:
    hashes, captions, scores = ([row[i] for row in rows] for i in range(3))
    table = table_of(
        phash=pa.array(hashes, pa.string()), caption=pa.array(captions, pa.string()), score=pa.array(scores, pa.int64())
    )
    decisions, reduced = decide(table, tmp_path, order, radius=radius, only_if=only_if, prefer=prefer)
    assert decisions == expected(table, radius, only_if, prefer)
    found = [decision["fate"] for decision in decisions.values()]
    told = (reduced.summary["groups"], reduced.summary["dropped"], reduced.summary["failed"])
    assert told == (found.count(None), found.count("rejected"), found.count("failed"))


def labels_of_all_pairs(hashes: np.ndarray, contexts: np.ndarray, radius: int) -> np.ndarray:
    is_edge = np.bitwise_count(hashes[:, None] ^ hashes) <= radius
    is_edge &= contexts[:, None] == contexts
    labels = np.arange(len(hashes))
    while not np.array_equal(labels, lower := np.where(is_edge, labels, len(hashes)).min(axis=1)):
        labels = lower
    return labels


@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 400),
    radius=st.integers(0, hamming.MAX_RADIUS),
    bits=st.integers(0, 64),
    contexts=st.integers(1, 3),
    first_others=st.sampled_from([1, 3, 32]),
    sort_cost=st.sampled_from([0.01, 1.0, 20.0]),
)
@settings(max_examples=80, deadline=None)
def test_connected_is_exact_however_the_bits_are_cut(
    seed: int, count: int, radius: int, bits: int, contexts: int, first_others: int, sort_cost: float
) -> None:
    """A low price of sorting makes many bands, and few first others make long runs, out of few hashes."""
    drawn = np.random.default_rng(seed)
    mask = sum(1 << int(bit) for bit in drawn.permutation(64)[:bits])
    hashes = drawn.integers(0, 2**64, count, np.uint64, endpoint=False) & np.uint64(mask)
    flips = np.uint64(1) << drawn.integers(0, 64, count, np.uint64)
    hashes = np.where(drawn.random(count) < 0.5, hashes[drawn.integers(0, count, count)] ^ flips, hashes)
    numbers = drawn.integers(0, contexts, count, np.uint64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hamming, "_FIRST_OTHERS", first_others)
        patch.setattr(hamming, "_SORT_COST", sort_cost)
        patch.setattr(components, "_EDGES_AT_ONCE", 50)
        found = hamming.connected(hashes, numbers, radius)
    assert np.array_equal(found, labels_of_all_pairs(hashes, numbers, radius))


def test_a_long_chain_is_one_group(tmp_path: Path) -> None:
    chain = [(1 << 4 * i) - 1 for i in range(17)]
    decisions, _ = decide(table_of(phash=[f"{value:016x}" for value in chain]), tmp_path)
    assert {decision["dedup_size"] for decision in decisions.values()} == {17}
    distances = [int(d["reason"].split("distance ")[1][:-1]) for d in decisions.values() if d["reason"]]
    assert max(distances) > 4
    _, reduced = decide(table_of(phash=[f"{value:016x}" for value in chain[::2]]), tmp_path)
    assert reduced.summary["groups"] == 9


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("bits", "count", "groups"),
    [(16, 60_000, 1), (30, 60_000, None)],
    ids=["one dense cluster", "as sparse as makes most pairs"],
)
def test_clusters_cost_no_pairs(bits: int, count: int, groups: int | None) -> None:
    """All pairs of either, looked at once for each choice of bands, would take minutes."""
    hashes = np.unique(np.random.default_rng(0).integers(0, 2**bits, count, np.uint64, endpoint=False))
    started = time.process_time()
    found = hamming.connected(hashes, np.zeros(len(hashes), np.uint64), 4)
    assert time.process_time() - started < 20
    assert groups is None or len(np.unique(found)) == groups
    if groups is None:
        sample = np.random.default_rng(1).choice(len(hashes), 200, replace=False)
        for i in sample:
            near = np.bitwise_count(hashes ^ hashes[i]) <= 4
            assert len(np.unique(found[near])) == 1


def test_equal_hashes_cost_no_pairs(tmp_path: Path) -> None:
    count = 300_000
    drawn = np.random.default_rng(0)
    numbers = drawn.integers(0, 2**64, count, np.uint64, endpoint=False)
    numbers[: count // 2] = 1 << 63
    table = pa.table({"uid": [f"{i:032x}" for i in range(count)], "phash": [f"{value:016x}" for value in numbers]})
    reduced = Perceptual().reduce(ShuffledRows(table, tmp_path))
    assert reduced.summary["largest"] == count // 2
    largest = reduced.decisions.filter(pc.equal(reduced.decisions["dedup_size"], count // 2))
    assert largest["dedup_group"].unique().to_pylist() == ["0" * 32]
    assert reduced.summary["groups"] <= count // 2 + 1


def test_order_means_nothing_and_what_is_left_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perceptual, "_SLICE_ROWS", 97)
    drawn = random.Random(3)
    bases = [drawn.getrandbits(64) for _ in range(150)]
    hashes = [f"{drawn.choice(bases) ^ 1 << drawn.randrange(64):016x}" for _ in range(600)]
    table = table_of(phash=hashes, width=[drawn.choice([None, 100, 200]) for _ in hashes])
    outcomes = [decide(table, tmp_path, order, prefer="width")[0] for order in range(3)]
    assert outcomes[0] == outcomes[1] == outcomes[2] == expected(table, 4, prefer="width")
    kept = {decision["uid"] for decision in outcomes[0].values() if decision["fate"] is None}
    again = table.filter(pa.array([uid in kept for uid in table.column("uid").to_pylist()]))
    assert all(decision["fate"] is None for decision in decide(again, tmp_path, prefer="width")[0].values())


@pytest.mark.parametrize(
    "text", ["", "0" * 15, "0" * 17, "0x" + "0" * 14, "g" * 16, "0" * 16 + "\n", "٠" * 16, "0_" * 8]
)
def test_what_is_no_hash_fails(tmp_path: Path, text: str) -> None:
    decisions, _ = decide(table_of(phash=[text, "F" * 16, "f" * 16]), tmp_path, column="phash")
    failed = [decision for decision in decisions.values() if decision["fate"] == "failed"]
    assert [decision["error"] for decision in failed] == ["malformed phash"]
    assert failed[0]["reason"] == f"not 16 hex digits: {text}"
    assert sorted(decision["dedup_size"] or 0 for decision in decisions.values()) == [0, 2, 2]


def test_no_rows(tmp_path: Path) -> None:
    decisions, reduced = decide(table_of(phash=pa.array([], pa.string())), tmp_path)
    assert decisions == {}
    assert reduced.summary == {"rows": 0, "groups": 0, "dropped": 0, "failed": 0, "largest": 0}


def test_in_a_recipe(tmp_path: Path) -> None:
    hashes = ["0" * 16, "000000000000000f", "ffffffffffffffff", None, "zz"]
    columns = {"url": [f"http://web/{i}" for i in range(5)], "caption": ["a", "a", "b", "c", "d"], "look": hashes}
    pq.write_table(pa.table(columns), tmp_path / "in.parquet")
    recipe = f"""
        corpus: t
        input: {{path: {tmp_path / "in.parquet"}}}
        steps:
          - dedup.perceptual: {{column: look, only_if: [caption]}}
    """
    run_recipe(recipe, tmp_path / "out")
    found = sorted((row["fate"], row["error"] or "", row["reason"] or "") for row in fates(tmp_path / "out").values())
    assert [fate for fate, _, _ in found] == ["failed", "failed", "kept", "kept", "rejected"]
    assert [error for _, error, _ in found[:2]] == ["malformed look", "missing look"]
    assert found[-1][2].startswith("near-duplicate look: of ") and found[-1][2].endswith("(distance 4)")


def test_what_recipes_write() -> None:
    assert operator_class("dedup.perceptual") is Perceptual
    assert Perceptual().requires == ("phash",)
    config = Perceptual.Config(column="look", only_if=("caption",), prefer="width")
    assert Perceptual(config).requires == ("look", "caption", "width")
    for wrong in ({"radius": -1}, {"radius": 13}, {"on": ["phash"]}):
        with pytest.raises(ValidationError):
            Perceptual.Config.model_validate(wrong)
