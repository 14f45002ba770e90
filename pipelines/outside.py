"""Media in files that belong to the user: read in place, by range reads, and never written, moved or deleted.

Before bytes are taken, the file's state is compared with that which its reference names (one `fstat` of the open file
on a disk; one request a minute for each file of an object store). A file that was written again since it was read in,
or is gone, ends the run with an error that says so: its bytes might be those of another sample.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import fsspec

from corpusmith.operators.sources.files import shown, stamp_of, told
from corpusmith.operators.sources.references import Reference, mark_of
from corpusmith.pipelines.storage import Span, read_spans
from corpusmith.schemas.errors import UserError

CHECKED_FOR_S = 60.0
"""A file of an object store that was as it should be is not asked again within this time."""

_CHECKED_AT_MOST = 100_000


def read_outside(references: Sequence[Reference]) -> list[bytes]:
    """The bytes that references lead to, in their order; neighbours in one read.

    Raises:
        UserError: a file has changed since the input was read, is gone, or cannot be read.
    """
    marks = {reference.path: reference.mark for reference in references}
    clash = next((r for r in references if r.mark != marks[r.path]), None)
    if clash is not None:
        raise _changed(clash.path)
    found: list[bytes] = [b""] * len(references)
    for is_remote in (False, True):
        chosen = [i for i, r in enumerate(references) if ("://" in r.path) == is_remote]
        spans = [(references[i].path, references[i].offset, references[i].size) for i in chosen]
        fetch = _fetch_remote if is_remote else _fetch_local
        read = read_spans(spans, lambda runs, fetch=fetch: fetch(runs, marks), lambda path, _: _changed(path))
        for i, data in zip(chosen, read, strict=True):
            found[i] = data
    return found


def _fetch_local(spans: Sequence[Span], marks: dict[str, str]) -> Iterator[bytes]:
    for path, start, size in spans:
        try:
            with Path(path).open("rb", buffering=0) as file:
                status = os.fstat(file.fileno())
                if mark_of(status.st_size, str(status.st_mtime)) != marks[path]:
                    raise _changed(path)
                file.seek(start)
                data = file.read(size)
        except OSError as error:
            raise _unreadable(path, error) from error
        yield data


def _fetch_remote(spans: Sequence[Span], marks: dict[str, str]) -> Iterator[bytes]:
    by_store: dict[str, list[int]] = {}
    for i, (path, _, _) in enumerate(spans):
        by_store.setdefault(path.partition("://")[0], []).append(i)
    found: dict[int, bytes] = {}
    for chosen in by_store.values():
        fs = _file_system(spans[chosen[0]][0].partition("://")[0])
        _check(fs, {spans[i][0] for i in chosen}, marks)
        paths = [fs._strip_protocol(spans[i][0]) for i in chosen]
        starts = [spans[i][1] for i in chosen]
        ends = [spans[i][1] + spans[i][2] for i in chosen]
        try:
            read = fs.cat_ranges(paths, starts, ends, on_error="raise")
        except Exception as error:
            raise _unreadable(spans[chosen[0]][0], error) from error
        found.update(zip(chosen, read, strict=True))
    yield from (found[i] for i in range(len(spans)))


@lru_cache(64)
def _file_system(protocol: str) -> Any:
    return fsspec.filesystem(protocol, use_listings_cache=False)


_checked: dict[tuple[str, str], float] = {}
_lock = threading.Lock()


def _check(fs: Any, paths: set[str], marks: dict[str, str]) -> None:
    """Compare files of an object store with what they were."""
    now = time.monotonic()
    for path in sorted(paths):
        key = (path, marks[path])
        with _lock:
            if _checked.get(key, -CHECKED_FOR_S) > now - CHECKED_FOR_S:
                continue
        try:
            info = fs.info(fs._strip_protocol(path))
        except Exception as error:
            raise _unreadable(path, error) from error
        if mark_of(int(info.get("size") or 0), stamp_of(info)) != marks[path]:
            raise _changed(path)
        with _lock:
            if len(_checked) >= _CHECKED_AT_MOST:
                _checked.clear()
            _checked[key] = now


def _changed(path: str) -> UserError:
    hint = "start the run again: it reads the input anew, and what was worked out before is used where it still holds"
    return UserError("the input file has changed since it was read", where=shown(path), hint=hint)


def _unreadable(path: str, error: Exception) -> UserError:
    if isinstance(error, FileNotFoundError):
        hint = "put it back where it was: samples of this corpus have their images or videos there"
        return UserError("the input file is gone", where=shown(path), hint=hint)
    detail = getattr(error, "strerror", None) or told(error, path)
    hint = "check that every machine of the run can read it under this path, and start again"
    return UserError(f"the input file cannot be read: {detail}", where=shown(path), hint=hint)
