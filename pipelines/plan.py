"""The plan: from bound steps to streams and barriers, with the flow of columns checked before anything starts.

A chain of annotate, split and select steps is one stream; each reduce is a barrier behind its stream. The fingerprint
of a step covers its operator, version, parameters, and the fingerprints of the columns that it reads, so it changes
exactly when its results would; selections upstream are no part of it.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from corpusmith.operators.contract import Operator
from corpusmith.operators.registry import operators
from corpusmith.pipelines.bind import Step
from corpusmith.pipelines.digests import fingerprint
from corpusmith.schemas.columns import CAPTION, ENGINE_COLUMNS, MEDIA, MEDIA_REF, SOURCE_UID, TEXTS, UID, URL, Column
from corpusmith.schemas.errors import UserError

MAX_UNIT_ROWS = 8192
MEDIA_UNIT_ROWS = 512
MIN_UNIT_ROWS = 32
UNITS_AT_LEAST = 16


@dataclass(frozen=True)
class Provided:
    """A column at some point of the plan.

    Args:
        column: name, type, meaning.
        provider: the id of the step that makes it, or `input`.
        fingerprint: changes when its values may change for the same source row.
    """

    column: Column
    provider: str
    fingerprint: str


@dataclass(frozen=True)
class Segment:
    """A stream and the barrier behind it; the last segment has none.

    Args:
        index: position from 0.
        stream: annotate, split and select steps, run row by row.
        reduce: the reduce behind them.
        staging: id of the last step of the stream that makes media: its media is staged.
        columns: data columns of the rows that leave the stream.
    """

    index: int
    stream: tuple[Step, ...]
    reduce: Step | None
    staging: str | None
    columns: tuple[Column, ...]

    @property
    def schema(self) -> pa.Schema:
        """Arrow schema of the rows that leave the stream, dead ones included; media is a reference."""
        return flow_schema(self.columns)


def flow_schema(columns: Sequence[Column]) -> pa.Schema:
    """Schema of rows between streams: uid, engine columns, data columns without media."""
    data = [c for c in columns if c.name != MEDIA.name]
    return pa.schema([pa.field(c.name, c.type) for c in (UID, *ENGINE_COLUMNS, *data)])


@dataclass
class Plan:
    """What a run will do.

    Args:
        steps: all steps in recipe order.
        segments: the same steps, as streams and barriers.
        source_columns: data columns of the input.
        fingerprints: step id → fingerprint.
        unit_rows_cap: rows in one task at most.
    """

    steps: tuple[Step, ...]
    segments: tuple[Segment, ...]
    source_columns: tuple[Column, ...]
    fingerprints: dict[str, str] = field(default_factory=dict)
    unit_rows_cap: int = MAX_UNIT_ROWS

    def store_folder(self, step: Step) -> str:
        """Where a step's results lie, below the work folder."""
        return f"results/{step.operator.name}-{self.fingerprints[step.id]}"

    def unit_rows(self, rows: int) -> int:
        """Rows of one task for an input of so many rows: enough tasks for all cores, none too small."""
        return max(MIN_UNIT_ROWS, min(self.unit_rows_cap, -(-rows // UNITS_AT_LEAST)))


def make_plan(steps: Sequence[Step], source_schema: pa.Schema) -> Plan:
    """Check the flow of columns and cut the steps into segments.

    Args:
        steps: bound steps in recipe order.
        source_schema: columns of the input (uid and fates are ignored; `media_ref` says that it carries media).

    Raises:
        UserError: a step requires a column that nothing before it makes.
    """
    source = _source_columns(source_schema)
    at_hand = {c.name: Provided(c, "input", fingerprint({"source": c.name})) for c in source}
    plan = Plan(tuple(steps), (), source)
    segments: list[Segment] = []
    stream: list[Step] = []
    for step in steps:
        plan.fingerprints[step.id] = _check_and_print(step, at_hand)
        if step.operator.kind != "reduce":
            stream.append(step)
            _provide(step, at_hand, plan.fingerprints[step.id])
            continue
        segments.append(_segment(len(segments), stream, step, at_hand))
        stream = []
        _provide(step, at_hand, plan.fingerprints[step.id])
    segments.append(_segment(len(segments), stream, None, at_hand))
    plan.segments = tuple(segments)
    if any(s.operator.resources.waits or MEDIA.name in _names(s.operator) for s in steps):
        plan.unit_rows_cap = MEDIA_UNIT_ROWS
    return plan


def _source_columns(schema: pa.Schema) -> tuple[Column, ...]:
    """Data columns of the input; one that carries media has references to it."""
    known = {c.name: c for c in (SOURCE_UID, URL, CAPTION, TEXTS)}
    hidden = {UID.name, *(c.name for c in ENGINE_COLUMNS)}
    carried = (
        known.get(f.name, Column(f.name, f.type, "carried through from the input"))
        for f in schema
        if f.name not in hidden
    )
    return (*((MEDIA,) if MEDIA_REF.name in schema.names else ()), *carried)


def _check_and_print(step: Step, at_hand: dict[str, Provided]) -> str:
    operator = step.operator
    for name in operator.requires:
        if name not in at_hand and name != UID.name:
            raise _missing(step, name, at_hand)
    return fingerprint(
        {
            "operator": operator.name,
            "version": operator.version,
            "config": operator.config.deciding(),
            "seed": operator.seed if operator.seeded else None,
            "columns": {name: at_hand[name].fingerprint for name in operator.requires if name != UID.name},
        }
    )


def _missing(step: Step, name: str, at_hand: dict[str, Provided]) -> UserError:
    makers = [n for n, cls in operators().items() if name in _default_products(cls)]
    if makers:
        hint = f"put a step that makes it before this one: {', '.join(makers)}"
    else:
        close = difflib.get_close_matches(name, at_hand, n=1)
        guess = f"did you mean {close[0]!r}? " if close else ""
        hint = f"{guess}columns here: {', '.join(sorted(at_hand))}"
    return UserError(
        f"step {step.id!r} needs the column {name!r}, which nothing before it makes", where=step.where, hint=hint
    )


def _default_products(cls: type[Operator]) -> set[str]:
    """Columns of an operator under default parameters; none where it has required parameters."""
    if any(f.is_required() for f in cls.Config.model_fields.values()):
        return set()
    return {c.name for c in cls().produces}


def _provide(step: Step, at_hand: dict[str, Provided], step_fingerprint: str) -> None:
    if step.mark in at_hand:
        what = f"step {step.id!r}: {step.mark!r} is a column already"
        raise UserError(what, where=step.where, hint="rename the mark")
    for column in step.produces:
        made = fingerprint({"step": step_fingerprint, "column": column.name})
        at_hand[column.name] = Provided(column, step.id, made)


def _segment(index: int, stream: Sequence[Step], reduce: Step | None, at_hand: dict[str, Provided]) -> Segment:
    makers = [s.id for s in stream if any(c.name == MEDIA.name for c in s.operator.produces)]
    columns = tuple(p.column for p in at_hand.values())
    return Segment(index, tuple(stream), reduce, makers[-1] if makers else None, columns)


def _names(operator: Operator) -> set[str]:
    return {*operator.requires, *(c.name for c in operator.produces)}
