"""Every metric on one case: the subject, frames beside those of the source, what is kept of the results, rows of the summary."""

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch

from eval.cases import KINDS, Pair, find_model
from eval.config import EvaluationConfig, options_of
from eval.estimates import Estimate, json_value, mean
from eval.metrics.base import Case, Chunk, Column, Kind, Metric, SetMetric
from eval.metrics.distribution import distance_estimate, set_distance
from eval.metrics.table import LoadedMetrics
from latentsync.errors import InputError, LatentSyncError, OutputError, reason_of
from latentsync.faces.alignment import warp_faces
from latentsync.faces.detector import FaceDetector, build_detector
from latentsync.faces.plan import FacePlan, plan_spans
from latentsync.faces.selection import FaceChoice
from latentsync.media.files import read_record, staged, write_json
from latentsync.media.video_reader import VideoReader
from latentsync.pipelines.build import EMBEDDED, ROOT, resolve_device
from latentsync.weights import CHECKPOINTS, file_sha256, weights_path

logger = logging.getLogger(__name__)

CHUNK_FRAMES = 16  # frames that are read together
LENGTH_SLACK = 1  # frames by which the lengths of a video and its source may differ without a word
SIZE = "_size"  # ends the name of a column of absolute values
MOST_OFFSET = 2.0  # frames that real videos may be out of sync on average


class FaceClips:
    """Finds faces in sources as inference does, and cuts cases into chunks with aligned faces of `resolution` pixels a side."""

    def __init__(self, detector: FaceDetector, resolution: int, face: str = "largest") -> None:
        self.detector, self.resolution, self.choice = detector, resolution, FaceChoice.parse(face)
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

    def chunks(self, case: Case, warnings: list[str] | None = None) -> Iterator[Chunk]:
        """The frames that both videos have; `warnings` receives a sentence where one is longer. Raises InputError: no face, two sizes."""
        video, source = VideoReader(case.video), VideoReader(case.source)
        if (video.width, video.height) != (source.width, source.height):
            raise InputError(
                f"{case.video} is {video.width}x{video.height} and its source {case.source} {source.width}x{source.height}: "
                "measure videos of one size"
            )
        plan = self.plan(case.source)
        matrices = np.full((plan.num_frames, 2, 3), np.nan, np.float32)  # of frames without a face
        for span in plan.spans:
            matrices[span.start : span.stop] = span.matrices
        start, lengths = 0, np.zeros(2, int)
        with closing(video.frames()) as frames, closing(source.frames()) as source_frames:
            pairs = zip_longest(frames, source_frames)
            while batch := list(islice(pairs, CHUNK_FRAMES)):
                there = np.array([[part is not None for part in pair] for pair in batch])
                lengths += there.sum(0)
                both = batch[: min(int(there.all(1).sum()), plan.num_frames - start)]
                if both:
                    yield self._chunk(start, *map(np.stack, zip(*both, strict=True)), matrices[start : start + len(both)])
                start += len(both)
        if lengths.max() - start > LENGTH_SLACK and warnings is not None:
            warnings.append(f"{case.video} has {lengths[0]} frames and its source {lengths[1]}: the first {start} of both are measured.")

    def _chunk(self, start: int, frames: np.ndarray, source_frames: np.ndarray, matrices: np.ndarray) -> Chunk:
        has_face = np.isfinite(matrices).all((1, 2))
        transforms = torch.from_numpy(matrices[has_face])
        faces, source_faces = (
            warp_faces(list(video[has_face]), transforms, self.resolution)
            if len(transforms)
            else torch.empty(0, self.resolution, self.resolution, 3, dtype=torch.uint8)
            for video in (frames, source_frames)
        )
        return Chunk(start, frames, source_frames, has_face, faces, source_faces, transforms)


