"""Verifying a finished corpus: what the manifest promises is what lies there, and every row has one fate."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import BinaryIO, cast

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import ValidationError

from corpusmith.operators.write.check import check_shard
from corpusmith.pipelines.shelve import SHARDS_FOLDER
from corpusmith.pipelines.storage import Storage
from corpusmith.schemas.columns import UID
from corpusmith.schemas.errors import UserError
from corpusmith.schemas.fates import Fate, conservation_gap
from corpusmith.schemas.ledger import LEDGER_FOLDER, LEDGER_SCHEMA
from corpusmith.schemas.manifest import MANIFEST_PATH, WORK_FOLDER, FileRecord, Manifest, ShardRecord

READ_BYTES = 1 << 20
PENDING_REMOVAL = f"{WORK_FOLDER}/removal/manifest.json"
"""There while a removal is under way: the manifest that it ends with."""


def finished_manifest(corpus: Storage) -> Manifest:
    """The manifest of a corpus.

    Raises:
        UserError: there is none, so the folder holds no finished corpus; or it cannot be read.
    """
    try:
        return Manifest.model_validate_json(corpus.read(MANIFEST_PATH))
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(
            "there is no manifest here: no corpus, or one whose run has not ended",
            where=corpus.root,
            hint="see `corpusmith status`; run the recipe again to go on",
        ) from None
    except ValidationError as error:
        raise UserError(
            f"the manifest is damaged, or of another version of corpusmith: {_first_line(error)}",
            where=f"{corpus.root}/{MANIFEST_PATH}",
            hint="delete it and run the recipe again: published results are used",
        ) from error


def _first_line(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(map(str, first["loc"]))
    return f"{place}: {first['msg']}" if place else first["msg"]


def verify(corpus: Storage, told: Callable[[str], None] = lambda _: None) -> list[str]:
    """Check a finished corpus; returns the problems found, none if it is sound.

    Args:
        corpus: the corpus folder.
        told: called with a line for each stage.
    """
    manifest = finished_manifest(corpus)
    told(f"{len(manifest.shards):,} shards, {manifest.counts.kept:,} samples: files and hashes")
    problems = list(_files(corpus, manifest))
    if corpus.exists(PENDING_REMOVAL):
        problems.append("a removal was interrupted: `corpusmith remove` with the same uids ends it")
    if problems:
        return problems
    told("shards: tar and Parquet agree")
    kept: list[pa.Array] = []
    for shard in manifest.shards:
        problems += _shard(corpus, shard, kept)
    told("ledger: one fate each")
    return problems + list(_ledger(corpus, manifest, kept))


def _files(corpus: Storage, manifest: Manifest) -> Iterator[str]:
    yield from _numbers(manifest)
    expected: dict[str, FileRecord] = dict(manifest.ledger)
    for shard in manifest.shards:
        expected.update(shard.files)
    present = {e.path: e.size for folder in (SHARDS_FOLDER, LEDGER_FOLDER) for e in corpus.list(folder)}
    for path in sorted(present.keys() - expected.keys()):
        yield f"{path}: not in the manifest"
    for path, record in expected.items():
        if path not in present:
            yield f"{path}: missing"
        elif present[path] != record.size_bytes:
            yield f"{path}: {present[path]} bytes, the manifest says {record.size_bytes}"
        elif record.sha256 and _sha256(corpus, path) != record.sha256:
            yield f"{path}: its sha256 is not the manifest's"


def _numbers(manifest: Manifest) -> Iterator[str]:
    """Shards are numbered from 0 without gaps, in the manifest and in their names."""
    indices = [shard.index for shard in manifest.shards]
    gaps = sorted(set(range(max(indices, default=-1) + 1)) - set(indices))
    if gaps:
        yield f"shard numbers have gaps: {', '.join(map(str, gaps[:10]))} missing"
    elif indices != list(range(len(indices))):
        yield "shard numbers are out of order, or some come twice"
    for shard in manifest.shards:
        for suffix in (".tar", ".parquet"):
            if not any(path.endswith(suffix) for path in shard.files):
                yield f"shard {shard.index}: the manifest lists no {suffix} file"
        for path in shard.files:
            digits = path.removeprefix(f"{SHARDS_FOLDER}/").split(".")[0].split("_")[0]
            if not digits.isdecimal() or int(digits) != shard.index:
                yield f"{path}: the manifest lists it under shard {shard.index}"


def _sha256(corpus: Storage, path: str) -> str:
    digest = hashlib.sha256()
    with corpus.open(path) as file:
        while piece := file.read(READ_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def _shard(corpus: Storage, shard: ShardRecord, kept: list[pa.Array]) -> list[str]:
    tar = next(path for path in shard.files if path.endswith(".tar"))
    parquet = next(path for path in shard.files if path.endswith(".parquet"))
    with corpus.open(tar) as tar_file, corpus.open(parquet) as parquet_file:
        found = check_shard(cast(BinaryIO, tar_file), cast(BinaryIO, parquet_file))
        problems = [f"{tar}: {problem}" for problem in found]
    uids = corpus.read_table(parquet, [UID.name]).column(UID.name)
    if len(uids) != shard.samples:
        problems.append(f"{parquet}: {len(uids)} rows, the manifest says {shard.samples}")
    kept += uids.chunks
    return problems


def _ledger(corpus: Storage, manifest: Manifest, kept: list[pa.Array]) -> Iterator[str]:
    columns = [UID.name, "fate", "children"]
    tables = [corpus.read_table(path, columns) for path in manifest.ledger]
    schema = pa.schema([LEDGER_SCHEMA.field(name) for name in columns])
    ledger = pa.concat_tables([schema.empty_table(), *tables])
    counts = manifest.counts
    fates = {pair["values"]: pair["counts"] for pair in pc.value_counts(ledger.column("fate")).to_pylist()}
    children = pc.sum(ledger.column("children")).as_py() or 0
    if pc.count_distinct(ledger.column(UID.name)).as_py() != ledger.num_rows:
        yield "ledger: some uid has more than one fate"
    if unknown := set(fates) - set(Fate):
        yield f"ledger: unknown fates {sorted(map(str, unknown))}"
    for fate in Fate:
        found, promised = fates.get(fate.value, 0), getattr(counts, fate.value)
        if found != promised:
            yield f"ledger: {found} rows {fate.value}, the manifest says {promised}"
    if conservation_gap(counts.rows_in, children, fates):
        yield f"ledger: {counts.rows_in} rows in and {children} made do not add up to the fates {fates}"
    if children != counts.rows_made:
        yield f"ledger: {children} rows made by splits, the manifest says {counts.rows_made}"
    in_shards = pa.chunked_array(kept, pa.string())
    in_ledger = ledger.filter(pc.equal(ledger.column("fate"), Fate.KEPT.value)).column(UID.name)
    if pc.count_distinct(in_shards).as_py() != len(in_shards):
        yield "shards: some uid is there more than once"
    stray = pc.sum(pc.invert(pc.is_in(in_shards, value_set=in_ledger.combine_chunks()))).as_py() or 0
    if stray or len(in_shards) != len(in_ledger):
        yield f"shards hold {len(in_shards)} samples, {stray} of them not in the ledger, which keeps {len(in_ledger)}"
