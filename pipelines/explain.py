"""Explaining a sample: what became of a row, and why, as far as the corpus still knows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from corpusmith.pipelines.storage import Storage
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
    """

    ledger: dict[str, Any]
    shard: tuple[str, dict[str, Any]] | None
    children: tuple[str, ...]


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
        rows = _find(corpus, list(manifest.ledger), column, value)
        if rows:
            return [
                Explanation(row, _shard_row(corpus, manifest, row), _children(corpus, manifest, row)) for row in rows
            ]
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


def _is_uid(text: str) -> bool:
    return len(text) == UID_HEX_DIGITS and all(c in "0123456789abcdef" for c in text.lower())


def _find(corpus: Storage, paths: Sequence[str], column: str, value: Any) -> list[dict[str, Any]]:
    """Rows of Parquet files whose `column` has the value; one column is read, and whole rows where it is found."""
    found: list[dict[str, Any]] = []
    for path in paths:
        with corpus.parquet(path) as file:
            for group in range(file.num_row_groups):
                hit = pc.equal(file.read_row_group(group, [column]).column(column), pa.scalar(value))
                if pc.any(hit).as_py():
                    found += file.read_row_group(group).filter(hit).to_pylist()
    return found


def _shard_row(corpus: Storage, manifest: Manifest, row: dict[str, Any]) -> tuple[str, dict[str, Any]] | None:
    if row["fate"] != Fate.KEPT:
        return None
    for shard in manifest.shards:
        tar = next(path for path in shard.files if path.endswith(".tar"))
        found = _find(corpus, [tar.removesuffix(".tar") + ".parquet"], UID.name, row[UID.name])
        if found:
            return tar, found[0]
    return None


def _children(corpus: Storage, manifest: Manifest, row: dict[str, Any]) -> tuple[str, ...]:
    if row["fate"] != Fate.SPLIT:
        return ()
    return tuple(r[UID.name] for r in _find(corpus, list(manifest.ledger), PARENT.name, row[UID.name]))
