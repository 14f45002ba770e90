"""Predicates: one SQL condition over columns, read, split into conjuncts, and refused if it could do anything else.

sqlglot reads the predicate, names its columns and splits it at the top-level AND into conjuncts. What is then evaluated
is sqlglot's text of each conjunct, and only after DuckDB's own parser has read that text and every node of its tree is
of an allowed class and every function one that the catalogue calls scalar and that depends on its arguments alone. So
nothing hangs on the two parsers agreeing, and whatever is not known to be harmless is refused: subqueries, table
functions, clocks, random numbers, settings, the environment.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from corpusmith.operators.select.sandbox import fetch

_NODES = re.compile(
    "BETWEEN|CASE|CAST|COLLATE|COLUMN_REF|COMPARISON|CONJUNCTION|CONSTANT|FUNCTION|LAMBDA|OPERATOR|TYPE"
)
_NODE_WORDS = {"SUBQUERY": "a subquery", "WINDOW": "a window function", "STAR": "a star", "PARAMETER": "a placeholder"}

_CALENDAR = re.compile(
    r"\+|-|date_?(diff|part|sub|trunc)|day(name|of(month|week|year))?|last_day|julian|month(name)?|quarter|year(week)?"
    r"|century|decade|era|millennium|hour|minute|(micro|milli)?second|iso(dow|year)|week(day|ofyear)?|strftime"
    r"|generate_series|range|time_bucket|make_timestamptz|timezone(_hour|_minute)?"
)
"""Functions that DuckDB ties to the query because they read the session's time zone, which is UTC here."""
_MACROS = re.compile(
    "list_.*|array_.*|date_add|days_in_month|fdiv|if|json|map_contains_(entry|value)|nullif|split_part"
)
_ENVIRONMENT = re.compile(
    "__|current_|local|user$|session_user|get_current|getenv|getvariable|in_search_path|json_serialize_plan|pg_|read_"
    "|version$"
)
"""Starts of names that are refused whatever the catalogue says of them; DuckDB reads some without parentheses."""

_HOW = "write one condition in DuckDB's SQL, with double quotes around a column named like a keyword"


@dataclass(frozen=True)
class Conjunct:
    """One part of a predicate's top-level AND: its SQL text and its columns in order of appearance."""

    sql: str
    columns: tuple[str, ...]


@cache
def parse_predicate(where: str) -> tuple[Conjunct, ...]:
    """The conjuncts of a predicate, checked.

    Raises:
        ValueError: the text is not one harmless condition over columns; says what, where in it, and what to do.
    """
    import sqlglot
    from sqlglot import exp
    from sqlglot.errors import SqlglotError

    try:
        trees = [tree for tree in sqlglot.parse(where, read="duckdb") if tree is not None]
    except SqlglotError as error:
        what = f"what is no SQL condition ({first_line(error)})"
        raise _refusal(what, where, _HOW) from error
    if len(trees) != 1:
        raise _refusal(f"{len(trees)} statements", where, "write one condition; join with AND")
    if not isinstance(trees[0], exp.Condition | exp.Query):
        raise _refusal("what is no condition", where, _HOW)
    if (found := trees[0].find(exp.Comprehension)) is not None:
        raise _refusal("a list comprehension", found.sql("duckdb"), "use list_filter and list_transform")
    conjuncts = tuple(_conjunct(part) for part in _split(trees[0]))
    names = {name for conjunct in conjuncts for name in conjunct.columns}
    if len({name.lower() for name in names}) < len(names):
        raise _refusal("column names that differ in case alone", where, "rename one of the columns")
    return conjuncts


def _split(node: Any) -> Iterator[Any]:
    """Parts of the top-level AND, parentheses around them removed."""
    from sqlglot import exp

    bare = node.unnest()
    if isinstance(bare, exp.And):
        for part in bare.flatten():
            yield from _split(part)
    else:
        yield bare


