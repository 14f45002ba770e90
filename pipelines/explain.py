"""Explaining a sample: what became of a row, step by step, as far as the corpus still knows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from corpusmith.pipelines.storage import Storage
from corpusmith.pipelines.verify import finished_manifest
from corpusmith.schemas.columns import UID
from corpusmith.schemas.errors import UserError
from corpusmith.schemas.ledger import url_hash
from corpusmith.schemas.manifest import Manifest


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
        wanted: a uid, or a URL as the input gave it, secrets included.

    Raises:
        UserError: no sample has that uid or URL.
    """
    manifest = finished_manifest(corpus)
    column, value = ("url_hash", url_hash(wanted)) if not _is_uid(wanted) else (UID.name, wanted)
    rows = _find(corpus, list(manifest.ledger), column, value)
    if not rows:
        raise UserError(
            f"no sample of this corpus has that {'URL' if column == 'url_hash' else 'uid'}",
            where=corpus.root,
            hint="give the URL exactly as the input has it, or a uid from the ledger or the shards' Parquet files",
        )
    return [Explanation(row, _shard_row(corpus, manifest, row), _children(corpus, manifest, row)) for row in rows]


def _is_uid(text: str) -> bool:
    return len(text) == 32 and all(c in "0123456789abcdef" for c in text)


def _find(corpus: Storage, paths: Sequence[str], column: str, value: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for path in paths:
        table = corpus.read_table(path)
        found += table.filter(pc.equal(table.column(column), pa.scalar(value))).to_pylist()
    return found


def _shard_row(corpus: Storage, manifest: Manifest, row: dict[str, Any]) -> tuple[str, dict[str, Any]] | None:
    if row["fate"] != "kept":
        return None
    for shard in manifest.shards:
        tar = next(path for path in shard.files if path.endswith(".tar"))
        found = _find(corpus, [tar.replace(".tar", ".parquet")], UID.name, row[UID.name])
        if found:
            return tar, found[0]
    return None


def _children(corpus: Storage, manifest: Manifest, row: dict[str, Any]) -> tuple[str, ...]:
    if row["fate"] != "split":
        return ()
    return tuple(r[UID.name] for r in _find(corpus, list(manifest.ledger), "parent_uid", row[UID.name]))
