"""Every metric on a case: frames side by side, readings, summary rows."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import islice
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import torch

from eval.cases import KINDS, plain
from eval.metrics.base import Case, Chunk, Column, Estimate, FeatureTally, Kind, Measure, Numbers, SetMeasure, Tally, mean
from eval.metrics.distribution import distance_estimate
from latentsync.errors import InputError, LatentSyncError, OutputError, reason_of
from latentsync.faces.alignment import warp_faces
from latentsync.faces.detector import FaceDetector
from latentsync.faces.plan import FacePlan, plan_spans
from latentsync.faces.selection import FaceChoice
from latentsync.media.files import read_record, staged, write_json
from latentsync.media.video_reader import VideoReader

logger = logging.getLogger(__name__)

CHUNK_FRAMES = 16  # frames that go by together
LENGTH_SLACK = 1  # frames by which the lengths of a video and its source may differ without a word


class FaceClips:
    """Finds faces in sources as inference does, and cuts cases into chunks.

    Args:
        detector: of inference.
        resolution: side in pixels of the aligned faces.
        face: whose face, as inference was told.
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
        made, real = video.frames(), source.frames()
        try:
            yield from self._cut(made, real, has_face, matrices, case)
        finally:
            made.close()
            real.close()

    def _cut(
        self, made: Iterator[np.ndarray], real: Iterator[np.ndarray], has_face: np.ndarray, matrices: np.ndarray, case: Case
    ) -> Iterator[Chunk]:
        start, whole = 0, True
        while whole:
            frames, source_frames = list(islice(made, CHUNK_FRAMES)), list(islice(real, CHUNK_FRAMES))
            count = min(len(frames), len(source_frames), len(has_face) - start)
            whole = count == CHUNK_FRAMES
            if count:
                yield self._chunk(start, frames[:count], source_frames[:count], has_face, matrices)
            start += count
        rest = len(frames) - count + sum(1 for _ in made), len(source_frames) - count + sum(1 for _ in real)
        if max(rest) > LENGTH_SLACK:
            self.warn(
                f"{case.video} has {start + rest[0]} frames and its source {start + rest[1]}: the first {start} of both are measured."
            )

    def _chunk(
        self, start: int, frames: list[np.ndarray], source_frames: list[np.ndarray], has_face: np.ndarray, matrices: np.ndarray
    ) -> Chunk:
        here = slice(start, start + len(frames))
        chosen = np.flatnonzero(has_face[here])
        transforms = torch.from_numpy(matrices[here][chosen])
        return Chunk(
            start=start,
            frames=np.stack(frames),
            source_frames=np.stack(source_frames),
            has_face=has_face[here],
            faces=self._faces(frames, chosen, transforms),
            source_faces=self._faces(source_frames, chosen, transforms),
            matrices=transforms,
        )

    def _faces(self, frames: list[np.ndarray], chosen: np.ndarray, transforms: torch.Tensor) -> torch.Tensor:
        """Aligned faces uint8 k R R 3 of the chosen frames, on the CPU; k may be 0."""
        if not len(chosen):
            return torch.empty(0, self.resolution, self.resolution, 3, dtype=torch.uint8)
        return warp_faces([frames[index] for index in chosen], transforms, self.resolution)


def truth_chunk(chunk: Chunk) -> Chunk:
    """The same moment of `Case.truth()`: the source in the place of the video under test."""
    return replace(chunk, frames=chunk.source_frames, faces=chunk.source_faces)


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
    """What a measure found of a case, and of the source in its place.

    Attributes:
        made, truth: None where `failed` or `truth_failed` says why there is nothing.
        sure: whether another try would find the same.
    """

    made: _Found | None
    truth: _Found | None
    failed: str | None = None
    truth_failed: str | None = None
    sure: bool = True


class CaseReadings(NamedTuple):
    """All that was found of one case, by measure."""

    numbers: dict[str, Reading[Numbers]]
    features: dict[str, Reading[np.ndarray]]


