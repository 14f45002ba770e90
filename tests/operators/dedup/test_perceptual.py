"""dedup.perceptual: the groups that all pairs make, the same representative in any order, clusters in little time."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from all_pairs import components
from corpora import fates, run_recipe
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from shuffled import ShuffledRows, decided, table_of

from corpusmith.operators.contract import Reduced
from corpusmith.operators.dedup import groups
from corpusmith.operators.dedup.hamming import MAX_RADIUS
from corpusmith.operators.dedup.perceptual import RADIUS, Perceptual
from corpusmith.operators.registry import operator_class
from corpusmith.schemas.errors import UserError


def decide(table: pa.Table, folder: Path, order: int = 0, **config: Any) -> tuple[dict[str, dict[str, Any]], Reduced]:
    reduced = Perceptual(Perceptual.Config(**config)).reduce(ShuffledRows(table, folder, order))
    told = decided(reduced)
    decisions = {row["uid"]: row for row in told.to_pylist()}
    assert len(decisions) == told.num_rows == table.num_rows
    return decisions, reduced


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

    for group in components(len(rows), is_edge):
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


def hashes_of(digits: int) -> st.SearchStrategy[str]:
    """Hashes about three others, up to twice as far from them as neighbours are by default."""
    return st.builds(
        lambda base, flips: f"{base * (16**digits // 2**64) ^ sum({1 << bit for bit in flips}):0{digits}x}",
        st.sampled_from(BASES),
        st.lists(st.integers(0, 4 * digits - 1), max_size=2 * RADIUS[4 * digits] - 1),
    )


POOLS = st.sampled_from([16, 64]).flatmap(
    lambda digits: st.tuples(
        st.lists(
            st.tuples(
                st.none() | hashes_of(digits),
                st.none() | st.sampled_from(["", "a", "A"]),
                st.none() | st.integers(-1, 1),
            ),
            max_size=40,
        ),
        st.none() | st.integers(0, MAX_RADIUS[4 * digits]),
    )
)


@given(
    pool=POOLS,
    only_if=st.sampled_from([[], ["caption"], ["caption", "score"]]),
    prefer=st.sampled_from([None, "score"]),
    order=st.integers(0, 99),
)
@example(pool=([("0" * 16, "a", 1)] * 3, 0), only_if=["caption"], prefer="score", order=0)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_is_the_rule(
    tmp_path: Path, pool: tuple[list[tuple[Any, ...]], int | None], only_if: list[str], prefer: str | None, order: int
) -> None:
    rows, radius = pool
    hashes, captions, scores = ([row[i] for row in rows] for i in range(3))
    table = table_of(
        phash=pa.array(hashes, pa.string()), caption=pa.array(captions, pa.string()), score=pa.array(scores, pa.int64())
    )
    decisions, reduced = decide(table, tmp_path, order, radius=radius, only_if=only_if, prefer=prefer)
    bits = next((4 * len(text) for text in hashes if text), 64)
    assert decisions == expected(table, RADIUS[bits] if radius is None else radius, only_if, prefer)
    found = [decision["fate"] for decision in decisions.values()]
    told = (reduced.summary["groups"], reduced.summary["dropped"], reduced.summary["failed"])
    assert told == (found.count(None), found.count("rejected"), found.count("failed"))


def test_a_long_chain_is_one_group(tmp_path: Path) -> None:
    chain = [(1 << 4 * i) - 1 for i in range(17)]
    decisions, _ = decide(table_of(phash=[f"{value:016x}" for value in chain]), tmp_path)
    assert {decision["dedup_size"] for decision in decisions.values()} == {17}
    distances = [int(d["reason"].split("distance ")[1][:-1]) for d in decisions.values() if d["reason"]]
    assert max(distances) > 4
    _, reduced = decide(table_of(phash=[f"{value:016x}" for value in chain[::2]]), tmp_path)
    assert reduced.summary["groups"] == 9


def test_equal_hashes_cost_no_pairs(tmp_path: Path) -> None:
    count = 300_000
    drawn = np.random.default_rng(0)
    numbers = drawn.integers(0, 2**64, count, np.uint64, endpoint=False)
    numbers[: count // 2] = 1 << 63
    table = pa.table({"uid": [f"{i:032x}" for i in range(count)], "phash": [f"{value:016x}" for value in numbers]})
    reduced = Perceptual().reduce(ShuffledRows(table, tmp_path))
    assert reduced.summary["largest"] == count // 2
    told = decided(reduced)
    largest = told.filter(pc.equal(told["dedup_size"], count // 2))
    assert largest["dedup_group"].unique().to_pylist() == ["0" * 32]
    assert reduced.summary["groups"] <= count // 2 + 1


def test_order_means_nothing_and_what_is_left_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "_SLICE_ROWS", 97)
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


def test_the_length_of_most_is_the_length_of_all(tmp_path: Path) -> None:
    decisions, _ = decide(table_of(pdq=["0" * 64, "0" * 63 + "f", "0" * 16]), tmp_path, column="pdq")
    errors = [decision["error"] for decision in decisions.values()]
    assert sorted(errors, key=str) == [None, None, "malformed pdq"]
    assert {d["reason"] for d in decisions.values() if d["error"]} == {f"not 64 hex digits: {'0' * 16}"}
    decisions, _ = decide(table_of(pdq=["0" * 64, "0" * 16]), tmp_path, column="pdq")
    assert {d["reason"] for d in decisions.values() if d["error"]} == {f"not 16 hex digits: {'0' * 40}"}


def test_a_radius_for_256_bits_is_refused_for_64(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="radius 31 is too much for hashes of 64 bits in column 'phash'"):
        decide(table_of(phash=["0" * 16]), tmp_path, radius=31)
    for nothing in ([], [None], ["zz"]):
        decisions, reduced = decide(table_of(phash=pa.array(nothing, pa.string())), tmp_path, radius=31)
        assert len(decisions) == reduced.summary["failed"] == len(nothing)


def finished_corpus(folder: Path, name: str, **columns: Any) -> Path:
    """A finished corpus of URLs with these columns."""
    count = len(next(iter(columns.values())))
    urls = [f"http://{name}/{i}" for i in range(count)]
    pq.write_table(pa.table({"url": urls, **columns}), folder / f"{name}.parquet")
    recipe = f"""
        corpus: {name}
        input: {{path: {folder / f"{name}.parquet"}, caption: caption}}
        steps: []
    """
    run_recipe(recipe, folder / name)
    return folder / name


@pytest.mark.parametrize("digits", [16, 64])
def test_against_finished_corpora(tmp_path: Path, digits: int) -> None:
    """What looks like one of theirs goes, with all its group; a sample of theirs without a hash is counted."""
    far, near = "f" * digits, f"{3:0{digits}x}"
    texts = {"caption": ["a", "b", "c"], "look": [near, far, None]}
    corpora = [str(finished_corpus(tmp_path, name, **texts)) for name in ("one", "two")]
    pool = table_of(
        look=["0" * digits, f"{15:0{digits}x}", "5" * digits, None], caption=["a", "a", "a", "a"], width=[1, 9, 1, 1]
    )
    config: dict[str, Any] = {"column": "look", "prefer": "width", "against": corpora}
    decisions, reduced = decide(pool, tmp_path, **config)
    found = list(decisions.values())
    reasons = sorted((d["fate"] or "", d["reason"] or "", d["error"] or "", d["dedup_size"] or 0) for d in found)
    assert [fate for fate, *_ in reasons] == ["", "failed", "rejected", "rejected"]
    assert reasons[0][3] == 1 and reasons[1][2] == "missing look" and reasons[2][3] == reasons[3][3] == 4
    assert all(" in one (distance 2)" in reason for _, reason, _, _ in reasons[2:])
    assert reduced.summary["dropped_against_corpora"] == 2 and reduced.summary["passed_over_in_corpora"] == 2
    assert decide(pool, tmp_path, 5, **{**config, "against": corpora[::-1]})[0].keys() == decisions.keys()
    with_text, _ = decide(pool, tmp_path, only_if=["caption"], **config)
    without, _ = decide(pool.set_column(2, "caption", pa.array(["z"] * 4)), tmp_path, only_if=["caption"], **config)
    assert with_text == decisions
    assert [d["fate"] for d in without.values()].count("rejected") == 1


def test_corpora_are_part_of_the_step(tmp_path: Path) -> None:
    corpus = str(finished_corpus(tmp_path, "one", caption=["a"], look=["0" * 16]))
    config = Perceptual.Config(against=(corpus,))
    assert config.against_sha256 is not None and len(config.against_sha256) == 64
    other = str(finished_corpus(tmp_path, "other", caption=["b"], look=["0" * 16]))
    assert Perceptual.Config(against=(other,)).against_sha256 != config.against_sha256
    for wrong in ({"against": (corpus,), "against_sha256": "0" * 64}, {"against": (str(tmp_path / "none"),)}):
        with pytest.raises(ValidationError):
            Perceptual.Config.model_validate(wrong)
    with pytest.raises(UserError, match="no column 'phash'"):
        decide(table_of(phash=["0" * 16]), tmp_path, against=(corpus,))


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
    for wrong in ({"radius": -1}, {"radius": 41}, {"on": ["phash"]}):
        with pytest.raises(ValidationError):
            Perceptual.Config.model_validate(wrong)
