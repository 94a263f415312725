"""Every metric on one case: frames beside those of the source, readings, what is kept of them, rows of the summary."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import islice
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import torch

from eval.cases import KINDS
from eval.estimates import Estimate, json_value, mean
from eval.metrics.base import Case, Chunk, Column, Kind, Metric, Numbers, SetMetric
from eval.metrics.distribution import distance_estimate, set_distance
from latentsync.errors import InputError, LatentSyncError, OutputError, reason_of
from latentsync.faces.alignment import warp_faces
from latentsync.faces.detector import FaceDetector
from latentsync.faces.plan import FacePlan, plan_spans
from latentsync.faces.selection import FaceChoice
from latentsync.media.files import read_record, staged, write_json
from latentsync.media.video_reader import VideoReader

logger = logging.getLogger(__name__)

CHUNK_FRAMES = 16  # frames that are read together
LENGTH_SLACK = 1  # frames by which the lengths of a video and its source may differ without a word
SIZE = "_size"  # ends the name of a column of absolute values
MOST_OFFSET = 2.0  # frames that real videos may be out of sync on average


class FaceClips:
    """Finds faces in sources as inference does, and cuts cases into chunks.

    Args:
        detector: of inference.
        resolution: side in pixels of the aligned faces.
        face: whose face, as in inference.
        warn: is given a sentence on what a reader of the results should know.
    """

    def __init__(
        self, detector: FaceDetector, resolution: int, face: str = "largest", warn: Callable[[str], None] = logger.warning
    ) -> None:
        self.detector, self.resolution, self.choice, self.warn = detector, resolution, FaceChoice.parse(face), warn
        self._last: tuple[Path, FacePlan] | None = None  # cases of one source follow each other

    def plan(self, source: Path) -> FacePlan:
        """Where the face of a source is. Raises InputError where it cannot be decoded or shows none."""
        if self._last is None or self._last[0] != source:
            video = VideoReader(source)
            plan = plan_spans(video.frames(), self.detector, self.resolution, float(video.fps), self.choice)
            if not plan.spans:
                reasons = ", ".join(sorted({run.reason for run in plan.skipped})) or "no face"
                raise InputError(f"{source} cannot be measured, since no frame of it would get a new mouth ({reasons}): leave it out")
            self._last = source, plan
        return self._last[1]

    def chunks(self, case: Case) -> Iterator[Chunk]:
        """The frames that both videos have. Raises InputError: see `plan`; also where the video cannot be decoded or is of another size."""
        video, source = VideoReader(case.video), VideoReader(case.source)
        if (video.width, video.height) != (source.width, source.height):
            raise InputError(
                f"{case.video} is {video.width}x{video.height} and its source {case.source} {source.width}x{source.height}: "
                "measure videos of one size"
            )
        has_face, matrices = per_frame(self.plan(case.source))
        streams = video.frames(), source.frames()
        try:
            start, whole = 0, True
            while whole:
                generated, real = (list(islice(stream, CHUNK_FRAMES)) for stream in streams)
                count = min(len(generated), len(real), len(has_face) - start)
                whole = count == CHUNK_FRAMES
                if count:
                    here = slice(start, start + count)
                    yield self._chunk(start, generated[:count], real[:count], has_face[here], matrices[here])
                start += count
            rest = [len(frames) - count + sum(1 for _ in stream) for frames, stream in zip((generated, real), streams, strict=True)]
        finally:
            for stream in streams:
                stream.close()
        if max(rest) > LENGTH_SLACK:
            self.warn(
                f"{case.video} has {start + rest[0]} frames and its source {start + rest[1]}: the first {start} of both are measured."
            )

    def _chunk(self, start: int, frames: list[np.ndarray], source: list[np.ndarray], has_face: np.ndarray, matrices: np.ndarray) -> Chunk:
        chosen = np.flatnonzero(has_face)
        transforms = torch.from_numpy(matrices[chosen])
        faces, source_faces = (
            warp_faces([video[index] for index in chosen], transforms, self.resolution)
            if len(chosen)
            else torch.empty(0, self.resolution, self.resolution, 3, dtype=torch.uint8)
            for video in (frames, source)
        )
        return Chunk(start, np.stack(frames), np.stack(source), has_face, faces, source_faces, transforms)


def per_frame(plan: FacePlan) -> tuple[np.ndarray, np.ndarray]:
    """Which frames have a face, bool n, and the transforms of all frames, float32 n 2 3 (zeros where there is none)."""
    has_face, matrices = np.zeros(plan.num_frames, dtype=bool), np.zeros((plan.num_frames, 2, 3), np.float32)
    for span in plan.spans:
        has_face[span.start : span.stop] = True
        matrices[span.start : span.stop] = span.matrices
    return has_face, matrices


_Found = TypeVar("_Found")


@dataclass(frozen=True)
class Reading(Generic[_Found]):
    """What a metric found of a case, and of the source in its place.

    Attributes:
        generated, reference: None where `failed` or `reference_failed` says why there is nothing.
        sure: whether another try would find the same.
    """

    generated: _Found | None
    reference: _Found | None
    failed: str | None = None
    reference_failed: str | None = None
    sure: bool = True


class CaseReadings(NamedTuple):
    """All that was found of one case, by metric."""

    numbers: dict[str, Reading[Numbers]]
    features: dict[str, Reading[np.ndarray]]


class MetricRun:
    """One metric on one video: its rows so far; dropped at its first failure, with the reason."""

    def __init__(self, metric: Metric | SetMetric, case: Case) -> None:
        self.metric, self.case, self.failed, self.sure = metric, case, None, True
        self._rows: list[np.ndarray] = []
        self._carried: list[Any] = []
        self._silent = isinstance(metric, Metric) and metric.reconstructions_only and case.kind != "reconstruction"

    def add(self, chunk: Chunk) -> None:
        """The next frames."""
        if self.failed is None and not self._silent:
            self._rows += filter(len, [self._attempt(lambda: self.metric.of_chunk(chunk, self._carried), ())])

    def finish(self) -> Any:
        """The numbers, or the features n d; None where it failed."""
        if self.failed is not None:
            return None
        if self._silent:
            return dict.fromkeys(column.name for column in self.metric.columns)
        rows = np.concatenate(self._rows) if self._rows else np.empty((0, 0))
        return self._attempt(lambda: self.metric.of_video(self.case, rows), None) if isinstance(self.metric, Metric) else rows

    def _attempt(self, work: Callable[[], Any], otherwise: Any) -> Any:
        try:
            return work()
        except Exception as error:
            self.failed, self.sure = reason_of(error), isinstance(error, LatentSyncError)
            logger.debug("Where it happened:", exc_info=error)
            return otherwise


def measure_case(case: Case, clips: FaceClips, metrics: Sequence[Metric], sets: Sequence[SetMetric]) -> CaseReadings:
    """Measure one case by everything. Raises InputError where its videos cannot be read; see `FaceClips.chunks`."""
    runs = {metric.name: (MetricRun(metric, case), MetricRun(metric, case.reference())) for metric in (*metrics, *sets)}
    for chunk in clips.chunks(case):
        reference = chunk.reference()
        for generated_run, reference_run in runs.values():
            generated_run.add(chunk)
            reference_run.add(reference)
    readings = {
        name: Reading(one.finish(), other.finish(), one.failed, other.failed, one.sure and other.sure)
        for name, (one, other) in runs.items()
    }
    return CaseReadings(*({metric.name: readings[metric.name] for metric in some} for some in (metrics, sets)))


class CaseRecord:
    """The record of one case: cases/NAME.json, and features/METRIC/NAME.npz.

    Args:
        folder: of all results.
        name: of the case.
        inputs: the checksums of its files; a record of other files counts as none.
    """

    def __init__(self, folder: Path, name: str, inputs: Mapping[str, str]) -> None:
        self.path, self.folder, self.name = folder / "cases" / f"{name}.json", folder, name
        known = read_record(self.path)
        if known.get("inputs") != dict(inputs):
            known = {}
        self.inputs = dict(inputs)
        self.warnings: list[str] = known.get("warnings", [])
        self._numbers = {name: entry for name, entry in known.get("measures", {}).items() if "generated" in entry}  # not of older versions
        self._features: dict[str, dict[str, Any]] = known.get("sets", {})

    def has(self, name: str, signature: Mapping[str, Any]) -> bool:
        """Whether a metric need not be run again, or, for one of sets, its features are there."""
        entry = self._numbers.get(name) or self._features.get(name) or {}
        done = entry.get("signature") == dict(signature) and entry.get("sure", False)
        return done and (name not in self._features or entry["failed"] is not None or self._place(name).is_file())

    def add(self, readings: CaseReadings, signatures: Mapping[str, Mapping[str, Any]], warnings: Sequence[str]) -> None:
        """Keep what was found. Raises OutputError."""
        self.warnings = list(warnings)
        for name, reading in readings.numbers.items():
            self._numbers[name] = {"signature": dict(signatures[name]), **json_value(reading)}
        for name, reading in readings.features.items():
            failed = reading.failed or reading.reference_failed
            self._features[name] = {"signature": dict(signatures[name]), "failed": failed, "sure": reading.sure}
            if failed is None:
                self._write_features(name, reading)
        write_json(self.path, {"inputs": self.inputs, "warnings": self.warnings, "measures": self._numbers, "sets": self._features})

    def numbers(self, name: str) -> Reading[Numbers]:
        """What a metric found."""
        entry = self._numbers[name]
        return Reading(**{field.name: entry[field.name] for field in fields(Reading)})

    def features(self, name: str) -> Reading[np.ndarray]:
        """The features of a metric of sets. Raises OutputError where the file was damaged."""
        entry = self._features[name]
        if entry["failed"] is not None:
            return Reading(None, None, entry["failed"], entry["failed"], entry["sure"])
        try:
            with np.load(self._place(name)) as arrays:
                generated, reference = (
                    arrays[new if new in arrays else old] for new, old in (("generated", "made"), ("reference", "truth"))
                )
                return Reading(generated, reference)
        except (OSError, ValueError, KeyError) as error:
            raise OutputError(f"{self._place(name)} cannot be read ({error}): delete it and run the same command again") from None

    def _write_features(self, name: str, reading: Reading[np.ndarray]) -> None:
        assert reading.generated is not None and reading.reference is not None
        with staged(self._place(name)) as temporary:
            try:
                np.savez(temporary, generated=reading.generated, reference=reading.reference)
            except OSError as error:
                raise OutputError(f"cannot write {self._place(name)}: {error}") from None

    def _place(self, name: str) -> Path:
        return self.folder / "features" / name / f"{self.name}.npz"


@dataclass(frozen=True)
class SummaryRow:
    """One number of one kind of case.

    Attributes:
        generated: of the videos under test; None where there is none.
        reference: of their sources in their place.
        note: why there is no number.
    """

    measure: str
    column: Column
    kind: Kind
    generated: Estimate | None
    reference: Estimate | None
    note: str = ""


def rows_of(metric: Metric, kinds: Mapping[str, Kind], readings: Mapping[str, Reading[Numbers]]) -> list[SummaryRow]:
    """The rows of one metric; `kinds` and `readings` by case. A column without any number has none; where all failed there is one."""
    rows = []
    for kind in KINDS:
        found = [reading for name, reading in readings.items() if kinds[name] == kind]
        if not found:
            continue
        here = [
            SummaryRow(metric.name, column, kind, *(_mean(found, side, column) for side in ("generated", "reference")))
            for column in metric.columns
        ]
        here += [
            SummaryRow(metric.name, sizes_of(column), kind, *(_mean(found, side, column, abs) for side in ("generated", "reference")))
            for column in metric.columns
            if column.better == "zero"
        ]
        with_numbers = [row for row in here if row.generated is not None]
        reason = next((reading.failed for reading in found if reading.failed), None)
        failure = [] if reason is None else [SummaryRow(metric.name, metric.columns[0], kind, None, here[0].reference, reason)]
        rows += with_numbers or failure
    return rows


def _mean(readings: Sequence[Reading[Numbers]], side: str, column: Column, change: Callable[[float], float] = float) -> Estimate | None:
    numbers = [getattr(reading, side) for reading in readings]
    values = [entry.get(column.name) for entry in numbers if entry is not None]
    return mean([None if value is None else change(value) for value in values])


def sizes_of(column: Column) -> Column:
    """Of numbers that should be 0: their sizes, whose mean no two signs cancel in."""
    return replace(column, name=f"{column.name}{SIZE}", better="low")


def doubts(rows: Sequence[SummaryRow]) -> list[str]:
    """Sentences on networks that find the sources themselves out of sync, which says more of the network than of the sources."""
    return [
        f"{row.measure}: this network finds the sources themselves {row.reference.value:.1f} frames out of sync on average ({row.kind}), "
        "so its figures say nothing about sync here: it is untrained, or was trained on other pictures, or the sources are out of sync."
        for row in rows
        if row.column.name.endswith(f"offset{SIZE}") and row.reference is not None and row.reference.value > MOST_OFFSET
    ]


def set_rows(metric: SetMetric, kinds: Mapping[str, Kind], readings: Mapping[str, Reading[np.ndarray]]) -> list[SummaryRow]:
    """The rows of a metric of sets of videos; the distance of the sources to themselves is its reference."""
    rows = []
    for kind in KINDS:
        found = [reading for name, reading in readings.items() if kinds[name] == kind]
        if not found:
            continue
        both = [(one.generated, one.reference) for one in found if one.generated is not None and one.reference is not None]
        try:
            generated, real = [pair[0] for pair in both], [pair[1] for pair in both]
            reference = Estimate(set_distance(real, real), None, None, len(real))
            rows.append(SummaryRow(metric.name, metric.column, kind, distance_estimate(generated, real), reference))
        except InputError as error:
            reason = next((reading.failed for reading in found if reading.failed), str(error))
            rows.append(SummaryRow(metric.name, metric.column, kind, None, None, reason))
    return rows
