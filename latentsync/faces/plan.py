"""The first pass over a video: which frames show which face, how it lies, why others are left alone."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
import torch

from latentsync.faces.alignment import AlignmentSmoother
from latentsync.faces.detector import Face, FaceDetector, FaceFollower, Smoothing, is_plausible, overlap, shrink
from latentsync.faces.selection import FaceChoice
from latentsync.faces.tracking import Person, Track, Tracker, group_people, smooth_window, with_cuts

MIN_FRAMES = 3  # frames a face must be seen for, unless its shot is shorter
MIN_WIDTH = 24  # pixels: a face narrower than this on average is left alone
NO_FACE = "no face"
DAMAGED = "damaged picture, no face"
TOO_SHORT = f"face seen for fewer than {MIN_FRAMES} frames"
TOO_SMALL = f"face under {MIN_WIDTH} pixels wide"


@dataclass(frozen=True)
class Span:
    """A run of frames start..stop (half open) of one shot and one face."""

    start: int
    stop: int
    shot: int
    matrices: np.ndarray  # float32 [n 2 3], picture -> crop
    boxes: np.ndarray  # float32 [n 4]: x0 y0 x1 y1 in the picture


@dataclass(frozen=True)
class SkippedRun:
    """A run of frames start..stop (half open) that stay as they are."""

    start: int
    stop: int
    reason: str


@dataclass(frozen=True)
class FacePlan:
    """Every frame of the video lies in exactly one span or one skipped run; both are in order of time."""

    num_frames: int
    num_shots: int
    most_faces: int  # people in the shot that has most of them
    spans: tuple[Span, ...]
    skipped: tuple[SkippedRun, ...]


class PlanBuilder:
    """Takes the faces of each frame in order and makes the plan; keeps a few numbers for each frame."""

    def __init__(self, resolution: int, fps: float, choice: FaceChoice, smoothing: Smoothing) -> None:
        self._resolution, self._fps, self._choice, self._smoothing = resolution, fps, choice, smoothing
        self._num_frames, self._shot_start, self._num_shots, self._most_faces = 0, 0, 0, 0
        self._tracker = Tracker(smoothing)
        self._spans: list[Span] = []
        self._skipped: list[SkippedRun] = []

    def add(self, faces: Sequence[Face], is_cut: bool = False) -> None:
        """The faces of the next frame, and whether a new shot begins with it."""
        if is_cut and self._num_frames > self._shot_start:
            self._end_shot()
        self._tracker.add(self._num_frames, [face for face in faces if is_plausible(face)])
        self._num_frames += 1

    def finish(self) -> FacePlan:
        """Raises InputError when the chosen face is named by a point that holds none, or that lies after the end."""
        if self._num_frames > self._shot_start:
            self._end_shot()
        self._choice.check_times(self._num_frames, self._fps)
        return FacePlan(self._num_frames, self._num_shots, self._most_faces, tuple(self._spans), tuple(merge_runs(self._skipped)))

    def _end_shot(self) -> None:
        start, stop = self._shot_start, self._num_frames
        reasons, usable = [NO_FACE] * (stop - start), []
        for track in self._tracker.finish():
            reason = why_unusable(track, stop - start)
            if reason is None:
                usable.append(track)
            else:
                write_reason(reasons, track, start, reason)
        people = group_people(usable, stop - start)
        self._most_faces = max(self._most_faces, len(people))
        chosen, others = self._choice.pick(people, start, stop, self._fps)
        for track in usable:
            write_reason(reasons, track, start, others)
        spans = [self._span(track) for track in chosen_tracks(people, chosen)]
        for span in spans:
            reasons[span.start - start : span.stop - start] = [""] * (span.stop - span.start)
        self._spans += spans
        self._skipped += runs(reasons, start)
        self._tracker = Tracker(self._smoothing)
        self._shot_start, self._num_shots = stop, self._num_shots + 1

    def _span(self, track: Track) -> Span:
        anchors = np.stack(track.anchors)  # n 3 2
        if self._smoothing == "window":
            anchors = smooth_window(anchors)
        matrices = AlignmentSmoother(self._resolution)(torch.from_numpy(anchors)).numpy()
        return Span(track.start, track.stop, self._num_shots, matrices, np.stack(track.boxes))


def why_unusable(track: Track, shot_length: int) -> str | None:
    """Why a track gets no new mouth, or None when it may."""
    if track.stop - track.start < min(MIN_FRAMES, shot_length):
        return TOO_SHORT
    return TOO_SMALL if track.mean_width < MIN_WIDTH else None


def chosen_tracks(people: Sequence[Person], chosen: int | None) -> list[Track]:
    """The tracks of the chosen person, none without one."""
    return [] if chosen is None else people[chosen].tracks


def write_reason(reasons: list[str], track: Track, shot_start: int, reason: str) -> None:
    """Notes a reason for every frame of a track."""
    reasons[track.start - shot_start : track.stop - shot_start] = [reason] * (track.stop - track.start)


def name_damage(plan: FacePlan, damaged: Sequence[tuple[int, int]]) -> FacePlan:
    """The plan with another reason for frames without a face inside the `damaged` runs (half open, in order, apart from each other)."""
    skipped: list[SkippedRun] = []
    for run in plan.skipped:
        inside = [(max(start, run.start), min(stop, run.stop)) for start, stop in damaged if start < run.stop and stop > run.start]
        done = run.start
        for start, stop in inside if run.reason == NO_FACE else ():
            skipped += [SkippedRun(done, start, NO_FACE)] * (done < start) + [SkippedRun(start, stop, DAMAGED)]
            done = stop
        skipped += [SkippedRun(done, run.stop, run.reason)] * (done < run.stop)
    return replace(plan, skipped=tuple(skipped))


def runs(reasons: list[str], start: int) -> list[SkippedRun]:
    """Per-frame reasons, "" for frames that get a mouth, as runs; `start` is the frame of the first one."""
    found = []
    for reason, group in groupby(reasons):
        length = sum(1 for _ in group)
        if reason:
            found.append(SkippedRun(start, start + length, reason))
        start += length
    return found


def merge_runs(skipped: list[SkippedRun]) -> list[SkippedRun]:
    """Runs that touch and share a reason, as one: shots without a face need no entry each."""
    merged: list[SkippedRun] = []
    for run in skipped:
        if merged and merged[-1].stop == run.start and merged[-1].reason == run.reason:
            run = SkippedRun(merged.pop().start, run.stop, run.reason)
        merged.append(run)
    return merged


SAME_FACE = 0.3  # overlap of two boxes in one picture from which they show one face
SURE = 0.95  # score with which a followed face stands although full detection does not see it
MAX_FOLLOWED = 8  # faces of one picture, the largest first: a crowd must not stop the work
Sighting = tuple[list[Face], bool]  # the faces of a frame, and whether a new shot begins with it


def plan_spans(
    frames: Iterable[np.ndarray],
    detector: FaceDetector,
    resolution: int,
    fps: float,
    choice: FaceChoice | None = None,
    progress: Callable[[int], None] | None = None,
) -> FacePlan:
    """Looks at frames uint8 [h w 3] RGB in order and says which get a new mouth, with which transform, and why others do not.

    `progress` is called with the number of frames looked at. Holds a handful of shrunken pictures, whatever the length.
    Raises InputError when `choice` names a face that is not there.
    """
    builder = PlanBuilder(resolution, fps, choice or FaceChoice(), detector.smoothing)
    for count, (faces, is_cut) in enumerate(look(frames, detector), start=1):
        builder.add(faces, is_cut)
        if progress is not None:
            progress(count)
    return builder.finish()


def look(frames: Iterable[np.ndarray], detector: FaceDetector) -> Iterator[Sighting]:
    """The faces of every frame, in pixels of the frame, and where shots begin."""
    scales: list[float] = []  # of the frames between the two ends of this stream: a handful

    def shrunken() -> Iterator[np.ndarray]:
        for frame in frames:
            picture = shrink(frame, detector.long_side)
            scales.append(max(frame.shape[:2]) / max(picture.shape[:2]))
            yield picture

    pictures = with_cuts(shrunken())
    sightings = follow_faces(pictures, detector) if isinstance(detector, FaceFollower) else detect_each(pictures, detector)
    for faces, is_cut in sightings:
        scale = scales.pop(0)
        yield (faces if scale == 1 else [face.scaled(scale) for face in faces]), is_cut


def detect_each(pictures: Iterable[tuple[np.ndarray, bool]], detector: FaceDetector) -> Iterator[Sighting]:
    """Full detection in every picture."""
    for picture, is_cut in pictures:
        yield detector.detect(picture), is_cut


def follow_faces(pictures: Iterable[tuple[np.ndarray, bool]], detector: FaceDetector) -> Iterator[Sighting]:
    """Full detection at cuts, every `stride` frames and where a face was lost; in between faces are followed.

    A face that full detection finds first is followed backwards too, so that it begins where it came into sight.
    """
    waiting: list[tuple[np.ndarray, list[Face], bool]] = []  # since the last full detection
    faces: list[Face] = []
    for picture, is_cut in pictures:
        if is_cut:
            yield from sightings_of(waiting)
            waiting, faces = [], []
        found = detector.follow(picture, faces)
        faces = distinct([face for face in found if face is not None])
        if is_cut or not waiting or len(waiting) >= detector.stride or None in found:
            faces, new = full_look(picture, faces, detector)
            follow_back(waiting, new, detector)
            yield from sightings_of(waiting)
            waiting = []
        waiting.append((picture, faces, is_cut))
    yield from sightings_of(waiting)


def full_look(picture: np.ndarray, followed: list[Face], detector: FaceDetector) -> tuple[list[Face], list[Face]]:
    """All faces of a picture where some were followed, and those of them that are new."""
    detected = detector.detect(picture)
    kept = [face for face in followed if face.score >= SURE or touches(face, detected)]
    fresh = [face for face in detected if not touches(face, kept)]
    refined = [again or face for face, again in zip(fresh, detector.follow(picture, fresh), strict=True)]
    faces = distinct(kept + refined)
    return faces, [face for face in faces if not any(face is old for old in kept)]


def follow_back(waiting: list[tuple[np.ndarray, list[Face], bool]], new: list[Face], detector: FaceDetector) -> None:
    """Adds new faces to the earlier pictures that already show them."""
    for picture, faces, _ in reversed(waiting):
        found = [face for face in detector.follow(picture, new) if face is not None]
        new = [face for face in found if not touches(face, faces)]
        if not new:
            return
        faces += new


def sightings_of(waiting: list[tuple[np.ndarray, list[Face], bool]]) -> list[Sighting]:
    """What is known of pictures, without the pictures."""
    return [(faces, is_cut) for _, faces, is_cut in waiting]


def touches(face: Face, others: list[Face]) -> bool:
    """Whether one of the others is the same face."""
    return any(overlap(face.box, other.box) >= SAME_FACE for other in others)


def distinct(faces: list[Face]) -> list[Face]:
    """At most `MAX_FOLLOWED` faces, each only once, the surer of two that fell together."""
    kept: list[Face] = []
    for face in sorted(faces, key=lambda face: -face.score):
        if not touches(face, kept):
            kept.append(face)
    return sorted(kept, key=lambda face: -face.width * face.height)[:MAX_FOLLOWED]
