"""The status of a corpus, finished or not, from what is published."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pyarrow.parquet as pq

from corpusmith.pipelines.describe import size_text
from corpusmith.pipelines.lock import lock_text
from corpusmith.pipelines.run import RECIPE_PATH
from corpusmith.pipelines.state import ERROR
from corpusmith.pipelines.storage import Storage
from corpusmith.pipelines.verify import finished_manifest
from corpusmith.schemas.errors import UserError
from corpusmith.schemas.manifest import MANIFEST_PATH, WORK_FOLDER, Manifest


def corpus_status(corpus: Storage) -> Iterator[str]:
    """Lines that say whether the corpus is finished, who works on it, and what each step has published.

    Raises:
        UserError: no run was ever started here.
    """
    work = corpus.below(WORK_FOLDER)
    if corpus.exists(MANIFEST_PATH):
        yield from _finished(finished_manifest(corpus))
    elif work.exists(RECIPE_PATH):
        yield "not finished: the same `corpusmith run` goes on with it"
    else:
        raise UserError(
            "there is no corpus here, and no run was started", where=corpus.root, hint="start one with `corpusmith run`"
        )
    held = lock_text(work)
    if held is not None:
        yield held
    yield from _published(work)


def _finished(manifest: Manifest) -> Iterator[str]:
    counts = manifest.counts
    size = sum(f.size_bytes for shard in manifest.shards for f in shard.files.values())
    yield f"{manifest.corpus}: finished {manifest.created}, {len(manifest.shards):,} shards, {size_text(size)}"
    yield f"  {counts.rows_in:,} rows in, {counts.rows_made:,} made, {counts.duplicates:,} duplicates counted apart"
    yield f"  {counts.kept:,} kept, {counts.rejected:,} rejected, {counts.failed:,} failed, {counts.split:,} split"
    for removal in manifest.removals:
        yield f"  {removal.samples:,} samples removed {removal.at}"


def _valid_values(parquet: pq.ParquetFile, column: str) -> int:
    """Values of a column that are not null, by the file's footer: the rows are not read."""
    index = parquet.schema_arrow.get_field_index(column)
    groups = [parquet.metadata.row_group(g).column(index) for g in range(parquet.num_row_groups)]
    return sum(group.num_values - group.statistics.null_count for group in groups)


def _published(work: Storage) -> Iterator[str]:
    rows: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for entry in work.list("results"):
        folder = entry.path.split("/")[1]
        with work.parquet(entry.path) as parquet:
            rows[folder] += parquet.metadata.num_rows
            failed[folder] += _valid_values(parquet, ERROR)
        sizes[folder] += entry.size
    for entry in work.list("media"):
        sizes[entry.path.split("/")[1]] += entry.size
    if sizes:
        yield "published results, by operator and fingerprint"
    width = max(map(len, sizes), default=0)
    for folder in sorted(sizes):
        failures = f", {failed[folder]:,} of them failures" if failed[folder] else ""
        yield f"  {folder:<{width}}  {rows[folder]:>9,} rows, {size_text(sizes[folder])}{failures}"
