"""The report page: well-formed, self-contained, bounded, and safe whatever captions, URLs and pictures hold."""

from __future__ import annotations

import base64
import io
import math
import re
import struct
import zlib
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from corpusmith.pipelines.report import charts
from corpusmith.pipelines.report.data import (
    Categories,
    Curve,
    Histogram,
    PoolFacts,
    PoolTable,
    ReasonFacts,
    ReportData,
    SampleCard,
    Shift,
    StepFacts,
)
from corpusmith.pipelines.report.render import MAX_SHEETS, headline, render_report
from corpusmith.pipelines.report.thumbnails import MAX_BYTES, MAX_SIDE_PX, make_thumbnail

VOID = {"meta", "link", "img", "br", "hr", "input", "path", "rect"}
FETCHING = {"src", "href", "srcset", "data", "action", "poster", "xlink:href", "background"}


class Page(HTMLParser):
    """The page as a browser's parser sees it; fails on tags that do not nest."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(html)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"repeated attribute in {self.get_starttag_text()}"
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing, at {self.getpos()}"

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("style", "script"):
            self.texts.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.texts))

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def encoded(picture: Image.Image, form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, form)
    return buffer.getvalue()


def noise(seed: int, side: int = 160) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return encoded(Image.fromarray(pixels), "JPEG")


def sample(i: int = 0, thumbnail: bytes | None = None, **changes: str) -> SampleCard:
    card = SampleCard(f"{i:032x}", f"caption {i}", f"https://a.example/{i}.jpg", f"width = {i}", thumbnail)
    return replace(card, **changes)


def step(name: str, rows_in: int, rows_out: int, **changes: int | float | str | dict) -> StepFacts:
    facts = StepFacts(name, name, "select", {}, rows_in, rows_out, rows_in - rows_out, 0, 0, 0, 0, 0, 0.0, 0)
    return replace(facts, **changes)


@pytest.fixture
def data() -> ReportData:
    picture = encoded(Image.new("RGB", (400, 300), "teal"))
    return ReportData(
        corpus="mini",
        description="Pairs from two lists.",
        created="2026-01-02 03:04 UTC",
        recipe_yaml="# a comment\ncorpus: mini\nsteps:\n  - keep: \"width >= 200 AND caption <> '</pre>'\"\n",
        rows_in=3012,
        duplicates=17,
        rows_made=0,
        fates={"kept": 1204, "rejected": 1641, "failed": 167, "split": 0},
        shards=2,
        corpus_bytes=33_400_000,
        wall_s=125.0,
        steps=[
            step(
                "download", 3012, 2845, rejected=0, failed=167, computed=2512, reused=500, time_s=61.7, bytes=74_300_000
            ),
            step("keep", 2845, 1204, parameters={"where": "width >= 200"}),
        ],
        reasons=[
            ReasonFacts("download", "failed", "HTTPStatus 404", 167, [sample(3, detail="HTTPStatus 404: Not Found")]),
            ReasonFacts("keep", "rejected", "width >= 200", 1641, [sample(1, picture), sample(2, b"\xff\xd8 no JPEG")]),
        ],
        kept=[sample(10 + i, picture) for i in range(3)],
        histograms=[Histogram("width", "px", "width of the image", [0, 100, 200, 400], [5, 7, 9], [0, 3, 9])],
        categories=[Categories("language", "of the caption", [("en", 30, 20), ("de", 10, 0)])],
        pools=[
            PoolFacts(
                step="balance",
                operator="balance",
                mark="",
                scalars=[("t", 20), ("entries", 900), ("rows", 96), ("kept", 60), ("tail_share", 0.25)],
                curve=Curve([(1, 50, 21), (2, 30, 19), (3, 4, 4)], 20),
                shifts=[Shift("top", [("cat", 50, 21)])],
                tables=[PoolTable("languages", ["language", "t"], [["de", 1234]])],
            )
        ],
        warnings=["the resolver failed often"],
        versions={"corpusmith": "0.1.0"},
    )


def test_page_holds_its_numbers(data: ReportData) -> None:
    page = Page(render_report(data))
    assert "1,204 of 3,012 rows kept; every row accounted for" in page.text
    for words in (
        "1,641 rejected",
        "167 failed",
        "33.4 MB",
        "2 min 05 s",
        "17 counted apart",
        "2,512 computed, 500 reused",
        "74.3 MB",
        "54.5 %",
        "the resolver failed often",
        "Entries 900",
        "Kept 60 62.5 %",
        "Tail share 25 %",
        "21 of 50",
        "de 1,234",
        "width >= 200",
        "20 of 30",
        "corpusmith 0.1.0",
    ):
        assert words in page.text, words
    assert {"funnel", "reasons", "kept", "dropped", "distributions", "pool", "cost", "recipe"} <= {
        attributes.get("id") for attributes in page.of("section")
    }


def test_reasons_are_sorted_and_linked_to_their_sheets(data: ReportData) -> None:
    page = Page(render_report(data))
    links = [a["href"] for a in page.of("a") if (a["href"] or "").startswith("#reason-")]
    assert links == ["#reason-1", "#reason-2"]
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {a["href"] for a in page.of("a")} <= {f"#{name}" for name in ids}
    assert page.text.index("width >= 200 rejected by keep") < page.text.index("HTTPStatus 404 failed by download")


def test_page_is_self_contained_and_has_no_script(data: ReportData) -> None:
    html = render_report(data)
    page = Page(html)
    for tag, attributes in page.tags:
        assert tag not in ("script", "iframe", "object", "embed", "form", "base"), tag
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in FETCHING:
                assert (value or "").startswith(("data:", "#")), (tag, name, value)
    assert "url(" not in html and "@import" not in html
    policy = next(m["content"] for m in page.of("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None and policy.startswith("default-src 'none'; img-src data:;")


HOSTILE = "<script>alert(1)</script></style></pre><img src=x onerror=alert(2)>\"'{{ 7*7 }}"


def test_hostile_texts_stay_text(data: ReportData) -> None:
    card = sample(1, encoded(Image.new("RGB", (8, 8))), caption=HOSTILE, detail=HOSTILE, url="javascript:alert(3)")
    plain = replace(card, thumbnail=None, uid=HOSTILE)
    hostile = replace(
        data,
        corpus=HOSTILE,
        description=HOSTILE,
        created=HOSTILE,
        recipe_yaml=f"{HOSTILE}\n- {HOSTILE}: 1\n# {HOSTILE}",
        steps=[step(HOSTILE, 10, 5, operator=HOSTILE, parameters={HOSTILE: [HOSTILE], "b": HOSTILE})],
        reasons=[ReasonFacts(HOSTILE, HOSTILE, HOSTILE, 9, [card]), ReasonFacts("s", "failed", HOSTILE, 8, [plain])],
        kept=[card, plain],
        histograms=[Histogram(HOSTILE, HOSTILE, HOSTILE, [0, 1, 2], [1, 1], [1, 0])],
        categories=[Categories(HOSTILE, HOSTILE, [(HOSTILE, 2, 1)])],
        pools=[
            PoolFacts(
                step=HOSTILE,
                operator=HOSTILE,
                mark=HOSTILE,
                scalars=[(HOSTILE, HOSTILE)],
                curve=data.pools[0].curve,
                shifts=[Shift(HOSTILE, [(HOSTILE, 5, 1)])],
                tables=[PoolTable(HOSTILE, [HOSTILE, HOSTILE], [[HOSTILE, HOSTILE]], 0)],
            )
        ],
        warnings=[HOSTILE],
        versions={HOSTILE: HOSTILE},
    )
    page = Page(render_report(hostile))
    assert not page.of("script")
    assert all((image["src"] or "").startswith("data:image/webp;base64,") for image in page.of("img"))
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert all((a["href"] or "").startswith("#") for a in page.of("a"))
    assert "javascript:alert(3)" in page.text
    assert "<script>alert(1)</script>" in page.text and "{{ 7*7 }}" in page.text


def test_secrets_of_urls_and_unprintable_characters_go(data: ReportData) -> None:
    url = "https://me:hunter2@a.example/x.jpg?page=2&X-Amz-Signature=abcdef"
    card = sample(1, url=url, caption="half \ud800 null \x00 turned \u202e around")
    html = render_report(replace(data, kept=[card]))
    html.encode("utf-8")
    assert "hunter2" not in html and "abcdef" not in html and "page=2" in html
    assert not re.search("[\x00\ud800\u202e]", html)


def test_broken_picture_shows_a_placeholder_with_its_problem(data: ReportData) -> None:
    page = Page(render_report(data))
    labels = [attributes.get("aria-label") or "" for attributes in page.of("div")]
    assert sum(label.startswith("no picture: ") for label in labels) == 1
    assert all(image.get("alt") is not None for image in page.of("img"))


def png_that_claims(width: int, height: int) -> bytes:
    """A small PNG whose header tells another size."""
    whole = encoded(Image.new("RGB", (9, 9)))
    header = b"IHDR" + struct.pack(">II", width, height) + whole[24:29]
    return whole[:12] + header + struct.pack(">I", zlib.crc32(header)) + whole[33:]


WHOLE = encoded(Image.effect_noise((300, 300), 60).convert("RGB"), "JPEG")
HOSTILE_PICTURES = {
    "empty": b"",
    "text": b"<!doctype html>",
    "cut": WHOLE[: len(WHOLE) // 2],
    "head alone": WHOLE[:30],
    "bad chunks": encoded(Image.new("RGB", (9, 9)))[:33] + b"\xff" * 200,
    "more than its cap": png_that_claims(9_000, 9_000),
    "bomb": png_that_claims(2_000_000_000, 2_000_000_000),
    "vector": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
    "riff": b"RIFF\xff\xff\xff\xffWEBPVP8 \xff\xff\xff\x7f",
}


@pytest.mark.parametrize("encoded_picture", HOSTILE_PICTURES.values(), ids=HOSTILE_PICTURES.keys())
def test_hostile_bytes_make_a_problem_and_never_raise(encoded_picture: bytes) -> None:
    thumbnail = make_thumbnail(encoded_picture)
    assert thumbnail.uri == "" and 0 < len(thumbnail.problem) <= 80


def test_pixels_beyond_the_cap_are_not_decoded() -> None:
    assert make_thumbnail(png_that_claims(9_000, 9_000)).problem == "too large to show: 9000 × 9000 pixels"


def test_mangled_pictures_never_raise() -> None:
    rng = np.random.default_rng(0)
    colours = Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8))
    for form in ("JPEG", "PNG", "WEBP", "GIF"):
        whole = np.frombuffer(encoded(colours, form), np.uint8)
        for _ in range(60):
            mangled = whole.copy()
            mangled[rng.integers(0, len(whole), 6)] = rng.integers(0, 256, 6)
            thumbnail = make_thumbnail(mangled.tobytes())
            assert bool(thumbnail.uri) != bool(thumbnail.problem)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "I;16"])
@pytest.mark.parametrize("size", [(1, 1), (5000, 2), (333, 1000)])
def test_thumbnails_are_small_pictures(mode: str, size: tuple[int, int]) -> None:
    form = "JPEG" if mode == "CMYK" else "PNG"
    thumbnail = make_thumbnail(encoded(Image.new(mode, size), form))
    assert thumbnail.problem == ""
    assert max(thumbnail.width, thumbnail.height) == min(MAX_SIDE_PX, max(size))


def test_thumbnail_is_upright_on_white_and_bounded() -> None:
    turned = Image.new("RGB", (200, 100))
    exif = turned.getexif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    turned.save(buffer, "JPEG", exif=exif)
    upright = make_thumbnail(buffer.getvalue())
    assert (upright.width, upright.height) == (80, 160)
    clear = decoded(make_thumbnail(encoded(Image.new("RGBA", (50, 50), (0, 0, 0, 0)))).uri)
    assert min(clear.convert("L").tobytes()) > 250
    grey = decoded(make_thumbnail(encoded(Image.new("I;16", (50, 50), 32_768))).uri)
    assert 120 < grey.convert("L").tobytes()[0] < 136
    assert len(make_thumbnail(noise(1)).uri) < MAX_BYTES * 4 / 3 + 40


def decoded(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1])))


def test_page_size_is_bounded(data: ReportData) -> None:
    pictures = [noise(i, side=96) for i in range(4)]  # fills a thumbnail's bound at the first try
    long = {"caption": "long & wide " * 5000, "url": "https://a.example/" + "x" * 50_000, "detail": "<" * 10_000}
    cards = [sample(i, pictures[i % 4], **long) for i in range(40)]
    reasons = [ReasonFacts("keep", "rejected", f"reason {i}", 500 - i, cards) for i in range(300)]
    html = render_report(replace(data, reasons=reasons, kept=cards))
    assert len(html.encode()) < 3_000_000
    page = Page(html)
    assert len(page.of("details")) == MAX_SHEETS
    assert "And 240 rarer reasons with" in page.text


def test_empty_run_reads_as_meant(data: ReportData) -> None:
    empty = replace(
        data, rows_in=0, fates={}, steps=[], reasons=[], kept=[], histograms=[], categories=[], pools=[], warnings=[]
    )
    page = Page(render_report(replace(empty, recipe_yaml="", versions={}, description="", shards=0)))
    assert "The input held no rows." in page.text and "Nothing was dropped" in page.text
    assert not {"pool", "distributions", "dropped", "warnings"} & {s.get("id") for s in page.of("section")}
    none_kept = replace(data, fates={"rejected": 3012}, kept=[])
    assert "No row was kept." in Page(render_report(none_kept)).text


def test_headline_tells_a_gap(data: ReportData) -> None:
    assert headline(replace(data, fates={"kept": 3000})) == "3,000 of 3,012 rows kept; 12 rows have no fate"
    assert headline(replace(data, fates={"kept": 3013})) == "3,013 of 3,012 rows kept; 1 fate too many"
    split = replace(data, rows_in=2, rows_made=5, fates={"kept": 4, "rejected": 1, "split": 2})
    assert headline(split) == "4 rows kept, of 2 in and 5 made; every row accounted for"


def rects(svg: str, css: str) -> list[dict[str, float]]:
    found = [a for a in Page(svg).of("rect") if a.get("class") == css]
    return [{k: float(v) for k, v in a.items() if k != "class" and v is not None} for a in found]


def test_bars_are_in_proportion() -> None:
    svg = charts.stacked_bar([("kept", 40), ("rejected", 0), ("failed", 10)], 100, "label")
    assert rects(svg, "kept") == [{"x": 0, "y": 0, "width": 400, "height": 10}]
    assert rects(svg, "failed")[0] == {"x": 400, "y": 0, "width": 100, "height": 10}
    assert not rects(svg, "rejected")


def test_histogram_heights_are_in_proportion_on_both_axes() -> None:
    linear = charts.histogram(Histogram("a", "", "", [0, 10, 20], [100, 50], [25, 0]))
    before, after = rects(linear, "before"), rects(linear, "kept")
    assert before[0]["height"] == pytest.approx(2 * before[1]["height"], abs=0.02)
    assert after[0]["height"] == pytest.approx(before[0]["height"] / 4, abs=0.02)
    assert before[0]["width"] == pytest.approx(before[1]["width"], abs=0.02)
    decades = charts.histogram(Histogram("b", "", "", [1, 10, 100, 10_000], [1, 1, 1], [1, 1, 1]))
    widths = [bar["width"] for bar in rects(decades, "before")]
    assert widths[0] == pytest.approx(widths[1], abs=0.05)
    assert widths[2] + 1 == pytest.approx(2 * (widths[1] + 1), abs=0.05)
    with_zero = charts.histogram(Histogram("c", "", "", [0, 1, 100, 10_000], [4, 1, 1], [0, 0, 0]))
    assert len(rects(with_zero, "before")) == 3 and "10k" in with_zero


@pytest.mark.parametrize(
    ("edges", "counts"),
    [([], []), ([1], []), ([0, 1], [0]), ([0, math.inf], [3]), ([0, math.nan, 2], [1, 1])],
)
def test_histogram_of_nothing_is_no_chart(edges: list[float], counts: list[int]) -> None:
    assert charts.histogram(Histogram("a", "", "", edges, counts, counts)) == ""


def test_histogram_of_one_value_is_drawn() -> None:
    svg = charts.histogram(Histogram("a", "", "", [5, 5], [3], [3]))
    assert "nan" not in svg and len(rects(svg, "before")) == 1


@pytest.mark.parametrize("t", [None, 20, 0, 0.5, 3e6, 1e12, math.inf])
def test_rank_curve_of_any_t(t: float | None) -> None:
    curve = [(rank, 1_000_000 // rank, min(20, 1_000_000 // rank)) for rank in range(1, 100_001)]
    svg = charts.rank_curve(Curve(curve, t), "b")
    Page(svg)
    assert len(svg) < 12_000 and "nan" not in svg and "inf" not in svg.split("aria-label")[1].split(">", 1)[1]
    assert ('class="threshold"' in svg) == (t is not None and 1 <= t <= 1e8)
    assert charts.rank_curve(Curve([], t), "b") == ""


def test_ticks_are_round_and_within() -> None:
    assert charts.linear_ticks(0, 40, 5) == [0, 10, 20, 30, 40]
    assert charts.linear_ticks(3, 3, 5) == [3]
    assert charts.log_ticks(0.5, 2_000, 6) == [1, 10, 100, 1000]
    assert [charts.compact(v) for v in (0, 0.25, 999.7, 1234, 2e7)] == ["0", "0.25", "1k", "1.23k", "20M"]
