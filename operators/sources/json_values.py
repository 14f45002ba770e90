"""JSON values as columns: which type a column has, and which values are none of it.

Whole numbers, numbers and booleans keep their type where all values agree; everything else is a text, lists and
objects as JSON.
"""

from __future__ import annotations

import builtins
import json
from types import NoneType
from typing import Any

import pyarrow as pa

from corpusmith.operators.sources.lines import is_unicode

_SHOWN_CHARS = 60
_PYTHON_TYPES = {pa.string(): str, pa.bool_(): bool, pa.int64(): int, pa.float64(): float}


def fit_all(values: list[Any], type: pa.DataType) -> tuple[pa.Array, dict[int, str]]:
    """JSON values as a column, and what is wrong with those that are no values of its type, which are null in it."""
    if {*map(builtins.type, values)} <= {_PYTHON_TYPES[type], NoneType}:
        try:
            return pa.array(values, type), {}
        except (UnicodeEncodeError, OverflowError, pa.ArrowInvalid):
            pass  # some value does not fit: the others are told apart below
    fitted = [_fit(value, type) for value in values]
    problems = {i: problem for i, (_, problem) in enumerate(fitted) if problem}
    return pa.array([value for value, _ in fitted], type), problems


def kind_of(value: Any) -> str:
    """What a JSON value is: null, bool, int, float, or text for all else."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return "int"
    return "float" if isinstance(value, float) else "text"


def type_of(kinds: set[str]) -> pa.DataType:
    """The type of a column whose values are of these kinds."""
    known = kinds - {"null"}
    if known == {"bool"}:
        return pa.bool_()
    if known == {"int"}:
        return pa.int64()
    return pa.float64() if known and known <= {"int", "float"} else pa.string()


def _fit(value: Any, type: pa.DataType) -> tuple[Any, str]:
    """A JSON value as one of a column's type, or what is wrong with it."""
    if value is None:
        return None, ""
    if pa.types.is_string(type):
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
        return (text, "") if is_unicode(text) else (None, "no Unicode text")
    kind = kind_of(value)
    if pa.types.is_floating(type) and kind in ("int", "float"):
        return float(value), ""
    if kind != "text" and type_of({kind}) == type:
        return value, ""
    return None, f"{repr(value)[:_SHOWN_CHARS]}, which is no {type} as in the file's first lines"
