"""Labelled icons of the package `fontawesomefree`: a picture for each icon and style, in the web's kinds of captions.

The label and the search terms are the package's own. What a page does to such a text (terms only, a file name, a
stock phrase, doubled spaces, another language) is chosen by the hash of the picture's name. Styles of an icon share
its texts, and some icons come in a second colour: the near duplicates of real collections.

Icons are CC-BY-4.0 (Font Awesome Free, by Fonticons, Inc., https://fontawesome.com/license/free).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from corpusmith.pipelines.demo.choice import choose, fraction
from corpusmith.pipelines.demo.render import Drawing, Picture

SOURCE = "fontawesomefree"
LICENSE = "CC-BY-4.0"

INKS = ("#1f2937", "#b91c1c", "#1d4ed8", "#047857", "#7c3aed", "#c2410c", "#0e7490", "#a16207", "#be185d", "#4d7c0f")
PAPERS = ("#ffffff", "#f8fafc", "#fef3c7", "#e0f2fe", "#ecfccb", "#fce7f3")
PAPER_WEIGHTS = {**dict.fromkeys(PAPERS, 0.16), "none": 0.04}
SHAPE_WEIGHTS = {"256": 0.40, "320": 0.24, "384": 0.18, "512": 0.10, "tiny": 0.05, "wide": 0.03}
TINY_PX = 48
WIDE_PX, WIDE_TIMES = 640, 5
PNG_SHARE = 0.35
SECOND_COLOUR_SHARE = 0.12
SECOND_CAPTION_SHARE = 0.10


@dataclass(frozen=True)
class Icon:
    """One icon in one style; `view_box` is x, y, width, height of its drawing units."""

    name: str
    style: str
    label: str
    terms: tuple[str, ...]
    outline: str
    view_box: tuple[float, float, float, float]


def icon_pictures(package: Path) -> Iterator[Picture]:
    """Pictures of all icons, in the order of their names.

    Args:
        package: folder of the installed `fontawesomefree`.
    """
    for icon in read_icons(package):
        yield _picture(icon, "")
        if fraction("second colour", icon.style, icon.name) < SECOND_COLOUR_SHARE:
            yield _picture(icon, "-2")


def read_icons(package: Path) -> Iterator[Icon]:
    """Icons and their free styles, from the package's own metadata."""
    metadata = package / "static" / "fontawesomefree" / "metadata" / "icons.json"
    for name, entry in sorted(json.loads(metadata.read_text(encoding="utf-8")).items()):
        terms = tuple(str(term) for term in entry["search"]["terms"])
        for style in sorted(entry["free"]):
            drawing = entry["svg"][style]
            yield Icon(name, style, entry["label"], terms, drawing["path"], tuple(drawing["viewBox"]))


def caption_of(icon: Icon, key: str) -> str | None:
    """The text that comes with an icon's picture; its kind is drawn by the hash of `key`."""
    return CAPTION_KINDS[choose(CAPTION_WEIGHTS, "caption", key)](icon)


def _picture(icon: Icon, variant: str) -> Picture:
    stem = f"icons/{icon.style}/{icon.name}{variant}"
    key = stem + (".png" if fraction("format", stem) < PNG_SHARE else ".jpg")
    captions = [caption_of(icon, key)]
    if fraction("second caption", key) < SECOND_CAPTION_SHARE:
        captions.append(caption_of(icon, key + "#2"))
    return Picture(key, _drawing(icon, key), tuple(dict.fromkeys(captions)), SOURCE, LICENSE)


def _drawing(icon: Icon, key: str) -> Drawing:
    ink = choose(dict.fromkeys(INKS, 1.0), "ink", key)
    paper = choose(PAPER_WEIGHTS, "paper", key)
    shape = choose(SHAPE_WEIGHTS, "shape", key)
    background = None if paper == "none" and key.endswith(".png") else PAPERS[0] if paper == "none" else paper
    if shape == "wide":
        return Drawing(_banner_markup(icon, ink), WIDE_PX, background)
    return Drawing(_icon_markup(icon, ink), TINY_PX if shape == "tiny" else int(shape), background)


