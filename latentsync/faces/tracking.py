"""Faces along time: shot boundaries, tracks, people."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
from scenedetect import FrameTimecode
from scenedetect.detectors import AdaptiveDetector, ContentDetector

from latentsync.faces.alignment import LandmarkSmoother, anchors_from_landmarks
from latentsync.faces.detector import Face, Smoothing, overlap, shrink

CUT_SIDE = 160  # pixels of the long side that cuts are looked for in
CUT_RATE = 25.0  # frames a second of the time codes that scenedetect counts in; any value gives the same frames
LOOKAHEAD = 2  # frames after a frame that must be seen before it is known whether a shot begins there


class CutFinder:
    """Says of each frame whether a new shot begins with it, two frames late.

    A cut is a change of hue, saturation and brightness that is large as such (27 of 255 on average), or at least 15 and
    three times the change of the two frames before and after: calm shots of similar rooms are told apart, fast motion is not cut.
    """

    def __init__(self) -> None:
        self._seen, self._told = 0, 0
        self._cuts: set[int] = set()
        self._finders = (ContentDetector(min_scene_len=1), AdaptiveDetector(min_scene_len=1, window_width=LOOKAHEAD))

    def add(self, picture: np.ndarray) -> list[bool]:
        """Takes the next picture uint8 [h w 3] RGB; returns what is now known of the oldest undecided frames, in order."""
        small = np.ascontiguousarray(shrink(picture, CUT_SIDE)[..., ::-1])  # scenedetect reads BGR
        time = FrameTimecode(self._seen, CUT_RATE)
        for finder in self._finders:
            self._cuts.update(cut.frame_num for cut in finder.process_frame(time, small))
        self._seen += 1
        return self._tell(self._seen - LOOKAHEAD)

    def finish(self) -> list[bool]:
        """What was still undecided when the video ended."""
        return self._tell(self._seen)

    def _tell(self, until: int) -> list[bool]:
        answers = [frame in self._cuts for frame in range(self._told, max(until, self._told))]
        self._told += len(answers)
        self._cuts = {frame for frame in self._cuts if frame >= self._told}
        return answers


def with_cuts(pictures: Iterable[np.ndarray]) -> Iterator[tuple[np.ndarray, bool]]:
    """Each picture with whether a new shot begins with it; holds two pictures."""
    finder, waiting = CutFinder(), []
    for picture in pictures:
        waiting.append(picture)
        for is_cut in finder.add(picture):
            yield waiting.pop(0), is_cut
    for is_cut in finder.finish():
        yield waiting.pop(0), is_cut


MAX_GAP = 8  # frames without a detection that are bridged inside a shot
MIN_OVERLAP = 0.2  # of two boxes of one person in neighbouring detections
SAME_PLACE = 1.0  # box sizes between the middles of two tracks that follow each other: the same person came back
SAME_SIZE = 2.0  # largest ratio of their widths
WINDOW = (1, 2, 3, 2, 1)  # weights of the centred window along time


@dataclass
class Track:
    """One face through consecutive frames of one shot, gaps filled; boxes and anchors in pixels of the picture."""

    start: int
    boxes: list[np.ndarray] = field(default_factory=list)  # float32 [4] each
    anchors: list[np.ndarray] = field(default_factory=list)  # float32 [3 2] each
    landmark_smoother: LandmarkSmoother | None = None

    @property
    def stop(self) -> int:
        return self.start + len(self.boxes)

    @property
    def mean_width(self) -> float:
        return float(np.mean([box[2] - box[0] for box in self.boxes]))

    @property
    def total_area(self) -> float:
        return float(sum((box[2] - box[0]) * (box[3] - box[1]) for box in self.boxes))

    def add(self, frame: int, face: Face) -> None:
        """Appends a detection; frames since the last one are interpolated linearly."""
        anchors = face.anchors
        if self.landmark_smoother is not None and face.landmarks is not None:
            anchors = anchors_from_landmarks(self.landmark_smoother(face.landmarks))
        steps = frame - self.stop + 1 if self.boxes else 1
        for step in range(1, steps):
            share = np.float32(step / steps)
            self.boxes.append(self.boxes[-step] * (1 - share) + face.box * share)
            self.anchors.append(self.anchors[-step] * (1 - share) + anchors * share)
        self.boxes.append(face.box)
        self.anchors.append(anchors)


@dataclass
class Person:
    """The tracks of one person of one shot, in order of time."""

    tracks: list[Track]
    shot_length: int

    @property
    def mean_area(self) -> float:
        return sum(track.total_area for track in self.tracks) / self.shot_length

    @property
    def mean_x(self) -> float:
        return float(np.mean([(box[0] + box[2]) / 2 for track in self.tracks for box in track.boxes]))

    def box_at(self, frame: int) -> np.ndarray | None:
        return next((track.boxes[frame - track.start] for track in self.tracks if track.start <= frame < track.stop), None)


class Tracker:
    """Links the faces of successive frames of one shot by the overlap of their boxes."""

    def __init__(self, smoothing: Smoothing) -> None:
        self._smoothing = smoothing
        self._live: list[Track] = []
        self._ended: list[Track] = []

    def add(self, frame: int, faces: list[Face]) -> None:
        """Takes the faces of a frame; each goes to the track it overlaps most, or begins one."""
        self._ended += [track for track in self._live if frame - track.stop > MAX_GAP]
        self._live = [track for track in self._live if frame - track.stop <= MAX_GAP]
        pairs = [(overlap(track.boxes[-1], face.box), t, f) for t, track in enumerate(self._live) for f, face in enumerate(faces)]
        free_tracks, free_faces = set(range(len(self._live))), set(range(len(faces)))
        for share, t, f in sorted(pairs, reverse=True):
            if share >= MIN_OVERLAP and t in free_tracks and f in free_faces:
                self._live[t].add(frame, faces[f])
                free_tracks.discard(t)
                free_faces.discard(f)
        for f in sorted(free_faces):
            track = Track(frame, landmark_smoother=LandmarkSmoother() if self._smoothing == "laplacian" else None)
            track.add(frame, faces[f])
            self._live.append(track)

    def finish(self) -> list[Track]:
        """All tracks of the shot, in order of time."""
        return sorted(self._ended + self._live, key=lambda track: track.start)


def group_people(tracks: list[Track], shot_length: int) -> list[Person]:
    """Tracks in order of time -> people: one who comes back to about the same place and size is the same person."""
    people: list[Person] = []
    for track in tracks:
        near = [(distance, i) for i, person in enumerate(people) if (distance := return_distance(person.tracks[-1], track)) is not None]
        if near:
            people[min(near)[1]].tracks.append(track)
        else:
            people.append(Person([track], shot_length))
    return people


def return_distance(earlier: Track, later: Track) -> float | None:
    """Between where one track ends and another begins, in box sizes; None when they cannot be one person."""
    if later.start < earlier.stop:
        return None
    before, after = earlier.boxes[-1], later.boxes[0]
    widths = sorted((float(before[2] - before[0]), float(after[2] - after[0])))
    middle = (before[:2] + before[2:] - after[:2] - after[2:]) / 2
    distance = float(np.hypot(*middle)) / max(widths[1], 1e-6)
    return distance if distance <= SAME_PLACE and widths[1] <= SAME_SIZE * widths[0] else None


def smooth_window(points: np.ndarray) -> np.ndarray:
    """Points float32 [n 3 2] of one span, filtered with a centred window whose weights are renormalised at both ends."""
    weights, reach, count = np.asarray(WINDOW, np.float64), len(WINDOW) // 2, len(points)
    total, norm = np.zeros(points.shape, np.float64), np.zeros((count, 1, 1))
    for offset, weight in zip(range(-reach, reach + 1), weights, strict=True):
        here = slice(max(-offset, 0), max(min(count - offset, count), 0))
        there = slice(max(offset, 0), max(min(count + offset, count), 0))
        total[here] += weight * points[there]
        norm[here] += weight
    return (total / norm).astype(np.float32)
