"""Numbers and names the way people say them; what the page's template may filter by."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from corpusmith.pipelines.report.data import Scalar

MAX_TEXT_CHARACTERS = 200
NBSP = "\N{NO-BREAK SPACE}"

_WORDS = {
    "largest": "largest group",
    "cut": "cut value",
    "cuts": "cut of each value",
    "at_most": "bound of each value",
    "expected": "expected after the draw",
    "taken": "taken by the draw",
    "top": "most frequent",
    "rows_unmatched": "rows without an entry",
    "dropped_by_epsilon": "what each epsilon would drop",
}
"""What people call facts of steps over the whole pool whose own names are terse."""

_WORDS_OF_MARKS = {"kept": "would keep", "dropped": "would drop"}

_PARTS_OF_ROWS = {"kept", "dropped", "failed"}
"""Facts that are shown with their share of the step's rows, too."""


def count(number: float) -> str:
    """1,234."""
    return f"{number:,}"


def counted(number: int, one: str, many: str) -> str:
    """A number with its noun."""
    return f"{number:,} {one if number == 1 else many}"


def percent(part: float, whole: float) -> str:
    """A share, to a tenth of a percent; "–" of nothing."""
    if not whole:
        return "–"
    share = 100 * part / whole
    if 0 < share < 0.1:
        return f"<0.1{NBSP}%"
    return f"{share:.0f}{NBSP}%" if share == round(share) else f"{share:.1f}{NBSP}%"


def in_bytes(size: float) -> str:
    """A size in decimal units."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 999.5:
            return f"{size:.0f}{NBSP}B" if unit == "B" else f"{size:.3g}{NBSP}{unit}"
        size /= 1000
    return f"{size:.3g}{NBSP}PB"


def duration(seconds: float) -> str:
    """In units that suit it."""
    if seconds < 0.9995:
        return f"{1000 * seconds:.0f}{NBSP}ms"
    if seconds < 59.95:
        return f"{seconds:.1f}{NBSP}s"
    minutes, rest_s = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,}{NBSP}h {minutes:02}{NBSP}min" if hours else f"{minutes}{NBSP}min {rest_s:02}{NBSP}s"


def short(text: str, characters: int = MAX_TEXT_CHARACTERS) -> str:
    """The text on one line, cut with an ellipsis."""
    one_line = " ".join(str(text)[: 4 * characters].split())
    return one_line if len(one_line) <= characters else f"{one_line[: characters - 1]}…"


def words(name: str) -> str:
    """A fact's name as people say it."""
    return _WORDS.get(name) or name.replace("_", " ")


def heading(name: str, is_mark: bool = False) -> str:
    """The same at the head of something; of a step that marks rows, what it would have done with them."""
    said = (_WORDS_OF_MARKS.get(name) if is_mark else None) or words(name)
    return said if len(said) == 1 else said[:1].upper() + said[1:]


def fact(value: Scalar, name: str) -> str:
    """A fact of a step over the whole pool; the name tells shares and fingerprints."""
    if value is None or value == "":
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return short(value, 13 if name.endswith("sha256") else 60)
    if name.endswith("_share") and math.isfinite(value):
        return percent(value, 1)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.0f}" if 1000 <= abs(value) < 1e15 else f"{value:.4g}"


def share_of_rows(name: str, scalars: Sequence[tuple[str, Scalar]]) -> str:
    """The fact as a share of the step's rows; "" where it is no part of them."""
    facts = dict(scalars)
    rows, part = facts.get("rows"), facts.get(name)
    if name not in _PARTS_OF_ROWS or not (isinstance(rows, int) and isinstance(part, int) and 0 < part <= rows):
        return ""
    return percent(part, rows)


FILTERS: dict[str, Callable[..., str]] = {
    "count": count,
    "percent": percent,
    "bytes": in_bytes,
    "duration": duration,
    "short": short,
    "words": words,
    "heading": heading,
    "fact": fact,
}
"""By their names in the template."""
