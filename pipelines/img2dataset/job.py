"""A run of `corpusmith download`: what there is to do, what is done already, and the work.

Shards are the state: one whose `_stats.json` is there is done. Nothing else is kept between runs.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from corpusmith.pipelines.img2dataset.flags import Flags
from corpusmith.pipelines.img2dataset.flow import Flow
from corpusmith.pipelines.img2dataset.inputs import InputShard, input_shards
from corpusmith.pipelines.img2dataset.previous import Previous, retried
from corpusmith.pipelines.img2dataset.shards import STATS_SUFFIX, OpenShard
from corpusmith.pipelines.img2dataset.telling import Telling
from corpusmith.pipelines.storage import Storage

SCRATCH = "_tmp"
_STATS = re.compile(rf"(\d+){re.escape(STATS_SUFFIX)}")


def run_job(flags: Flags, telling: Telling) -> None:
    """Download, to the end.

    Raises:
        UserError: the input cannot be read, the output not be written, or a flag does not fit what is there.
    """
    storage = Storage(flags.output_folder)
    if flags.dry_run:
        _tell_plan(flags, storage, telling)
        return
    if flags.incremental_mode == "overwrite":
        storage.delete_folder("")
    with _scratch(storage) as scratch, Flow(flags, telling) as flow:
        flow.run(_open_shards(flags, storage, scratch))


def done_shards(storage: Storage) -> set[int]:
    """Numbers of the shards that are done."""
    try:
        names = storage.fs.ls(storage.full(""), detail=False)
    except FileNotFoundError:
        return set()
    matches = (_STATS.fullmatch(PurePosixPath(name).name) for name in names)
    return {int(match[1]) for match in matches if match}


def _shards(flags: Flags, storage: Storage) -> Iterator[tuple[InputShard, Previous | None]]:
    """The shards that there is work for, with what an earlier run left of those that are retried."""
    done = done_shards(storage)
    is_extended = flags.incremental_mode == "extend" and done
    first = max(done) + 1 if is_extended else 0
    for shard in input_shards(flags, first):
        if shard.number not in done:
            yield shard, None
        elif flags.incremental_mode == "retry":
            previous = retried(storage, shard, flags)
            if previous is not None:
                yield shard, previous


def _open_shards(flags: Flags, storage: Storage, scratch: Path) -> Iterator[OpenShard]:
    for shard, previous in _shards(flags, storage):
        yield OpenShard(shard, flags, storage, scratch, previous)


def _tell_plan(flags: Flags, storage: Storage, telling: Telling) -> None:
    shards = rows = 0
    for shard, previous in _shards(flags, storage):
        shards += 1
        rows += shard.rows.num_rows if previous is None else len(previous.failed)
    done = 0 if flags.incremental_mode == "overwrite" else len(done_shards(storage))
    telling.say(f"to do: {rows:,} rows in {shards:,} shards; done: {done:,} shards in {storage.root}")


@contextmanager
def _scratch(storage: Storage) -> Iterator[Path]:
    """A local folder for what is not finished, on the file system of the output if that is local; gone afterwards."""
    if not storage.is_local:
        with tempfile.TemporaryDirectory(prefix="corpusmith-download-") as folder:
            yield Path(folder)
        return
    folder = Path(storage.full(SCRATCH))
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
