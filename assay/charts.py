"""Charts for the report as inline SVG: no library, no network, colours from the page's style sheet.

Every chart takes the steps `xs` and, per series, one value per step: a number, None where nothing was measured, or
NaN where the number was not finite. A gap is bridged, a NaN breaks the line and is marked at the top edge. The
numbers behind a chart travel as JSON beside it, for the tooltip.
"""

from __future__ import annotations

import html
import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeGuard

WIDTH, HEIGHT = 560, 250
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 22, 34
MAX_POINTS = 360
_HIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u200b\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")

Format = Callable[[float], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One line or one layer. `color` is a CSS class, c0 to c7; `spread` draws a band of that half-width."""

    label: str
    values: Sequence[float | None]  # [steps]
    color: str = "c0"
    spread: Sequence[float | None] | None = None
    smooth: bool = False  #: draw the raw line faintly and its moving average on top
    peak: bool = False  #: where points are merged keep the largest, not the mean


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """The vertical axis. `low` and `high` are kept inside the range; None lets the data decide."""

    label: str
    form: Format
    low: float | None = None
    high: float | None = None
    log: bool = False


@dataclass(slots=True)
class _Scale:
    low: float
    high: float
    start: float
    end: float
    log: bool = False
    ticks: list[float] = field(default_factory=list)

    def __call__(self, value: float) -> float:
        low, high = self.low, self.high
        if self.log:
            low, high, value = math.log10(low), math.log10(high), math.log10(max(value, self.low))
        return self.start + (value - low) / (high - low) * (self.end - self.start)


def escaped(text: object) -> str:
    """Text for HTML, with control and direction-changing characters made visible: code must read as it runs."""
    return _visible(text, '<span class="hidden-char">U+{:04X}</span>')


def attribute(text: object) -> str:
    """The same for an attribute or a title, where no element may stand."""
    return _visible(text, "[U+{:04X}]")


def _visible(text: object, mark: str) -> str:
    safe = html.escape(str(text), quote=True)
    return _HIDDEN.sub(lambda found: mark.format(ord(found[0])), safe)


def line_chart(title: str, good: str, xs: Sequence[int], series: Sequence[Series], axis: Axis) -> str:
    """Lines over the optimizer step; `good` says in a few words what a healthy curve looks like."""
    xs, series = _thin(xs, [one for one in series if any(v is not None for v in one.values)])
    if not xs or not series:
        return empty_chart(title, "Not measured in this run.")
    x = _step_scale(xs)
    y = _value_scale(series, axis)
    body = [_frame(x, y, axis)]
    for number, one in enumerate(series):
        body.append(_line(xs, one, x, y, dashed=number % 3))
    return _figure(title, good, "".join(body), _legend(series, axis.form), _data(xs, series, x, axis.form))


def stacked_chart(title: str, good: str, xs: Sequence[int], series: Sequence[Series], axis: Axis) -> str:
    """Layers that add up, the first at the bottom. Layers that are zero throughout are left out."""
    xs, series = _thin(xs, [one for one in series if any(v for v in one.values)])
    if not xs or not series:
        return empty_chart(title, "Not measured in this run.")
    below = [0.0] * len(xs)
    layers = []
    for one in series:
        above = [b + (v if v is not None and math.isfinite(v) else 0.0) for b, v in zip(below, one.values, strict=True)]
        layers.append((one, below, above))
        below = above
    x = _step_scale(xs)
    y = _nice_scale(0.0, axis.high if axis.high is not None else max(below), HEIGHT - BOTTOM, TOP)
    body = [_frame(x, y, axis)]
    for one, low, high in layers:
        points = [(x(step), y(v)) for step, v in zip(xs, high, strict=True)]
        base = [(x(step), y(v)) for step, v in zip(xs, low, strict=True)]
        if len(xs) == 1:  # a single step is a full-width band
            points = [(LEFT, points[0][1]), (WIDTH - RIGHT, points[0][1])]
            base = [(LEFT, base[0][1]), (WIDTH - RIGHT, base[0][1])]
        body.append(f'<path class="area {one.color}" d="{_path(points)}L{_path(base[::-1])[1:]}Z"/>')
    return _figure(title, good, "".join(body), _legend(series, axis.form, area=True), _data(xs, series, x, axis.form))


def reliability_chart(title: str, good: str, bins: Sequence[tuple[float, float, int]]) -> str:
    """Predicted probability against observed share, one dot per bin (predicted, observed, n), sized by n."""
    if not bins:
        return empty_chart(title, "The reward model's file holds no calibration bins.")
    x = _Scale(0.0, 1.0, LEFT, WIDTH - RIGHT, ticks=[0, 0.25, 0.5, 0.75, 1])
    y = _Scale(0.0, 1.0, HEIGHT - BOTTOM, TOP, ticks=[0, 0.25, 0.5, 0.75, 1])
    largest = max(n for *_, n in bins) or 1
    body = [_frame(x, y, Axis(label="share that passed", form=percent), "reward-model score", percent)]
    body.append(f'<path class="ideal" d="M{x(0):.1f},{y(0):.1f}L{x(1):.1f},{y(1):.1f}"/>')
    body.append(f'<path class="line c0" d="{_path([(x(p), y(o)) for p, o, _ in bins])}"/>')
    for predicted, observed, n in bins:
        radius = 3 + 7 * math.sqrt(n / largest)
        body.append(
            f'<circle class="dot c0" cx="{x(predicted):.1f}" cy="{y(observed):.1f}" r="{radius:.1f}"><title>score '
            f"{predicted:.2f}: {percent(observed)} of {n} passed</title></circle>"
        )
    legend = '<span class="key"><i class="swatch ideal-key"></i>perfect calibration</span>'
    return _figure(title, good, "".join(body), legend, "")


def rate_bar(rate: float, error: float, color: str) -> str:
    """A pass rate on a track from 0 to 100 %, with a whisker of 1.96 standard errors to either side."""
    low, high = max(0.0, rate - 1.96 * error), min(1.0, rate + 1.96 * error)
    title = f"95 % interval: {percent(low)} to {percent(high)}"
    return (
        f'<div class="rate" title="{title}"><i class="bar {color}" style="width:{100 * rate:.2f}%"></i>'
        f'<i class="whisker" style="left:{100 * low:.2f}%;width:{100 * (high - low):.2f}%"></i></div>'
    )


def spark_line(label: str, unit: str, xs: Sequence[int], values: Sequence[float | None], form: Format) -> str:
    """A small chart of one number, with its last value."""
    one = Series(label=label, values=values)
    xs, (one,) = _thin(xs, [one])
    finite = [(x, v) for x, v in zip(xs, one.values, strict=True) if v is not None and math.isfinite(v)]
    last = form(finite[-1][1]) if finite else "not finite"
    low, high = (min(v for _, v in finite), max(v for _, v in finite)) if finite else (0.0, 0.0)
    drawing = ""
    if len(finite) > 1:
        x = _Scale(finite[0][0], finite[-1][0], 3, 197)
        y = _Scale(low, high, 37, 5) if high > low else _Scale(low - 1, low + 1, 37, 5)
        end_x, end_y = x(finite[-1][0]), y(finite[-1][1])
        drawing = (
            f'<path class="line c0" d="{_path([(x(s), y(v)) for s, v in finite])}"/>'
            f'<circle class="dot c0" cx="{end_x:.1f}" cy="{end_y:.1f}" r="2.5"/>'
        )
    span = f"{form(low)} to {form(high)}" if finite else ""
    name, unit = attribute(label), "" if unit == "1" else escaped(unit)
    return (
        f'<div class="spark"><div class="spark-name">{escaped(label)}</div>'
        f'<div class="spark-value">{last} <small>{unit}</small></div>'
        f'<svg viewBox="0 0 200 42" role="img" aria-label="{name}: {last}"><title>{name}: {span}</title>{drawing}</svg>'
        f'<div class="spark-range">{span}</div></div>'
    )


def empty_chart(title: str, why: str) -> str:
    """A card that says what is not there."""
    caption = f"<figcaption><h3>{escaped(title)}</h3></figcaption>"
    return f'<figure class="card empty">{caption}<p>{escaped(why)}</p></figure>'


def percent(value: float) -> str:
    """A share as per cent, with a decimal where it has one; the space before the sign does not break."""
    hundredths = 100 * value
    digits = 0 if abs(hundredths - round(hundredths)) < 0.05 else 1
    return minus(f"{hundredths:.{digits}f}\u00a0%")


def minus(number: str) -> str:
    """A formatted number with a minus sign in place of the hyphen."""
    return number.replace("-", "\u2212")


def seconds(value: float) -> str:
    """Seconds with a sensible number of digits."""
    digits = 0 if value >= 100 or value == int(value) else 1 if value >= 1 else 2
    return f"{value:.{digits}f}\u00a0s"


def compact(value: float) -> str:
    """A number of any size in a few characters."""
    size = abs(value)
    if value == 0 or 1000 <= size < 10_000 or (1 <= size < 1000 and value == int(value)):
        return minus(f"{value:.0f}")
    for limit, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")):
        if size >= limit:
            return minus(f"{value / (1e3 if unit == 'k' else limit):.3g}\u00a0{unit}")
    if size >= 0.001:
        return minus(f"{value:.3g}")
    mantissa, exponent = f"{value:.1e}".split("e")
    return minus(f"{mantissa.removesuffix('.0')}e{int(exponent)}")


def _figure(title: str, good: str, body: str, legend: str, data: str) -> str:
    cursor = f'<line class="cursor" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
    drawing = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{attribute(title)}">{body}{cursor}</svg>'
    return (
        f'<figure class="card chart"><figcaption><h3>{escaped(title)}</h3><p class="good">{escaped(good)}</p>'
        f'</figcaption><div class="legend">{legend}</div><div class="plot">{drawing}{data}</div></figure>'
    )


def _frame(x: _Scale, y: _Scale, axis: Axis, x_label: str = "optimizer step", x_form: Format = compact) -> str:
    bottom = HEIGHT - BOTTOM
    out = [f'<text class="axis-label" x="2" y="11">{escaped(axis.label)}</text>']
    out.append(f'<text class="axis-label" x="{WIDTH - RIGHT}" y="{HEIGHT - 3}" text-anchor="end">{x_label}</text>')
    for tick in y.ticks:
        at = f"{y(tick):.1f}"
        out.append(f'<path class="grid" d="M{LEFT},{at}H{WIDTH - RIGHT}"/>')
        out.append(f'<text class="tick" x="{LEFT - 7}" y="{at}" dy="0.32em" text-anchor="end">{axis.form(tick)}</text>')
    for tick in x.ticks:
        out.append(f'<text class="tick" x="{x(tick):.1f}" y="{bottom + 15}" text-anchor="middle">{x_form(tick)}</text>')
    out.append(f'<path class="base" d="M{LEFT},{bottom}H{WIDTH - RIGHT}"/>')
    return "".join(out)


def _line(xs: Sequence[int], one: Series, x: _Scale, y: _Scale, dashed: int) -> str:
    values = list(zip(xs, one.values, strict=True))
    out = []
    if one.spread is not None:
        band = [(s, v, d) for (s, v), d in zip(values, one.spread, strict=True) if _finite(v) and _finite(d)]
        upper = [(x(s), _inside(y, v + d)) for s, v, d in band]
        lower = [(x(s), _inside(y, v - d)) for s, v, d in band]
        if len(band) > 1:
            out.append(f'<path class="band {one.color}" d="{_path(upper)}L{_path(lower[::-1])[1:]}Z"/>')
    points = [(s, v) for s, v in values if v is not None]
    smooth = one.smooth and len(points) >= 24
    for run in _runs(points):
        raw = [(x(s), y(v)) for s, v in run]
        out.append(f'<path class="line {one.color} dash{dashed}{" faint" if smooth else ""}" d="{_path(raw)}"/>')
        if smooth:
            averaged = [(x(s), y(v)) for s, v in _moving_average(run)]
            out.append(f'<path class="line {one.color} dash{dashed}" d="{_path(averaged)}"/>')
        if len(points) <= 30:
            out += [f'<circle class="dot {one.color}" cx="{a:.1f}" cy="{b:.1f}" r="2.6"/>' for a, b in raw]
    for step, _ in (point for point in points if not math.isfinite(point[1])):
        mark = f"{attribute(one.label)} is not finite at step {step}"
        out.append(f'<path class="broken" d="M{x(step):.1f},{TOP + 9}l-5,-9h10z"><title>{mark}</title></path>')
    return "".join(out)


def _runs(points: Sequence[tuple[int, float]]) -> list[list[tuple[int, float]]]:
    """The stretches between values that are not finite."""
    runs: list[list[tuple[int, float]]] = [[]]
    for point in points:
        if math.isfinite(point[1]):
            runs[-1].append(point)
        else:
            runs.append([])
    return [run for run in runs if run]


def _moving_average(run: Sequence[tuple[int, float]], weight: float = 0.2) -> list[tuple[int, float]]:
    """Exponential moving average, forwards and backwards, so that it does not lag behind."""

    def pass_over(values: list[float]) -> list[float]:
        out = [values[0]]
        for value in values[1:]:
            out.append(out[-1] + weight * (value - out[-1]))
        return out

    values = [v for _, v in run]
    forward, backward = pass_over(values), pass_over(values[::-1])[::-1]
    return [(s, (a + b) / 2) for (s, _), a, b in zip(run, forward, backward, strict=True)]


def _thin(xs: Sequence[int], series: Sequence[Series]) -> tuple[Sequence[int], list[Series]]:
    """At most MAX_POINTS points: neighbours are merged into their mean, or their peak, at the last of their steps."""
    if len(xs) <= MAX_POINTS:
        return xs, list(series)
    size = math.ceil(len(xs) / MAX_POINTS)  # neighbours per point
    starts = range(0, len(xs), size)

    def merge(values: Sequence[float | None], peak: bool) -> list[float | None]:
        out: list[float | None] = []
        for start in starts:
            some = [v for v in values[start : start + size] if v is not None]
            whole = all(map(math.isfinite, some))
            out.append(None if not some else math.nan if not whole else max(some) if peak else sum(some) / len(some))
        return out

    thin = [
        Series(label=s.label, values=merge(s.values, s.peak), color=s.color, smooth=s.smooth, peak=s.peak,
               spread=merge(s.spread, False) if s.spread is not None else None)
        for s in series
    ]  # fmt: skip
    return [xs[min(start + size, len(xs)) - 1] for start in starts], thin


def _step_scale(xs: Sequence[int]) -> _Scale:
    low, high = float(min(xs)), float(max(xs))
    if low == high:
        return _Scale(low - 0.5, high + 0.5, LEFT, WIDTH - RIGHT, ticks=[low])
    ticks = [tick for tick in _ticks(low, high, 7) if tick == int(tick) and low <= tick <= high]
    return _Scale(low, high, LEFT, WIDTH - RIGHT, ticks=ticks)


def _value_scale(series: Sequence[Series], axis: Axis) -> _Scale:
    finite = [v for one in series for v in one.values if _finite(v)]
    if axis.log:
        positive = [v for v in finite if v > 0] or [1e-6]
        low = 10.0 ** math.floor(math.log10(min(positive)))
        high = 10.0 ** math.ceil(math.log10(max(positive)) + 1e-9)
        high = high if high > low else low * 10
        decades = round(math.log10(high / low))
        ticks = [low * 10.0**n for n in range(0, decades + 1, max(1, decades // 4))]
        return _Scale(low, high, HEIGHT - BOTTOM, TOP, log=True, ticks=ticks)
    bounds = [b for b in (axis.low, axis.high) if b is not None]
    values = finite + bounds or [0.0]
    return _nice_scale(min(values), max(values), HEIGHT - BOTTOM, TOP)


def _nice_scale(low: float, high: float, start: float, end: float) -> _Scale:
    if high <= low:
        low, high = (low - abs(low) / 2, high + abs(high) / 2) if low else (0.0, 1.0)
    ticks = _ticks(low, high, 5)
    return _Scale(min(low, ticks[0]), max(high, ticks[-1]), start, end, ticks=ticks)


def _ticks(low: float, high: float, about: int) -> list[float]:
    """Round numbers that cover the range: multiples of 1, 2, 2.5 or 5 times a power of ten."""
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(n * step, 12) for n in range(first, last + 1)]


def _legend(series: Sequence[Series], form: Format, area: bool = False) -> str:
    keys = []
    for number, one in enumerate(series):
        finite = [v for v in one.values if _finite(v)]
        last = f" <b>{form(finite[-1])}</b>" if finite else ""
        shape = "area-key" if area else f"line-key dash{number % 3}"
        keys.append(f'<span class="key"><i class="swatch {one.color} {shape}"></i>{escaped(one.label)}{last}</span>')
    return "".join(keys)


def _data(xs: Sequence[int], series: Sequence[Series], x: _Scale, form: Format) -> str:
    """What the tooltip shows, as JSON in which no character can end the script element."""
    rows = [
        {
            "label": one.label,
            "color": one.color,
            "values": [None if v is None else form(v) if math.isfinite(v) else "not finite" for v in one.values],
        }
        for one in series
    ]
    at = [round(x(step) / WIDTH, 5) for step in xs]
    text = json.dumps({"steps": list(xs), "at": at, "series": rows}, separators=(",", ":"))
    safe = text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return f'<script type="application/json">{safe}</script>'


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{a:.1f},{b:.1f}" for a, b in points)


def _inside(y: _Scale, value: float) -> float:
    return y(min(max(value, y.low), y.high))


def _finite(value: float | None) -> TypeGuard[float]:
    return value is not None and math.isfinite(value)
