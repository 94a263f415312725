"""The numbers of all videos as a picture: one line a video, the worst on top, beside its source. SVG, for a page."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

from eval.measures.measure import Column, Numbers
from eval.runs.measuring import Reading

MOST_LETTERS = 34  # of a name, its end
MOST_LINES = 40  # videos in one picture, the worst; the table of all numbers is in results.json
_LINE, _LEFT, _RIGHT, _WIDTH = 16, 250, 90, 860  # pixels: height of a line, room for names and for numbers, of the whole
_MADE, _REAL = "#c8501e", "#1f5fa8"


class Mark(NamedTuple):
    """One video in a picture."""

    case: str
    made: float
    truth: float | None


def worst_first(readings: Mapping[str, Reading[Numbers]], column: Column) -> list[Mark]:
    """The videos that have a number, the worst first; by the lowest where neither way is better."""
    marks = [
        Mark(case, reading.made[column.name], None if reading.truth is None else reading.truth.get(column.name))
        for case, reading in readings.items()
        if reading.made is not None and reading.made.get(column.name) is not None
    ]
    badness = {"high": lambda mark: -mark.made, "low": lambda mark: mark.made, "zero": lambda mark: abs(mark.made)}
    return sorted(marks, key=badness.get(column.better, lambda mark: -mark.made), reverse=True)


def end_of(name: str) -> str:
    """A name, or so much of its end as fits."""
    return name if len(name) <= MOST_LETTERS else f"…{name[1 - MOST_LETTERS :]}"


def draw_strip(marks: Sequence[Mark], column: Column) -> str:
    """A dot for the video and a ring for its source on each line."""
    shown = marks[:MOST_LINES]
    values = [value for mark in shown for value in (mark.made, mark.truth) if value is not None]
    low, high = min(values), max(values)
    span = (high - low) or 1.0

    def across(value: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * ((value - low) / span if high > low else 0.5)

    height = _LINE * (len(shown) + 1) + 8
    parts = [f'<svg viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" role="img">']
    for line, mark in enumerate(shown):
        y = _LINE * (line + 0.5) + 4
        parts.append(f'<text x="{_LEFT - 10}" y="{y + 4:.0f}" text-anchor="end">{escape(end_of(mark.case))}</text>')
        parts.append(f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.0f}" y2="{y:.0f}" stroke="#ddd"/>')
        if mark.truth is not None:
            parts.append(f'<circle cx="{across(mark.truth):.1f}" cy="{y:.0f}" r="4" fill="none" stroke="{_REAL}" stroke-width="1.5"/>')
        parts.append(f'<circle cx="{across(mark.made):.1f}" cy="{y:.0f}" r="4" fill="{_MADE}"/>')
        parts.append(f'<text x="{_WIDTH - _RIGHT + 12}" y="{y + 4:.0f}">{mark.made:.{column.digits}f}</text>')
    y = _LINE * len(shown) + 18
    ends = ((_LEFT, low, "start"), (_WIDTH - _RIGHT, high, "end"))
    parts += [f'<text x="{x}" y="{y}" text-anchor="{side}" fill="#777">{value:.{column.digits}f}</text>' for x, value, side in ends]
    return "".join([*parts, "</svg>"])
