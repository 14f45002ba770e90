"""keep: three-valued logic against a row-by-row reference, hostile predicates, hostile values, and its speed."""

from __future__ import annotations

import datetime
import math
import multiprocessing
import threading
import time
from typing import Any

import cloudpickle
import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from corpusmith.operators.contract import Decision
from corpusmith.operators.select.keep import Keep
from corpusmith.schemas.fates import RowError


def keep(where: str) -> Keep:
    return Keep(Keep.Config(where=where))


def batch(**columns: Any) -> pa.Table:
    count = len(next(iter(columns.values())))
    return pa.table({"uid": [f"{i:032x}" for i in range(count)], **columns})


def decide(where: str, **columns: Any) -> Decision:
    return keep(where).decide(batch(**columns))


def test_reasons_name_predicate_and_value() -> None:
    decision = decide(
        "language = 'en' AND word_count > 2 AND least(width, height) >= 200",
        language=["en", "de", "en", "en", None, None],
        word_count=[5, 5, 1, 5, 5, 2],
        width=[300, 300, 300, 120, 300, 300],
        height=[300, 300, 300, 900, 300, 300],
    )
    assert decision.keep.to_pylist() == [True, False, False, False, False, False]  # pyright: ignore[reportAttributeAccessIssue]
    assert decision.reasons == {
        1: "language = 'en': language = 'de'",
        2: "word_count > 2: word_count = 1",
        3: "LEAST(width, height) >= 200: width = 120, height = 900",
        5: "word_count > 2: word_count = 2",
    }
    assert decision.errors == {4: RowError("missing language", "language = 'en'")}


def test_config_is_the_predicate_and_says_what_it_needs() -> None:
    operator = keep("(b > 1 AND \"a b\" = 'x') AND (s.field = 1 OR uid = 'u') AND list_contains(tags, 'x')")
    assert Keep.positional == "where"
    assert operator.requires == ("a b", "b", "s", "tags")
    assert operator.conjuncts == (
        "b > 1",
        "\"a b\" = 'x'",
        "s.field = 1 OR uid = 'u'",
        "ARRAY_CONTAINS(tags, 'x')",
    )
    assert keep("list_filter(tags, x -> x > bound) = []").requires == ("bound", "tags")
    assert keep("Width > 1").requires == ("Width",)