@dataclass(frozen=True)
class MetricResult:
    """What a metric found of a case, and of the source in its place: `Numbers`, or features n d of a metric of sets."""

    generated: Any  # None where `failed` says why there is nothing
    reference: Any  # None where it could not be measured
    failed: str | None = None
    sure: bool = True  # whether another try would find the same


class MetricRun:
    """One metric on one video: its rows so far; dropped at its first failure, with the reason."""

    def __init__(self, metric: Metric, case: Case) -> None:
        self.metric, self.case, self.failed, self.sure = metric, case, None, True
        self._rows: list[np.ndarray] = []
        self._carried: list[Any] = []
        self._silent = metric.reconstructions_only and case.kind != "reconstruction"

    def add(self, chunk: Chunk) -> None:
        if self.failed is None and not self._silent:
            self._rows += filter(len, [self._attempt(lambda: self.metric.of_chunk(chunk, self._carried), ())])

    def finish(self) -> Any:
        """The numbers, or the features n d; None where it failed."""
        if self.failed is not None:
            return None
        if self._silent:
            return dict.fromkeys(column.name for column in self.metric.columns)
        rows = np.concatenate(self._rows) if self._rows else np.empty((0, 0))
        return self._attempt(lambda: self.metric.of_video(self.case, rows), None)

    def _attempt(self, work: Callable[[], Any], otherwise: Any) -> Any:
        try:
            return work()
        except Exception as error:
            self.failed, self.sure = reason_of(error), isinstance(error, LatentSyncError)
            logger.debug("Where it happened:", exc_info=error)
            return otherwise


def measure_case(case: Case, clips: FaceClips, metrics: Sequence[Metric], warnings: list[str]) -> dict[str, MetricResult]:
    """Measure one case by everything, by name. Raises InputError where its videos cannot be read; see `FaceClips.chunks`."""
    runs = {metric.name: (MetricRun(metric, case), MetricRun(metric, case.reference())) for metric in metrics}
    for chunk in clips.chunks(case, warnings):
        reference = chunk.reference()
        for generated_run, reference_run in runs.values():
            generated_run.add(chunk)
            reference_run.add(reference)
    found = {}
    for metric, (one, other) in zip(metrics, runs.values(), strict=True):
        generated, reference = one.finish(), other.finish()
        failed = one.failed or (other.failed if isinstance(metric, SetMetric) else None)  # a set needs both
        found[metric.name] = MetricResult(generated, reference, failed, one.sure and other.sure)
    return found


class CaseRecord:
    """The record of one case: cases/NAME.json, and features/METRIC/NAME.npz of metrics of sets; with other checksums it counts as none."""

    def __init__(self, folder: Path, name: str, inputs: Mapping[str, str]) -> None:
        self.path, self._features = folder / "cases" / f"{name}.json", folder / "features"
        known, self.inputs = read_record(self.path), dict(inputs)
        known = known if known.get("inputs") == self.inputs else {}
        self.warnings: list[str] = known.get("warnings", [])
        self._entries: dict[str, dict[str, Any]] = {**known.get("measures", {}), **known.get("sets", {})}

    def has(self, metric: Metric, signature: Mapping[str, Any]) -> bool:
        """Whether a metric need not be run again."""
        entry = self._entries.get(metric.name, {})
        if entry.get("signature") != signature or not entry.get("sure"):
            return False
        if isinstance(metric, SetMetric):
            return entry["failed"] is not None or self._place(metric).is_file()
        return "generated" in entry  # not of older versions

    def add(
        self, metrics: Sequence[Metric], results: Mapping[str, MetricResult], signatures: Mapping[str, Any], warnings: Sequence[str]
    ) -> None:
        """Keep what was found. Raises OutputError."""
        self.warnings = list(warnings)
        for metric in metrics:
            result = results[metric.name]
            if isinstance(metric, SetMetric):
                if result.failed is None:
                    with staged(self._place(metric)) as temporary:
                        try:
                            np.savez(temporary, generated=result.generated, reference=result.reference)
                        except OSError as error:
                            raise OutputError(f"cannot write {self._place(metric)}: {error}") from None
                result = replace(result, generated=None, reference=None)
            self._entries[metric.name] = {"signature": signatures[metric.name], **json_value(result)}
        write_json(self.path, {"inputs": self.inputs, "warnings": self.warnings, "measures": self._entries})

    def result(self, metric: Metric) -> MetricResult:
        """What a metric found. Raises OutputError where a file of features was damaged."""
        entry = self._entries[metric.name]
        found = MetricResult(*(entry.get(key) for key in ("generated", "reference", "failed", "sure")))
        if not isinstance(metric, SetMetric) or found.failed is not None:
            return found
        try:
            with np.load(self._place(metric)) as arrays:
                generated, reference = (arrays[name] for name in arrays.files)  # older versions gave them other names
        except (OSError, ValueError, KeyError) as error:
            raise OutputError(f"{self._place(metric)} cannot be read ({error}): delete it and run the same command again") from None
        return replace(found, generated=generated, reference=reference)

    def _place(self, metric: Metric) -> Path:
        return self._features / metric.name / f"{self.path.stem}.npz"


