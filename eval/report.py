"""Reports of an evaluation: results.json, results.md, report.html with the worst videos beside their sources."""

import logging
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from jinja2 import Environment, FileSystemLoader

from eval.cases import PairList
from eval.estimates import NONE, json_value, markdown_table
from eval.measure import MetricResult, SummaryRow, doubtful_sync, rows_of
from eval.metrics.base import Case, Column, Kind, Metric, SetMetric
from eval.metrics.table import LoadedMetrics
from latentsync.constants import VIDEO_FPS
from latentsync.errors import reason_of
from latentsync.media.files import write_json, write_text
from latentsync.media.probe import probe
from latentsync.media.video_reader import VideoReader
from latentsync.media.video_writer import AudioTrack, VideoWriter

logger = logging.getLogger(__name__)

PAGE, TABLES = "report.html.jinja", "results.md.jinja"  # templates beside this file
MEDIA = "media"  # folder of the small videos, beside the page
MOST_LINES = 40  # videos in one figure, the worst; the table of all numbers is in results.json
HEIGHT = 288  # rows of a small video at most
LONGEST = 10 * VIDEO_FPS  # frames of one: the beginning is enough to see what is wrong
HEADER = ("measure", "value [95 %]", "reference", "n", "better")
BETTER = {"high": "higher", "low": "lower", "zero": "nearer to 0", None: ""}
TITLES: Mapping[Kind, str] = {
    "reconstruction": "Reconstruction: each video with its own sound",
    "cross": "Cross: each video with the sound of another",
}
PACKAGES = ("torch", "torchvision", "numpy", "opencv-python-headless", "scikit-image", "diffusers", "lpips", "openai-whisper")


@dataclass(frozen=True)
class EvaluationResults:
    """Everything that an evaluation found out."""

    settings: Mapping[str, Any]  # what decided the numbers
    weights: Mapping[str, str]  # name -> SHA-256
    pairs: PairList  # that were to be measured
    cases: Sequence[Case]  # that were measured, in order
    metrics: LoadedMetrics
    results: Mapping[str, Mapping[str, MetricResult]]  # metric -> case -> result
    failed: Mapping[str, str]  # case -> why nothing is known of it
    warnings: Mapping[str, Sequence[str]]  # case -> what is to be known about it
    notices: Sequence[str]  # sentences on networks that are random or stand for others

    @cached_property
    def rows(self) -> list[SummaryRow]:
        kinds = {case.name: case.kind for case in self.cases}
        return [row for metric in self.metrics.metrics for row in rows_of(metric, kinds, self.results[metric.name])]

    @property
    def stand_ins(self) -> list[str]:
        return [*self.notices, *doubtful_sync(self.rows)]

    @property
    def single(self) -> list[Metric]:
        return [metric for metric in self.metrics.metrics if not isinstance(metric, SetMetric)]

    def notes(self) -> list[str]:
        asked = len(self.cases) + len(self.failed)
        notes = [
            f"{len(self.cases)} of {asked} videos measured. In brackets: 95 % intervals, the bootstrap over videos; for sets of videos "
            "the jackknife over groups of them. Reference: the source itself in the place of the video, through the same metric.",
        ]
        notes += [f"Left out: {why}" for why in self.pairs.refused.values()]
        notes += [f"Left out: {name}: {why}" for name, why in self.failed.items()]
        for name, results in ((metric.name, self.results[metric.name]) for metric in self.single):
            lost = {case: result.failed for case, result in results.items() if result.failed}
            if lost:
                first = next(iter(lost))
                notes.append(f"{name}: {len(lost)} of {len(results)} videos could not be measured; the first was {first}: {lost[first]}")
            elif not any(value is not None for result in results.values() for value in (result.generated or {}).values()):
                notes.append(f"{name} has no number of any of these videos; its protocol says of which there is one.")
        return [*notes, *(f"{case}: {warning}" for case, found in self.warnings.items() for warning in found)]

    def as_json(self) -> dict[str, Any]:
        digests, versions = self.pairs.checksums, {"python": platform.python_version(), "cuda": str(torch.version.cuda)}
        for package in PACKAGES:
            with suppress(metadata.PackageNotFoundError):
                versions[package] = metadata.version(package)
        cases = {
            case.name: {
                "kind": case.kind,
                **{name: str(getattr(case, name)) for name in ("video", "source", "audio")},
                "warnings": list(self.warnings.get(case.name, ())),
                "measures": {
                    metric.name: {key: getattr(self.results[metric.name][case.name], key) for key in ("generated", "reference", "failed")}
                    for metric in self.single
                },
            }
            for case in self.cases
        }
        return {
            "stand_ins": self.stand_ins,
            "settings": dict(self.settings),
            "weights": dict(self.weights),
            "versions": versions,
            "pairs": [
                {"name": pair.name, "kind": pair.kind, "source": digests[str(pair.source)], "audio": digests[str(pair.audio)]}
                for pair in self.pairs.pairs
            ],
            "measures": {
                metric.name: {"protocol": metric.protocol, "columns": json_value(list(metric.columns))} for metric in self.metrics.metrics
            },
            "missing": [{"measure": name, "why": why} for name, why in self.metrics.missing.items()],
            "rows": json_value(self.rows),
            "refused": self.pairs.refused,
            "failed": dict(self.failed),
            "cases": cases,
        }