REFUSED = {
    "1=1; DROP TABLE x": "2 statements",
    "": "at least 1 character",
    "  ": "0 statements",
    "-- only a comment": "0 statements",
    "a = ": "no SQL condition",
    "a = 1, b = 2": "no SQL condition",
    "a = 1 ORDER BY b": "no SQL condition",
    "a = 'unclosed": "no SQL condition",
    "1": "a value where a condition belongs",
    "a + b": "a value where a condition belongs",
    "a = 1 AND 'x'": "a value where a condition belongs",
    "(SELECT true)": "a subquery",
    "SELECT 1": "a subquery",
    "a IN (SELECT 1)": "a subquery",
    "EXISTS(SELECT 1 FROM read_csv('/etc/passwd'))": "a subquery",
    "a = ANY(tags)": "a subquery",
    "a IN (FROM '/etc/passwd')": "`a IN (",
    "read_csv('/etc/passwd')": "the function read_csv",
    "read_text('/etc/passwd') = 'x'": "the function read_text",
    "glob('/etc/*') = 'x'": "the function glob",
    "unnest(tags) = 1": "the function unnest",
    "query('SELECT 1')": "the function query",
    "getenv('HOME') = '/root'": "the function getenv",
    "current_setting('home_directory') = 'x'": "the function current_setting",
    "getvariable('x') = 1": "the function getvariable",
    "version() = 'v1'": "the function version",
    "random() < 0.1": "the function random",
    "main.random() < 0.1": "the function random",
    "system.main.random() < 0.1": "the function random",
    "RaNdOm() < 0.1": "the function random",
    '"random"() < 0.1': "the function random",
    "list_transform([1], x -> random()) = []": "the function random",
    "a > CASE WHEN b THEN uuid() ELSE 'x' END": "the function uuid",
    "gen_random_uuid() = a": "the function",
    "nextval('s') = 1": "the function nextval",
    "now() > t": "the function now",
    "today() > d": "no column",
    "age(t) > INTERVAL 1 DAY": "the function age",
    "ago(INTERVAL 1 DAY) > t": "the function ago",
    "current_date > d": "no column",
    "date_diff('day', d, current_date) > 3": "no column",
    "current_timestamp > t": "no column",
    "localtimestamp > t": "no column",
    "list_filter(tags, current_date -> true) = [] OR current_date > d": "no column",
    "current_user = 'x'": "the function current_user",
    "pg_sleep(100) IS NULL": "the function pg_sleep",
    "sleep_ms(100) IS NULL": "the function sleep_ms",
    "error('x')": "the function error",
    "sum(a) > 1": "the function sum",
    "count(*) > 1": "the function count_star",
    "row_number() OVER () = 1": "a window function",
    "lag(a) OVER (ORDER BY b) = 1": "a window function",
    "grouping(a) = 1": "operator",
    "*": "what is no condition",
    "a = 1 AND *": "a star",
    "columns('.*') > 1": "a star",
    "? = a": "a placeholder",
    "$1 = a": "a placeholder",
    "a := 1": "DuckDB cannot read",
    "[x FOR x IN tags IF x > 1] = []": "a list comprehension",
    "lenght(a) > 1": "did you mean length?",
    "Width > 1 AND width > 2": "differ in case alone",
    "DROP TABLE x": "what is no condition",
    "COPY (SELECT 1) TO '/tmp/x'": "what is no condition",
    "ATTACH '/tmp/x.db'": "what is no condition",
    "SET threads = 4": "what is no condition",
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("where", REFUSED)
def test_dangerous_or_senseless_predicates_are_refused(where: str) -> None:
    with pytest.raises(ValidationError) as caught:
        keep(where)
    assert REFUSED[where] in str(caught.value)


def test_no_catalogued_function_that_reads_anything_but_its_arguments_is_allowed() -> None:
    catalogue = duckdb.connect().execute("SELECT function_name, function_type, stability FROM duckdb_functions()")
    names = {
        name
        for name, kind, stability in catalogue.fetchall()
        if stability == "VOLATILE" or kind in ("aggregate", "table", "table_macro", "pragma", "window")
    }
    scalar = {"repeat", "range", "generate_series", "unnest"}
    assert len(names) > 150
    for name in sorted(names - scalar):
        if name.isidentifier():
            with pytest.raises(ValidationError):
                keep(f'"{name}"(a) = 1')


def test_what_is_evaluated_cannot_reach_files_even_if_the_check_failed() -> None:
    from corpusmith.operators.select.keep import _query

    for sql in ("(SELECT count(*) FROM read_csv('/etc/passwd'))", "(SELECT count(*) FROM '/etc/passwd')"):
        with pytest.raises(duckdb.Error):
            _query(batch(a=[1]), [sql])
    hidden = pa.table({"a": [1]})  # a Python variable that a replacement scan could find
    with pytest.raises(duckdb.CatalogException):
        _query(hidden, ["(SELECT a FROM hidden)"])


SAME_AS_WRITTEN = [
    "caption ILIKE '%DOG%'",
    "caption ~ '^[a-z ]+$'",
    "regexp_matches(caption, 'd.g')",
    "NOT regexp_full_match(caption, '.*g')",
    "caption SIMILAR TO 'a.*'",
    "starts_with(caption, 'a') OR suffix(caption, 'g')",
    "len(caption) BETWEEN 3 AND 9",
    "caption IN ('a dog', 'it''s; DROP TABLE x --')",
    "caption NOT IN ('a dog')",
    "n % 2 = 0 OR n // 2 > 1 OR n ** 2 > 20",
    "n::DOUBLE / 3 > 0.5",
    "CASE WHEN n > 2 THEN ok ELSE NOT ok END",
    "coalesce(ok, false) IS NOT DISTINCT FROM true",
    "nullif(n, 3) IS NULL",
    "tags[1] = 'x' OR list_has_any(tags, ['z'])",
    "len(list_filter(tags, t -> t <> 'x')) > 0",
    "list_aggregate(list_transform(tags, t -> length(t)), 'sum') >= 2",
    "s.a > 1 OR s['b'] = 'q'",
    "struct_extract(s, 'a') < 3",
    "taken_at >= TIMESTAMP '2020-06-01' OR year(taken_at) = 2019",
    "date_trunc('month', taken_at) = DATE '2019-05-01'",
    "extract(hour FROM taken_at) > 5",
    "taken_at + INTERVAL 1 DAY > TIMESTAMP '2020-01-01'",
    "split_part(caption, ' ', 2) = 'dog'",
    "array_to_string(tags, ',') = 'x,y'",
    "caption COLLATE NOCASE = 'A DOG'",
    '"select" > 1 AND "a b" < 5 AND "qu""ote" IS NOT NULL',
    "hash(caption) % 2 = 0",
    "NOT (n > 1 AND ok)",
    "n IS NULL OR n > 1",
    "true",
]


@pytest.mark.parametrize("where", SAME_AS_WRITTEN)
def test_evaluates_to_what_duckdb_says_of_the_predicate_as_written(where: str) -> None:
    table = batch(
        caption=["a dog", None, "it's; DROP TABLE x --", "", "zug", "ein Bild"],
        n=[1, 2, 3, None, 5, 0],
        ok=[True, False, None, True, False, True],
        tags=[["x", "y"], [], None, ["z"], [None], ["x"]],
        s=[{"a": 1, "b": "q"}, {"a": 2, "b": None}, None, {"a": None, "b": "r"}, {"a": 4, "b": "q"}, {"a": 0, "b": ""}],
        taken_at=[
            datetime.datetime(2019, 5, 1, 6),
            datetime.datetime(2021, 1, 1),
            None,
            *[datetime.datetime(2020, 6, 1)] * 3,
        ],
        select=[1, 2, 3, 4, None, 6],
        **{"a b": [1, 2, 3, 4, 5, 6], 'qu"ote': ["x", None, "y", "z", "x", "y"]},
    )
    connection = duckdb.connect()
    connection.register("written", table)
    connection.execute("SET lambda_syntax = 'ENABLE_SINGLE_ARROW'")
    expected = [row[0] for row in connection.execute(f"SELECT ({where}) FROM written").fetchall()]
    decision = keep(where).decide(table)
    assert list(decision.keep) == [pa.scalar(value is True) for value in expected]
    assert sorted(decision.reasons) == [i for i, value in enumerate(expected) if value is False]
    assert sorted(decision.errors) == [i for i, value in enumerate(expected) if value is None]
    assert set(keep(where).requires) <= set(table.column_names)


ATOMS = {
    "a > 1": lambda r: None if r["a"] is None else r["a"] > 1,
    "b = 'x'": lambda r: None if r["b"] is None else r["b"] == "x",
    "c": lambda r: r["c"],
    "a IS NULL": lambda r: r["a"] is None,
    "f < 0.5": lambda r: None if r["f"] is None or math.isnan(r["f"]) else r["f"] < 0.5,
}

Tree = Any
trees = st.recursive(
    st.sampled_from(sorted(ATOMS)),
    lambda inner: st.one_of(
        st.tuples(st.just("NOT"), inner),
        st.tuples(st.just("AND"), inner, inner),
        st.tuples(st.just("OR"), inner, inner),
    ),
    max_leaves=8,
)
rows = st.fixed_dictionaries(
    {
        "a": st.none() | st.integers(0, 3),
        "b": st.none() | st.sampled_from(["x", "y", "", "é'"]),
        "c": st.none() | st.booleans(),
        "f": st.none() | st.sampled_from([0.0, 0.25, 1.0, math.nan, math.inf]),
    }
)


def sql_of(tree: Tree) -> str:
    if isinstance(tree, str):
        return tree
    return f"(NOT {sql_of(tree[1])})" if tree[0] == "NOT" else f"({sql_of(tree[1])} {tree[0]} {sql_of(tree[2])})"


def truth_of(tree: Tree, row: dict[str, Any]) -> bool | None:
    """Kleene's three-valued logic."""
    if isinstance(tree, str):
        return ATOMS[tree](row)
    values = [truth_of(part, row) for part in tree[1:]]
    if tree[0] == "NOT":
        return None if values[0] is None else not values[0]
    decisive = tree[0] == "OR"
    if decisive in values:
        return decisive
    return None if None in values else not decisive


def conjuncts_of(tree: Tree) -> list[Tree]:
    if isinstance(tree, tuple) and tree[0] == "AND":
        return conjuncts_of(tree[1]) + conjuncts_of(tree[2])
    return [tree]


def columns_of(tree: Tree) -> list[str]:
    if isinstance(tree, str):
        return [tree[0]]
    return list(dict.fromkeys(name for part in tree[1:] for name in columns_of(part)))


@settings(max_examples=150, deadline=None)
@given(tree=trees, data=st.lists(rows, min_size=1, max_size=12))
def test_agrees_with_a_row_by_row_reference(tree: Tree, data: list[dict[str, Any]]) -> None:
    schema = pa.schema([("a", pa.int64()), ("b", pa.string()), ("c", pa.bool_()), ("f", pa.float64())])
    table = pa.Table.from_pylist(data, schema=schema).add_column(0, "uid", [[str(i) for i in range(len(data))]])
    operator = keep(sql_of(tree))
    decision = operator.decide(table)
    parts = conjuncts_of(tree)
    for i, row in enumerate(data):
        values = [truth_of(part, row) for part in parts]
        assert decision.keep[i].as_py() == all(value is True for value in values)  # pyright: ignore[reportAttributeAccessIssue]
        if False in values:
            assert decision.reasons[i].startswith(operator.conjuncts[values.index(False)] + ": ")
            assert i not in decision.errors
        elif None in values:
            k = values.index(None)
            nulls = [n for n in columns_of(parts[k]) if row[n] is None or row[n] != row[n]]
            assert decision.errors[i] == RowError(f"missing {nulls[0]}", operator.conjuncts[k])
            assert i not in decision.reasons
        else:
            assert i not in decision.reasons
            assert i not in decision.errors


def test_nan_is_missing_and_passes_no_bound() -> None:
    for kind in (pa.float16(), pa.float32(), pa.float64()):
        decision = decide("score >= 0.3", score=pa.array([math.nan, 0.5, 0.25], pa.float64()).cast(kind))
        assert list(decision.keep) == [pa.scalar(False), pa.scalar(True), pa.scalar(False)]
        assert decision.reasons == {2: "score >= 0.3: score = 0.25"}
        assert decision.errors == {0: RowError("missing score", "score >= 0.3")}


def test_null_predicate_without_a_null_column() -> None:
    decision = decide("s.a > 1", s=[{"a": None}, {"a": 2}])
    assert decision.errors == {0: RowError("null predicate", "s.a > 1")}


@pytest.mark.parametrize("where", ["x > 1", "x ILIKE '%a%'", "x", "x.a = 1", "list_contains(x, 2)", "least(x, y) > 1"])
def test_column_of_null_type(where: str) -> None:
    decision = decide(where, x=pa.nulls(3), y=[1, 2, 3])
    assert [error.error for error in decision.errors.values()] == ["missing x"] * 3 or where == "least(x, y) > 1"
    assert decide("x IS NULL", x=pa.nulls(3)).reasons == {}


def test_an_evaluation_error_hits_only_the_culprits() -> None:
    decision = decide(
        "y = 'ok' AND CAST(x AS INT) > 3", x=["1", "7", "abc", None, "", "9"], y=["ok"] * 4 + ["no", "ok"]
    )
    assert list(decision.keep) == [pa.scalar(value) for value in (False, True, False, False, False, True)]
    assert decision.reasons == {0: "CAST(x AS INT) > 3: x = '1'", 4: "y = 'ok': y = 'no'"}
    assert decision.errors == {
        2: RowError("predicate failed", "CAST(x AS INT) > 3: x = 'abc'"),
        3: RowError("missing x", "CAST(x AS INT) > 3"),
    }


@pytest.mark.parametrize(
    ("where", "culprits"),
    [
        ("strptime(x, '%Y') > TIMESTAMP '2000-01-01'", [2]),
        ("regexp_matches('a', x)", [2]),
        ("CAST(x AS BOOLEAN)", [1, 2]),
        ("json_extract(x, '$.a') IS NULL", [2]),
        ("CAST(length(x) * 100 AS TINYINT) > 1", [1]),
    ],
)
def test_culprits_of_every_kind_of_error(where: str, culprits: list[int]) -> None:
    decision = decide(where, x=["1", "2020", "("])
    assert sorted(decision.errors) == culprits
    assert {error.error for error in decision.errors.values()} == {"predicate failed"}


@pytest.mark.parametrize(
    ("where", "told"),
    [
        ("x + 1 > 2", "No function matches"),
        ("regexp_matches(x, '(')", "missing )"),
        ("x", "is string, not a condition"),
        ("length(x)", "is int64, not a condition"),
    ],
)
def test_a_predicate_that_no_row_can_pass_through_says_why(where: str, told: str) -> None:
    decision = decide(where, x=["a", "b"])
    assert [error.error for error in decision.errors.values()] == ["predicate failed"] * 2
    assert all(told in error.message for error in decision.errors.values())
    assert not any(value.as_py() for value in decision.keep)  # pyright: ignore[reportAttributeAccessIssue]


def test_details_are_short_single_lines_without_secrets() -> None:
    signed = "https://user:pw@host/a.jpg?X-Signature=SECRET#frag"
    columns = {
        "x": [signed],
        "long": ["é" * 100],
        "lines": ["a\x1b[31m\nb\tc\x00d'"],
        "f": [1234567.891],
        "f32": pa.array([0.1], pa.float32()),
        "blob": [b"\x00\xff" * 8],
        "l": [[1, None]],
        "urls": [[signed]],
        "s": [{"a": 1}],
        "t": pa.array([datetime.datetime(2020, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)], pa.timestamp("us", "UTC")),
        "d": pa.array(["v"]).dictionary_encode(),
        "none": pa.array([None], pa.int32()),
        "ok": [False],
    }
    shown = {
        name: decide(f"{name} IS NULL AND {name} IS NOT NULL" if name != "none" else "none IS NOT NULL", **{name: v})
        .reasons[0]
        .partition(f": {name} = ")[2]
        for name, v in columns.items()
    }
    assert shown == {
        "x": "'https://host/a.jpg?…'",
        "long": "'" + "é" * 59 + "…'",
        "lines": "'a [31m b c d''",
        "f": "1.23457e+06",
        "f32": "0.1",
        "blob": "16 bytes",
        "l": "[1, NULL]",
        "urls": "['https://host/a.jpg?…",
        "s": "{'a': 1}",
        "t": "2020-01-02 03:04:05+00",
        "d": "'v'",
        "none": "null",
        "ok": "false",
    }


def test_hostile_column_names_and_constants() -> None:
    decision = decide('"a\'b" > 1 AND "x "" y" > 1', **{"a'b": [0, 2], 'x " y': [2, 0]})
    assert decision.reasons == {0: "\"a'b\" > 1: a'b = 0", 1: '"x "" y" > 1: x " y = 0'}
    assert decide("1 = 2", a=[1]).reasons == {0: "1 = 2: no column"}
    assert keep("true").decide(batch(a=[1, 2])).keep == pa.array([True, True])
    assert len(keep("a > 1").decide(batch(a=pa.array([], pa.int64()))).keep) == 0


def test_a_long_predicate() -> None:
    where = " AND ".join(f"a <> {i}" for i in range(300)) + f" AND a IN ({', '.join(map(str, range(3000)))})"
    assert decide(where, a=[5, 2000, 5000]).reasons[0] == "a <> 5: a = 5"


def _decided_in_child(pickled: bytes, table: pa.Table, answers: Any) -> None:
    answers.put(cloudpickle.loads(pickled).decide(table).reasons)


def test_survives_pickling_threads_and_forks_before_and_after_use() -> None:
    operator, table = keep("a > 1"), batch(a=[1, 2])
    unused = cloudpickle.dumps(operator)
    expected = operator.decide(table).reasons
    used = cloudpickle.dumps(operator)
    for pickled in (unused, used):
        assert cloudpickle.loads(pickled).decide(table).reasons == expected == {0: "a > 1: a = 1"}
    seen: list[Any] = []
    threads = [threading.Thread(target=lambda: seen.append(operator.decide(table).reasons)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [expected] * 8
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    child = context.Process(target=_decided_in_child, args=(used, table, answers))
    child.start()
    assert answers.get(timeout=30) == expected
    child.join(30)
    assert child.exitcode == 0


def test_speed() -> None:
    count = 20_000
    table = batch(
        language=["en", "de"] * (count // 2),
        word_count=list(range(10)) * (count // 10),
        width=list(range(count)),
    )
    operator = keep("language = 'en' AND word_count > 2 AND width >= 200")
    decision = operator.decide(table)
    took_s = []
    for _ in range(5):
        started = time.process_time()
        decision = operator.decide(table)
        took_s.append(time.process_time() - started)
    assert len(decision.reasons) > count // 2
    assert min(took_s) < 0.2