class GuardedTally(Generic[_Found]):
    """A tally that is dropped at its first failure, with the reason."""

    def __init__(self, begin: Callable[[], Any]) -> None:
        self.failed: str | None = None
        self.sure = True
        self._tally: Tally | FeatureTally | None = self._attempt(begin)

    def add(self, chunk: Chunk) -> None:
        """The next frames, if it still counts."""
        if self._tally is not None:
            self._attempt(lambda: self._tally.add(chunk))

    def finish(self) -> _Found | None:
        """What was found; None where it failed."""
        return None if self._tally is None else self._attempt(self._tally.finish)

    def _attempt(self, work: Callable[[], Any]) -> Any:
        try:
            return work()
        except Exception as error:
            self._tally, self.failed, self.sure = None, reason_of(error), isinstance(error, LatentSyncError)
            logger.debug("Where it happened:", exc_info=error)
            return None


class _Both(Generic[_Found]):
    """A measure at work on the video and on its source."""

    def __init__(self, measure: Measure | SetMeasure, case: Case) -> None:
        self.made: GuardedTally[_Found] = GuardedTally(lambda: measure.open(case))
        self.truth: GuardedTally[_Found] = GuardedTally(lambda: measure.open(case.truth()))

    def reading(self) -> Reading[_Found]:
        made, truth = self.made.finish(), self.truth.finish()
        return Reading(made, truth, self.made.failed, self.truth.failed, self.made.sure and self.truth.sure)


def measure_case(case: Case, looker: FaceClips, measures: Sequence[Measure], sets: Sequence[SetMeasure]) -> CaseReadings:
    """Measure one case by everything. Raises InputError where its videos cannot be looked at; see `FaceClips.chunks`."""
    numbers: dict[str, _Both[Numbers]] = {measure.name: _Both(measure, case) for measure in measures}
    features: dict[str, _Both[np.ndarray]] = {measure.name: _Both(measure, case) for measure in sets}
    for chunk in looker.chunks(case):
        real = truth_chunk(chunk)
        for both in (*numbers.values(), *features.values()):
            both.made.add(chunk)
            both.truth.add(real)
    return CaseReadings({name: both.reading() for name, both in numbers.items()}, {name: both.reading() for name, both in features.items()})


