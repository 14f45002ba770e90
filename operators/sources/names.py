"""Columns by habit: what published sets call the address, the text and the id of a sample.

A recipe that names no columns takes the first of these names that every file of the input has, in the spelling given
here before any other. LAION, COYO, DataComp, and img2dataset's outputs so come in without a mapping.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from corpusmith.operators.sources.files import SourceFile, shown
from corpusmith.operators.sources.rows import Table
from corpusmith.schemas.errors import UserError
from corpusmith.schemas.recipe import AUTO, InputSpec

TEXT_MEMBER = "txt"
"""The column of the texts that lie beside media, in files of their own."""

HABITS: Mapping[str, tuple[str, ...]] = {
    "url": (
        "url",
        "URL",
        "image_url",
        "img_url",
        "imageUrl",
        "image_link",
        "photo_image_url",
        "contentUrl",
        "video_url",
    ),
    "caption": (TEXT_MEMBER, "caption", "TEXT", "text", "alt_text", "alt", "raw_caption", "title", "description"),
    "source_uid": ("uid", "source_uid", "SAMPLE_ID", "id", "image_id", "photo_id", "videoid", "key", "file_name"),
}
"""Key of the recipe's input → names, the likeliest first."""


@dataclass(frozen=True)
class Names:
    """The columns of the input that a recipe's rows are made of.

    Args:
        url, source_uid: names in the files; None for none.
        captions: names of the texts; the first text that a row has is its caption.
    """

    url: str | None
    captions: tuple[str, ...]
    source_uid: str | None

    @property
    def all(self) -> set[str]:
        """All of them."""
        return {name for name in (self.url, *self.captions, self.source_uid) if name is not None}


def resolve_names(tables: Sequence[tuple[SourceFile, Table]], spec: InputSpec) -> Names:
    """Choose the columns: those that the recipe names, or those that are called so by habit.

    Raises:
        UserError: a file lacks a column that the recipe names, or there is none of the usual names.
    """
    has_media = any(table.has_media for _, table in tables)
    url = _chosen("url", spec.url, tables, is_needed=not has_media)
    source_uid = _chosen("source_uid", spec.source_uid, tables, is_needed=False)
    if isinstance(spec.caption, list):
        for name in spec.caption:
            _check_named("caption", name, tables)
        return Names(url, tuple(dict.fromkeys(spec.caption)), source_uid)
    caption = _chosen("caption", spec.caption, tables, is_needed=not has_media)
    return Names(url, () if caption is None else (caption,), source_uid)


def list_column(spec: InputSpec) -> str:
    """What the one column of a list without names is called: as the recipe calls its addresses, or else its texts."""
    url = HABITS["url"][0] if spec.url == AUTO else spec.url
    captions = [spec.caption] if isinstance(spec.caption, str) else spec.caption or []
    return url or next((name for name in captions if name != AUTO), HABITS["caption"][0])


def _chosen(key: str, given: str | None, tables: Sequence[tuple[SourceFile, Table]], *, is_needed: bool) -> str | None:
    if given != AUTO:
        if given is not None:
            _check_named(key, given, tables)
        return given
    named = [(file, table) for file, table in tables if not table.is_bare]
    if not named:
        return HABITS[key][0] if is_needed else None
    found = _by_habit(key, [table.columns for _, table in named], is_in_all=is_needed)
    if found is None and is_needed:
        lacks = [(file, table) for file, table in named if _by_habit(key, [table.columns], is_in_all=True) is None]
        file, table = (lacks or named)[0]
        what = f"there is no column for {key}, which is mostly called {', '.join(HABITS[key][:4])}"
        hint = f"input.{key}=NAME? columns: {', '.join(table.columns)}; input.{key}=null for none"
        raise UserError(what, where=shown(file.path), hint=hint)
    return found


def _by_habit(key: str, columns: Sequence[Mapping[str, pa.DataType]], *, is_in_all: bool) -> str | None:
    """The first of a key's names that all tables have, or any: as spelled, then in any case."""
    fit = [{name for name, type in c.items() if _FITS[key](type)} for c in columns]
    there = set.intersection(*fit) if is_in_all else set.union(*fit)
    exact = next((name for name in HABITS[key] if name in there), None)
    folded = {name.lower(): name for name in sorted(there, reverse=True)}
    return exact or next((folded[name.lower()] for name in HABITS[key] if name.lower() in folded), None)


def is_text(type: pa.DataType) -> bool:
    """Whether a column holds texts; one of nulls alone may."""
    return pa.types.is_string(type) or pa.types.is_large_string(type) or pa.types.is_null(type)


def is_texts(type: pa.DataType) -> bool:
    """Whether a column holds a list of texts in each row."""
    return (pa.types.is_list(type) or pa.types.is_large_list(type)) and is_text(type.value_type)


def _is_id(type: pa.DataType) -> bool:
    return is_text(type) or pa.types.is_integer(type) or pa.types.is_floating(type)


_FITS: Mapping[str, Callable[[pa.DataType], bool]] = {
    "url": is_text,
    "caption": lambda type: is_text(type) or is_texts(type),
    "source_uid": _is_id,
}


def _check_named(key: str, name: str, tables: Sequence[tuple[SourceFile, Table]]) -> None:
    for file, table in tables:
        is_exempt = (key == "caption" and table.is_bare) or (table.has_media and table.is_open)
        if name in table.columns or is_exempt:
            continue
        folded = {column.lower(): column for column in table.columns}
        close = difflib.get_close_matches(name.lower(), folded, n=1)
        guess = f"input.{key}={folded[close[0]]}? " if close else ""
        none = f"; input.{key}=null for none" if key != "source_uid" else ""
        hint = f"{guess}columns: {', '.join(table.columns)}{none}"
        raise UserError(f"there is no column {name!r} for {key}", where=shown(file.path), hint=hint)
