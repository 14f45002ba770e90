"""dedup.exact: the groups of a dictionary, the same representative in any order, and no row without a decision."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from finished_corpora import write_corpus
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from shuffled import ShuffledRows, decided, table_of

from corpusmith.operators import duck
from corpusmith.operators.contract import Reduced
from corpusmith.operators.dedup.exact import Exact
from corpusmith.operators.dedup.normal_forms import Form, normal_form
from corpusmith.operators.registry import operator_class
from corpusmith.schemas.errors import UserError
from corpusmith.schemas.identity import uid_of


def decide(table: pa.Table, folder: Path, order: int = 0, **config: Any) -> tuple[dict[str, dict[str, Any]], Reduced]:
    reduced = Exact(Exact.Config(**config)).reduce(ShuffledRows(table, folder, order))
    found = decided(reduced)
    decisions = {row["uid"]: row for row in found.to_pylist()}
    assert len(decisions) == found.num_rows == table.num_rows
    return decisions, reduced


def is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def key_of(row: dict[str, Any], on: Sequence[str], forms: Mapping[str, Form]) -> tuple[Any, ...] | None:
    """What a row is compared by; None where a value is missing."""
    if any(is_missing(row[name]) for name in on):
        return None
    values: list[tuple[Any, Form | None]] = [(row[name], forms.get(name)) for name in on]
    return tuple(normal_form(pa.array([v]), form)[0].as_py() if form else v for v, form in values)


def expected(
    table: pa.Table,
    on: Sequence[str],
    prefer: str | None = None,
    forms: Mapping[str, Form] | None = None,
    against: Sequence[tuple[str, pa.Table]] = (),
) -> dict[str, dict[str, Any]]:
    """The rule, with dictionaries of lists."""
    forms = forms or {}
    label = ", ".join(f"{name} (form {forms[name]})" if name in forms else name for name in on)
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    decisions: dict[str, dict[str, Any]] = {}
    for row in table.to_pylist():
        key = key_of(row, on, forms)
        blank = {"uid": row["uid"], "fate": None, "reason": None, "error": None}
        decisions[row["uid"]] = {**blank, "dedup_group": None, "dedup_size": None}
        if key is None:
            absent = next(name for name in on if is_missing(row[name]))
            decisions[row["uid"]] |= {"fate": "failed", "error": f"missing {absent}"}
        else:
            groups.setdefault(key, []).append(row)
    samples = [(place, name, row) for place, (name, found) in enumerate(against) for row in found.to_pylist()]
    for key, rows in groups.items():
        uids = {row["uid"] for row in rows}
        equals = [sample for sample in samples if key_of(sample[2], on, forms) == key]
        taken = [(place, row["uid"], name) for place, name, row in samples if row["uid"] in uids]
        taken += [(place, row["uid"], name) for place, name, row in equals]
        scores = [(row[prefer], row) for row in rows if not is_missing(row[prefer])] if prefer else []
        top = max((score for score, _ in scores), default=None)
        best = [row for score, row in scores if score == top] or rows
        kept, where = (min(taken)[1], f" in {min(taken)[2]}") if taken else (min(row["uid"] for row in best), "")
        for row in rows:
            decision = decisions[row["uid"]]
            decision |= {"dedup_group": kept, "dedup_size": len(rows) + len(equals)}
            if taken or row["uid"] != kept:
                decision |= {"fate": "rejected", "reason": f"duplicate {label}: of {kept}{where}"}
    return decisions


TEXT = (
    st.none()
    | st.text(max_size=3)
    | st.sampled_from(["", " ", "a", "A", "a ", "a\0", "\0", "A!", "http://A", "https://a/", "é", "e\u0301", "ß", "ss"])
)
ROW = st.tuples(TEXT, TEXT, st.none() | st.sampled_from([0.0, -0.0, 1.5, -2.0, math.inf, -math.inf, math.nan]))


FORMS: st.SearchStrategy[dict[str, Form]] = st.sampled_from([{}, {"caption": "text"}, {"caption": "url"}])


def pool_of(rows: Sequence[tuple[Any, ...]], numbers: Sequence[int] | None = None) -> pa.Table:
    first, second, scores = ([row[i] for row in rows] for i in range(3))
    return pa.table(
        {
            "uid": pa.array(
                [uid_of(str(i)) for i in (numbers if numbers is not None else range(len(rows)))], pa.string()
            ),
            "caption": pa.array(first, pa.string()),
            "Caption": pa.array(second, pa.string()),
            "score": pa.array(scores, pa.float64()),
        }
    )


def check_summary(reduced: Reduced, decisions: dict[str, dict[str, Any]]) -> None:
    fates = [decision["fate"] for decision in decisions.values()]
    assert reduced.summary["rows"] == len(decisions)
    told = (reduced.summary["groups"], reduced.summary["dropped"], reduced.summary["failed"])
    assert told == (fates.count(None), fates.count("rejected"), fates.count("failed"))
    assert reduced.summary["largest"] == max((d["dedup_size"] or 0 for d in decisions.values()), default=0)


@given(
    rows=st.lists(ROW, max_size=30),
    on=st.sampled_from([["caption"], ["Caption", "caption"], ["score", "caption"]]),
    prefer=st.sampled_from([None, "score"]),
    forms=FORMS,
    order=st.integers(0, 99),
)
@example(
    rows=[("x", "'", math.nan), ("x", "'", None), ("x", "'", -1.0)], on=["caption"], prefer="score", forms={}, order=0
)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_is_the_rule(
    tmp_path: Path,
    rows: list[tuple[Any, ...]],
    on: list[str],
    prefer: str | None,
    forms: dict[str, Form],
    order: int,
) -> None:
    table = pool_of(rows)
    decisions, reduced = decide(table, tmp_path, order, on=on, prefer=prefer, forms=forms)
    assert decisions == expected(table, on, prefer, forms)
    check_summary(reduced, decisions)
    assert "dropped_against_corpora" not in reduced.summary


@given(
    rows=st.lists(ROW, max_size=12),
    corpora=st.lists(st.lists(st.tuples(ROW, st.integers(0, 24)), max_size=8), min_size=1, max_size=3),
    on=st.sampled_from([["caption"], ["Caption", "caption"]]),
    prefer=st.sampled_from([None, "score"]),
    forms=FORMS,
    order=st.integers(0, 99),
)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_is_the_rule_against_corpora(
    tmp_path: Path,
    rows: list[tuple[Any, ...]],
    corpora: list[list[tuple[tuple[Any, ...], int]]],
    on: list[str],
    prefer: str | None,
    forms: dict[str, Form],
    order: int,
) -> None:
    table = pool_of(rows)
    tables = [pool_of([row for row, _ in corpus], [number for _, number in corpus]) for corpus in corpora]
    names = [f"corpus-{i % 2}" for i in range(len(tables))]
    folders = [write_corpus(tmp_path / f"{i}", names[i], [t.slice(0, 3), t.slice(3)]) for i, t in enumerate(tables)]
    decisions, reduced = decide(table, tmp_path, order, on=on, prefer=prefer, forms=forms, against=folders)
    assert decisions == expected(table, on, prefer, forms, list(zip(names, tables, strict=True)))
    check_summary(reduced, decisions)
    elsewhere = sum(" in corpus-" in (decision["reason"] or "") for decision in decisions.values())
    assert reduced.summary["dropped_against_corpora"] == elsewhere


def test_a_corpus_of_wider_types_is_compared(tmp_path: Path) -> None:
    table = table_of(key=pa.array([3, 4, None], pa.int64()))
    narrow = pa.table({"uid": [uid_of("other")], "key": pa.array([4], pa.int16())})
    decisions, _ = decide(table, tmp_path, on=["key"], against=[write_corpus(tmp_path / "a", "a", [narrow])])
    assert decisions == expected(table, ["key"], against=[("a", narrow)])
    for key, kind in ((["4"], "string"), ([4.0], "double"), (pa.array([2**63], pa.uint64()), "uint64")):
        other = pa.table({"uid": [uid_of("other")], "key": key})
        with pytest.raises(UserError, match=f"holds {kind} here and int64 in the pool") as told:
            decide(table, tmp_path, on=["key"], against=[write_corpus(tmp_path / "a", "a", [other])])
        assert told.value.where == str(tmp_path / "a")


def test_columns_of_any_name(tmp_path: Path) -> None:
    names = ["place", "corpus", "hash", "key_0", "size", "uid_", "taken", 'it\'s "one"']
    table = table_of(**{name: ["a", "a", "b", None] for name in names})
    corpus = pa.table({"uid": [uid_of("other")], **{name: ["b"] for name in names}})
    folder = write_corpus(tmp_path / "a", "a", [corpus])
    decisions, _ = decide(table, tmp_path, on=names, prefer="place", against=[folder], forms={"corpus": "text"})
    assert decisions == expected(table, names, "place", {"corpus": "text"}, [("a", corpus)])


def test_a_corpus_that_lacks_a_column_or_changed_is_told(tmp_path: Path) -> None:
    table = table_of(key=["a"], url=["http://a"])
    folder = write_corpus(tmp_path / "a", "a", [table.select(["uid", "url"])])
    with pytest.raises(UserError, match="the corpus has no column 'key'"):
        decide(table, tmp_path, on=["key"], against=[folder])
    operator = Exact(Exact.Config(on=("url",), against=(folder,)))
    write_corpus(tmp_path / "a", "a", [table_of(url=["http://b"])])
    with pytest.raises(UserError, match="changed after the recipe was read"):
        operator.reduce(ShuffledRows(table, tmp_path))
    with pytest.raises(ValidationError, match="the corpora of `against` are others"):
        Exact.Config(on=("url",), against=(folder,), against_sha256=operator.config.against_sha256)
    with pytest.raises(ValidationError, match="no finished corpus"):
        Exact.Config(on=("url",), against=(str(tmp_path / "nowhere"),))


def test_a_form_wants_texts(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="column 'width' holds int64, not texts"):
        decide(table_of(width=[3]), tmp_path, on=["width"], forms={"width": "text"})
    with pytest.raises(ValidationError, match="'page' is not among those of `on`"):
        Exact.Config.model_validate({"on": ["url"], "forms": {"page": "url"}})
    with pytest.raises(ValidationError, match="'url' or 'url_without_tracking'"):
        Exact.Config.model_validate({"on": ["url"], "forms": {"url": "uri"}})


@pytest.mark.parametrize(
    "values",
    [
        pa.array([3, 3, None, 2**62, 2**62 + 1]),
        pa.array([b"\xff", b"\xff", None, b"", b"\0"]),
        pa.array([["a"], ["a"], None, [], [None]], pa.list_(pa.string())),
        pa.array(["a", "a", None, "b", "a"], pa.large_string()),
        pa.array([True, True, None, False, False]),
    ],
    ids=lambda values: str(values.type),
)
def test_columns_of_other_types(tmp_path: Path, values: pa.Array) -> None:
    table = table_of(key=values)
    decisions, _ = decide(table, tmp_path, on=["key"])
    sizes = [decisions[uid]["dedup_size"] for uid in table.column("uid").to_pylist()]
    plain = values.to_pylist()
    assert sizes == [None if value is None else plain.count(value) for value in plain]


def test_order_means_nothing(tmp_path: Path) -> None:
    drawn = random.Random(3)
    table = table_of(
        url=[f"http://example.org/{drawn.randint(0, 300)}" for _ in range(2000)],
        width=[drawn.choice([None, 100, 200]) for _ in range(2000)],
    )
    outcomes = [decide(table, tmp_path, order, on=["url"], prefer="width")[0] for order in range(3)]
    assert outcomes[0] == outcomes[1] == outcomes[2] == expected(table, ["url"], "width")
    kept = [decision["uid"] for decision in outcomes[0].values() if decision["fate"] is None]
    again = table.filter(pa.array([uid in set(kept) for uid in table.column("uid").to_pylist()]))
    assert all(decision["fate"] is None for decision in decide(again, tmp_path, on=["url"])[0].values())


def test_captions_larger_than_memory_spill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duck, "MEMORY_BYTES", 64_000_000)
    monkeypatch.setattr(duck, "THREADS", 1)
    captions = [f"{'long caption ' * 75}{i % 50_000}" for i in range(100_000)]
    assert sum(map(len, captions)) > 1.5 * duck.MEMORY_BYTES
    decisions, reduced = decide(table_of(caption=captions), tmp_path, on=["caption"])
    assert reduced.summary == {"rows": 100_000, "groups": 50_000, "dropped": 50_000, "failed": 0, "largest": 2}
    assert {decision["dedup_size"] for decision in decisions.values()} == {2}


def test_no_rows(tmp_path: Path) -> None:
    decisions, reduced = decide(table_of(caption=pa.array([], pa.string())), tmp_path, on=["caption"])
    assert decisions == {}
    assert reduced.summary == {"rows": 0, "groups": 0, "dropped": 0, "failed": 0, "largest": 0}


def test_what_recipes_write() -> None:
    assert operator_class("dedup.exact") is Exact
    assert Exact(Exact.Config(on=("url", "caption"), prefer="width")).requires == ("url", "caption", "width")
    assert Exact(Exact.Config(on=("width",), prefer="width")).requires == ("width",)
    for wrong in ({}, {"on": ()}, {"on": ["url"], "keep": "first"}):
        with pytest.raises(ValidationError):
            Exact.Config.model_validate(wrong)