def _icon_markup(icon: Icon, ink: str) -> str:
    x, y, width, height = icon.view_box
    margin = 0.08 * max(width, height)
    outer = (x - margin, y - margin, width + 2 * margin, height + 2 * margin)
    return _svg(outer, f'<path fill="{ink}" d="{icon.outline}"/>')


def _banner_markup(icon: Icon, ink: str) -> str:
    x, y, width, height = icon.view_box
    step = 1.25 * max(width, height)
    paths = (
        f'<path fill="{ink}" transform="translate({i * step:g} 0)" d="{icon.outline}"/>' for i in range(WIDE_TIMES)
    )
    return _svg((x - 0.125 * step, y - 0.125 * step, WIDE_TIMES * step, 1.25 * height), "".join(paths))


def _svg(view_box: tuple[float, float, float, float], content: str) -> str:
    box = " ".join(f"{edge:g}" for edge in view_box)
    _, _, width, height = view_box
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{box}" width="{width:g}" height="{height:g}">{content}</svg>'
    )


TRANSLATED = {
    "de": "Symbolbild „{label}“ auf hellem Hintergrund, kostenlos herunterladen",
    "fr": "Icône gratuite « {label} » sur un fond clair, à télécharger",
    "es": "Icono gratuito de «{label}» sobre fondo claro para descargar",
    "it": "Icona gratuita di «{label}» su uno sfondo chiaro, da scaricare",
    "ru": "Бесплатный значок «{label}» на светлом фоне, скачать",
    "ja": "「{label}」の無料アイコン、明るい背景",
    "zh": "免费的“{label}”图标,浅色背景,可下载",
    "ar": "أيقونة مجانية {label} على خلفية فاتحة للتنزيل",
}


def _translated(icon: Icon) -> str:
    language = choose(dict.fromkeys(TRANSLATED, 1.0), "language", icon.style, icon.name)
    return TRANSLATED[language].format(label=icon.label)


def _markup_left_over(icon: Icon) -> str:
    return f"  {icon.label}&nbsp;&amp; more &ndash; {'  '.join(icon.terms)} \n"


def _twice_encoded(icon: Icon) -> str:
    return f"{icon.label} – the icon’s page".encode().decode("cp1252", errors="replace")


CAPTION_KINDS: Mapping[str, Callable[[Icon], str | None]] = {
    "label and terms": lambda icon: ", ".join((icon.label, *icon.terms)),
    "label": lambda icon: icon.label,
    "terms": lambda icon: " ".join(icon.terms) or icon.name,
    "alt text": lambda icon: f"{icon.label} icon, {icon.style} style",
    "stock phrase": lambda icon: f"Free vector icon of {icon.label.lower()} on a light background, download now",
    "sentence": lambda icon: f"An icon that stands for {' or '.join((icon.label.lower(), *icon.terms[:3]))}",
    "file name": lambda icon: f"{icon.name}.svg",
    "class names": lambda icon: f"fa-{icon.style} fa-{icon.name}",
    "other language": _translated,
    "markup left over": _markup_left_over,
    "twice encoded": _twice_encoded,
    "stuffed": lambda icon: " ".join([icon.name.replace("-", " "), "icon"] * 12),
    "none": lambda _: None,
}
CAPTION_WEIGHTS: Mapping[str, float] = {
    "label and terms": 0.34,
    "label": 0.12,
    "terms": 0.08,
    "alt text": 0.11,
    "stock phrase": 0.09,
    "sentence": 0.07,
    "file name": 0.05,
    "class names": 0.03,
    "other language": 0.05,
    "markup left over": 0.02,
    "twice encoded": 0.01,
    "stuffed": 0.02,
    "none": 0.01,
}
