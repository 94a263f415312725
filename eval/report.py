"""Reports of an evaluation: results.json, results.md, report.html."""

import logging
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch

from eval.cases import PairList, plain
from eval.measure import Reading, SummaryRow, rows_of, set_rows
from eval.metrics.available import Missing
from eval.metrics.base import Case, Column, Estimate, Kind, Measure, Numbers, SetMeasure
from latentsync.constants import VIDEO_FPS
from latentsync.errors import reason_of
from latentsync.media.files import write_json, write_text
from latentsync.media.probe import probe
from latentsync.media.video_reader import VideoReader
from latentsync.media.video_writer import AudioTrack, VideoWriter

logger = logging.getLogger(__name__)

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


HEIGHT = 288  # rows of the small video at most
LONGEST = 10 * VIDEO_FPS  # frames: the beginning is enough to see what is wrong


def write_side_by_side(case: Case, path: Path) -> None:
    """Write the small video, unless it is there already and no older than the video. Raises InputError, OutputError."""
    if path.is_file() and path.stat().st_mtime >= case.video.stat().st_mtime:
        return
    video, source = VideoReader(case.video), VideoReader(case.source)
    height = min(HEIGHT, source.height) // 2 * 2
    width = max(2, round(source.width * height / source.height) // 2 * 2)
    count = min(LONGEST, video.expected_frames or LONGEST, source.expected_frames or LONGEST)
    audio = AudioTrack(case.audio, count / VIDEO_FPS) if probe(case.audio).has_audio else None
    with VideoWriter(path, 2 * width, height, VIDEO_FPS, audio=audio, crf=26) as sink:
        for pair in zip(source.frames(0, count), video.frames(0, count), strict=False):
            sink.write(np.hstack(list(_resized(pair, (width, height)))))


def _resized(frames: tuple[np.ndarray, ...], size: tuple[int, int]) -> Iterator[np.ndarray]:
    """Frames uint8 h w 3 at another (width, height)."""
    for frame in frames:
        yield cv2.resize(frame, size, interpolation=cv2.INTER_AREA)


NOT_MEASURED = "-"
BETTER = {"high": "higher", "low": "lower", "zero": "nearer to 0", None: ""}
TITLES: Mapping[Kind, str] = {
    "reconstruction": "Reconstruction: each video with its own sound",
    "cross": "Cross: each video with the sound of another",
}
PACKAGES = ("torch", "torchvision", "numpy", "opencv-python-headless", "diffusers", "lpips", "openai-whisper")


@dataclass(frozen=True)
class EvaluationResults:
    """Everything that an evaluation found out.

    Attributes:
        settings, weights: what decided the numbers; weights by name with SHA-256.
        pairs: the list that was to be measured.
        cases: those that were, in order.
        numbers: measure -> case -> reading.
        features: measure of sets -> case -> reading.
        failed: case -> why nothing is known of it.
        warnings: case -> what is to be known about it.
        missing: measures that could not take part.
        stand_ins: sentences on networks that are random or stand for others.
    """

    settings: Mapping[str, Any]
    weights: Mapping[str, str]
    pairs: PairList
    cases: Sequence[Case]
    measures: Sequence[Measure]
    sets: Sequence[SetMeasure]
    numbers: Mapping[str, Mapping[str, Reading[Numbers]]]
    features: Mapping[str, Mapping[str, Reading[np.ndarray]]]
    failed: Mapping[str, str]
    warnings: Mapping[str, Sequence[str]]
    missing: Sequence[Missing]
    stand_ins: Sequence[str]

    def rows(self) -> list[SummaryRow]:
        """The table, measures of sets last."""
        kinds = {case.name: case.kind for case in self.cases}
        single = [row for measure in self.measures for row in rows_of(measure, kinds, self.numbers[measure.name])]
        return [*single, *(row for measure in self.sets for row in set_rows(measure, kinds, self.features[measure.name]))]

    def notes(self) -> list[str]:
        """What a reader of the table has to know."""
        asked = len(self.cases) + len(self.failed)
        notes = [
            f"{len(self.cases)} of {asked} videos measured. In brackets: 95 % intervals, the bootstrap over videos; for sets of videos "
            "the jackknife over groups of them. Ground truth: the source itself in the place of the video, through the same measure.",
        ]
        notes += [f"Left out: {why}" for why in self.pairs.refused.values()]
        notes += [f"Left out: {name}: {why}" for name, why in self.failed.items()]
        for name in self.numbers:
            readings = self.numbers[name]
            lost = {case: reading.failed for case, reading in readings.items() if reading.failed}
            if lost:
                first = next(iter(lost))
                notes.append(f"{name}: {len(lost)} of {len(readings)} videos could not be measured; the first was {first}: {lost[first]}")
            elif not any(value is not None for reading in readings.values() for value in (reading.made or {}).values()):
                notes.append(f"{name} has no number of any of these videos; its protocol says of which there is one.")
        return [*notes, *(f"{case}: {warning}" for case, found in self.warnings.items() for warning in found)]


def write_results(outcome: EvaluationResults, rows: Sequence[SummaryRow], folder: Path) -> str:
    """Write results.json and results.md; the text of the latter. Raises OutputError."""
    write_json(folder / "results.json", as_json(outcome, rows))
    text = to_markdown(outcome, rows)
    write_text(folder / "results.md", text)
    return text


def as_json(outcome: EvaluationResults, rows: Sequence[SummaryRow]) -> dict[str, Any]:
    """All numbers and all that they depend on."""
    digests = outcome.pairs.checksums
    described = [(measure, measure.columns) for measure in outcome.measures] + [(measure, [measure.column]) for measure in outcome.sets]
    return {
        "stand_ins": list(outcome.stand_ins),
        "settings": dict(outcome.settings),
        "weights": dict(outcome.weights),
        "versions": versions(),
        "pairs": [
            {"name": pair.name, "kind": pair.kind, "source": digests[str(pair.source)], "audio": digests[str(pair.audio)]}
            for pair in outcome.pairs.pairs
        ],
        "measures": {
            measure.name: {"protocol": measure.protocol, "columns": [plain(column) for column in columns]} for measure, columns in described
        },
        "missing": [plain(entry) for entry in outcome.missing],
        "rows": [plain(row) for row in rows],
        "refused": outcome.pairs.refused,
        "failed": dict(outcome.failed),
        "cases": {case.name: _case_as_json(outcome, case) for case in outcome.cases},
    }


def _case_as_json(outcome: EvaluationResults, case: Case) -> dict[str, Any]:
    readings = {name: found[case.name] for name, found in outcome.numbers.items()}
    return {
        "kind": case.kind,
        "video": str(case.video),
        "source": str(case.source),
        "audio": str(case.audio),
        "warnings": list(outcome.warnings.get(case.name, ())),
        "measures": {name: {"made": reading.made, "truth": reading.truth, "failed": reading.failed} for name, reading in readings.items()},
    }


def versions() -> dict[str, str]:
    """Of what computed the numbers."""
    found = {"python": platform.python_version(), "cuda": str(torch.version.cuda)}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def to_markdown(outcome: EvaluationResults, rows: Sequence[SummaryRow]) -> str:
    """The tables with protocols, what is missing, and what is to be known."""
    lines = ["# Evaluation", ""]
    if outcome.stand_ins:
        lines += ["> **THESE FIGURES ARE NOT THOSE OF THE PUBLISHED PROTOCOLS:**", ">"]
        lines += [line for words in outcome.stand_ins for line in (f"> - **{words}**",)] + [""]
    for kind, title in TITLES.items():
        of_kind = [row for row in rows if row.kind == kind]
        if of_kind:
            lines += [f"## {title}", "", *table_lines(of_kind), ""]
    lines += ["## Protocols", ""]
    lines += [f"- **{measure.name}**: {measure.protocol}" for measure in (*outcome.measures, *outcome.sets)]
    if outcome.missing:
        lines += ["", "## Not measured, since weights are missing", ""]
        lines += [f"- **{entry.measure}**: {entry.why}" for entry in outcome.missing]
    return "\n".join([*lines, "", "## To be known", "", *(f"- {note}" for note in outcome.notes())]) + "\n"


def table_lines(rows: Sequence[SummaryRow]) -> list[str]:
    """A table in Markdown."""
    lines = ["| measure | value | ground truth | n | better |", "|---|---|---|---|---|"]
    for row in rows:
        count = NOT_MEASURED if row.made is None else str(row.made.count)
        value = cell(row.made, row.column) if row.made is not None else f"{NOT_MEASURED} ({row.note})"
        cells = (label(row), value, cell(row.truth, row.column), count, BETTER[row.column.better])
        lines.append(f"| {' | '.join(text.replace('|', '/') for text in cells)} |")
    return lines


def label(row: SummaryRow) -> str:
    """What a row is called."""
    name = row.column.name if row.column.name.startswith(row.measure) else f"{row.measure}: {row.column.name}"
    return f"{name}, {row.column.unit}" if row.column.unit else name


def cell(found: Estimate | None, column: Column) -> str:
    """A value with its interval."""
    if found is None:
        return NOT_MEASURED
    interval = "" if found.low is None or found.high is None else f" [{found.low:.{column.digits}f}, {found.high:.{column.digits}f}]"
    return f"{found.value:.{column.digits}f}{interval}"


MEDIA = "media"  # folder of the small videos, beside the page
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; width: 100%; } td, th { border-bottom: 1px solid #ddd; padding: .3rem .6rem; text-align: left; }
.warning { background: #b00020; color: white; padding: 1rem 1.5rem; font-size: 1.15rem; border-radius: 6px; }
figure { display: inline-block; margin: .5rem 1rem .5rem 0; } video { max-width: 100%; } svg { max-width: 100%; }
svg text { font: 11px system-ui, sans-serif; } .made { color: #c8501e; } .real { color: #1f5fa8; } .left { color: #b00020; }
"""


def write_report(outcome: EvaluationResults, rows: Sequence[SummaryRow], folder: Path, clips: int) -> None:
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


def worst_cases(outcome: EvaluationResults, count: int) -> dict[str, str]:
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


def _head(outcome: EvaluationResults) -> Iterator[str]:
    yield "<h1>Evaluation</h1>"
    if outcome.stand_ins:
        items = "".join(f"<li>{escape(words)}</li>" for words in outcome.stand_ins)
        yield f"<div class=warning><b>These figures are not those of the published protocols:</b><ul>{items}</ul></div>"


def _table(kind: Kind, rows: Sequence[SummaryRow]) -> Iterator[str]:
    if not rows:
        return
    yield f"<h2>{escape(TITLES[kind])}</h2><table><tr><th>measure<th>value [95 %]<th>ground truth<th>n<th>better</tr>"
    for row in rows:
        value = cell(row.made, row.column) if row.made is not None else f"{NOT_MEASURED} ({row.note})"
        count = NOT_MEASURED if row.made is None else str(row.made.count)
        cells = (label(row), value, cell(row.truth, row.column), count, BETTER[row.column.better])
        yield f"<tr>{''.join(f'<td>{escape(text)}' for text in cells)}</tr>"
    yield "</table>"


def _missing(outcome: EvaluationResults) -> Iterator[str]:
    if outcome.missing:
        yield "<h2 class=left>Not measured, since weights are missing</h2><ul>"
        yield from (f"<li><b>{escape(entry.measure)}</b>: {escape(entry.why)}</li>" for entry in outcome.missing)
        yield "</ul>"


def _clips(outcome: EvaluationResults, chosen: dict[str, str], folder: Path) -> Iterator[str]:
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


def _strips(outcome: EvaluationResults) -> Iterator[str]:
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


def _foot(outcome: EvaluationResults) -> Iterator[str]:
    measures = (*outcome.measures, *outcome.sets)
    yield "<h2>Protocols</h2><ul>"
    yield from (f"<li><b>{escape(measure.name)}</b>: {escape(measure.protocol)}</li>" for measure in measures)
    yield "</ul><h2>To be known</h2><ul>"
    yield from (f"<li>{escape(note)}</li>" for note in outcome.notes())
    yield "</ul><h2>Settings</h2><table>"
    yield from (f"<tr><td>{escape(key)}<td>{escape(str(value))}</tr>" for key, value in {**outcome.settings, **outcome.weights}.items())
    yield "</table>"
