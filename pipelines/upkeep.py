"""Upkeep of a corpus: try failures again, take samples out, clear what is no longer of use."""

from __future__ import annotations

import datetime
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from corpusmith.operators.contract import Annotate
from corpusmith.operators.write.shards import SHARD_COLUMNS, Shards, ShardsConfig
from corpusmith.pipelines.lock import CorpusLock
from corpusmith.pipelines.plan import Plan
from corpusmith.pipelines.run import REMOVED_PATH, WORK_FOLDER, record_of
from corpusmith.pipelines.shelve import SHARDS_FOLDER, file_record
from corpusmith.pipelines.state import ERROR, Store
from corpusmith.pipelines.storage import Storage
from corpusmith.pipelines.stream import REMOVE_STEP, REMOVED_REASON
from corpusmith.pipelines.units import with_column
from corpusmith.pipelines.verify import finished_manifest
from corpusmith.schemas.columns import MEDIA_REF, ROOT, UID
from corpusmith.schemas.errors import UserError
from corpusmith.schemas.fates import Fate
from corpusmith.schemas.manifest import MANIFEST_PATH, FileRecord, Manifest, Removal, ShardRecord


def forget_failures(work: Storage, plan: Plan, *, reason: str | None = None) -> dict[str, int]:
    """Drop published failures, so that the next run tries these rows again.

    Args:
        work: the work folder of a corpus.
        plan: of its recipe.
        reason: only failures whose class contains this text.

    Returns:
        step → failures dropped.
    """
    with CorpusLock(work):
        dropped: dict[str, int] = {}
        for step in plan.steps:
            if isinstance(step.operator, Annotate) and step.operator.stored:
                store = Store(work, plan.store_folder(step), step.operator.produces)
                number = store.compact(store.bits, drop=lambda table: _failures(table, reason))
                if number:
                    dropped[step.id] = number
        return dropped


def _failures(results: pa.Table, reason: str | None) -> pa.Array:
    error = results.column(ERROR)
    if reason is None:
        return pc.is_valid(error)
    return pc.fill_null(pc.match_substring(error, reason, ignore_case=True), False)


@dataclass(frozen=True)
class Cleaned:
    """What a clean-up removed: paths, and their bytes together."""

    paths: tuple[str, ...]
    size_bytes: int


def clean(corpus: Storage, plan: Plan, *, staging: bool = False, dry_run: bool = False) -> Cleaned:
    """Remove what no later run of the present recipe would read.

    Args:
        corpus: the corpus folder.
        plan: of its present recipe.
        staging: also remove staged media and the results that refer to it; a later run makes them again.
        dry_run: only say what would go.
    """
    work = corpus.below(WORK_FOLDER)
    if staging:
        finished_manifest(corpus)
    with CorpusLock(work):
        entries = work.list()
        current = {f"{step.operator.name}-{plan.fingerprints[step.id]}" for step in plan.steps}
        staged = {e.path.split("/")[1] for e in entries if e.path.startswith("media/")} if staging else set()
        in_use = None if staging else _media_in_use(work, plan)
        gone = [e for e in entries if _is_stale(e.path, current - staged, in_use)]
        if not dry_run:
            work.delete(*(e.path for e in gone))
            for folder in ("flow", "tmp"):
                work.delete_folder(folder)
        return Cleaned(tuple(e.path for e in gone), sum(e.size for e in gone))


def _is_stale(path: str, current: set[str], in_use: set[str] | None) -> bool:
    top, _, rest = path.partition("/")
    if top in ("results", "decisions", "media"):
        owner = rest.split("/")[0]
        return owner not in current or (top == "media" and in_use is not None and path not in in_use)
    return top in ("flow", "tmp")


def _media_in_use(work: Storage, plan: Plan) -> set[str]:
    """Paths of the bins that published results refer to."""
    used: set[str] = set()
    for step in plan.steps:
        if any(c.name == "media" for c in step.operator.produces):
            for file in Store(work, plan.store_folder(step), step.operator.produces).files:
                references = work.read_table(file.path, [MEDIA_REF.name]).column(MEDIA_REF.name)
                used.update(r.partition("#")[0] for r in references.to_pylist() if r is not None)
    return used


def remove(corpus: Storage, uids: Sequence[str]) -> int:
    """Take samples, and all that descends from them, out of a finished corpus, and record it.

    Shards that held them are written again; the others stay as they are. The uids are remembered, so that a later run
    of the recipe does not bring the samples back, and their staged bytes are overwritten with zeros.

    Args:
        corpus: a finished corpus.
        uids: of input rows, parents or samples.

    Returns:
        Samples taken out of shards.

    Raises:
        UserError: the corpus is not finished, or none of the uids is known to it.
    """
    work = corpus.below(WORK_FOLDER)
    with CorpusLock(work):
        manifest = finished_manifest(corpus)
        gone = _with_descendants(corpus, manifest, uids)
        _remember(work, gone)
        ledger, kept_before = _rewrite_ledger(corpus, manifest, gone)
        shards = _rewrite_shards(corpus, manifest, gone)
        _blank_staged(work, gone)
        counts = manifest.counts.model_copy(
            update={"kept": manifest.counts.kept - kept_before, "rejected": manifest.counts.rejected + kept_before}
        )
        removal = Removal(at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), samples=kept_before)
        changes = {"shards": shards, "ledger": ledger, "counts": counts, "removals": [*manifest.removals, removal]}
        corpus.publish(MANIFEST_PATH, manifest.model_copy(update=changes).model_dump_json(indent=1).encode())
        return kept_before


