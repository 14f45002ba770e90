"""Drawings of Debian's `openclipart-svg`, where that package is installed: titles and tags that people typed in haste.

The drawings are in the public domain. Those that the renderer cannot draw (about a third, most for want of a usable
size) are counted by the caller.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from pathlib import Path

from corpusmith.pipelines.demo.choice import choose, fraction
from corpusmith.pipelines.demo.render import Drawing, Picture

SOURCE = "openclipart-svg"
LICENSE = "public domain"
DEFAULT_FOLDER = Path("/usr/share/openclipart/svg")
DRAWINGS_AT_MOST = 400
BYTES_AT_MOST = 300_000
WIDTH_WEIGHTS = {"256": 0.5, "320": 0.3, "400": 0.2}

TITLE = re.compile(r"<dc:title>([^<]*)</dc:title>")
TAG = re.compile(r"<rdf:li>([^<]*)</rdf:li>")


def clipart_pictures(folder: Path) -> Iterator[Picture]:
    """Pictures of some drawings, chosen by the hash of their names.

    Args:
        folder: the package's folder of SVG files, one folder below for each subject.
    """
    files = (path for path in sorted(folder.rglob("*.svg")) if path.is_file() and path.stat().st_size <= BYTES_AT_MOST)
    named = {_name(path, folder): path for path in files}
    for name in sorted(named, key=lambda name: fraction("clip art", name))[:DRAWINGS_AT_MOST]:
        key = f"clipart/{name}.jpg"
        path = named[name]
        markup = path.read_text(encoding="utf-8", errors="replace")
        drawing = Drawing(markup, int(choose(WIDTH_WEIGHTS, "width", key)))
        yield Picture(key, drawing, (_caption(markup, path.stem),), SOURCE, LICENSE)


def _name(path: Path, folder: Path) -> str:
    return re.sub(r"[^A-Za-z0-9_/-]", "_", path.relative_to(folder).with_suffix("").as_posix())


def _caption(markup: str, stem: str) -> str:
    title = TITLE.search(markup)
    texts = [title.group(1) if title else stem, *TAG.findall(markup)]
    return ", ".join(html.unescape(text).strip() for text in texts if text.strip()) or stem
