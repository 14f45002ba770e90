"""quota: the rule with Python lists, the same survivors in any order, and draws that favour nobody."""

from __future__ import annotations

import math
import random
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import xxhash
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from shuffled import ShuffledRows, table_of

from corpusmith.operators import duck
from corpusmith.operators.balance import quota
from corpusmith.operators.balance.quota import Quota
from corpusmith.operators.contract import Reduced
from corpusmith.operators.registry import operator_class


def decide(
    table: pa.Table, folder: Path, order: int = 0, seed: int = 0, **config: Any
) -> tuple[dict[str, dict[str, Any]], Reduced]:
    reduced = Quota(Quota.Config(**config), seed=seed).reduce(ShuffledRows(table, folder, order, seed))
    decisions = {row["uid"]: row for row in reduced.decisions.to_pylist()}
    assert len(decisions) == reduced.decisions.num_rows == table.num_rows
    return decisions, reduced


def expected(table: pa.Table, bound: int, written: str, seed: int, nulls: str, prefer: str | None) -> dict[str, Any]:
    """The rule, with a dictionary of lists."""
    groups: dict[Any, list[dict[str, Any]]] = {}
    decisions: dict[str, Any] = {}
    for row in table.to_pylist():
        decisions[row["uid"]] = {"uid": row["uid"], "fate": None, "reason": None, "error": None, "quota_size": None}
        if row["host"] is not None or nulls == "group":
            groups.setdefault(row["host"], []).append(row)
    for host, rows in groups.items():
        if prefer:
            rows.sort(key=lambda row: row["uid"])
            rows.sort(key=lambda row: -math.inf if is_missing(row[prefer]) else row[prefer], reverse=True)
            rows.sort(key=lambda row: is_missing(row[prefer]))
        else:
            rows.sort(key=lambda row: xxhash.xxh64_intdigest(f"quota host {row['uid']}".encode(), seed))
        for place, row in enumerate(rows):
            decisions[row["uid"]]["quota_size"] = len(rows)
            if place >= bound:
                shown = "null" if host is None else host
                reason = f"quota host: at most {written}: {shown} has {len(rows)}"
                decisions[row["uid"]] |= {"fate": "rejected", "reason": reason}
    return decisions


def is_missing(value: Any) -> bool:
    return value is None or math.isnan(value)


SCORE = st.none() | st.sampled_from([0.0, 1.5, -2.0, math.inf, -math.inf, math.nan])
ROW = st.tuples(st.none() | st.sampled_from(["a.org", "A.org", "b.org", "", "'", "日本"]), SCORE)


@given(
    rows=st.lists(ROW, max_size=40),
    at_most=st.none() | st.integers(1, 5),
    share=st.sampled_from([0.001, 0.1, 0.29, 0.5, 1.0]),
    nulls=st.sampled_from(["exempt", "group"]),
    prefer=st.sampled_from([None, "score"]),
    seed=st.sampled_from([0, 7, 2**63 - 1]),
    order=st.integers(0, 99),
)
@example(rows=[(None, 1.0)] * 3, at_most=1, share=1.0, nulls="group", prefer="score", seed=0, order=0)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_is_the_rule(
    tmp_path: Path,
    rows: list[tuple[Any, ...]],
    at_most: int | None,
    share: float,
    nulls: str,
    prefer: str | None,
    seed: int,
    order: int,
) -> None:
    hosts, scores = ([row[i] for row in rows] for i in range(2))
    table = table_of(host=pa.array(hosts, pa.string()), score=pa.array(scores, pa.float64()))
    config = {"at_most": at_most} if at_most else {"share": share}
    decisions, reduced = decide(table, tmp_path, order, seed, by="host", nulls=nulls, prefer=prefer, **config)
    bound = at_most or max(1, math.floor(Fraction(str(share)) * len(rows)))
    written = str(at_most) if at_most else f"{share:g} of all"
    assert decisions == expected(table, bound, written, seed, nulls, prefer)
    fates = [decision["fate"] for decision in decisions.values()]
    assert reduced.summary["dropped"] == fates.count("rejected")
    assert reduced.summary["exempt"] == (hosts.count(None) if nulls == "exempt" else 0)
    assert reduced.summary["largest"] == max((d["quota_size"] or 0 for d in decisions.values()), default=0)