def _with_descendants(corpus: Storage, manifest: Manifest, uids: Sequence[str]) -> pa.Array:
    named = pa.array(sorted(set(uids)), pa.string())
    found: list[pa.ChunkedArray] = []
    for path in manifest.ledger:
        table = corpus.read_table(path, [UID.name, ROOT.name, "parent_uid"])
        hit = pc.is_in(table.column(UID.name), value_set=named)
        for relation in (ROOT.name, "parent_uid"):
            hit = pc.or_(hit, pc.is_in(table.column(relation), value_set=named))
        found.append(table.filter(hit).column(UID.name))
    gone = pc.unique(pa.chunked_array([c for column in found for c in column.chunks], pa.string()))
    if not len(gone):
        raise UserError(
            "none of these uids is in the corpus's ledger", where=corpus.root, hint="one uid a line, 32 hex digits"
        )
    return gone


def _remember(work: Storage, gone: pa.Array) -> None:
    known = work.read_table(REMOVED_PATH).column(UID.name).chunks if work.exists(REMOVED_PATH) else []
    every = pc.unique(pa.chunked_array([*known, gone], pa.string()))
    work.publish_table(REMOVED_PATH, pa.table({UID.name: every.sort()}))


def _rewrite_ledger(corpus: Storage, manifest: Manifest, gone: pa.Array) -> tuple[dict[str, FileRecord], int]:
    kept_before = 0
    for path in manifest.ledger:
        table = corpus.read_table(path)
        mask = pc.and_(
            pc.equal(table.column("fate"), Fate.KEPT.value), pc.is_in(table.column(UID.name), value_set=gone)
        )
        number = pc.sum(mask).as_py() or 0
        if number:
            kept_before += number
            for name, value in (("fate", Fate.REJECTED.value), ("step", REMOVE_STEP), ("reason", REMOVED_REASON)):
                table = with_column(table, name, pc.if_else(mask, value, table.column(name)))
            corpus.publish_table(path, table)
    return {path: record_of(corpus, path) for path in manifest.ledger}, kept_before


def _rewrite_shards(corpus: Storage, manifest: Manifest, gone: pa.Array) -> list[ShardRecord]:
    shards: dict[int, ShardRecord] = {}
    empty: list[int] = []
    for shard in manifest.shards:
        rows = _shard_rows(corpus, shard)
        staying = rows.filter(pc.invert(pc.is_in(rows.column(UID.name), value_set=gone)))
        if staying.num_rows == 0:
            empty.append(shard.index)
            shards[shard.index] = shard
        elif staying.num_rows < shard.samples:
            shards[shard.index] = _write_again(corpus, manifest, shard, staying, shard.index)
        else:
            shards[shard.index] = shard
    for index in sorted(empty, reverse=True):
        _close_gap(corpus, manifest, shards, index)
    return [shards[i] for i in sorted(shards)]


def _close_gap(corpus: Storage, manifest: Manifest, shards: dict[int, ShardRecord], index: int) -> None:
    """Fill the place of an emptied shard with the last one: shard numbers have no gaps."""
    last = max(shards)
    if last != index:
        shards[index] = _write_again(corpus, manifest, shards[last], _shard_rows(corpus, shards[last]), index)
    corpus.delete(*shards.pop(last).files)


def _path(shard: ShardRecord, suffix: str) -> str:
    return next(path for path in shard.files if path.endswith(suffix))


def _shard_rows(corpus: Storage, shard: ShardRecord) -> pa.Table:
    return corpus.read_table(_path(shard, ".parquet"))


def _write_again(corpus: Storage, manifest: Manifest, shard: ShardRecord, rows: pa.Table, index: int) -> ShardRecord:
    tar = _path(shard, ".tar")
    config = ShardsConfig(samples_per_shard=manifest.recipe["output"]["samples_per_shard"])
    made = {c.name for c in SHARD_COLUMNS}
    with tempfile.TemporaryDirectory(prefix="corpusmith-") as folder:
        plain = rows.drop_columns([n for n in rows.schema.names if n in made])
        names = Shards(config).write_shard(index, plain, _media(corpus, tar, rows), folder)
        files: dict[str, FileRecord] = {}
        for name in names:
            local = Path(folder) / name
            files[f"{SHARDS_FOLDER}/{name}"] = file_record(local, timed=name.endswith("_stats.json"))
            corpus.publish_file(local, f"{SHARDS_FOLDER}/{name}")
    return ShardRecord(index=index, samples=rows.num_rows, files=files, content="")


def _media(corpus: Storage, tar: str, rows: pa.Table) -> Iterator[bytes | None]:
    offsets, sizes = rows.column("tar_offset").to_pylist(), rows.column("tar_size").to_pylist()
    for offset, size in zip(offsets, sizes, strict=True):
        yield None if offset is None else corpus.read_range(tar, offset, size)


def _blank_staged(work: Storage, gone: pa.Array) -> None:
    """Overwrite the staged bytes of removed samples with zeros; references of others stay valid."""
    spans: dict[str, list[tuple[int, int]]] = {}
    for entry in work.list("results"):
        with work.parquet(entry.path) as parquet:
            if MEDIA_REF.name not in parquet.schema_arrow.names:
                continue
            table = parquet.read([UID.name, MEDIA_REF.name])
        hit = table.filter(pc.is_in(table.column(UID.name), value_set=gone))
        for reference in hit.column(MEDIA_REF.name).to_pylist():
            if reference is not None:
                path, _, span = reference.rpartition("#")
                offset, size = map(int, span.split(":"))
                spans.setdefault(path, []).append((offset, size))
    for path, ranges in spans.items():
        data = bytearray(work.read(path))
        for offset, size in ranges:
            data[offset : offset + size] = bytes(size)
        work.publish(path, bytes(data))