def _conjunct(node: Any) -> Conjunct:
    from sqlglot import exp

    values = (exp.Literal, exp.Null, exp.Neg, exp.Add, exp.Sub, exp.Mul, exp.Div, exp.Mod, exp.DPipe, exp.Interval)
    sql = node.sql(dialect="duckdb", comments=False)
    if isinstance(node, values):
        raise _refusal("a value where a condition belongs", sql, "compare it with something")
    columns = tuple(dict.fromkeys(column.parts[0].name for column in node.find_all(exp.Column, bfs=False)))
    bound = {name.name for function in node.find_all(exp.Lambda) for name in function.expressions}
    names = {name.lower() for name in (*columns, *bound) if name in columns or not _ENVIRONMENT.match(name.lower())}
    for found in _nodes(_duckdb_tree(sql)):
        _check_node(found, sql, names)
    return Conjunct(sql, columns)


def _duckdb_tree(sql: str) -> dict[str, Any]:
    """The expression as DuckDB itself reads it; a text that is more than one expression changes its frame."""
    frame, _ = _serialized("1 = 1")
    found, expressions = _serialized(sql)
    if found != frame or len(expressions) != 1:
        raise _refusal("more than one condition", sql, "write one condition; join with AND")
    return expressions[0]


def _serialized(sql: str) -> tuple[list[Any], list[Any]]:
    ((text,),) = fetch("SELECT json_serialize_sql(?)", f"SELECT ({sql})")
    parsed = json.loads(text)
    if parsed["error"]:
        what = f"what DuckDB cannot read ({parsed['error_message']})"
        raise _refusal(what, sql, _HOW)
    nodes = [statement["node"] for statement in parsed["statements"]]
    expressions = [expression for node in nodes for expression in node.pop("select_list", [])]
    return nodes, expressions


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """Every dict of a JSON tree that names its class."""
    if isinstance(tree, dict):
        if "class" in tree:
            yield tree
        for value in tree.values():
            yield from _nodes(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _nodes(value)


def _check_node(node: dict[str, Any], sql: str, names: set[str]) -> None:
    kind = node["class"]
    if not _NODES.fullmatch(kind) or node["type"] == "GROUPING_FUNCTION":
        raise _refusal(
            _NODE_WORDS.get(kind) or str(kind).lower(), sql, "use columns, operators and scalar functions alone"
        )
    if kind == "COLUMN_REF" and node["column_names"][0].lower() not in names:
        raise _refusal(f"{node['column_names'][0]}, which is no column", sql, "a row's fate depends on the row alone")
    if kind == "FUNCTION" and (name := node["function_name"].lower()) not in _harmless_functions():
        close = difflib.get_close_matches(name, _harmless_functions(), n=1, cutoff=0.8)
        guess = f"did you mean {close[0]}? " if close else ""
        what = f"the function {name}, which is not a scalar function of its arguments alone"
        raise _refusal(what, sql, f"{guess}a row's fate depends on the row alone")


def _refusal(what: str, where: str, hint: str) -> ValueError:
    return ValueError(f"the predicate holds {what}, at `{where.strip()[:200]}`: {hint}")


@cache
def _harmless_functions() -> frozenset[str]:
    """Names whose every scalar, macro and aggregate form is harmless, from DuckDB's own catalogue."""
    allowed, refused = set(), set()
    rows = fetch("SELECT DISTINCT function_name, function_type, stability FROM duckdb_functions()")
    for name, kind, stability in rows:
        if kind == "scalar":
            harmless = stability == "CONSISTENT" or bool(_CALENDAR.fullmatch(name))
        elif kind == "macro":
            harmless = bool(_MACROS.fullmatch(name))
        elif kind in ("aggregate", "window"):
            harmless = False
        else:
            continue
        (allowed if harmless and not _ENVIRONMENT.match(name) else refused).add(name.lower())
    return frozenset(allowed - refused)


def first_line(error: Exception) -> str:
    """The part of a parser's message that says what is wrong."""
    return re.sub(r"\x1b\[\d*m", "", str(error)).partition("\n")[0][:300]
