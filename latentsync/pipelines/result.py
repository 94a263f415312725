"""What a job did: frames, spans, what was skipped and why, warnings, times."""

import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from platform import python_version
from time import perf_counter
from typing import TypeVar

import torch

from latentsync.constants import VERSION, VIDEO_FPS
from latentsync.errors import InputError
from latentsync.faces.plan import FacePlan, SkippedRun, Span
from latentsync.media.audio import AudioSamples
from latentsync.media.video_reader import VideoReader
from latentsync.pipelines.layers import Layer, Line
from latentsync.sync_meter import line_reading

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
TOO_SHORT = "too short: lips and sound are compared over two seconds of both, without a break of the face"
NOT_MEASURED = "lines of scripts alone are measured, where a SyncNet is there, and not where the result was made in parts"
LONGEST_LIST = 5  # runs named in a line for a person; the report holds all of them


@dataclass(frozen=True)
class SpanReport:
    """A run of source frames (half open) in which one face was given new words."""

    start: int
    stop: int
    shot: int
    box: tuple[float, float, float, float] | None = None  # x0 y0 x1 y1 of the face in the picture, pixels, the mean over the run

    @classmethod
    def of(cls, span: Span) -> "SpanReport":
        return cls(span.start, span.stop, span.shot, tuple(round(float(value), 1) for value in span.boxes.mean(axis=0)))


@dataclass(frozen=True)
class LineReport:
    """What became of one line: frames of the video from start to before stop."""

    number: int  # in its script, from 1
    audio_path: Path
    start: int
    stop: int
    generated: int  # of the video's frames, those with a new mouth
    seed: int
    skipped: tuple[SkippedRun, ...]
    sync_offset: float | None = None  # frames by which the sound comes before the lips, as a SyncNet sees it; 0: both fit
    sync_confidence: float | None = None  # how sure that is: the cosine at the offset less the median over all shifts
    sync_note: str = ""  # why nothing was measured


@dataclass(frozen=True)
class LipsyncResult:
    """The outcome of one job; spans and skipped runs in frames of the source at the output's frame rate, half open."""

    video_path: Path
    audio_path: Path
    output_path: Path
    width: int
    height: int
    fps: float
    frames: int  # in the output
    source_frames: int
    generated: int  # of the output's frames, those with a new mouth
    duration: float
    seed: int
    batch_clips: int
    spans: tuple[SpanReport, ...]
    skipped: tuple[SkippedRun, ...]  # where there are words
    warnings: tuple[str, ...]
    seconds: dict[str, float]  # wall time of each stage; stages overlap, so they need not add up to the total
    peak_device_bytes: int | None  # most memory held on the GPU at once; None on other devices
    lines: tuple[LineReport, ...] = ()  # of a script; one of all frames where there is none

    def as_dict(self) -> dict:
        """For JSON: the versions that made it, paths as text, the rest as plain numbers, lists and dictionaries."""
        versions = {"latentsync": VERSION, "python": python_version(), "torch": torch.__version__}
        return {"versions": versions, **json.loads(json.dumps(asdict(self), default=str))}


class StageTimer:
    """Wall time of named stages, and since it was made; on a GPU a stage ends when the device has finished it."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._start = device, perf_counter()
        self._seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Add the time of a block to a stage."""
        start = perf_counter()
        try:
            yield
        finally:
            if self._device.type in ("cuda", "mps"):
                getattr(torch, self._device.type).synchronize()
            self._seconds[stage] = self._seconds.get(stage, 0.0) + perf_counter() - start

    def each(self, stage: str, items: Iterable[Item]) -> Iterator[Item]:
        """Items that come one by one, the time that each takes added to a stage."""
        iterator, end = iter(items), object()
        while True:
            with self(stage):
                item = next(iterator, end)
            if item is end:
                return
            yield item

    def report(self) -> dict[str, float]:
        """Seconds of each stage, and "total"."""
        return {stage: round(seconds, 3) for stage, seconds in {**self._seconds, "total": perf_counter() - self._start}.items()}


def log_all(sentences: Sequence[str]) -> list[str]:
    """Log warnings; returns them, for the result."""
    for sentence in sentences:
        logger.warning("%s", sentence)
    return list(sentences)


def sound_warnings(samples: AudioSamples, audio_track: str | None, name: str = "") -> list[str]:
    """What the user must know of a sound; `name` is that of its line, if there are several. Raises InputError where there is none."""
    path, tracks, before = samples.info.path, samples.info.audio_tracks, f"{name}: " if name else ""
    if len(samples) == 0:
        raise InputError(f"{before}{path} holds no sound (0 samples): give a recording of the words to be said.")
    found = []
    if len(tracks) > 1:
        taken = (
            f"{path} has {len(tracks)} audio tracks, {samples.info.describe_audio_tracks()}: number {tracks.index(samples.stream)} is taken"
        )
        if audio_track is None:
            found += log_all([f"{before}{taken}; another one is chosen with --audio_track."])
        else:
            logger.info("%s%s.", before, taken)
    found += samples.notes  # which have been logged
    if samples.is_silent:
        found += log_all([f"{before}{path} is silent: there are no words to move the mouth to."])
    return found


