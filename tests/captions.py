"""Real texts for tests and benchmarks of curation, from packages, and pools of any size drawn from them.

Names of emoji in fourteen languages (package `emoji`, BSD-3-Clause; the names are Unicode CLDR's), icons with search
terms (`fontawesomefree`, CC-BY-4.0), and, where Debian's `openclipart-svg` is installed, titled and tagged drawings
(public domain).
"""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa

DRAWINGS_FOLDER = Path("/usr/share/openclipart/svg")
_DC = "{http://purl.org/dc/elements/1.1/}"
_RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
_SENTENCES = (
    "{}",
    "{}, {}",
    "{} with {}",
    "A {} and a {}",
    "Stock photo: {}",
    "{} | {} | free download",
    "Vintage {} poster - {} by {}",
    "How to draw a {} next to the {}: step by step!",
    "IMG_{number} {}",
    "{} (size {number}) {} {}",
)
"""Ways in which the web writes captions; gaps are filled with real titles."""


def emoji_languages() -> list[str]:
    """Codes of the languages of `emoji_names`, such as en, ja, zh, ar."""
    import emoji

    return list(emoji.LANGUAGES)


@cache
def emoji_names(language: str = "en") -> tuple[str, ...]:
    """Names of emoji in a language, underscores made spaces: "smiling face with sunglasses", "寿司", "سوشي"."""
    import emoji

    for other in emoji.LANGUAGES:
        emoji.config.load_language(other)
    names = (entry.get(language) for entry in emoji.EMOJI_DATA.values())
    return tuple(dict.fromkeys(name.strip(":").replace("_", " ") for name in names if name))


@cache
def icon_texts() -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Label and search terms of icons: ("Address Book", ("contact", "directory", …))."""
    spec = importlib.util.find_spec("fontawesomefree")
    assert spec is not None and spec.origin is not None
    path = Path(spec.origin).parent / "static" / "fontawesomefree" / "metadata" / "icons.json"
    icons = json.loads(path.read_text("utf-8")).values()
    return tuple((icon["label"], tuple(map(str, icon["search"]["terms"]))) for icon in icons)


@cache
def drawing_texts() -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Title and tags of drawings of Open Clip Art, dirty as they are; empty where the package is not installed."""
    found = []
    for path in sorted(DRAWINGS_FOLDER.rglob("*.svg")):
        try:
            root = ElementTree.parse(path).getroot()
        except ElementTree.ParseError:
            continue
        title = next((e.text for e in root.iter(f"{_DC}title") if e.text and e.text.strip()), None)
        if title:
            tags = [e.text or "" for subject in root.iter(f"{_DC}subject") for e in subject.iter(f"{_RDF}li")]
            found.append((re.sub(r"\s+", " ", title).strip(), tuple(filter(None, tags))))
    return tuple(found)


@cache
def real_titles() -> tuple[str, ...]:
    """Distinct English titles of packages that `make test` installs: some 6,000."""
    icons = [text for label, terms in icon_texts() for text in (label, *terms)]
    return tuple(dict.fromkeys([*emoji_names("en"), *icons]))


def drawn_captions(count: int, seed: int = 0, *, batch_rows: int = 100_000) -> Iterator[pa.Array]:
    """Captions as the web has them, drawn from real titles: a few frequent, many rare, about one in ten repeated.

    Args:
        count: captions.
        seed: of the draw.
        batch_rows: captions in an array at most.
    """
    titles = np.array(real_titles(), dtype=object)
    draw = np.random.default_rng(seed)
    titles = titles[np.random.default_rng(0).permutation(len(titles))]
    weights = 1 / np.arange(1, len(titles) + 1) ** 0.8
    cumulative = np.cumsum(weights / weights.sum())
    for start in range(0, count, batch_rows):
        size = min(batch_rows, count - start)
        chosen = titles[np.minimum(np.searchsorted(cumulative, draw.random((size, 3))), len(titles) - 1)]
        forms, numbers = draw.integers(0, len(_SENTENCES), size), draw.integers(0, 10_000, size)
        texts = (
            _SENTENCES[form].format(*three, number=number)
            for form, three, number in zip(forms.tolist(), chosen.tolist(), numbers.tolist(), strict=True)
        )
        yield pa.array(texts, pa.string())