@dataclass(frozen=True)
class SummaryRow:
    """One number of one kind of case."""

    measure: str
    column: Column
    kind: Kind
    generated: Estimate | None  # of the videos under test
    reference: Estimate | None  # of their sources in their place
    note: str = ""  # why there is no number


def rows_of(metric: Metric, kinds: Mapping[str, Kind], results: Mapping[str, MetricResult]) -> list[SummaryRow]:
    """The rows of one metric; `kinds` and `results` by case. A column without any number has none; where all failed there is one."""
    by_kind = {kind: [result for name, result in results.items() if kinds[name] == kind] for kind in KINDS}
    summary = set_rows if isinstance(metric, SetMetric) else mean_rows
    return [row for kind, found in by_kind.items() if found for row in summary(metric, kind, found)]


def mean_rows(metric: Metric, kind: Kind, results: Sequence[MetricResult]) -> list[SummaryRow]:
    """The means of each column, and of the sizes of those that should be 0, in which no two signs cancel."""

    def means(column: Column, change: Callable[[float], float]) -> list[Estimate | None]:
        sides = [[(getattr(result, side) or {}).get(column.name) for result in results] for side in ("generated", "reference")]
        return [mean([change(value) for value in values if value is not None]) for values in sides]

    rows = [SummaryRow(metric.name, column, kind, *means(column, float)) for column in metric.columns]
    for column in metric.columns:
        if column.better == "zero":
            size = replace(column, name=f"{column.name}{SIZE}", better="low")
            rows.append(SummaryRow(metric.name, size, kind, *means(column, abs)))
    reason = next((result.failed for result in results if result.failed), None)
    failure = [] if reason is None else [SummaryRow(metric.name, metric.columns[0], kind, None, rows[0].reference, reason)]
    return [row for row in rows if row.generated is not None] or failure


def set_rows(metric: SetMetric, kind: Kind, results: Sequence[MetricResult]) -> list[SummaryRow]:
    """The distance of all videos; that of the sources to themselves is its reference."""
    both = [result for result in results if result.generated is not None and result.reference is not None]
    generated, real = [result.generated for result in both], [result.reference for result in both]
    try:
        reference = Estimate(set_distance(real, real), None, None, len(real))
        return [SummaryRow(metric.name, metric.columns[0], kind, distance_estimate(generated, real), reference)]
    except InputError as error:
        reason = next((result.failed for result in results if result.failed), str(error))
        return [SummaryRow(metric.name, metric.columns[0], kind, None, None, reason)]


