"""Charts as SVG text: pure functions from counts to pictures.

Colours are CSS classes, so that the page's light and dark themes reach into the charts. Bars stretch with their cell
(`preserveAspectRatio="none"`) and hold no text; charts with axes keep their shape and are drawn near the size at
which they are seen. Every text that comes from data is escaped here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

from corpusmith.pipelines.report.data import Curve, Histogram

LOG_SPAN = 1_000.0
"""A range that spans more than these three decades is drawn on a logarithmic axis."""

BAR_UNITS = 1000
BAR_HEIGHT = 10
FLOW_HEIGHT = 100
CURVE_POINTS = 240


@dataclass(frozen=True)
class Frame:
    """Size of a chart and of the margins around its plot, in SVG units."""

    width: float
    height: float
    left: float
    right: float
    top: float
    bottom: float

    @property
    def x_end(self) -> float:
        """Right edge of the plot."""
        return self.width - self.right

    @property
    def y_end(self) -> float:
        """Bottom edge of the plot: y grows downwards."""
        return self.height - self.bottom


HISTOGRAM = Frame(width=340, height=178, left=40, right=12, top=12, bottom=24)
CURVE = Frame(width=400, height=280, left=44, right=14, top=14, bottom=40)


@dataclass(frozen=True)
class Axis:
    """Maps values from [low, high] to [start, end] SVG units, linearly or by logarithm."""

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False

    def __call__(self, value: float) -> float:
        low, high, at = self.low, self.high, value
        if self.is_log:
            low, high, at = math.log10(low), math.log10(high), math.log10(value)
        share = (at - low) / (high - low) if high > low else 0.5
        return self.start + share * (self.end - self.start)

    def ticks(self, at_most: int) -> list[float]:
        """Round values within the axis, in rising order."""
        return log_ticks(self.low, self.high, at_most) if self.is_log else linear_ticks(self.low, self.high, at_most)


def compact(value: float) -> str:
    """A number in few characters: 950, 1.2k, 34M; 0.25."""
    for divisor, suffix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 0.9995 * divisor:
            return f"{value / divisor:.3g}{suffix}"
    return f"{value:.3g}"


def linear_ticks(low: float, high: float, at_most: int) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten within [low, high]."""
    if not high > low:
        return [low]
    rough = (high - low) / at_most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [k * step for k in range(first, last + 1)]


def log_ticks(low: float, high: float, at_most: int) -> list[float]:
    """Powers of ten within [low, high], thinned to `at_most`."""
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    powers = [10.0**k for k in range(first, last + 1)]
    return powers[:: max(1, math.ceil(len(powers) / at_most))]


def stacked_bar(parts: Sequence[tuple[str, int]], total: int, label: str) -> str:
    """A horizontal bar of (CSS class, rows) parts on a scale where `total` rows fill it."""
    rects: list[str] = []
    done = 0
    for css, count in parts:
        if count > 0:
            start, end = (BAR_UNITS * n / max(total, 1) for n in (done, done + count))
            rects.append(_rect(css, start, 0, max(end - start, 1.5), BAR_HEIGHT))
        done += count
    return _svg("bar", BAR_UNITS, BAR_HEIGHT, label, "".join(rects), is_stretched=True)


def before_after_bar(before: int, after: int, scale: int, label: str) -> str:
    """Two bars from the same origin, the kept rows over all rows."""
    rects = [
        _rect(css, 0, 0, max(BAR_UNITS * count / max(scale, 1), 2), BAR_HEIGHT)
        for css, count in (("before", before), ("kept", after))
        if count > 0
    ]
    return _svg("bar", BAR_UNITS, BAR_HEIGHT, label, "".join(rects), is_stretched=True)


def flow(rows_in: int, rows_out: int, drops: Sequence[tuple[str, int]], scale: int, label: str) -> str:
    """One reach of the river of rows: as wide as rows_in above, as rows_out below, what leaves it beside.

    Args:
        drops: (CSS class, rows) that leave the stream here, from its bank outwards.
        scale: rows that fill the whole width; the same for all reaches, so that they join.
    """
    unit = BAR_UNITS / max(scale, 1)
    bands = [_band("stream", 0, 0, rows_in * unit, rows_out * unit)]
    bank = rows_out
    for css, count in drops:
        if count > 0:
            bands.append(
                _band(css, rows_in * unit, bank * unit, rows_in * unit, max((bank + count) * unit, bank * unit + 2))
            )
            bank += count
    return _svg("flow", BAR_UNITS, FLOW_HEIGHT, label, "".join(bands), is_stretched=True)