def test_values_with_more_rows_than_are_looked_at_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quota, "RANKED_ROWS", 2048)
    drawn = random.Random(4)
    table = table_of(host=[drawn.choice(["a.org", "a.org", "a.org", "b.org", f"{i}.org"]) for i in range(9000)])
    decisions, _ = decide(table, tmp_path, by="host", at_most=1000)
    assert decisions == expected(table, 1000, "1000", 0, "exempt", None)
    assert Counter(decision["fate"] for decision in decisions.values())["rejected"] > 4096


def test_a_share_is_exact_as_written(tmp_path: Path) -> None:
    table = table_of(host=["a.org"] * 100)
    decisions, _ = decide(table, tmp_path, by="host", share=0.29)  # 0.29 * 100 is 28.999… in floating point
    assert Counter(decision["fate"] for decision in decisions.values()) == {None: 29, "rejected": 71}


def test_survivors_depend_on_seed_and_identity_alone(tmp_path: Path) -> None:
    drawn = random.Random(3)
    table = table_of(host=[f"h{drawn.randint(0, 30)}.org" for _ in range(3000)])
    outcomes = [decide(table, tmp_path, order, by="host", at_most=20)[0] for order in range(3)]
    assert outcomes[0] == outcomes[1] == outcomes[2]
    kept = {uid for uid, decision in outcomes[0].items() if decision["fate"] is None}
    assert {uid for uid, d in decide(table, tmp_path, by="host", at_most=10)[0].items() if d["fate"] is None} < kept
    assert {
        uid for uid, d in decide(table, tmp_path, seed=1, by="host", at_most=20)[0].items() if not d["fate"]
    } != kept
    again = table.filter(pa.array([uid in kept for uid in table.column("uid").to_pylist()]))
    assert all(decision["fate"] is None for decision in decide(again, tmp_path, by="host", at_most=20)[0].values())


def test_draws_are_uniform(tmp_path: Path) -> None:
    table = table_of(host=["a.org"] * 200)
    uids = table.column("uid").to_pylist()
    times: Counter[str] = Counter()
    for seed in range(40):
        decisions, _ = decide(table, tmp_path, seed=seed, by="host", at_most=100)
        times.update(uid for uid in uids if decisions[uid]["fate"] is None)
    # Each row stays with probability 1/2 in each of 40 runs: 20, standard deviation 3.2.
    assert all(5 <= times[uid] <= 35 for uid in uids)


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        (pa.array([3, 3, None]), "3"),
        (pa.array(["x" * 100] * 3, pa.large_string()), "x" * 59 + "…"),
        (pa.array(["http://ann:secret@a.org/b?sig=1\n"] * 3), "http://a.org/b?…"),
        (pa.array([["a"], ["a"], []], pa.list_(pa.string())), "[a]"),
        (pa.array([True, True, False]), "true"),
    ],
    ids=lambda values: str(getattr(values, "type", "")),
)
def test_values_of_other_types_and_hostile_ones(tmp_path: Path, values: pa.Array, shown: str) -> None:
    decisions, _ = decide(table_of(key=values), tmp_path, by="key", at_most=1)
    reasons = [decision["reason"] for decision in decisions.values() if decision["fate"]]
    assert reasons
    assert all(reason.startswith(f"quota key: at most 1: {shown}") for reason in reasons)
    assert not any("secret" in reason or "sig=1" in reason for reason in reasons)


def test_pools_larger_than_memory_spill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duck, "MEMORY_BYTES", 48_000_000)
    monkeypatch.setattr(duck, "THREADS", 1)
    values = [f"{'long value ' * 90}{i % 20_000}" for i in range(80_000)]
    assert sum(map(len, values)) > 1.5 * duck.MEMORY_BYTES
    _, reduced = decide(table_of(value=values), tmp_path, by="value", at_most=3)
    assert reduced.summary == {"rows": 80_000, "at_most": 3, "dropped": 20_000, "exempt": 0, "largest": 4}


def test_what_recipes_write() -> None:
    assert operator_class("quota") is Quota
    assert Quota(Quota.Config(by="host", at_most=1, prefer="width")).requires == ("host", "width")
    for wrong in ({}, {"by": "host"}, {"by": "host", "at_most": 1, "share": 0.5}, {"by": "host", "at_most": 0}):
        with pytest.raises(ValidationError):
            Quota.Config.model_validate(wrong)
