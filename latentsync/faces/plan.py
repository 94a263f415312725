"""The first pass over a video: which frames show which face, how it lies, why others are left alone."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

import cv2
import numpy as np
import torch

from latentsync.errors import InputError
from latentsync.faces.alignment import AlignmentSmoother
from latentsync.faces.appearance import describe_face
from latentsync.faces.detector import Face, FaceDetector, FaceFollower, Smoothing, is_plausible, is_profile, is_upright, overlap, shrink
from latentsync.faces.selection import FaceChoice
from latentsync.faces.tracking import DissolveFinder, Track, Tracker, group_people, smooth_window, with_cuts
from latentsync.faces.visibility import face_colours, visibility

MIN_FRAMES = 3  # frames a face must be seen for, unless its shot is shorter
MIN_WIDTH = 24  # pixels: a face narrower than this on average is left alone
NO_FACE = "no face"
NO_LINE = "no line"
DAMAGED = "damaged picture, no face"
TOO_SHORT = f"face seen for fewer than {MIN_FRAMES} frames"
TOO_SMALL = f"face under {MIN_WIDTH} pixels wide"


@dataclass(frozen=True)
class FaceRequest:
    """Whose mouth is changed in frames start..stop (half open; None: to the end of the video)."""

    choice: FaceChoice = field(default_factory=FaceChoice)
    start: int = 0
    stop: int | None = None
    name: str = ""  # what a failure calls it: "line 3"

    def within(self, start: int, stop: int) -> tuple[int, int]:
        """The part of frames start..stop (half open) that is asked for; empty where the first is not below the second."""
        return max(self.start, start), stop if self.stop is None else min(self.stop, stop)


@dataclass(frozen=True)
class Span:
    """A run of frames start..stop (half open) of one shot, one face and one request."""

    start: int
    stop: int
    shot: int
    matrices: np.ndarray  # float32 [n 2 3], picture -> crop
    boxes: np.ndarray  # float32 [n 4]: x0 y0 x1 y1 in the picture
    shares: np.ndarray  # float32 [n] in [0, 1]: how much of the new mouth is shown; see `visibility`
    request: int = 0  # index among those of its plan


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


class Shot:
    """The tracks of frames start..stop (half open) of one shot: people, reasons why faces are left, transforms where they are asked for."""

    def __init__(self, tracks: Sequence[Track], start: int, stop: int, number: int) -> None:
        self.start, self.stop, self.number = start, stop, number
        self.reasons = [NO_FACE] * (stop - start)  # of each frame, before somebody is chosen
        self.usable: list[Track] = []
        for track in tracks:
            if track.stop - track.start < min(MIN_FRAMES, stop - start):
                self.note(self.reasons, track, TOO_SHORT)
            elif track.mean_width < MIN_WIDTH:
                self.note(self.reasons, track, TOO_SMALL)
            else:
                self.usable.append(track)
        self.people = group_people(self.usable, stop - start)
        self._transforms: dict[int, np.ndarray] = {}  # by identity of the track; float32 [n 2 3]
        self._visibility: dict[int, tuple[list[str], np.ndarray]] = {}

    def note(self, reasons: list[str], track: Track, reason: str) -> None:
        """Write a reason to the frames of a track."""
        reasons[track.start - self.start : track.stop - self.start] = [reason] * (track.stop - track.start)

    def transforms(self, track: Track, smoothing: Smoothing, resolution: int) -> np.ndarray:
        """Picture -> crop of all frames of a track, float32 [n 2 3], whichever of them are used."""
        if id(track) not in self._transforms:
            anchors = smooth_window(np.stack(track.anchors)) if "window" in smoothing else np.stack(track.anchors)  # n 3 2
            self._transforms[id(track)] = AlignmentSmoother(resolution)(torch.from_numpy(anchors)).numpy()
        return self._transforms[id(track)]

    def visibility(self, track: Track) -> tuple[list[str], np.ndarray]:
        """See `visibility`."""
        if id(track) not in self._visibility:
            self._visibility[id(track)] = visibility(track, self.start, self.stop)
        return self._visibility[id(track)]


class LayerPlanner:
    """The plan of requests that do not overlap in time, shot by shot."""

    def __init__(self, requests: Sequence[FaceRequest]) -> None:
        self.requests = requests
        self.spans: list[Span] = []
        self.reasons: list[str] = []  # of each frame, "" of those in a span

    def add(self, shot: Shot, fps: float, smoothing: Smoothing, resolution: int) -> list[tuple[int, int, int, str]]:
        """Answer the requests in a shot; (person of it, first frame, frame behind the last, name) for each that has one."""
        self.reasons += [NO_LINE] * (shot.stop - shot.start)
        found = []
        for index, request in enumerate(self.requests):
            first, last = request.within(shot.start, shot.stop)
            if first >= last:
                continue
            try:
                chosen, others = request.choice.pick(shot.people, shot.start, shot.stop, fps)
            except InputError as error:
                raise InputError(f"{request.name}: {error}" if request.name else str(error)) from error
            reasons = list(shot.reasons)
            for track in shot.usable:
                shot.note(reasons, track, others)
            for track in [] if chosen is None else shot.people[chosen].tracks:
                reasons[track.start - shot.start : track.stop - shot.start] = shot.visibility(track)[0]
                self._add_spans(shot, track, first, last, index, shot.transforms(track, smoothing, resolution))
            self.reasons[first:last] = reasons[first - shot.start : last - shot.start]
            found += [] if chosen is None else [(chosen, first, last, request.name)]
        return found

    def _add_spans(self, shot: Shot, track: Track, first: int, last: int, request: int, transforms: np.ndarray) -> None:
        """The parts of a track in frames first..last (half open) in which the lower face is seen, as spans."""
        start, stop = max(track.start, first), min(track.stop, last)
        reasons, shares = shot.visibility(track)
        for run in reason_runs(reasons[start - track.start : max(stop - track.start, 0)]):
            if not run.reason:
                begin, end = start + run.start, start + run.stop
                part = slice(begin - track.start, end - track.start)
                self.spans.append(Span(begin, end, shot.number, transforms[part], np.stack(track.boxes[part]), shares[part], request))


class PlanBuilder:
    """Takes the faces of each frame in order and makes a plan for each layer of requests; keeps a few numbers for each frame."""

    def __init__(self, resolution: int, fps: float, layers: Sequence[Sequence[FaceRequest]], smoothing: Smoothing) -> None:
        self._resolution, self._fps, self._smoothing = resolution, fps, smoothing
        self._num_frames, self._shot_start, self._num_shots, self._most_faces = 0, 0, 0, 0
        self._tracker = Tracker(smoothing)
        self._layers = [LayerPlanner(requests) for requests in layers]

    def add(self, faces: Sequence[Face], is_cut: bool = False) -> None:
        if is_cut and self._num_frames > self._shot_start:
            self._end_shot()
        self._tracker.add(self._num_frames, [face for face in faces if is_plausible(face)])
        self._num_frames += 1

    def finish(self) -> list[FacePlan]:
        """The plan of each layer.

        Raises InputError when a face is named by a point that holds none, or that lies after the end, and when two requests want one face.
        """
        if self._num_frames > self._shot_start:
            self._end_shot()
        for layer in self._layers:
            for request in layer.requests:
                request.choice.check_times(self._num_frames, self._fps)
        numbers = (self._num_frames, self._num_shots, self._most_faces)
        return [FacePlan(*numbers, tuple(one.spans), skipped_runs(one.reasons)) for one in self._layers]

    def _end_shot(self) -> None:
        shot = Shot(self._tracker.finish(), self._shot_start, self._num_frames, self._num_shots)
        self._most_faces = max(self._most_faces, len(shot.people))
        taken: list[tuple[int, int, int, str]] = []
        for layer in self._layers:
            for person, first, last, name in layer.add(shot, self._fps, self._smoothing, self._resolution):
                other = next((one for one in taken if one[0] == person and first < one[2] and one[1] < last), None)
                if other is not None:
                    when = max(first, other[1]) / self._fps
                    raise InputError(f"{name} and {other[3]} give one face words at {when:.2f} s: choose another face, or other times.")
                taken.append((person, first, last, name))
        self._tracker = Tracker(self._smoothing)
        self._shot_start, self._num_shots = self._num_frames, self._num_shots + 1


def name_damage(plan: FacePlan, damaged: Sequence[tuple[int, int]]) -> FacePlan:
    """The plan with another reason for frames without a face inside the `damaged` runs (half open)."""
    reasons = frame_reasons(plan.skipped, plan.num_frames)
    for start, stop in damaged:
        reasons[start:stop] = [DAMAGED if reason == NO_FACE else reason for reason in reasons[start:stop]]
    return replace(plan, skipped=skipped_runs(reasons))


def frame_reasons(skipped: Iterable[SkippedRun], num_frames: int) -> list[str]:
    """The reason of each frame, "" of those that get a mouth."""
    reasons = [""] * num_frames
    for run in skipped:
        reasons[run.start : run.stop] = [run.reason] * (run.stop - run.start)
    return reasons


def reason_runs(reasons: Iterable[str]) -> list[SkippedRun]:
    """Reasons of frames as runs, those of "" too."""
    found, start = [], 0
    for reason, group in groupby(reasons):
        stop = start + sum(1 for _ in group)
        found.append(SkippedRun(start, stop, reason))
        start = stop
    return found


def skipped_runs(reasons: Iterable[str]) -> tuple[SkippedRun, ...]:
    """Reasons of frames as runs of those that stay as they are."""
    return tuple(run for run in reason_runs(reasons) if run.reason)


SAME_FACE = 0.3  # overlap of two boxes in one picture from which they show one face
SURE = 0.95  # score with which a followed face stands although full detection does not see it
SEARCH_SIDE = 320  # pixels of the long side of turned pictures in a search
SEARCH_STRIDES, MAX_SEARCH_STRIDES = 4, 32  # full detections from one search in turned pictures to the next
SEARCH_GAP = 32  # pictures, with a detector that cannot follow
SAME_TURN = 0.005  # of a score, by which another turn must be better
QUARTER_TURNS = {1: cv2.ROTATE_90_COUNTERCLOCKWISE, 2: cv2.ROTATE_180, 3: cv2.ROTATE_90_CLOCKWISE}
MAX_FOLLOWED = 8  # faces of one picture, the largest first: a crowd must not stop the work
Sighting = tuple[list[Face], bool]  # the faces of a frame, and whether a new shot begins with it


def plan_spans(
    frames: Iterable[np.ndarray], detector: FaceDetector, resolution: int, fps: float, choice: FaceChoice | None = None
) -> FacePlan:
    """Which frames uint8 [h w 3] RGB, in order, get a new mouth, by which transform, why others do not. Raises InputError (`choice`)."""
    layers = [[FaceRequest(choice or FaceChoice())]]
    return plan_sightings(find_faces(frames, detector), detector.smoothing, resolution, fps, layers)[0]


def plan_sightings(
    sightings: Iterable[Sighting],
    smoothing: Smoothing,
    resolution: int,
    fps: float,
    layers: Sequence[Sequence[FaceRequest]],
    progress: Callable[[int], None] | None = None,
) -> list[FacePlan]:
    """The plan of each layer by what was found in the frames; `progress` is called with the number of frames so far."""
    builder = PlanBuilder(resolution, fps, layers, smoothing)
    for count, (faces, is_cut) in enumerate(sightings, start=1):
        builder.add(faces, is_cut)
        if progress is not None:
            progress(count)
    return builder.finish()


def find_faces(frames: Iterable[np.ndarray], detector: FaceDetector, describe: bool = False, dissolves: bool = True) -> Iterator[Sighting]:
    """The faces of every frame, in its pixels, and where shots begin: cuts, and middles of `dissolves`, for which sightings wait here.

    `describe`: with their appearance, for people who are named by a picture.
    """
    scales: list[float] = []  # of the frames between the two ends of this stream: a handful
    finder, is_middle = DissolveFinder(), deque[bool]()
    described: deque[np.ndarray] = deque()  # pictures of the same frames

    def shrunken() -> Iterator[np.ndarray]:
        for frame in frames:
            picture = shrink(frame, detector.long_side)
            scales.append(max(frame.shape[:2]) / max(picture.shape[:2]))
            is_middle.extend(finder.add(picture) if dissolves else [False])
            if describe:
                described.append(picture)
            yield picture
        is_middle.extend(finder.finish() if dissolves else [])

    pictures = with_cuts(shrunken())
    waiting: deque[Sighting] = deque()
    for faces, is_cut in follow_faces(pictures, detector) if isinstance(detector, FaceFollower) else detect_each(pictures, detector):
        scale = scales.pop(0)
        if describe:
            picture = described.popleft()
            faces = [replace(face, appearance=describe_face(picture, face.anchors)) for face in faces]
        waiting.append(([face.scaled(scale) for face in faces], is_cut))
        while waiting and is_middle:
            faces, is_cut = waiting.popleft()
            yield faces, is_middle.popleft() or is_cut


def detect_each(pictures: Iterable[tuple[np.ndarray, bool]], detector: FaceDetector) -> Iterator[Sighting]:
    """Full detection in every picture, turned as the last faces were; where none is upright, in all turns every `SEARCH_GAP` pictures."""
    turns, since = [0], SEARCH_GAP
    for picture, is_cut in pictures:
        if is_cut:
            turns, since = [0], SEARCH_GAP
        views = Views(picture)
        found = [face for turn in turns for face in views.detect(detector, turn)]
        if since >= SEARCH_GAP and not (found and all(is_upright(seen) and abs(seen.roll) <= 45 for seen in map(views.seen, found))):
            found += [face for turn in range(4) if turn not in turns for face in views.detect(detector, turn)]
            since = 0
        if len({face.turns for face in found}) > 1:
            found = unique(found, views.rank)
        faces = [face for face in found if views.is_sound(face)]
        turns, since = sorted({face.turns for face in faces}) or [0], since + 1
        yield with_colours(picture, faces), is_cut


def follow_faces(pictures: Iterable[tuple[np.ndarray, bool]], detector: FaceDetector) -> Iterator[Sighting]:
    """Full detection at cuts, every `stride` frames and where a face was lost; in between faces are followed, new ones backwards too.

    Faces that are not upright are searched in turned pictures where a shot begins; then after 4 strides, and, while there are faces, after
    twice as many each time.
    """
    waiting: list[tuple[Views, list[Face], bool]] = []  # since the last full detection
    faces: list[Face] = []
    strides, gap = 0, 0  # full detections since the last search, and how many of them shall lie between two
    for picture, is_cut in pictures:
        if is_cut:
            yield from sightings_of(waiting)
            waiting, faces, gap = [], [], 0
        views = Views(picture)
        found = views.follow(detector, faces)
        faces = distinct([face for face in found if face is not None])
        if is_cut or not waiting or len(waiting) >= detector.stride or None in found:
            strides += 1
            is_search = strides >= gap
            faces, new = detect_again(views, faces, detector, is_search)
            if is_search:
                strides, gap = 0, min(max(2 * gap, SEARCH_STRIDES), MAX_SEARCH_STRIDES) if faces else SEARCH_STRIDES
            follow_back(waiting, new, detector)
            yield from sightings_of(waiting)
            waiting = []
        waiting.append((views, faces, is_cut))
    yield from sightings_of(waiting)


def detect_again(views: "Views", followed: list[Face], detector: FaceDetector, is_search: bool) -> tuple[list[Face], list[Face]]:
    """All faces of a picture where some were followed, and the new ones of them; a search detects in small turned pictures, too."""
    detected = views.detect(detector, 0)
    if is_search:
        detected += [face for turns in (1, 2, 3) for face in views.detect(detector, turns, SEARCH_SIDE)]
    kept = [face for face in followed if face.score >= SURE or touches(face, detected)]
    fresh = [face for face in detected if not touches(face, kept)]
    refined = views.follow(detector, fresh)
    refined = [again or face for face, again in zip(fresh, refined, strict=True) if again or views.is_sound(face)]
    settled = [face for face in (views.settle(detector, face) for face in refined) if face is not None]
    faces = distinct(kept + settled)
    return faces, [face for face in faces if not any(face is old for old in kept)]


def follow_back(waiting: list[tuple["Views", list[Face], bool]], new: list[Face], detector: FaceDetector) -> None:
    """Adds new faces to the earlier pictures that already show them."""
    for views, faces, _ in reversed(waiting):
        found = [face for face in views.follow(detector, new) if face is not None]
        new = [face for face in found if not touches(face, faces)]
        if not new:
            return
        faces += new


class Views:
    """A picture in its four turns; faces are in pixels of the picture as it is. Points are right up to a roll of about 50 degrees."""

    def __init__(self, picture: np.ndarray) -> None:
        self._pictures = {0: picture}
        self._size = (picture.shape[1], picture.shape[0])

    def picture(self, turns: int) -> np.ndarray:
        """The picture after quarter turns anticlockwise."""
        if turns not in self._pictures:
            self._pictures[turns] = cv2.rotate(self._pictures[0], QUARTER_TURNS[turns])
        return self._pictures[turns]

    def seen(self, face: Face, turns: int | None = None) -> Face:
        """A face in pixels of the picture in which it was found, or of another turn."""
        return face.turned(face.turns if turns is None else turns, self._size)

    def unseen(self, face: Face, turns: int) -> Face:
        """A face that was found in a turned picture, in pixels of the picture as it is."""
        size = self._size if turns % 2 == 0 else self._size[::-1]
        return replace(face.turned(4 - turns, size), turns=turns)

    def detect(self, detector: FaceDetector, turns: int, long_side: int | None = None) -> list[Face]:
        """Full detection in one turn, in a picture shrunk to `long_side`."""
        picture = self.picture(turns)
        small = shrink(picture, long_side)
        scale = max(picture.shape[:2]) / max(small.shape[:2])
        return [self.unseen(face.scaled(scale), turns) for face in detector.detect(small)]

    def follow(self, detector: FaceFollower, faces: list[Face]) -> list[Face | None]:
        """Each face found again in the turn it was last found in, or, where it is not upright in that, in the turn that fits best."""
        found: list[Face | None] = [None] * len(faces)
        for turns in sorted({face.turns for face in faces}):
            group = [i for i, face in enumerate(faces) if face.turns == turns]
            for i, face in zip(group, self._follow(detector, [faces[i] for i in group], turns), strict=True):
                found[i] = face if face is None or self.is_sound(face) else self.settle(detector, face)
        return found

    def _follow(self, detector: FaceFollower, faces: list[Face], turns: int) -> list[Face | None]:
        again = detector.follow(self.picture(turns), [self.seen(face, turns) for face in faces])
        return [None if face is None else self.unseen(face, turns) for face in again]

    def settle(self, detector: FaceFollower, face: Face) -> Face | None:
        """A face found again in the turn that fits best: its points are those of an upright face and its score is the highest."""
        bare = replace(face, landmarks=None, mesh=None)  # looked for anew, upright in each turn
        others = [self._follow(detector, [bare], turns)[0] for turns in range(4) if turns != face.turns]
        upright = [face, *(other for other in others if other is not None)]
        upright = [one for one in upright if is_upright(self.seen(one))]
        if not upright:
            return face if self.is_sound(face) else None
        return max(upright, key=lambda one: one.score + SAME_TURN * (one.turns == face.turns))

    def rank(self, face: Face) -> tuple[bool, float]:
        """What is lowest for the right turn of a face."""
        return not is_upright(self.seen(face)), -face.score

    def is_sound(self, face: Face) -> bool:
        """Whether the points of a face are where they seem to be."""
        seen = self.seen(face)
        return is_upright(seen) or (face.turns == 0 and is_profile(seen))


def sightings_of(waiting: list[tuple[Views, list[Face], bool]]) -> list[Sighting]:
    """What is known of pictures, without the pictures."""
    return [(with_colours(views.picture(0), faces), is_cut) for views, faces, is_cut in waiting]


def with_colours(picture: np.ndarray, faces: list[Face]) -> list[Face]:
    """Faces of a picture with the colours from which it is told what covers them."""
    return [replace(face, colours=face_colours(picture, face.anchors)) for face in faces]


def touches(face: Face, others: list[Face]) -> bool:
    """Whether one of the others is the same face."""
    return any(overlap(face.box, other.box) >= SAME_FACE for other in others)


def unique(faces: list[Face], rank: Callable[[Face], Any]) -> list[Face]:
    """Each face only once: of those that touch, the one with the lowest rank."""
    kept: list[Face] = []
    for face in sorted(faces, key=rank):
        if not touches(face, kept):
            kept.append(face)
    return kept


def distinct(faces: list[Face]) -> list[Face]:
    """At most `MAX_FOLLOWED` faces, the largest, each only once, with its highest score."""
    return sorted(unique(faces, lambda face: -face.score), key=lambda face: -face.width * face.height)[:MAX_FOLLOWED]
