"""The demo's input: pictures out of installed packages, and a table of where they are found and what is said of them.

About 3,000 rows: icons of `fontawesomefree` (CC-BY-4.0), photos of scikit-image and scikit-learn (CC0, public domain,
CC-BY-2.0; see `photos`), and, where Debian's `openclipart-svg` is installed, some of its drawings (public domain).
Every row names its package and licence. Which picture is served in which way, which row comes twice, and what kind of
text it has is chosen by hash, so the table is the same everywhere for the same packages.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from corpusmith.pipelines.demo import clipart
from corpusmith.pipelines.demo.choice import choose, fraction
from corpusmith.pipelines.demo.clipart import clipart_pictures
from corpusmith.pipelines.demo.icons import icon_pictures
from corpusmith.pipelines.demo.photos import photo_pictures
from corpusmith.pipelines.demo.render import Picture, write_picture
from corpusmith.pipelines.demo.server import PICTURES_DIR, ROWS_FILE, Way, write_table
from corpusmith.schemas.errors import UserError

WAY_WEIGHTS: Mapping[str, float] = {
    Way.PLAIN: 0.855,
    Way.MOVED: 0.03,
    Way.GONE: 0.04,
    Way.FLAKY: 0.02,
    Way.PAGE: 0.02,
    Way.SLOW: 0.01,
    Way.OPTED_OUT: 0.01,
    Way.TRUNCATED: 0.01,
    Way.ELSEWHERE: 0.005,
}
MIRRORED_SHARE = 0.06
REPEATED_SHARE = 0.03
RENDERERS = 2
POOL_FROM_PICTURES = 100
"""Fewer pictures than this are drawn sooner than processes start."""


class Row(NamedTuple):
    """One row of the table; `path` is the address without its server."""

    path: str
    caption: str | None
    source: str
    license: str


ROWS_SCHEMA = pa.schema([(name, pa.string()) for name in Row._fields])


@dataclass(frozen=True)
class DemoInput:
    """What `prepare` made.

    Args:
        folder: holds `pictures/` and `rows.parquet`; give it to `DemoServer`.
        pictures: number of pictures on disk.
        rows: number of rows of the table.
        ways: rows for each way of serving.
        sources: rows for each package.
        notes: what a person should know: a source that is absent, drawings that could not be drawn.
    """

    folder: Path
    pictures: int
    rows: int
    ways: Mapping[str, int]
    sources: Mapping[str, int]
    notes: tuple[str, ...]


def prepare(
    folder: Path,
    *,
    progress: Callable[[int, int], None] | None = None,
    limit: int | None = None,
    clipart_folder: Path = clipart.DEFAULT_FOLDER,
) -> DemoInput:
    """Draw the demo's pictures below `folder`; what is there already is kept.

    Args:
        folder: made if absent.
        progress: called with the number of pictures drawn and to draw.
        limit: number of pictures at most, chosen by hash; None for all.
        clipart_folder: SVG files of `openclipart-svg`; left out if absent.

    Raises:
        UserError: the packages of the extra `demo` are not installed.
    """
    pictures, notes = _choose_pictures(clipart_folder, limit)
    target = folder / PICTURES_DIR
    target.mkdir(parents=True, exist_ok=True)
    failed = _draw_missing(pictures, target, progress)
    drawn = [picture for picture in pictures if picture.key not in failed]
    rows = [row for picture in drawn for row in _rows_of(picture)]
    write_table(folder / ROWS_FILE, pa.Table.from_pylist([row._asdict() for row in rows], schema=ROWS_SCHEMA))
    return DemoInput(
        folder=folder,
        pictures=len(drawn),
        rows=len(rows),
        ways=Counter(row.path.split("/", 1)[0] for row in rows),
        sources=Counter(row.source for row in rows),
        notes=(*notes, *_failure_notes(failed)),
    )


def _choose_pictures(clipart_folder: Path, limit: int | None) -> tuple[list[Picture], list[str]]:
    pictures = [
        *icon_pictures(_package_folder("fontawesomefree")),
        *photo_pictures(_package_folder("skimage"), _package_folder("sklearn")),
    ]
    notes = []
    if clipart_folder.is_dir():
        pictures.extend(clipart_pictures(clipart_folder))
    else:
        notes.append(f"no clip art: Debian's openclipart-svg is not installed ({clipart_folder} is absent)")
    if limit is not None:
        pictures = sorted(pictures, key=lambda picture: fraction("limit", picture.key))[:limit]
    return sorted(pictures, key=lambda picture: picture.key), notes


def _package_folder(module: str) -> Path:
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            f"the demo takes pictures from the package {module}, which is not installed",
            hint="pip install 'corpusmith[demo]'",
        )
    return Path(spec.submodule_search_locations[0])


def _rows_of(picture: Picture) -> Iterator[Row]:
    """Rows of one picture: each of its texts under its address, some again as they are or under a mirror's address."""
    way = choose(WAY_WEIGHTS, "way", picture.key)
    for caption in picture.captions:
        row = Row(f"{way}/{picture.key}", caption, picture.source, picture.license)
        yield row
        if fraction("repeated", picture.key, caption or "") < REPEATED_SHARE:
            yield row
    if fraction("mirrored", picture.key) < MIRRORED_SHARE:
        yield Row(f"{Way.MIRROR}/{picture.key}", picture.captions[0], picture.source, picture.license)


def _draw_missing(
    pictures: Sequence[Picture], target: Path, progress: Callable[[int, int], None] | None
) -> dict[str, str]:
    """Draw what is not on disk yet; returns key → why it could not be drawn."""
    missing = [picture for picture in pictures if not (target / picture.key).exists()]
    failed: dict[str, str] = {}
    for i, problem in enumerate(_draw_all(missing, target)):
        if problem is not None:
            failed[missing[i].key] = problem
        if progress is not None:
            progress(i + 1, len(missing))
    return failed


def _draw_all(pictures: Sequence[Picture], target: Path) -> Iterator[str | None]:
    draw = partial(write_picture, folder=target)
    if len(pictures) < POOL_FROM_PICTURES:
        yield from map(draw, pictures)
        return
    with ProcessPoolExecutor(RENDERERS, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(draw, pictures, chunksize=16)


def _failure_notes(failed: Mapping[str, str]) -> Iterator[str]:
    for problem, count in sorted(Counter(failed.values()).items()):
        yield f"{count} drawings left out: {problem}"
