"""The status of a corpus, finished or not, from what is published."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator

from corpusmith.pipelines.run import RECIPE_PATH, WORK_FOLDER, read_manifest
from corpusmith.pipelines.state import ERROR
from corpusmith.pipelines.storage import Storage


def corpus_status(corpus: Storage) -> Iterator[str]:
    """Lines that say whether the corpus is finished, who works on it, and what each step has published."""
    work = corpus.below(WORK_FOLDER)
    manifest = read_manifest(corpus)
    if manifest is not None:
        counts = manifest.counts
        yield f"{manifest.corpus}: finished {manifest.created}, {len(manifest.shards)} shards"
        yield f"  {counts.rows_in:,} rows in, {counts.rows_made:,} made, {counts.duplicates:,} duplicates"
        yield f"  {counts.kept:,} kept, {counts.rejected:,} rejected, {counts.failed:,} failed, {counts.split:,} split"
        yield from (f"  {removal.samples:,} samples removed {removal.at}" for removal in manifest.removals)
    elif work.exists(RECIPE_PATH):
        yield "not finished: run the recipe again to go on"
    else:
        yield "no corpus here"
    if work.exists("lock.json"):
        holder = json.loads(work.read("lock.json"))
        yield f"locked by process {holder.get('pid')} on {holder.get('host')}"
    yield from _published(work)


def _published(work: Storage) -> Iterator[str]:
    rows: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for entry in work.list("results"):
        folder = entry.path.split("/")[1]
        errors = work.read_table(entry.path, [ERROR]).column(ERROR)
        rows[folder] += len(errors)
        failed[folder] += len(errors) - errors.null_count
        sizes[folder] += entry.size
    for entry in work.list("media"):
        sizes[entry.path.split("/")[1]] += entry.size
    if rows:
        yield "published results (step-fingerprint: rows, failures among them, size with media)"
    for folder in sorted(rows):
        yield f"  {folder}: {rows[folder]:,}, {failed[folder]:,}, {sizes[folder] / 1e6:.1f} MB"
