"""From the summary of a step over the whole pool to what the page shows of it.

A step is known by the shape of what it tells, not by its operator, so that anybody's step is shown:

- a number, a text, or a list of them: a fact
- name → number, name → facts, a list of facts, a list of lists of one length: a table
- name → [before, after], a list of [name, before, after]: bars
- `curve`, a list of [rank, before, after], and `t`, if it is there: a curve with a line at t

`WHAT_by_PARAMETER` (`dropped_by_epsilon`) tells what other values of a parameter would do: the one in the recipe is
marked. What has another shape is a fact as JSON: nothing that a step tells is left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

from corpusmith.pipelines.report.data import Curve, PoolFacts, PoolTable, Scalar, Shift

CURVE = "curve"
THRESHOLD = "t"
FEW_POINTS = 10
"""Fewer make no curve where bars show the same counts."""

_MOST = 2**63


def pool_facts(
    step: str, operator: str, summary: Mapping[str, Any], parameters: Mapping[str, Any], mark: str = ""
) -> PoolFacts:
    """What a step over the whole pool tells.

    Args:
        summary: of its `Reduced`.
        parameters: of its operator, defaults included.
        mark: column in which the step marks rows instead of dropping them; "" for none.
    """
    scalars: list[tuple[str, Scalar]] = []
    tables: list[PoolTable] = []
    shifts: list[Shift] = []
    curve = _curve(summary)
    for name, value in summary.items():
        name = str(name)
        if _is_scalar(value):
            scalars.append((name, value))
        elif not value or (name == CURVE and curve):
            continue
        elif counts := _counts(value):
            shifts.append(Shift(name, counts))
        elif table := _table(name, value, parameters):
            tables.append(table)
        else:
            scalars.append((name, _cell(value)))
    if curve and shifts and len(curve.points) < FEW_POINTS:
        curve = None
    return PoolFacts(step, operator, mark, scalars, curve, shifts, tables)


def _curve(summary: Mapping[str, Any]) -> Curve | None:
    points = summary.get(CURVE)
    if not points or not _is_rows(points) or not all(len(row) == 3 and all(map(_is_count, row)) for row in points):
        return None
    t = summary.get(THRESHOLD)
    return Curve([(rank, before, after) for rank, before, after in points], t if _is_count(t) else None)


def _counts(value: Any) -> list[tuple[str, int, int]]:
    """(name, before, after) of each name; none where the value is something else."""
    if isinstance(value, Mapping) and all(isinstance(pair, list | tuple) for pair in value.values()):
        value = [[str(name), *pair] for name, pair in value.items()]
    if not _is_rows(value):
        return []
    if not all(len(row) == 3 and isinstance(row[0], str) and all(map(_is_count, row[1:])) for row in value):
        return []
    return [(name, before, after) for name, before, after in value]


def _table(name: str, value: Any, parameters: Mapping[str, Any]) -> PoolTable | None:
    if isinstance(value, Mapping):
        what, _, by = name.partition("_by_")
        names = [str(key) for key in value]
        if all(isinstance(facts, Mapping) for facts in value.values()):
            columns = _columns(value.values())
            rows = [_row(facts, columns) for facts in value.values()]
        else:
            columns, rows = [what if by else ""], [[_cell(one)] for one in value.values()]
        named = [[own, *row] for own, row in zip(names, rows, strict=True)]
        return PoolTable(name, [by, *columns], named, _chosen(names, parameters.get(by)))
    if isinstance(value, list | tuple) and all(isinstance(facts, Mapping) for facts in value):
        columns = _columns(value)
        return PoolTable(name, columns, [_row(facts, columns) for facts in value])
    if _is_rows(value) and len({len(row) for row in value}) == 1:
        return PoolTable(name, [""] * len(value[0]), [[_cell(one) for one in row] for row in value])
    return None


def _columns(facts: Any) -> list[str]:
    """Names in the order in which they come up."""
    return list(dict.fromkeys(str(name) for one in facts for name in one))


def _row(facts: Mapping[Any, Any], columns: Sequence[str]) -> list[Scalar]:
    texts = {str(name): _cell(value) for name, value in facts.items()}
    return [texts.get(column) for column in columns]


def _chosen(names: Sequence[str], value: Any) -> int | None:
    """Place of the name that is a parameter's value."""
    if value is None or isinstance(value, bool):
        return None
    wanted = f"{value:g}" if isinstance(value, float) else str(value)
    return names.index(wanted) if wanted in names else None


def _cell(value: Any) -> Scalar:
    if _is_scalar(value):
        return value
    if isinstance(value, list | tuple) and all(map(_is_scalar, value)):
        return ", ".join(map(str, value))
    return json.dumps(value, ensure_ascii=False, default=str)


def _is_rows(value: Any) -> TypeGuard[Sequence[Sequence[Any]]]:
    """Whether it is a list of lists that hold something."""
    return isinstance(value, list | tuple) and all(isinstance(row, list | tuple) and row for row in value)


def _is_scalar(value: Any) -> TypeGuard[Scalar]:
    return value is None or isinstance(value, str | int | float)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MOST
