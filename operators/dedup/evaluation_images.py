"""Hashes of the images of an evaluation set: a folder, tars, or a finished corpus.

Hashed by the operators' own code, once: the hashes are kept in the user's cache folder ($XDG_CACHE_HOME, by default
~/.cache) under a fingerprint of what the files are (path, size, time of change) and of how they are hashed. Where that
folder cannot be written, they are made again for each use.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path, PurePosixPath

from corpusmith.operators.contract import AnnotateRows
from corpusmith.operators.dedup.pdq import PDQ, Pdq
from corpusmith.operators.dedup.phash import PHASH, Phash
from corpusmith.operators.sources.files import SourceFile, label, shown
from corpusmith.operators.sources.listing import list_files
from corpusmith.operators.sources.samples import MEDIA_EXTENSIONS
from corpusmith.operators.sources.streams import open_stored
from corpusmith.operators.sources.tar_table import read_tar
from corpusmith.schemas.columns import MEDIA
from corpusmith.schemas.errors import UserError
from corpusmith.schemas.fates import RowFailed

HASHERS: Mapping[str, type[AnnotateRows]] = {PHASH.name: Phash, PDQ.name: Pdq}

_AT_ONCE = 64
"""Images in memory at a time, for each thread."""
_THREADS = 4

Named = tuple[str, str]
"""Name of an image and its hash, or why it has none."""


def image_hashes(paths: Sequence[str], kind: str, *, skip_unreadable: bool) -> list[Named]:
    """Name and hash of each image, by name.

    Args:
        paths: folders of images, tars, folders or patterns of tars, folders of finished corpora; local or as URLs.
        kind: `phash` or `pdq`.
        skip_unreadable: leave out what cannot be hashed.

    Raises:
        UserError: a path holds no images, or an image cannot be hashed; names the first of them by name.
    """
    files = list_files(paths)
    strange = next((file for file in files if file.kind not in ("folder", "webdataset", "img2dataset")), None)
    if strange is not None:
        hint = "images are a folder of image files, tars, or a finished corpus; hashes in a table go under `hashes`"
        raise UserError("this holds no images", where=shown(strange.path), hint=hint)
    found, unreadable = _kept(files, kind) or _keep(files, kind, _hashed(files, kind))
    if unreadable and not skip_unreadable:
        name, why = unreadable[0]
        more = f" (and {len(unreadable) - 1} others)" if len(unreadable) > 1 else ""
        hint = "mend or remove it, or set skip_unreadable: true to compare with the others alone"
        raise UserError(f"an evaluation image cannot be hashed: {why}{more}", where=name, hint=hint)
    if not found:
        raise UserError("the evaluation set has no readable image", where=", ".join(shown(path) for path in paths))
    return found


def _hashed(files: Sequence[SourceFile], kind: str) -> tuple[list[Named], list[Named]]:
    """Names with hashes, and names with why there is none."""
    hasher = HASHERS[kind]()
    hasher.setup()

    def work(image: tuple[str, bytes | str]) -> tuple[str, str, bool]:
        name, data = image
        if isinstance(data, str):
            return name, data, False
        try:
            return name, hasher.process_row({MEDIA.name: data})[kind], True
        except RowFailed as failure:
            return name, str(failure), False

    results: list[tuple[str, str, bool]] = []
    images = _images(files)
    with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as pool:
        while some := list(islice(images, _AT_ONCE * _THREADS)):
            results += pool.map(work, some)
    results.sort()
    return [(n, text) for n, text, is_hash in results if is_hash], [(n, w) for n, w, is_hash in results if not is_hash]


def _images(files: Sequence[SourceFile]) -> Iterator[tuple[str, bytes | str]]:
    """Name and bytes of each image, or why there are none."""
    for file in files:
        if file.kind == "folder":
            path = PurePosixPath(file.path)
            if path.suffix.lower()[1:] in MEDIA_EXTENSIONS:
                with open_stored(file.path) as stored:
                    yield str(path.relative_to(file.root)), stored.read()
        elif file.path.lower().endswith(".tar"):
            yield from _images_of_tar(file)


def _images_of_tar(file: SourceFile) -> Iterator[tuple[str, bytes | str]]:
    with open_stored(file.path) as stored:
        for sample in read_tar(file, is_hashed=False):
            name = f"{label(file.path)}/{sample.key}"
            if sample.problem or sample.media is None:
                yield name, sample.problem or "no member of the sample is an image"
                continue
            stored.seek(sample.media[0].offset, io.SEEK_SET)
            yield name, stored.read(sample.media[0].size)


def _place(files: Sequence[SourceFile], kind: str) -> Path:
    """Where the hashes of these files are kept."""
    how = [kind, HASHERS[kind].version]
    what = [[file.path, file.size, file.stamp, file.kind] for file in files]
    digest = hashlib.sha256(json.dumps([how, what]).encode()).hexdigest()
    folder = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    return Path(folder) / "corpusmith" / "evaluation_images" / f"{digest}.json"


def _kept(files: Sequence[SourceFile], kind: str) -> tuple[list[Named], list[Named]] | None:
    if not all(file.stamp for file in files):
        return None  # nothing would tell that a file has changed
    try:
        found, unreadable = json.loads(_place(files, kind).read_text())
        return [(n, h) for n, h in found], [(n, w) for n, w in unreadable]
    except (OSError, ValueError):
        return None


def _keep(
    files: Sequence[SourceFile], kind: str, results: tuple[list[Named], list[Named]]
) -> tuple[list[Named], list[Named]]:
    place = _place(files, kind)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place.parent) as folder:
            written = Path(folder) / place.name
            written.write_text(json.dumps(results))
            written.replace(place)
    except OSError:
        pass  # a folder that cannot be written costs hashing again, and nothing else
    return results
