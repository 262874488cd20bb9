"""Small charts as inline SVG, drawn on a canvas 340 wide so that their text can be read on a phone.

Colours come from the page's CSS variables, so that charts follow the light or dark theme; segments have the same
colours everywhere. Every chart has a name (`aria-label`) that says what it shows; its figures are also in a table.
"""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from markupsafe import Markup

from monitoring.outcomes import Rate
from monitoring.psi import DRIFTED, WATCH
from monitoring.segments import WeekShares
from monitoring.words import day, percent

WIDTH = 340
PALE, DEEP, DONE = (150, 196, 226), (28, 88, 160), "#2f9e6b"


def colours(names: Sequence[str], done: str | None) -> dict[str, str]:
    """A colour for each segment: from pale to deep blue as the score rises, green for those who are done."""
    scored = [name for name in names if name != done]
    steps = max(len(scored) - 1, 1)
    mixed = {
        name: "#" + "".join(f"{round(p + (d - p) * i / steps):02x}" for p, d in zip(PALE, DEEP, strict=True))
        for i, name in enumerate(scored)
    }
    return mixed | ({done: DONE} if done else {})


def shares(weeks: Sequence[WeekShares], colour: dict[str, str], known: Sequence[bool | None]) -> Markup:
    """Segment shares, a stacked column a week. known: whether it lay inside the training period (None: unknown)."""
    left, top, height, foot = 42, 8, 180, 40
    step = (WIDTH - left - 8) / max(len(weeks), 1)
    parts = [_y_axis(left, top, height, [0, 0.25, 0.5, 0.75, 1], percent)]
    for i, week in enumerate(weeks):
        x, y = left + i * step + 3, float(top + height)
        for name, share in week.shares.items():
            y -= share * height
            hint = f"{day(week.end_us)}, {name}: {percent(share)} ({week.counts[name]:,})"
            parts.append(_bar(x, y, step - 6, share * height, colour[name], hint))
        parts.append(_week_label(weeks, i, x + step / 2 - 3, top + height + 16))
        if known[i]:
            parts.append(_bar(x - 3, top + height + 24, step, 4, "var(--muted)", "inside the training period"))
    if any(known):
        parts.append(_text(left, top + height + 40, "▬ inside the training period", "start"))
    label = f"Share of each segment at {len(weeks)} week ends, as stacked columns"
    return _svg(top + height + foot + 8, label, parts)


def psi_by_week(weeks: Sequence[WeekShares]) -> Markup:
    """PSI of the segment shares between consecutive weeks, with the thresholds."""
    left, top, height = 42, 8, 120
    values = [week.psi for week in weeks if week.psi is not None]
    most = max([DRIFTED * 1.25, *values])
    step = (WIDTH - left - 8) / max(len(weeks), 1)
    parts = [_y_axis(left, top, height, [0, most], lambda v: f"{v:.2f}")]
    for limit in (WATCH, DRIFTED):
        parts.append(_threshold(left, top + height - height * limit / most, limit))
    for i, week in enumerate(weeks):
        x = left + i * step
        parts.append(_week_label(weeks, i, x + step / 2, top + height + 16))
        if week.psi is not None:
            tall = max(height * week.psi / most, 1.5)
            hint = f"{day(week.end_us)}: PSI {week.psi:.3f}"
            parts.append(_bar(x + step * 0.3, top + height - tall, step * 0.4, tall, "var(--accent)", hint))
    return _svg(top + height + 24, "PSI of the segment shares against the week before, with thresholds", parts)


def psi_by_feature(values: Sequence[tuple[str, float]]) -> Markup:
    """PSI of features, largest first, as horizontal bars; beyond 0.5 they are cut off, their figure stands beside."""
    left, right, row, top = 4, 40, 36, 4
    most, room = min(0.5, max([0.25, *(value for _, value in values)])), WIDTH - left - right
    marks = [left + room * threshold / most for threshold in (WATCH, DRIFTED)]
    parts = []
    for i, (name, value) in enumerate(values):
        y, wide = top + i * row, max(room * min(value, most) / most, 1.5)
        tone = "var(--act)" if value >= DRIFTED else "var(--look)" if value >= WATCH else "var(--accent)"
        parts += [_line(x, y + 16, x, y + 28, "tick") for x in marks]
        parts.append(_text(left, y + 12, name, "start"))
        parts.append(_bar(left, y + 17, wide, 10, tone, f"{name}: PSI {value:.3f}"))
        parts.append(_text(left + wide + 5, y + 26, f"{value:.2f}", "start"))
    foot = top + row * len(values) + 10
    parts += [_text(x, foot, f"{t:g}", "middle") for x, t in zip(marks, (WATCH, DRIFTED), strict=True)]
    return _svg(foot + 6, "PSI of the features that moved most, with thresholds", parts)


def scores(reference: Sequence[float], current: Sequence[float], bins: int = 20) -> Markup:
    """Distribution of the scores: training as a grey area, the newest week as a line."""
    left, top, height = 42, 8, 150
    edges = np.linspace(0, 1, bins + 1)
    then, now = (np.histogram(side, edges)[0] / max(len(side), 1) for side in (reference, current))
    most = _round_up(max(float(then.max()), float(now.max())))
    room = (WIDTH - left - 6) / bins
    parts = [_y_axis(left, top, height, [0, most / 2, most], percent)]
    points = []
    for i, (was, share) in enumerate(zip(then.tolist(), now.tolist(), strict=True)):
        x, hint = left + i * room, f"{percent(was)} in training, {percent(share)} now"
        hint = f"score {edges[i]:.2f} to {edges[i + 1]:.2f}: {hint}"
        parts.append(_bar(x, top + height * (1 - was / most), room - 1, height * was / most, "var(--area)", hint))
        points += [f"{edge:.1f},{top + height * (1 - share / most):.1f}" for edge in (x, x + room)]
    parts.append(Markup('<polyline class="curve" points="{}"/>').format(" ".join(points)))
    parts += [_text(left + room * bins * v, top + height + 16, f"{v:g}", "middle") for v in (0, 0.25, 0.5, 0.75, 1)]
    return _svg(top + height + 22, "Distribution of the score in training and now", parts)