def _band(css: str, left_top: float, left_bottom: float, right_top: float, right_bottom: float) -> str:
    """A band from the top edge to the bottom edge with soft sides."""
    knee, end = FLOW_HEIGHT * 0.45, FLOW_HEIGHT
    down = f"C{_n(right_top)},{_n(knee)} {_n(right_bottom)},{_n(knee)} {_n(right_bottom)},{_n(end)}"
    up = f"C{_n(left_bottom)},{_n(knee)} {_n(left_top)},{_n(knee)} {_n(left_top)},0"
    return f'<path class="{css}" d="M{_n(left_top)},0H{_n(right_top)}{down}H{_n(left_bottom)}{up}Z"/>'


def histogram(facts: Histogram) -> str:
    """Bins of all rows behind bins of the kept rows, on one scale; "" where there is nothing to draw."""
    if not any(facts.before) or not all(map(math.isfinite, facts.edges)):
        return ""
    at, ticks = _bin_positions(facts.edges, HISTOGRAM)
    counts = Axis(0, max(facts.before), HISTOGRAM.y_end, HISTOGRAM.top)
    bins = [
        f"<g><title>{compact(low)} to {compact(high)} {escape(facts.unit)}: {after:,} of {before:,} kept</title>"
        + _column("before", left, right, counts(before))
        + _column("kept", left, right, counts(after))
        + "</g>"
        for low, high, left, right, before, after in zip(
            facts.edges, facts.edges[1:], at, at[1:], facts.before, facts.after, strict=False
        )
    ]
    axes = _y_axis(counts, counts.ticks(3), HISTOGRAM) + _x_axis(ticks, HISTOGRAM)
    label = f"Histogram of {facts.column}: {sum(facts.after):,} of {sum(facts.before):,} rows with a value kept"
    return _svg("chart", HISTOGRAM.width, HISTOGRAM.height, label, axes + "".join(bins))


def _bin_positions(edges: Sequence[float], frame: Frame) -> tuple[list[float], list[tuple[float, float]]]:
    """SVG x of each edge, and (x, value) of the ticks. On a log axis, 0 has a slot of its own."""
    positive = [edge for edge in edges if edge > 0]
    is_log = bool(positive) and edges[0] >= 0 and positive[-1] / positive[0] > LOG_SPAN
    if not is_log:
        axis = Axis(edges[0], edges[-1], frame.left, frame.x_end)
        return [axis(edge) for edge in edges], [(axis(tick), tick) for tick in axis.ticks(5)]
    has_zero = edges[0] == 0
    slot = (frame.x_end - frame.left) / len(edges) if has_zero else 0.0
    axis = Axis(positive[0], positive[-1], frame.left + slot, frame.x_end, is_log=True)
    at = [axis(edge) if edge > 0 else frame.left for edge in edges]
    return at, [(frame.left, 0.0)] * has_zero + [(axis(tick), tick) for tick in axis.ticks(6)]


def _column(css: str, left: float, right: float, top: float) -> str:
    width = max(right - left - 1, 0.75)
    return _rect(css, left + 0.5, top, width, HISTOGRAM.y_end - top) if top < HISTOGRAM.y_end else ""