def write_report(results: EvaluationResults, folder: Path, clips: int) -> str:
    """Write results.json, results.md and report.html with videos of the worst `clips` cases; the text of results.md. Raises OutputError."""
    write_json(folder / "results.json", results.as_json())
    loader = FileSystemLoader(Path(__file__).parent)
    templates = Environment(loader=loader, autoescape=lambda name: name == PAGE, trim_blocks=True, lstrip_blocks=True)
    shared = {"results": results, "header": HEADER, "tables": tables(results.rows)}
    text = templates.get_template(TABLES).render(shared, markdown_table=markdown_table)
    write_text(folder / "results.md", text)
    page = templates.get_template(PAGE).render(
        shared,
        clips=list(_clips(results, worst_cases(results, clips), folder)),
        figures=list(figures(results)),
        settings={**results.settings, **results.weights},
    )
    write_text(folder / "report.html", page)
    return text


def tables(rows: Sequence[SummaryRow]) -> list[tuple[str, list[tuple[str, ...]]]]:
    """Title and cells, see `HEADER`, of the table of each kind of case that has rows."""
    found: dict[str, list[tuple[str, ...]]] = {title: [] for title in TITLES.values()}
    for row in rows:
        column = row.column
        name = column.name if column.name.startswith(row.measure) else f"{row.measure}: {column.name}"
        value = f"{NONE} ({row.note})" if row.generated is None else row.generated.text(column.digits)
        reference = NONE if row.reference is None else row.reference.text(column.digits)
        count = NONE if row.generated is None else str(row.generated.count)
        unit = f", {column.unit}" if column.unit else ""
        found[TITLES[row.kind]].append((name + unit, value, reference, count, BETTER[column.better]))
    return [(title, cells) for title, cells in found.items() if cells]


class Mark(NamedTuple):  # one video in a figure
    case: str
    generated: float
    reference: float | None


def worst_first(results: Mapping[str, MetricResult], column: Column) -> list[Mark]:
    """The videos that have a number, the worst first; by the lowest where neither way is better."""
    marks = [
        Mark(case, result.generated[column.name], (result.reference or {}).get(column.name))
        for case, result in results.items()
        if result.generated is not None and result.generated.get(column.name) is not None
    ]
    badness = {"low": lambda mark: mark.generated, "zero": lambda mark: abs(mark.generated)}
    return sorted(marks, key=badness.get(column.better, lambda mark: -mark.generated), reverse=True)


def figures(results: EvaluationResults) -> Iterator[dict[str, Any]]:
    """What the page shows of each number of each kind of case: the videos on a line each, within the least and the largest number."""
    for metric in results.single:
        for kind in TITLES:
            measured = {case.name: results.results[metric.name][case.name] for case in results.cases if case.kind == kind}
            for column in metric.columns:
                if marks := worst_first(measured, column)[:MOST_LINES]:
                    title = f"{column.name}{f' ({column.unit})' if column.unit else ''}, {kind}"
                    title += f", better: {BETTER[column.better]}" if column.better else ""
                    values = [value for mark in marks for value in mark[1:] if value is not None]
                    yield {"title": title, "marks": marks, "digits": column.digits, "low": min(values), "high": max(values)}


def worst_cases(results: EvaluationResults, count: int) -> dict[str, str]:
    """Case -> of what it is the worst: the worst of each number that has a better way, then the second worst, and so on."""
    ranked = [
        (place, column, mark)
        for metric in results.single
        for column in metric.columns
        if column.better is not None
        for place, mark in enumerate(worst_first(results.results[metric.name], column), start=1)
    ]
    chosen: dict[str, str] = {}
    for place, column, mark in sorted(ranked, key=lambda entry: entry[0]):
        if len(chosen) < count:
            rank = "the worst" if place == 1 else f"place {place} from the worst"
            chosen.setdefault(mark.case, f"{column.name} {mark.generated:.{column.digits}f}, {rank}")
    for case in results.cases:
        if len(chosen) < count:
            chosen.setdefault(case.name, "")
    return chosen


def _clips(results: EvaluationResults, chosen: Mapping[str, str], folder: Path) -> Iterator[dict[str, str]]:
    """What the page shows of the chosen cases; writes their small videos."""
    cases = {case.name: case for case in results.cases}
    for name, why in chosen.items():
        place, failed = Path(MEDIA, f"{name}.mp4"), ""
        try:
            write_side_by_side(cases[name], folder / place)
        except Exception as error:
            failed = reason_of(error)
            logger.warning("%s is not in the report: %s", name, failed)
            logger.debug("Where it happened:", exc_info=error)
        yield {"name": name, "kind": cases[name].kind, "why": why, "place": place.as_posix(), "failed": failed}


def write_side_by_side(case: Case, path: Path) -> None:
    """Write the small video, unless it is there already and no older than the video. Raises InputError, OutputError."""
    if path.is_file() and path.stat().st_mtime >= case.video.stat().st_mtime:
        return
    video, source = VideoReader(case.video), VideoReader(case.source)
    height = min(HEIGHT, source.height) // 2 * 2
    width = max(2, round(source.width * height / source.height) // 2 * 2)
    count = min(LONGEST, video.expected_frames or LONGEST, source.expected_frames or LONGEST)
    audio = AudioTrack(case.audio, count / VIDEO_FPS) if probe(case.audio).has_audio else None
    with VideoWriter(path, 2 * width, height, VIDEO_FPS, audio=audio, crf=26) as writer:
        for pair in zip(source.frames(0, count), video.frames(0, count), strict=False):
            writer.write(np.hstack([cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA) for frame in pair]))
