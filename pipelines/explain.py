"""Explaining a sample: what became of a row, and why, as far as the corpus still knows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from corpusmith.pipelines.storage import Storage
from corpusmith.pipelines.twins import (
    Duplicates,
    FoundTwin,
    duplicate_lines,
    find_duplicates,
    find_rows,
    find_twin,
    shard_row,
    twin_facts,
)
from corpusmith.pipelines.verify import finished_manifest
from corpusmith.schemas.columns import PARENT, ROOT, UID, URL
from corpusmith.schemas.errors import UserError
from corpusmith.schemas.fates import Fate
from corpusmith.schemas.identity import UID_HEX_DIGITS
from corpusmith.schemas.ledger import url_hash
from corpusmith.schemas.manifest import Manifest

SHOWN_CHILDREN = 10


@dataclass(frozen=True)
class Explanation:
    """What became of one sample.

    Args:
        ledger: its ledger row.
        shard: path of its shard's tar and its row there; None unless kept.
        children: uids of the samples that it was split into.
        twin: the sample that stands in its place, where it was dropped as a duplicate.
        duplicates: the rows that were dropped as its duplicates.
    """

    ledger: dict[str, Any]
    shard: tuple[str, dict[str, Any]] | None
    children: tuple[str, ...]
    twin: FoundTwin | None
    duplicates: Duplicates


def explain(corpus: Storage, wanted: str) -> list[Explanation]:
    """All samples with this uid, or of this URL.

    Args:
        corpus: a finished corpus.
        wanted: a uid; or a URL as the input has it, secrets included, or as the ledger shows it.

    Raises:
        UserError: no sample has that uid or URL.
    """
    manifest = finished_manifest(corpus)
    wanted = wanted.strip()
    is_uid = _is_uid(wanted)
    keys = [(UID.name, wanted.lower())] if is_uid else [("url_hash", url_hash(wanted)), (URL.name, wanted)]
    for column, value in keys:
        rows = find_rows(corpus, list(manifest.ledger), column, value)
        if rows:
            return [_explained(corpus, manifest, row) for row in rows]
    raise UserError(
        f"no sample of this corpus has that {'uid' if is_uid else 'URL'}",
        where=corpus.root,
        hint="give the URL exactly as the input has it, or a uid from the ledger or the shards' Parquet files",
    )


def explanation_lines(explanation: Explanation) -> Iterator[str]:
    """An explanation in words."""
    row = explanation.ledger
    yield f"{row[UID.name]}  {row['fate']}"
    facts = dict(_facts(explanation))
    width = max(map(len, facts), default=0)
    for name, value in facts.items():
        yield f"  {name:<{width}}  {value}"
    yield from (f"    {line}" for line in duplicate_lines(explanation.duplicates))


def _explained(corpus: Storage, manifest: Manifest, row: dict[str, Any]) -> Explanation:
    return Explanation(
        row,
        shard_row(corpus, manifest, row),
        _children(corpus, manifest, row),
        find_twin(corpus, manifest, row),
        find_duplicates(corpus, manifest, row[UID.name]),
    )


def _facts(explanation: Explanation) -> Iterator[tuple[str, Any]]:
    row = explanation.ledger
    hidden = {UID.name, "fate", "url_hash", *([ROOT.name] if row[ROOT.name] == row[UID.name] else [])}
    yield from ((name, value) for name, value in row.items() if value not in (None, "") and name not in hidden)
    if explanation.children:
        more = len(explanation.children) - SHOWN_CHILDREN
        yield "split into", ", ".join(explanation.children[:SHOWN_CHILDREN]) + (f" and {more} more" if more > 0 else "")
    if explanation.shard is not None:
        tar, sample = explanation.shard
        yield "shard", f"{tar}, key {sample['key']}"
        shown = {"key", "status", *row}
        yield from ((name, value) for name, value in sample.items() if value is not None and name not in shown)
    if explanation.twin is not None:
        yield from twin_facts(explanation.twin)
    if (count := explanation.duplicates.count) > 0:
        yield (
            "stands for",
            "1 row, dropped as its duplicate:" if count == 1 else f"{count} rows, dropped as its duplicates:",
        )


def _is_uid(text: str) -> bool:
    return len(text) == UID_HEX_DIGITS and all(c in "0123456789abcdef" for c in text.lower())


def _children(corpus: Storage, manifest: Manifest, row: dict[str, Any]) -> tuple[str, ...]:
    if row["fate"] != Fate.SPLIT:
        return ()
    return tuple(r[UID.name] for r in find_rows(corpus, list(manifest.ledger), PARENT.name, row[UID.name]))