class CaseRecord:
    """The record of one case: cases/NAME.json, and features/MEASURE/NAME.npz.

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
        self._numbers: dict[str, dict[str, Any]] = known.get("measures", {})
        self._features: dict[str, dict[str, Any]] = known.get("sets", {})

    def has(self, name: str, signature: Mapping[str, Any]) -> bool:
        """Whether a measure need not be asked again, or, for one that reads features, its features are there."""
        entry = self._numbers.get(name) or self._features.get(name) or {}
        done = entry.get("signature") == dict(signature) and entry.get("sure", False)
        return done and (name not in self._features or entry["failed"] is not None or self._place(name).is_file())

    def add(self, readings: CaseReadings, signatures: Mapping[str, Mapping[str, Any]], warnings: Sequence[str]) -> None:
        """Keep what was found. Raises OutputError."""
        self.warnings = list(warnings)
        for name, reading in readings.numbers.items():
            self._numbers[name] = {"signature": dict(signatures[name]), **plain(reading), "made": _plain(reading.made)}
            self._numbers[name]["truth"] = _plain(reading.truth)
        for name, reading in readings.features.items():
            failed = reading.failed or reading.truth_failed
            self._features[name] = {"signature": dict(signatures[name]), "failed": failed, "sure": reading.sure}
            if failed is None:
                self._write_features(name, reading)
        write_json(self.path, {"inputs": self.inputs, "warnings": self.warnings, "measures": self._numbers, "sets": self._features})

    def numbers(self, name: str) -> Reading[Numbers]:
        """What a measure found."""
        entry = self._numbers[name]
        return Reading(**{field.name: entry[field.name] for field in fields(Reading)})

    def features(self, name: str) -> Reading[np.ndarray]:
        """What a measure of sets sees. Raises OutputError where the file was damaged."""
        entry = self._features[name]
        if entry["failed"] is not None:
            return Reading(None, None, entry["failed"], entry["failed"], entry["sure"])
        try:
            with np.load(self._place(name)) as arrays:
                return Reading(arrays["made"], arrays["truth"])
        except (OSError, ValueError, KeyError) as error:
            raise OutputError(f"{self._place(name)} cannot be read ({error}): delete it and run the same command again") from None

    def _write_features(self, name: str, reading: Reading[np.ndarray]) -> None:
        assert reading.made is not None and reading.truth is not None
        with staged(self._place(name)) as temporary:
            try:
                np.savez(temporary, made=reading.made, truth=reading.truth)
            except OSError as error:
                raise OutputError(f"cannot write {self._place(name)}: {error}") from None

    def _place(self, name: str) -> Path:
        return self.folder / "features" / name / f"{self.name}.npz"


def _plain(numbers: Numbers | None) -> dict[str, float | None] | None:
    """Numbers for JSON; what is not finite becomes None."""
    return None if numbers is None else {key: plain(None if value is None else float(value)) for key, value in numbers.items()}


SIZE = "_size"  # ends the name of a column of absolute values
MOST_OFFSET = 2.0  # frames that real videos may be out of sync on average


@dataclass(frozen=True)
class SummaryRow:
    """One number of one kind of case.

    Attributes:
        made: of the videos under test; None where there is none.
        truth: of their sources in their place.
        note: why there is no number.
    """

    measure: str
    column: Column
    kind: Kind
    made: Estimate | None
    truth: Estimate | None
    note: str = ""


def rows_of(measure: Measure, kinds: Mapping[str, Kind], readings: Mapping[str, Reading[Numbers]]) -> list[SummaryRow]:
    """The rows of one measure; `kinds` and `readings` by case. A column without any number has none; where all failed there is one."""
    rows = []
    for kind in KINDS:
        found = [reading for name, reading in readings.items() if kinds[name] == kind]
        if not found:
            continue
        here = [
            SummaryRow(measure.name, column, kind, *(_mean(found, side, column) for side in ("made", "truth")))
            for column in measure.columns
        ]
        here += [
            SummaryRow(measure.name, sizes_of(column), kind, *(_mean(found, side, column, abs) for side in ("made", "truth")))
            for column in measure.columns
            if column.better == "zero"
        ]
        told = [row for row in here if row.made is not None]
        reason = next((reading.failed for reading in found if reading.failed), None)
        rows += told or ([] if reason is None else [SummaryRow(measure.name, measure.columns[0], kind, None, here[0].truth, reason)])
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
        f"{row.measure}: this network hears the sources themselves {row.truth.value:.1f} frames out of sync on average ({row.kind}), so "
        "its figures say nothing about sync here: it is untrained, or was trained on other pictures, or the sources are out of sync."
        for row in rows
        if row.column.name.endswith(f"offset{SIZE}") and row.truth is not None and row.truth.value > MOST_OFFSET
    ]


def set_rows(measure: SetMeasure, kinds: Mapping[str, Kind], readings: Mapping[str, Reading[np.ndarray]]) -> list[SummaryRow]:
    """The rows of a measure of sets of videos, a Frechet distance; that of the sources to themselves is its ground truth."""
    rows = []
    for kind in KINDS:
        found = [reading for name, reading in readings.items() if kinds[name] == kind]
        told = [(reading.made, reading.truth) for reading in found if reading.made is not None and reading.truth is not None]
        if not found:
            continue
        try:
            made, real = [pair[0] for pair in told], [pair[1] for pair in told]
            truth = Estimate(measure.compare(real, real), None, None, len(real))
            rows.append(SummaryRow(measure.name, measure.column, kind, distance_estimate(made, real), truth))
        except InputError as error:
            reason = next((reading.failed for reading in found if reading.failed), str(error))
            rows.append(SummaryRow(measure.name, measure.column, kind, None, None, reason))
    return rows