def video_warnings(
    reader: VideoReader,
    layers: Sequence[Sequence[Line]],
    plans: Sequence[FacePlan],
    damaged: Sequence[tuple[int, int]],
    length: int | None,
) -> list[str]:
    """What the user must know of the video, now that it was read. Raises InputError where a line has no face to work on.

    `damaged` are runs of frames (half open) with decoding errors; `length` are the result's frames, None for as many as the video has.
    """
    found = []
    if damaged:
        where = _listed([describe_run(start, stop, reader.fps) for start, stop in damaged])
        found += log_all([f"{reader.path} is damaged: the picture may be wrong in {where}; use another copy of it if there is one."])
    if reader.problem:
        found.append(f"{reader.path}: {reader.problem}.")  # which has been logged
    for lines, plan in zip(layers, plans, strict=True):
        for index, line in enumerate(lines):
            found += log_all(_line_warnings(reader, plan, index, line))
    if length and length > plans[0].num_frames > 1:  # not for a photo
        longer = f"The sound ({length} frames) is longer than the video ({plans[0].num_frames} frames)"
        found += log_all([f"{longer}: the video plays forwards and backwards."])
    return found


def _line_warnings(reader: VideoReader, plan: FacePlan, index: int, line: Line) -> list[str]:
    """What is left of a line. Raises InputError where that is all of it."""
    before, runs = f"{line.name}: " if line.name else "", line.within(plan.skipped)
    skipped = _listed([f"{describe_run(run.start, run.stop, reader.fps)}: {run.reason}" for run in runs])
    if not any(span.request == index for span in plan.spans):
        advice = "name a video in which a face is clearly visible"
        if plan.most_faces:
            advice = f"choose another person with --face (now {line.options.face}), or a video in which the face is larger"
        raise InputError(f"{before}No face to work on in {reader.path} ({skipped or 'it ends before'}): {advice}.")
    return [f"{before}Left as they are: {skipped}."] if skipped else []


def line_reports(layers: Sequence[Layer], fps: Fraction) -> tuple[LineReport, ...]:
    """What became of each line, in their order, in a result of `fps` frames a second."""
    found = []
    for layer in layers:
        for index, line in enumerate(layer.lines):
            stop = layer.plan.num_frames if line.stop is None else line.stop
            frames = sum(span.stop - span.start for span in layer.plan.spans if span.request == index)
            skipped = tuple(line.within(layer.plan.skipped))
            runs = (line.number, line.audio_path, line.start, stop, frames, line.options.seed, skipped)
            found.append(LineReport(*runs, *_sync_of(layer, index, fps)))
    return tuple(sorted(found, key=lambda report: report.number))


def _sync_of(layer: Layer, index: int, fps: Fraction) -> tuple[float | None, float | None, str]:
    """Offset in frames and confidence of a line, or why there are none."""
    reading = line_reading(layer.sync_sums[index]) if layer.is_measured else None
    if reading is not None:
        return round(float(reading.offset * fps / VIDEO_FPS), 1), round(reading.confidence, 3), ""
    return None, None, TOO_SHORT if layer.is_measured else NOT_MEASURED


def covered_frames(runs: Iterable[Span | SpanReport]) -> int:
    """How many frames lie in one run (half open) or more."""
    count, reached = 0, 0
    for run in sorted(runs, key=first_frame):
        count += max(0, run.stop - max(run.start, reached))
        reached = max(reached, run.stop)
    return count


def first_frame(run: Span | SpanReport | SkippedRun) -> int:
    """What runs are sorted by."""
    return run.start


def counted(number: int, name: str) -> str:
    """A number of things for a person: "1 step", "20 steps"."""
    return f"{number} {name}{'' if number == 1 else 's'}"


def describe_run(start: int, stop: int, fps: Fraction) -> str:
    """A run of frames (half open) for a person, who counts its last frame: "frames 30-49 (1.2-2.0 s)"."""
    return f"frames {start}-{stop - 1} ({float(start / fps):.1f}-{float(stop / fps):.1f} s)"


def _listed(runs: list[str]) -> str:
    more = len(runs) - LONGEST_LIST
    return "; ".join([*runs[:LONGEST_LIST], f"and {more} more runs"] if more > 0 else runs)
