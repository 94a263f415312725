"""The plan of a video: which frames get a new mouth, where the face is in them, and why the others are left alone."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
import torch

from latentsync.faces.align import AlignmentSmoother
from latentsync.faces.choice import FaceChoice
from latentsync.faces.detector import Face, Smoothing, is_plausible
from latentsync.faces.track import Person, Track, Tracker, group_people, smooth_window

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
