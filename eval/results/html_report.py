"""report.html: one page with tables, protocols, what is missing, a picture for each number, and videos to look at, the worst first."""

import logging
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

from eval.measures.measure import Case, Column, Kind
from eval.results.evaluation_results import BETTER, NOT_MEASURED, TITLES, Outcome, cell, label
from eval.results.side_by_side import write_side_by_side
from eval.results.strips import Mark, draw_strip, worst_first
from eval.runs.summary import Row
from latentsync.errors import reason_of
from latentsync.media.files import write_text

logger = logging.getLogger(__name__)

MEDIA = "media"  # folder of the small videos, beside the page
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; width: 100%; } td, th { border-bottom: 1px solid #ddd; padding: .3rem .6rem; text-align: left; }
.warning { background: #b00020; color: white; padding: 1rem 1.5rem; font-size: 1.15rem; border-radius: 6px; }
figure { display: inline-block; margin: .5rem 1rem .5rem 0; } video { max-width: 100%; } svg { max-width: 100%; }
svg text { font: 11px system-ui, sans-serif; } .made { color: #c8501e; } .real { color: #1f5fa8; } .left { color: #b00020; }
"""


def write_report(outcome: Outcome, rows: Sequence[Row], folder: Path, clips: int) -> None:
    """Write the page and the small videos of the worst cases, `clips` at most. Raises OutputError."""
    chosen = worst_cases(outcome, clips)
    clips_html = list(_clips(outcome, chosen, folder))
    parts = [
        *_head(outcome),
        *(part for kind in TITLES for part in _table(kind, [row for row in rows if row.kind == kind])),
        *_missing(outcome),
        "<h2>Videos, the worst of each measure in turn</h2><p>Left: the source. Right: what was made of it. Sound: what it was to say.</p>",
        *clips_html,
        "<h2>Each video</h2><p>The worst on top: <b class=made>●</b> the video, <b class=real>○</b> its source in its place.</p>",
        *_strips(outcome),
        *_foot(outcome),
    ]
    page = f"<!doctype html><html lang=en><meta charset=utf-8><title>Evaluation</title><style>{STYLE}</style><body>"
    write_text(folder / "report.html", "\n".join([page, *parts, "</body></html>", ""]))


def worst_cases(outcome: Outcome, count: int) -> dict[str, str]:
    """Case -> of what it is the worst: the worst of each number that has a better way, then the second worst, and so on."""
    columns = [(measure, column) for measure in outcome.measures for column in measure.columns if column.better is not None]
    orders = [(column, worst_first(outcome.numbers[measure.name], column)) for measure, column in columns]
    chosen: dict[str, str] = {}
    for place in range(max((len(marks) for _, marks in orders), default=0)):
        for column, marks in orders:
            if place < len(marks) and len(chosen) < count:
                mark = marks[place]
                chosen.setdefault(mark.case, f"{column.name} {mark.made:.{column.digits}f}, {_rank(place)}")
    for case in outcome.cases:
        if len(chosen) < count:
            chosen.setdefault(case.name, "")
    return chosen


def _rank(place: int) -> str:
    return "the worst" if place == 0 else f"place {place + 1} from the worst"


def _head(outcome: Outcome) -> Iterator[str]:
    yield "<h1>Evaluation</h1>"
    if outcome.stand_ins:
        items = "".join(f"<li>{escape(words)}</li>" for words in outcome.stand_ins)
        yield f"<div class=warning><b>These figures are not those of the published protocols:</b><ul>{items}</ul></div>"


def _table(kind: Kind, rows: Sequence[Row]) -> Iterator[str]:
    if not rows:
        return
    yield f"<h2>{escape(TITLES[kind])}</h2><table><tr><th>measure<th>value [95 %]<th>ground truth<th>n<th>better</tr>"
    for row in rows:
        value = cell(row.made, row.column) if row.made is not None else f"{NOT_MEASURED} ({row.note})"
        count = NOT_MEASURED if row.made is None else str(row.made.count)
        cells = (label(row), value, cell(row.truth, row.column), count, BETTER[row.column.better])
        yield f"<tr>{''.join(f'<td>{escape(text)}' for text in cells)}</tr>"
    yield "</table>"


def _missing(outcome: Outcome) -> Iterator[str]:
    if outcome.missing:
        yield "<h2 class=left>Not measured, since weights are missing</h2><ul>"
        yield from (f"<li><b>{escape(entry.measure)}</b>: {escape(entry.why)}</li>" for entry in outcome.missing)
        yield "</ul>"


def _clips(outcome: Outcome, chosen: dict[str, str], folder: Path) -> Iterator[str]:
    cases = {case.name: case for case in outcome.cases}
    for name, why in chosen.items():
        try:
            yield _clip(cases[name], why, folder)
        except Exception as error:
            logger.warning("%s is not in the report: %s", name, reason_of(error))
            logger.debug("Where it happened:", exc_info=error)
            yield f"<p class=left>{escape(name)}: {escape(reason_of(error))}</p>"


def _clip(case: Case, why: str, folder: Path) -> str:
    place = Path(MEDIA, f"{case.name}.mp4")
    write_side_by_side(case, folder / place)
    about = f"{escape(case.name)} ({case.kind}){': ' + escape(why) if why else ''}"
    first = "#t=0.001"  # browsers show no picture of a video that was not begun, unless they are sent to one
    player = f'<video controls preload=metadata src="{escape(place.as_posix())}{first}"></video>'
    return f"<figure>{player}<figcaption>{about}</figcaption></figure>"


def _strips(outcome: Outcome) -> Iterator[str]:
    for measure in outcome.measures:
        for kind in TITLES:
            names = {case.name for case in outcome.cases if case.kind == kind}
            readings = {name: reading for name, reading in outcome.numbers[measure.name].items() if name in names}
            for column in measure.columns:
                yield from _strip(column, kind, worst_first(readings, column))


def _strip(column: Column, kind: Kind, marks: Sequence[Mark]) -> Iterator[str]:
    if marks:
        better = f", better: {BETTER[column.better]}" if column.better else ""
        unit = f" ({column.unit})" if column.unit else ""
        yield f"<h3>{escape(column.name + unit)}, {kind}{better}</h3>{draw_strip(marks, column)}"


def _foot(outcome: Outcome) -> Iterator[str]:
    measures = (*outcome.measures, *outcome.sets)
    yield "<h2>Protocols</h2><ul>"
    yield from (f"<li><b>{escape(measure.name)}</b>: {escape(measure.protocol)}</li>" for measure in measures)
    yield "</ul><h2>To be known</h2><ul>"
    yield from (f"<li>{escape(note)}</li>" for note in outcome.notes())
    yield "</ul><h2>Settings</h2><table>"
    yield from (f"<tr><td>{escape(key)}<td>{escape(str(value))}</tr>" for key, value in {**outcome.settings, **outcome.weights}.items())
    yield "</table>"