def calibration(bins: Sequence[Rate]) -> Markup:
    """What came against what was predicted, with 95 % intervals; on the diagonal it is as predicted."""
    left, top, size = 44, 8, 240
    most = _round_up(max(max(b.high, b.predicted or 0) for b in bins))
    x0 = left + (WIDTH - left - size) / 2
    ticks = [0, most / 2, most]
    parts = [_y_axis(x0, top, size, ticks, percent, size), _line(x0, top + size, x0 + size, top, "threshold")]
    parts += [_text(x0 + size * t / most, top + size + 16, percent(t), "middle") for t in ticks]
    for b in bins:
        x, y = x0 + size * (b.predicted or 0) / most, top + size * (1 - b.rate / most)
        hint = f"predicted {percent(b.predicted or 0)}, came {percent(b.rate)} ({b.happened:,} of {b.n:,})"
        parts.append(_whisker(x, top + size * (1 - b.low / most), x, top + size * (1 - b.high / most)))
        dot = Markup('<circle cx="{:.1f}" cy="{:.1f}" r="4.5" class="dot"><title>{}</title></circle>')
        parts.append(dot.format(x, y, hint))
    parts.append(_text(x0 + size / 2, top + size + 34, "predicted", "middle"))
    parts.append(
        Markup('<text transform="translate({:.1f} {:.1f}) rotate(-90)" text-anchor="middle">came</text>').format(
            x0 - 48, top + size / 2
        )
    )
    return _svg(top + size + 42, "Calibration: what came against what was predicted, in groups of equal size", parts)


def rates(groups: Sequence[Rate], colour: dict[str, str], outcome: str) -> Markup:
    """Rate of the outcome by segment, with 95 % intervals."""
    left, right, row, top = 4, 6, 46, 4
    most, room = max([0.01, *(g.high for g in groups)]), WIDTH - left - right
    parts = []
    for i, g in enumerate(groups):
        y = top + i * row
        parts.append(_text(left, y + 13, f"{g.name}: {percent(g.rate)}  (n={g.n:,})", "start"))
        parts.append(
            _bar(
                left,
                y + 19,
                max(room * g.rate / most, 1.5),
                16,
                colour.get(g.name, "var(--accent)"),
                f"{g.name}: {percent(g.rate)}",
            )
        )
        parts.append(_whisker(left + room * g.low / most, y + 27, left + room * g.high / most, y + 27))
    return _svg(top + row * len(groups), f"Rate of {outcome} by segment, with 95 % intervals", parts)


def _week_label(weeks: Sequence[WeekShares], i: int, x: float, y: float) -> Markup:
    """The date under a week's column; of more than six weeks every other one has it, the last one always."""
    crowded = len(weeks) > 6 and (len(weeks) - 1 - i) % 2
    return Markup("") if crowded else _text(x, y, day(weeks[i].end_us), "middle")


def _round_up(share: float) -> float:
    """The end of an axis: the next share at or above that halves to a round figure."""
    return next((end for end in (0.02, 0.04, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8) if share <= end), 1.0)


def _svg(height: float, label: str, parts: Iterable[Markup]) -> Markup:
    """The picture around its parts."""
    head = Markup('<svg viewBox="0 0 {} {:.0f}" role="img" aria-label="{}">').format(WIDTH, height, label)
    return head + Markup("").join(parts) + Markup("</svg>")


def _bar(x: float, y: float, width: float, height: float, fill: str, hint: str) -> Markup:
    shape = Markup('<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" fill="{}"><title>{}</title></rect>')
    return shape.format(x, y, width, max(height, 0), fill, hint)


def _text(x: float, y: float, words: str, anchor: str) -> Markup:
    return Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(x, y, anchor, words)


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    shape = Markup('<line x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}" class="{}"/>')
    return shape.format(x1, y1, x2, y2, kind)


def _whisker(x1: float, y1: float, x2: float, y2: float) -> Markup:
    """An interval, with a rim so that it shows on a dark bar too."""
    return _line(x1, y1, x2, y2, "halo") + _line(x1, y1, x2, y2, "whisker")


def _threshold(left: float, y: float, limit: float) -> Markup:
    """A horizontal threshold with its figure."""
    return _line(left, y, WIDTH, y, "threshold") + _text(left - 4, y + 4, f"{limit:g}", "end")


def _y_axis(
    left: float, top: float, height: float, ticks: Sequence[float], word: Callable[[float], str], room: float = 0
) -> Markup:
    """Grid lines with their figures; the last tick is the top. room: how wide (0: to the right edge)."""
    parts, right = [], left + room if room else WIDTH
    for tick in ticks:
        y = top + height * (1 - tick / (ticks[-1] or 1))
        parts += [_line(left, y, right, y, "grid"), _text(left - 4, y + 4, word(tick), "end")]
    return Markup("").join(parts)
