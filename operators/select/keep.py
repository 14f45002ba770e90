"""keep: a SQL predicate over one row's columns decides whether the row goes on.

sqlglot reads the predicate, names its columns and splits it at the top-level AND into conjuncts, each the label that
rejections are counted by. What is then evaluated is sqlglot's text of each conjunct, and only after DuckDB's own parser
has read that text and every node of its tree is of an allowed class and every function one that the catalogue calls
scalar and that depends on its arguments alone. So nothing hangs on the two parsers agreeing, and whatever is not known
to be harmless is refused: subqueries, table functions, clocks, random numbers, settings, the environment.

Three-valued logic decides: any conjunct false rejects; otherwise any that cannot be evaluated, or is null, fails the
row, for an error is never a score. NaN counts as null: DuckDB orders it above all numbers, so a score that could not
be computed would pass every lower bound.
"""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, field_validator

from corpusmith.operators.contract import Config as BaseConfig
from corpusmith.operators.contract import Decision, Select
from corpusmith.schemas.columns import UID
from corpusmith.schemas.fates import RowError

SHOWN_CHARS = 60
"""Characters of a value that a reason shows at most."""

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
_TRUE, _FALSE, _NULL, _ERROR = 1, 0, 2, 3


@dataclass(frozen=True)
class Conjunct:
    """One part of a predicate's top-level AND: its SQL text and its columns in order of appearance."""

    sql: str
    columns: tuple[str, ...]


class Keep(Select, name="keep", version=1):
    """Keep the rows for which a SQL predicate over their columns is true."""

    class Config(BaseConfig):
        where: str = Field(
            min_length=1,
            description="SQL condition (DuckDB dialect) over the row's columns, such as "
            "\"language = 'en' AND word_count > 2\"; double quotes around a column name that is no plain word",
        )

        @field_validator("where")
        @classmethod
        def _is_condition(cls, where: str) -> str:
            parse_predicate(where)
            return where

    positional = "where"
    config: Config

    @property
    def requires(self) -> tuple[str, ...]:
        named = {name for conjunct in parse_predicate(self.config.where) for name in conjunct.columns}
        return tuple(sorted(named - {UID.name}))

    @property
    def conjuncts(self) -> tuple[str, ...]:
        """The parts of the predicate's top-level AND as SQL text: the labels of the reasons."""
        return tuple(conjunct.sql for conjunct in parse_predicate(self.config.where))

    def decide(self, batch: pa.Table) -> Decision:
        conjuncts = parse_predicate(self.config.where)
        table = _nan_as_null(batch.select([*dict.fromkeys((UID.name, *self.requires))]))
        states, messages = _evaluate(table, conjuncts)
        any_false = (states == _FALSE).any(axis=0)
        keep = (states == _TRUE).all(axis=0)
        reasons = dict(_reasons(table, conjuncts, np.where(any_false, (states == _FALSE).argmax(axis=0), -1)))
        undecided = np.flatnonzero(~any_false & ~keep)
        first = (states[:, undecided] != _TRUE).argmax(axis=0)
        errors: dict[int, RowError] = {}
        for k in np.unique(first).tolist():
            rows = undecided[first == k]
            failed = states[k, rows] == _ERROR
            errors.update(_failures(table, conjuncts[k], rows[failed], messages.get(k)))
            errors.update(_missing(table, conjuncts[k], rows[~failed]))
        return Decision(pa.array(keep), reasons, errors)


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
        what = f"what is no SQL condition ({_first_line(error)})"
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
    ((text,),) = _fetch("SELECT json_serialize_sql(?)", f"SELECT ({sql})")
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
    rows = _fetch("SELECT DISTINCT function_name, function_type, stability FROM duckdb_functions()")
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


_idle: dict[int, list[Any]] = {}
"""Open connections by process. A fork leaves the parent's here, unused: to close one would wait for a thread of the
parent's for ever."""


@contextmanager
def _connection() -> Iterator[Any]:
    """A connection for the caller alone: in memory, one thread, no file, network, extension or Python variable."""
    idle = _idle.setdefault(os.getpid(), [])
    try:
        connection = idle.pop()
    except IndexError:
        connection = _open()
    try:
        yield connection
    finally:
        idle.append(connection)


def _open() -> Any:
    import duckdb

    connection = duckdb.connect(
        ":memory:",
        config={
            "threads": 1,
            "enable_external_access": False,
            "python_enable_replacements": False,
            "autoload_known_extensions": False,
        },
    )
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute("SET lock_configuration = true")
    return connection


def _fetch(sql: str, *parameters: str) -> list[tuple[Any, ...]]:
    with _connection() as connection:
        return connection.execute(sql, parameters).fetchall()


def _query(table: pa.Table, expressions: list[str]) -> pa.Table:
    """Evaluate SQL expressions for each row, in order."""
    with _connection() as connection:
        connection.register("__rows", table)
        try:
            return connection.sql(f"SELECT {', '.join(expressions)} FROM __rows").to_arrow_table()
        finally:
            connection.unregister("__rows")