def rank_curve(facts: Curve, step: str) -> str:
    """Rows by rank, before and after, both axes logarithmic, with a line at t if there is one; "" without points."""
    points = [(rank, before, after) for rank, before, after in facts.points if rank > 0 and before > 0]
    if not points:
        return ""
    points = _thinned(points)
    ranks = Axis(1, max(points[-1][0], 10), CURVE.left, CURVE.x_end, is_log=True)
    counts = Axis(
        1, _count_ceiling(max(before for _, before, _ in points), facts.t), CURVE.y_end, CURVE.top, is_log=True
    )
    body = [
        _y_axis(counts, counts.ticks(6), CURVE),
        _x_axis([(ranks(tick), tick) for tick in ranks.ticks(6)], CURVE),
        _threshold(facts.t, counts),
        _line("before", ((ranks(r), counts(before)) for r, before, _ in points)),
        _line("kept", ((ranks(r), counts(max(after, 1))) for r, _, after in points)),
        _text("axis-name", (CURVE.left + CURVE.x_end) / 2, CURVE.height - 4, "middle", "rank by rows before"),
    ]
    bound = "" if facts.t is None else f", t = {compact(facts.t)}"
    label = f"Rows by rank before and after {step}, both axes logarithmic{bound}"
    return _svg("chart", CURVE.width, CURVE.height, label, "".join(body))


def _count_ceiling(most: int, t: float | None) -> float:
    """The power of ten above the largest count, and above t unless t is so far off that it cuts nothing."""
    high = t if t is not None and most < t <= 100 * most else most
    return 10.0 ** max(1, math.ceil(math.log10(high)))


def _thinned(points: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """At most CURVE_POINTS points, evenly spread over the logarithm of the rank, first and last included."""
    if len(points) <= CURVE_POINTS:
        return points
    span = math.log(len(points))
    picked = {round(math.exp(span * k / (CURVE_POINTS - 1))) - 1 for k in range(CURVE_POINTS)}
    return [points[min(i, len(points) - 1)] for i in sorted(picked)]


def _threshold(t: float | None, counts: Axis) -> str:
    if t is None or not counts.low <= t <= counts.high:
        return ""
    y = counts(t)
    line = f'<path class="threshold" d="M{_n(CURVE.left)},{_n(y)}H{_n(CURVE.x_end)}"/>'
    return line + _text("threshold-name", CURVE.x_end, y - 5, "end", f"t = {compact(t)}")


def _line(css: str, points: Iterable[tuple[float, float]]) -> str:
    steps = "L".join(f"{_n(x)},{_n(y)}" for x, y in points)
    return f'<path class="line {css}-line" d="M{steps}"/>'


def _y_axis(axis: Axis, ticks: Iterable[float], frame: Frame) -> str:
    def tick_mark(tick: float) -> str:
        y = axis(tick)
        grid = f'<path class="grid" d="M{_n(frame.left)},{_n(y)}H{_n(frame.x_end)}"/>'
        return grid + _text("tick", frame.left - 6, y + 3.5, "end", compact(tick))

    return "".join(map(tick_mark, ticks))


def _x_axis(ticks: Sequence[tuple[float, float]], frame: Frame) -> str:
    base = f'<path class="base" d="M{_n(frame.left)},{_n(frame.y_end)}H{_n(frame.x_end)}"/>'
    return base + "".join(_text("tick", x, frame.y_end + 15, "middle", compact(tick)) for x, tick in _spaced(ticks))


def _spaced(ticks: Iterable[tuple[float, float]], gap: float = 28) -> Iterator[tuple[float, float]]:
    """The ticks whose labels do not run into the label before them."""
    last = -math.inf
    for x, tick in ticks:
        if x - last >= gap:
            last = x
            yield x, tick


def _text(css: str, x: float, y: float, anchor: str, text: str) -> str:
    return f'<text class="{css}" x="{_n(x)}" y="{_n(y)}" text-anchor="{anchor}">{escape(text)}</text>'


def _rect(css: str, x: float, y: float, width: float, height: float) -> str:
    return f'<rect class="{escape(css)}" x="{_n(x)}" y="{_n(y)}" width="{_n(width)}" height="{_n(height)}"/>'


def _svg(css: str, width: float, height: float, label: str, body: str, *, is_stretched: bool = False) -> str:
    aspect = ' preserveAspectRatio="none"' if is_stretched else ""
    view = f'viewBox="0 0 {_n(width)} {_n(height)}"{aspect}'
    return f'<svg class="{css}" {view} role="img" aria-label="{escape(label)}">{body}</svg>'


def _n(value: float) -> str:
    """A coordinate with at most two decimals."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


ChartFunction = Callable[..., str]
CHARTS: tuple[ChartFunction, ...] = (stacked_bar, before_after_bar, flow, histogram, rank_curve)
"""What the page's template may call."""
