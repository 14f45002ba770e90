"""keep: a SQL predicate over one row's columns decides whether the row goes on.

The predicate is split at its top-level AND into conjuncts (`predicate.py`), each the label that rejections are counted
by; all conjuncts of a batch are evaluated in one query.

Three-valued logic decides: any conjunct false rejects; otherwise any that cannot be evaluated, or is null, fails the
row, for an error is never a score. NaN counts as null: DuckDB orders it above all numbers, so a score that could not
be computed would pass every lower bound.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, field_validator

from corpusmith.operators.contract import Config as BaseConfig
from corpusmith.operators.contract import Decision, Select
from corpusmith.operators.select.predicate import Conjunct, first_line, parse_predicate
from corpusmith.operators.select.sandbox import sandbox
from corpusmith.schemas.columns import UID
from corpusmith.schemas.fates import RowError

SHOWN_CHARS = 60
"""Characters of a value that a reason shows at most."""

_TRUE, _FALSE, _NULL, _ERROR = 1, 0, 2, 3


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


def _query(table: pa.Table, expressions: list[str]) -> pa.Table:
    """Evaluate SQL expressions for each row, in order."""
    with sandbox() as connection:
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
            messages[k] = _redacted(first_line(error))
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
    cut = shown_sql(name)
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    return f"'''' || {cut} || ''''" if is_text else cut


_SECRETS = ((r"://[^/@\s]*@", "://"), (r"(://[^\s?#]*)[?#]\S*", r"\1?…"))
"""Credentials and parameters of a URL (a signature may be among them): never in a reason or message."""


def shown_sql(value: str) -> str:
    """SQL for the text of an SQL expression's value as a reason shows it: cut, on one line, without a URL's secrets."""
    text = f"CAST({value} AS VARCHAR)"
    for pattern, replacement in (*_SECRETS, (r"[[:cntrl:]]+", " ")):
        text = f"regexp_replace({text}, {_text(pattern)}, {_text(replacement)}, 'g')"
    return f"CASE WHEN length({text}) > {SHOWN_CHARS} THEN left({text}, {SHOWN_CHARS - 1}) || '…' ELSE {text} END"


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
