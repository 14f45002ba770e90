"""What lies beside media, as columns: the text, and the keys of a JSON object.

Tars of samples and folders of images say the same things in the same two ways, so both are turned into columns here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from corpusmith.operators.sources.json_values import fit_all, kind_of, type_of
from corpusmith.operators.sources.lines import is_unicode, raw_bytes
from corpusmith.operators.sources.names import TEXT_MEMBER
from corpusmith.operators.sources.rows import BadRow

KEY = "key"

_TEXT_KEYS = ("caption", "text", "TEXT")
"""Keys of the JSON whose text stands in for a missing text file."""
_SHOWN_CHARS = 80


@dataclass
class Told:
    """What is told of one sample.

    Args:
        name: the sample's name in its file or folder.
        text: its text, None for none.
        values: further columns.
        problem: why the sample cannot be used, and the class of that error; empty for none.
    """

    name: str
    text: str | None = None
    values: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""
    error: str = "bad row"

    def fail(self, error: str, problem: str) -> None:
        """Note what is wrong, unless something is already."""
        if not self.problem:
            self.error, self.problem = error, problem

    @property
    def raw(self) -> bytes:
        """What tells the sample from others that fail."""
        values = json.dumps(self.values, sort_keys=True, default=str)
        return raw_bytes(f"{self.name}\n{self.text or ''}\n{values}\n{self.problem}")

    @property
    def best_text(self) -> str | None:
        """The text, or that of the JSON where no file holds one."""
        found = (self.values.get(key) for key in (*_TEXT_KEYS, TEXT_MEMBER))
        return self.text if self.text is not None else next((text for text in found if isinstance(text, str)), None)

    @property
    def shown(self) -> str:
        """The name as a reason shows it."""
        shown = ascii(self.name)[1:-1]
        return shown if len(shown) <= _SHOWN_CHARS else f"{shown[:_SHOWN_CHARS]}…"


def tell(name: str, text: bytes | None, values: bytes | None, problem: str = "") -> Told:
    """Read what lies beside media; what is no UTF-8 text and no JSON object is a problem."""
    told = Told(name, problem=problem)
    if not is_unicode(name) or "\0" in name:
        told.fail("bad name", "the name is no UTF-8 text")
    if values is not None:
        told.values = _object(values, told)
    if text is None:
        return told
    try:
        told.text = text.decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError:
        told.fail("bad row", "the text is no UTF-8")
    return told


def _object(data: bytes, told: Told) -> Mapping[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        told.fail("bad row", f"invalid JSON: {str(error)[:_SHOWN_CHARS]}")
        return {}
    if not isinstance(found, dict):
        told.fail("bad row", "the JSON is no object")
        return {}
    return found


def columns_of(samples: Iterable[Told]) -> dict[str, pa.DataType]:
    """Columns, and their types, of samples that were looked at; a JSON's text that only repeats the text is none."""
    kinds: dict[str, set[str]] = {}
    has_text = False
    differing: set[str] = set()
    for told in samples:
        has_text = has_text or told.text is not None
        differing |= {key for key in _TEXT_KEYS if told.values.get(key) not in (None, told.text)}
        for key, value in told.values.items():
            kinds.setdefault(key, set()).add(kind_of(value))
    repeated = {TEXT_MEMBER, *_TEXT_KEYS} - differing if has_text else set()
    text = {TEXT_MEMBER: pa.string()} if has_text else {}
    return {**text, **{k: type_of(found) for k, found in kinds.items() if k and is_unicode(k) and k not in repeated}}


def fill_columns(
    samples: Sequence[Told], wanted: Mapping[str, pa.DataType]
) -> tuple[dict[str, pa.Array], dict[int, BadRow]]:
    """The wanted columns of samples, and those samples that fail."""
    columns: dict[str, pa.Array] = {}
    for name, type in wanted.items():
        if name == TEXT_MEMBER:
            values = [told.best_text for told in samples]
        else:
            values = [told.values.get(name) for told in samples]
        columns[name], problems = fit_all(values, type)
        for i, problem in problems.items():
            samples[i].fail("bad row", f"{name} = {problem}")
    bad = {
        i: BadRow(told.raw, f"{told.shown}: {told.problem}", told.error, is_read=True)
        for i, told in enumerate(samples)
        if told.problem
    }
    return columns, bad
