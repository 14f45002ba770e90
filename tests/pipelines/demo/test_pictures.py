"""The demo's pictures and table: what is drawn can be decoded, and the table holds the dirt that it promises."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from corpusmith.pipelines.demo import pictures as pictures_module
from corpusmith.pipelines.demo.choice import choose, fraction
from corpusmith.pipelines.demo.icons import CAPTION_KINDS, Icon, read_icons
from corpusmith.pipelines.demo.pictures import WAY_WEIGHTS, prepare
from corpusmith.pipelines.demo.render import Drawing, Picture, render, write_picture
from corpusmith.pipelines.demo.server import Way
from corpusmith.schemas.errors import UserError

ABSENT = Path("/nowhere/openclipart")
SQUARE = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 4 2"><path fill="#ff0000" d="M0 0h2v2h-2z"/></svg>'


def drawn(key: str, look: Drawing) -> Image.Image:
    return Image.open(io.BytesIO(render(Picture(key, look, (None,), "test", "none"))))


@pytest.fixture(scope="module")
def plan() -> list[Picture]:
    pictures, _ = pictures_module._choose_pictures(ABSENT, None)
    return pictures


def test_choices_are_stable_and_follow_their_weights() -> None:
    assert fraction("a", "b") == fraction("a", "b")
    assert fraction("a", "b") != fraction("ab")
    counts = Counter(choose({"often": 3, "seldom": 1}, str(i)) for i in range(4000))
    assert 0.70 < counts["often"] / 4000 < 0.80


def test_a_drawing_has_the_format_of_its_name_and_the_colours_of_its_markup() -> None:
    jpeg = drawn("square.jpg", Drawing(SQUARE, 64, "#ffffff"))
    assert (jpeg.format, jpeg.size) == ("JPEG", (64, 32))
    pixels = np.asarray(jpeg.convert("RGB"))
    assert pixels[16, 8, 0] > 240 and pixels[16, 8, 1] < 15 and pixels[16, 56].min() > 240
    transparent = drawn("square.png", Drawing(SQUARE, 64, None))
    assert (transparent.format, np.asarray(transparent.convert("RGBA"))[16, 56, 3]) == ("PNG", 0)


def test_a_drawing_that_cannot_be_drawn_is_told_and_leaves_no_file(tmp_path: Path) -> None:
    broken = Picture("broken.jpg", Drawing("<svg>", 64), (None,), "test", "none")
    assert write_picture(broken, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_some_icons_have_several_styles_under_one_label() -> None:
    package = pictures_module._package_folder("fontawesomefree")
    icons = list(read_icons(package))
    assert len(icons) > 2000
    book = [icon for icon in icons if icon.name == "address-book"]
    assert {icon.style for icon in book} == {"regular", "solid"}
    assert {icon.label for icon in book} == {"Address Book"}


def test_every_kind_of_caption_is_as_it_is_named() -> None:
    icon = Icon("address-book", "solid", "Address Book", ("contact", "index"), "M0 0h1v1z", (0, 0, 1, 1))
    captions = {kind: make(icon) for kind, make in CAPTION_KINDS.items()}
    assert captions["label and terms"] == "Address Book, contact, index"
    assert captions["file name"] == "address-book.svg"
    assert captions["none"] is None
    assert (captions["stuffed"] or "").count("address book icon") == 12
    assert (captions["twice encoded"] or "").startswith("Address Book â€“")
    assert len(set(captions.values())) == len(captions)


def test_the_whole_table_is_of_demo_size_and_holds_every_kind(plan: list[Picture]) -> None:
    rows = [row for picture in plan for row in pictures_module._rows_of(picture)]
    assert 2700 <= len(rows) <= 3300
    assert len({picture.key for picture in plan}) == len(plan)
    ways = Counter(row.path.split("/", 1)[0] for row in rows)
    assert set(ways) == {str(way) for way in Way}
    for way, weight in WAY_WEIGHTS.items():
        assert weight / 2 < ways[way] / len(rows) < weight * 2, way
    repeated = len(rows) - len({(row.path, row.caption) for row in rows})
    texts_of_path = Counter(path for path, _ in {(row.path, row.caption) for row in rows})
    assert repeated > 30
    assert sum(count > 1 for count in texts_of_path.values()) > 150
    assert sum(row.caption is None for row in rows) > 5
    assert sum((row.caption or "").endswith(".svg") for row in rows) > 60
    assert all(row.source and row.license for row in rows)


def test_prepare_draws_decodable_pictures_of_many_shapes(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    demo = prepare(tmp_path, progress=lambda done, total: calls.append((done, total)), limit=90, clipart_folder=ABSENT)
    files = [path for path in (tmp_path / "pictures").rglob("*") if path.is_file()]
    assert len(files) == demo.pictures == 90
    assert calls[-1] == (90, 90) and len(calls) == 90
    formats, sizes = Counter(), []
    for path in files:
        with Image.open(path) as image:
            image.load()
            formats[image.format] += 1
            sizes.append(image.size)
    assert formats["JPEG"] > 20 and formats["PNG"] > 20
    assert min(max(size) for size in sizes) <= 60 and max(max(size) for size in sizes) >= 500
    rows = pq.read_table(tmp_path / "rows.parquet")
    assert rows.num_rows == demo.rows == sum(demo.ways.values()) == sum(demo.sources.values())
    assert any("openclipart-svg" in note for note in demo.notes)


def test_prepare_goes_on_where_it_stopped_and_gives_the_same_bytes(tmp_path: Path) -> None:
    def contents(folder: Path) -> dict[str, bytes]:
        return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}

    prepare(tmp_path / "once", limit=40, clipart_folder=ABSENT)
    prepare(tmp_path / "twice", limit=40, clipart_folder=ABSENT)
    files = sorted((tmp_path / "twice" / "pictures").rglob("*.jpg"))
    kept, lost = files[0], files[1]
    lost.unlink()
    written_ns = kept.stat().st_mtime_ns
    calls: list[tuple[int, int]] = []
    prepare(
        tmp_path / "twice", progress=lambda done, total: calls.append((done, total)), limit=40, clipart_folder=ABSENT
    )
    assert calls == [(1, 1)]
    assert kept.stat().st_mtime_ns == written_ns
    assert contents(tmp_path / "twice") == contents(tmp_path / "once")


def test_many_pictures_are_drawn_by_processes(tmp_path: Path) -> None:
    demo = prepare(tmp_path, limit=pictures_module.POOL_FROM_PICTURES + 20, clipart_folder=ABSENT)
    assert demo.pictures == sum(path.is_file() for path in (tmp_path / "pictures").rglob("*"))


def test_clip_art_is_taken_where_it_is_and_what_cannot_be_drawn_is_noted(tmp_path: Path) -> None:
    folder = tmp_path / "openclipart" / "animals"
    folder.mkdir(parents=True)
    metadata = "<metadata><dc:title>Tux &amp; friends</dc:title><rdf:li>penguin</rdf:li></metadata>"
    named = SQUARE.replace("<svg ", '<svg xmlns:dc="d" xmlns:rdf="r" ').replace("<path", metadata + "<path")
    (folder / "tux.svg").write_text(SQUARE)
    (folder / "named.svg").write_text(named)
    (folder / "broken.svg").write_text("<svg")
    pictures = [
        picture
        for picture in pictures_module._choose_pictures(tmp_path / "openclipart", None)[0]
        if picture.source == "openclipart-svg"
    ]
    captions = {picture.key: picture.captions for picture in pictures}
    assert captions["clipart/animals/tux.jpg"] == ("tux",)
    assert captions["clipart/animals/named.jpg"] == ("Tux & friends, penguin",)
    failed = pictures_module._draw_missing(pictures, tmp_path / "pictures", None)
    assert set(failed) == {"clipart/animals/broken.jpg"}
    assert sum(path.is_file() for path in (tmp_path / "pictures").rglob("*")) == 2
    (note,) = pictures_module._failure_notes(failed)
    assert note.startswith("1 drawings left out: ")


def test_an_absent_package_is_told_with_what_to_install() -> None:
    with pytest.raises(UserError, match="corpusmith\\[demo\\]"):
        pictures_module._package_folder("no_such_package_of_pictures")