def doubtful_sync(rows: Sequence[SummaryRow]) -> list[str]:
    """Sentences on networks that find the sources themselves out of sync, which says more of the network than of the sources."""
    return [
        f"{row.measure}: this network finds the sources themselves {row.reference.value:.1f} frames out of sync on average ({row.kind}), "
        "so its figures say nothing about sync here: it is untrained, or was trained on other pictures, or the sources are out of sync."
        for row in rows
        if row.column.name.endswith(f"offset{SIZE}") and row.reference is not None and row.reference.value > MOST_OFFSET
    ]


@dataclass(frozen=True)
class Subject:
    """What is evaluated."""

    generate: Callable[[Pair], Path]  # the video of a pair, generated or found
    settings: dict[str, Any]  # these and the weights decide how videos turn out
    weights: dict[str, str]
    face_clips: FaceClips  # finds their faces
    stand_ins: tuple[str, ...] = ()  # what is to be known of the model


def open_subject(config: EvaluationConfig, folder: Path) -> Subject:
    """The model under test, or the videos that were generated elsewhere. Raises ConfigError, WeightsError, InputError."""
    model, options, resolution = config.model, options_of(config.inference), config.measures.resolution
    if (place := config.data.generated) is not None and not place.is_dir():
        raise InputError(f"{place} is no folder of videos (data.generated): check the path")
    boxes, landmarks = (weights_path(name, ROOT / CHECKPOINTS) for name in ("s3fd", "2dfan4"))
    faces = FaceClips(build_detector(model.detector, boxes, landmarks, resolve_device(model.device)), resolution, options.face)
    if place is not None:
        return Subject(lambda pair: find_generated(place, pair), {"generated": str(place)}, {}, faces)
    named = (model.config, model.unet, model.vae, model.whisper)
    found = find_model(named, model.overrides, model.detector, model.device, model.dtype, options)
    is_embedded = found.files.config.parts[-len(EMBEDDED.parts) :] == EMBEDDED.parts
    stand_ins = ("The model is the small one that comes with the project, not a published one.",) if is_embedded else ()
    videos = found.videos(folder / "generated")
    return Subject(lambda pair: videos.generate(pair.name, pair.source, pair.audio), found.settings(), found.weights, faces, stand_ins)


def find_generated(folder: Path, pair: Pair) -> Path:
    """The video of a pair that was generated elsewhere. Raises InputError where there is none."""
    video = folder / f"{pair.name}.mp4"
    if not video.is_file():
        raise InputError(f"{video} does not exist: give {pair.source} the words of {pair.audio} there, or leave out data.generated")
    return video


def signatures_of(clips: FaceClips, metrics: LoadedMetrics) -> dict[str, Any]:
    """Metric -> what decides its numbers beside the files of a case; a metric with another signature is run again."""
    faces = {"resolution": clips.resolution, "detector": clips.detector.name, "face": str(clips.choice)}
    signatures = {
        metric.name: {
            "protocol": metric.protocol,
            "columns": [column.name for column in metric.columns],
            "weights": metrics.weights.get(metric.name, {}),
            "settings": dict(metric.settings),
            "faces": faces,
        }
        for metric in metrics.metrics
    }
    return json.loads(json.dumps(signatures, default=str))  # as they are read again


def measure_pair(
    pair: Pair, checksums: Mapping[str, str], subject: Subject, metrics: LoadedMetrics, signatures: Mapping[str, Any], folder: Path
) -> tuple[Case, CaseRecord]:
    """Generate and measure a pair, as far as that was not done. Raises InputError, OutputError."""
    case = Case(pair.name, subject.generate(pair), pair.source, pair.audio, pair.kind)
    inputs = {"video": file_sha256(case.video), "source": checksums[str(case.source)], "audio": checksums[str(case.audio)]}
    record = CaseRecord(folder, case.name, inputs)
    if to_run := [metric for metric in metrics.metrics if not record.has(metric, signatures[metric.name])]:
        warnings: list[str] = []
        record.add(to_run, measure_case(case, subject.face_clips, to_run, warnings), signatures, warnings)
    return case, record