def _evaluate(table: pa.Table, conjuncts: tuple[Conjunct, ...]) -> tuple[np.ndarray, dict[int, str]]:
    """States of the conjuncts (conjuncts × rows).

    Where DuckDB refuses the batch, each conjunct is evaluated under TRY, which marks the rows at fault. A conjunct that
    it refuses without any row (types that do not fit, an invalid pattern) fails for all rows, with DuckDB's message.
    """
    import duckdb

    caused_by_data = (duckdb.DataError, duckdb.ProgrammingError, duckdb.NotSupportedError, TypeError)
    try:
        return np.stack(_states(table, [c.sql for c in conjuncts])), {}
    except caused_by_data:
        states, messages = [], {}
    for k, conjunct in enumerate(conjuncts):
        try:
            _states(table.slice(0, 0), [conjunct.sql])
        except caused_by_data as error:
            messages[k] = _first_line(error)
            states.append(np.full(table.num_rows, _ERROR, np.uint8))
            continue
        guarded = _query(table, [f"TRY(coalesce(CAST(({conjunct.sql}) AS TINYINT), {_NULL}))"])
        states.append(pc.fill_null(guarded.column(0), _ERROR).to_numpy().astype(np.uint8))
    return np.stack(states), messages


def _states(table: pa.Table, sqls: list[str]) -> list[np.ndarray]:
    result = _query(table, [f"({sql})" for sql in sqls])
    for sql, values in zip(sqls, result.columns, strict=True):
        if not (pa.types.is_boolean(values.type) or pa.types.is_null(values.type)):
            raise TypeError(f"`{sql}` is {values.type}, not a condition")
    return [pc.fill_null(values.cast(pa.bool_()).cast(pa.uint8()), _NULL).to_numpy() for values in result.columns]


def _nan_as_null(table: pa.Table) -> pa.Table:
    """NaN made null; half precision, which DuckDB does not read, made single."""
    for i, field in enumerate(table.schema):
        if pa.types.is_floating(field.type):
            column = table.column(i).cast(pa.float32()) if pa.types.is_float16(field.type) else table.column(i)
            table = table.set_column(i, field.name, pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column))
    return table


def _reasons(table: pa.Table, conjuncts: tuple[Conjunct, ...], first: np.ndarray) -> Iterator[tuple[int, str]]:
    """(position, reason) of each rejected row; `first` is its first false conjunct, -1 for the others."""
    for k in np.unique(first[first >= 0]):
        rows = np.flatnonzero(first == k)
        label = conjuncts[k].sql
        for i, detail in zip(rows.tolist(), _details(table, conjuncts[k], rows), strict=True):
            yield i, f"{label}: {detail}"


def _details(table: pa.Table, conjunct: Conjunct, rows: np.ndarray) -> list[str]:
    """`column = value, …` of a conjunct's columns for the rows at some positions."""
    if not conjunct.columns:
        return ["no column"] * len(rows)
    taken = table.select(list(conjunct.columns)).take(pa.array(rows))
    parts = [f"{_text(field.name + ' = ')} || coalesce({_shown(field)}, 'null')" for field in taken.schema]
    return _query(taken, [" || ', ' || ".join(parts)]).column(0).to_pylist()


def _shown(field: pa.Field) -> str:
    """SQL for a value as a reason shows it: short, on one line, and without what a URL may hide."""
    name = '"' + field.name.replace('"', '""') + '"'
    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    if pa.types.is_floating(kind):
        return f"printf('%.6g', CAST({name} AS DOUBLE))"
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return f"octet_length({name}) || ' bytes'"
    text = f"CAST({name} AS VARCHAR)"
    for pattern, replacement in (*_SECRETS, (r"[[:cntrl:]]+", " ")):
        text = f"regexp_replace({text}, {_text(pattern)}, {_text(replacement)}, 'g')"
    cut = f"CASE WHEN length({text}) > {SHOWN_CHARS} THEN left({text}, {SHOWN_CHARS - 1}) || '…' ELSE {text} END"
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    return f"'''' || {cut} || ''''" if is_text else cut


_SECRETS = ((r"://[^/@\s]*@", "://"), (r"(://[^\s?#]*)[?#]\S*", r"\1?…"))
"""Credentials and parameters of a URL (a signature may be among them): never in a reason or message."""


def _redacted(text: str) -> str:
    for pattern, replacement in _SECRETS:
        text = re.sub(pattern, replacement, text)
    return text


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _missing(table: pa.Table, conjunct: Conjunct, rows: np.ndarray) -> dict[int, RowError]:
    """Errors of rows for which a conjunct is null: they name the first of its columns that is."""
    names = dict.fromkeys(rows.tolist(), "")
    for name in reversed(conjunct.columns):
        is_null = table.column(name).take(pa.array(rows)).is_null().to_numpy()
        names.update(dict.fromkeys(rows[is_null].tolist(), name))
    return {i: RowError(f"missing {name}" if name else "null predicate", conjunct.sql) for i, name in names.items()}


def _failures(table: pa.Table, conjunct: Conjunct, rows: np.ndarray, message: str | None) -> dict[int, RowError]:
    """Errors of rows for which a conjunct cannot be evaluated: DuckDB's message where all fail, else the values."""
    details = _details(table, conjunct, rows) if message is None else [message] * len(rows)
    return {
        i: RowError("predicate failed", f"{conjunct.sql}: {detail}")
        for i, detail in zip(rows.tolist(), details, strict=True)
    }


def _first_line(error: Exception) -> str:
    return _redacted(re.sub(r"\x1b\[\d*m", "", str(error)).partition("\n")[0])[:300]
