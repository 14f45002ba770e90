"""The page: facts of a run → one HTML text that needs nothing else.

The template places, `wording` says numbers the way people do, this module bounds: it caps how many samples and how
much of each text goes on the page, shrinks pictures, and takes what grants access out of URLs. Captions, URLs and
reasons are hostile: the template escapes every value, samples' URLs are text and never links, and the page's own
content policy forbids scripts and requests.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from corpusmith.pipelines.report import charts
from corpusmith.pipelines.report.data import Categories, ReasonFacts, ReportData, SampleCard, StepFacts
from corpusmith.pipelines.report.thumbnails import Thumbnail, make_thumbnail
from corpusmith.pipelines.report.wording import FILTERS, counted, share_of_rows
from corpusmith.schemas.fates import Fate, conservation_gap
from corpusmith.schemas.urls import redact_url

MAX_SHEETS = 12
MAX_SAMPLES = 24
MAX_REASONS = 60
MAX_CATEGORIES = 12
MAX_POOL_FACTS = 40
MAX_POOL_TABLES = 12
MAX_POOL_COLUMNS = 8
MAX_POOL_ROWS = 20
STRIP_SAMPLES = 14
OPEN_SHEETS = 1

_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")
"""Control characters, overrides of the writing direction, and halves of surrogate pairs, which UTF-8 cannot hold."""

_YAML_LINE = re.compile(r"(?P<indent>\s*(?:- )*)(?P<key>[\w.]+:)?(?P<rest>.*)", re.DOTALL)


@dataclass(frozen=True)
class Card:
    """A sample as its card shows it."""

    uid: str
    caption: str
    url: str
    detail: str
    picture: Thumbnail


@dataclass(frozen=True)
class Sheet:
    """A contact sheet: samples of one reason, or of what was kept."""

    anchor: str
    reason: ReasonFacts | None
    cards: Sequence[Card]
    count: int

    @property
    def has_pictures(self) -> bool:
        """Whether any sample ever had a picture; without one, cards are laid out for reading."""
        return any(card.picture.uri or card.picture.problem for card in self.cards)


def render_report(data: ReportData) -> str:
    """The report page of a run.

    Returns:
        A complete HTML document, encodable as UTF-8, without scripts and without a reference to anything outside it.
        Its size is bounded by the number of steps and the caps above, about 3 MB.
    """
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        kept = Sheet("kept", None, _cards(data.kept, pool), data.fates.get(Fate.KEPT, 0))
        ranked = sorted(data.reasons, key=lambda reason: (-reason.count, reason.step, reason.label))
        sheets = _sheets(ranked, pool)
    anchors = {id(sheet.reason): sheet.anchor for sheet in sheets}
    return (
        _environment()
        .get_template("report.html")
        .render(
            data=data,
            headline=headline(data),
            gap=_gap(data),
            fates=[(fate.value, data.fates.get(fate, 0)) for fate in Fate],
            kept=kept,
            sheets=sheets,
            reasons=[(reason, anchors.get(id(reason), "")) for reason in ranked],
            flow_scale=max([1, *(max(s.rows_in, s.rows_out + s.rejected + s.failed + s.split) for s in data.steps)]),
            time_scale_ms=max([1, *(round(s.time_s * 1000) for s in data.steps)]),
            bytes_scale=max([1, *(s.bytes for s in data.steps)]),
            strip=[card.picture for card in kept.cards if card.picture.uri][:STRIP_SAMPLES],
        )
    )


def headline(data: ReportData) -> str:
    """The run in one sentence; says so when a row is not accounted for."""
    kept = f"{data.fates.get(Fate.KEPT, 0):,}"
    if data.rows_made:
        lead = f"{kept} rows kept, of {data.rows_in:,} in and {data.rows_made:,} made"
    else:
        lead = f"{kept} of {data.rows_in:,} rows kept"
    gap = _gap(data)
    if gap > 0:
        return f"{lead}; {counted(gap, 'row has', 'rows have')} no fate"
    if gap < 0:
        return f"{lead}; {counted(-gap, 'fate', 'fates')} too many"
    return f"{lead}; every row accounted for"


def _gap(data: ReportData) -> int:
    return conservation_gap(data.rows_in, data.rows_made, data.fates)


def _sheets(ranked: Sequence[ReasonFacts], pool: ThreadPoolExecutor) -> list[Sheet]:
    """Contact sheets of the reasons that dropped most, of those that have samples."""
    shown = [reason for reason in ranked if reason.samples][:MAX_SHEETS]
    return [Sheet(f"reason-{i}", r, _cards(r.samples, pool), r.count) for i, r in enumerate(shown, 1)]


def _cards(samples: Sequence[SampleCard], pool: ThreadPoolExecutor) -> list[Card]:
    shown = samples[:MAX_SAMPLES]
    pictures = pool.map(make_thumbnail, (sample.thumbnail for sample in shown))
    return [Card(s.uid, s.caption, _shown_url(s.url), s.detail, p) for s, p in zip(shown, pictures, strict=True)]


def _shown_url(url: str) -> str:
    """A URL as text: without what grants access to it, and without the scheme that nearly all have."""
    return re.sub(r"^https?://", "", redact_url(url), flags=re.IGNORECASE)


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_printable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= FILTERS | {
        "compact": charts.compact,
        "parameters": _parameters,
        "yaml_lines": _yaml_lines,
    }
    environment.globals |= {function.__name__: _as_markup(function) for function in charts.CHARTS}
    environment.globals |= {"drops": _drops, "common_values": _common_values, "counted": counted}
    environment.globals |= {"share_of_rows": share_of_rows}
    environment.globals |= {"OPEN_SHEETS": OPEN_SHEETS, "MAX_REASONS": MAX_REASONS}
    environment.globals |= {"MAX_POOL_FACTS": MAX_POOL_FACTS, "MAX_POOL_TABLES": MAX_POOL_TABLES}
    environment.globals |= {"MAX_POOL_COLUMNS": MAX_POOL_COLUMNS, "MAX_POOL_ROWS": MAX_POOL_ROWS}
    return environment


def _as_markup(chart: charts.ChartFunction) -> charts.ChartFunction:
    """A chart function whose result the template takes as it is: charts escape their own texts."""
    return lambda *args, **kwargs: Markup(_printable(chart(*args, **kwargs)))


def _printable(value: Any) -> Any:
    if isinstance(value, str) and _UNPRINTABLE.search(value):
        return type(value)(_UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", value))
    return value


def _drops(step: StepFacts) -> list[tuple[str, int]]:
    return [("rejected", step.rejected), ("failed", step.failed), ("split", step.split)]


def _common_values(facts: Categories) -> list[tuple[str, int, int]]:
    """The most frequent values, by falling count before; the others as one."""
    ranked = sorted(facts.counts, key=lambda counts: (-counts[1], counts[0]))
    if len(ranked) <= MAX_CATEGORIES:
        return ranked
    rest = ranked[MAX_CATEGORIES - 1 :]
    others = (f"{len(rest)} others", sum(c[1] for c in rest), sum(c[2] for c in rest))
    return [*ranked[: MAX_CATEGORIES - 1], others]


def _parameters(parameters: Mapping[str, Any]) -> str:
    """A step's parameters on one line; a single text, such as a predicate, stands alone."""
    if len(parameters) == 1 and isinstance(only := next(iter(parameters.values())), str):
        return only
    return ", ".join(f"{name}: {_value(value)}" for name, value in parameters.items())


def _value(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(str, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _yaml_lines(text: str) -> Iterator[tuple[str, str, str]]:
    """(indent, key, rest) of each line, for colours."""
    for line in text.rstrip().splitlines():
        match = _YAML_LINE.match(line)
        yield (match["indent"], match["key"] or "", match["rest"]) if match else ("", "", line)
