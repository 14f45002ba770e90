"""Twins: of a row dropped as a duplicate the one that goes on in its place, and of that one the rows it stands for.

The ledger alone tells it: a dropped row's reason names its twin, and perhaps the finished corpus that the twin belongs
to. Where that corpus lies stands in the recipe, as `against` of the step that dropped the row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from corpusmith.operators.dedup.groups import Twin
from corpusmith.pipelines.storage import Storage
from corpusmith.pipelines.verify import finished_manifest
from corpusmith.schemas.columns import CAPTION, UID, URL
from corpusmith.schemas.errors import UserError
from corpusmith.schemas.fates import Fate
from corpusmith.schemas.manifest import Manifest

SHOWN_DUPLICATES = 10


@dataclass(frozen=True)
class FoundTwin:
    """The twin of a dropped row, as far as it can be found.

    Args:
        twin: as the reason names it.
        place: where it was looked for, in words: `this corpus`.
        ledger: its ledger row; None where there is none.
        shard: path of its shard's tar and its row there; None unless kept.
    """

    twin: Twin
    place: str
    ledger: dict[str, Any] | None = None
    shard: tuple[str, dict[str, Any]] | None = None


@dataclass(frozen=True)
class Duplicates:
    """The rows that a row stands for.

    Args:
        count: how many.
        first: ledger rows of the first of them by uid, SHOWN_DUPLICATES at most: uid, url and reason.
    """

    count: int
    first: Sequence[dict[str, Any]]


def find_twin(corpus: Storage, manifest: Manifest, row: dict[str, Any]) -> FoundTwin | None:
    """The twin of a ledger row; None for a row that is no duplicate."""
    twin = Twin.named_in(row["reason"]) if row["fate"] == Fate.REJECTED else None
    if twin is None:
        return None
    if twin.corpus is None:
        return _looked_up(corpus, manifest, twin, "this corpus")
    missed = [f"the corpus {twin.corpus}"]
    for folder in _compared_corpora(manifest, row["step"]):
        try:
            other = Storage(folder)
            of_other = finished_manifest(other)
        except UserError:
            missed.append(f"not found at {folder}")
            continue
        if of_other.corpus == twin.corpus:
            found = _looked_up(other, of_other, twin, f"the corpus {twin.corpus} at {folder}")
            if found.ledger is not None:
                return found
            missed.append(f"no longer at {folder}")
    return FoundTwin(twin, ", ".join(missed))


def find_duplicates(corpus: Storage, manifest: Manifest, uid: str) -> Duplicates:
    """The rows of a corpus that were dropped as duplicates of one of its rows."""
    hits = []
    for path in manifest.ledger:
        with corpus.parquet(path) as file:
            for group in range(file.num_row_groups):
                reasons = file.read_row_group(group, ["reason"]).column("reason")
                hit = pc.fill_null(pc.match_substring(reasons, f": of {uid}"), False)
                if pc.any(hit).as_py():
                    hits.append(file.read_row_group(group, [UID.name, URL.name, "reason"]).filter(hit))
    rows = pa.concat_tables(hits).sort_by(UID.name).to_pylist() if hits else []
    named = [row for row in rows if Twin.named_in(row["reason"]) == Twin(uid)]
    return Duplicates(len(named), named[:SHOWN_DUPLICATES])


def twin_facts(found: FoundTwin) -> Iterator[tuple[str, Any]]:
    """A twin in words."""
    if found.ledger is None:
        yield "twin", f"{found.twin.uid}, a sample of {found.place}"
        return
    yield "twin", f"{found.twin.uid}, {found.ledger['fate']} in {found.place}"
    facts = {name: found.ledger[name] for name in (URL.name, "step", "reason", "error")}
    if found.shard is not None:
        tar, sample = found.shard
        facts |= {CAPTION.name: sample.get(CAPTION.name), "shard": f"{tar}, key {sample['key']}"}
    yield from ((f"twin's {name}", value) for name, value in facts.items() if value not in (None, ""))


def duplicate_lines(found: Duplicates) -> Iterator[str]:
    """The first of the rows that a row stands for, a line each: uid, what it shares, and its URL."""
    for row in found.first:
        shared = row["reason"].rpartition(": of ")[0]
        yield "  ".join(filter(None, (row[UID.name], shared, row[URL.name])))
    if found.count > len(found.first):
        yield f"and {found.count - len(found.first)} more"


def _compared_corpora(manifest: Manifest, step_id: str) -> list[str]:
    """Folders of the corpora that a step compared its rows with."""
    params = [step["params"] for step in manifest.recipe["steps"] if (step["id"] or step["name"]) == step_id]
    return [folder for given in params if isinstance(given, dict) for folder in given.get("against") or ()]


def _looked_up(corpus: Storage, manifest: Manifest, twin: Twin, place: str) -> FoundTwin:
    rows = find_rows(corpus, list(manifest.ledger), UID.name, twin.uid)
    return FoundTwin(twin, place, rows[0], shard_row(corpus, manifest, rows[0])) if rows else FoundTwin(twin, place)


def find_rows(corpus: Storage, paths: Sequence[str], column: str, value: Any) -> list[dict[str, Any]]:
    """Rows of Parquet files whose `column` has the value; one column is read, and whole rows where it is found."""
    found: list[dict[str, Any]] = []
    for path in paths:
        with corpus.parquet(path) as file:
            for group in range(file.num_row_groups):
                hit = pc.equal(file.read_row_group(group, [column]).column(column), pa.scalar(value))
                if pc.any(hit).as_py():
                    found += file.read_row_group(group).filter(hit).to_pylist()
    return found


def shard_row(corpus: Storage, manifest: Manifest, row: dict[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """Path of the tar that holds a kept ledger row's sample, and the sample's row beside it; None unless kept."""
    if row["fate"] != Fate.KEPT:
        return None
    for shard in manifest.shards:
        tar = next(path for path in shard.files if path.endswith(".tar"))
        found = find_rows(corpus, [tar.removesuffix(".tar") + ".parquet"], UID.name, row[UID.name])
        if found:
            return tar, found[0]
    return None
