"""Faces along time: shot boundaries, tracks, people."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
from scenedetect import FrameTimecode
from scenedetect.detectors import AdaptiveDetector, ContentDetector
from scipy.ndimage import convolve1d

from latentsync.faces.alignment import LandmarkSmoother, anchors_from_landmarks
from latentsync.faces.detector import Face, Smoothing, overlap, shrink

CUT_SIDE = 160  # pixels of the long side in which cuts are detected
CUT_RATE = 25.0  # frames a second of the time codes that scenedetect counts in; any value gives the same frames
LOOKAHEAD = 2  # frames after a frame that scenedetect must see before it knows whether a shot begins there
FLASH = 4  # frames that a flash lasts at most
FLASH_SHARE = 0.9  # of the change of brightness at a flash that is in one direction
FLASH_REST, FLASH_GREY = 0.7, 12.0  # of its contrast, and grey levels: a flash that the picture before explains less is another picture
FLASH_RETURN = 0.35  # of that change that may be left when the flash is over
DISSOLVE_WINDOWS = (8, 12, 24, 36)  # frames from one end of a dissolve, or of a part of a longer one, to the other
DISSOLVE_WAIT = 24  # frames after the first window that fits in which another may fit that shows more of the change
DISSOLVE_LOOKAHEAD = DISSOLVE_WINDOWS[-1] // 2 + DISSOLVE_WAIT  # frames after a frame that must be seen
DISSOLVE_CHECKS = 6  # pictures between the ends that must be a mixture of both
MIN_UNLIKE = 0.25  # of one end's variance that the other does not explain
MIN_CONTRAST = 8.0  # grey levels of what is not explained, root mean square
MAX_REST = 0.06  # of the difference of the ends that a mixture leaves unexplained in a picture between
MAX_UNEVEN = 0.15  # of a share in the mixture from a straight line


class CutFinder:
    """Says of each frame, six late, whether a shot begins: a change of 27 of 255, or of 15 and thrice that around it, that is no flash."""

    def __init__(self) -> None:
        self._seen, self._told = 0, 0
        self._cuts: set[int] = set()
        self._finders = (ContentDetector(min_scene_len=1), AdaptiveDetector(min_scene_len=1, window_width=LOOKAHEAD))
        self._recent: deque[np.ndarray] = deque(maxlen=LOOKAHEAD + 2 * FLASH + 2)  # grey float32 [h w], up to the last frame seen

    def add(self, picture: np.ndarray) -> list[bool]:
        """Takes the next picture uint8 [h w 3] RGB; returns what is now known of the oldest undecided frames, in order."""
        small = np.ascontiguousarray(shrink(picture, CUT_SIDE)[..., ::-1])  # scenedetect reads BGR
        time = FrameTimecode(self._seen, CUT_RATE)
        for finder in self._finders:
            self._cuts.update(cut.frame_num for cut in finder.process_frame(time, small))
        self._recent.append(small.mean(axis=2, dtype=np.float32))
        self._seen += 1
        return self._tell(self._seen - LOOKAHEAD - FLASH)

    def finish(self) -> list[bool]:
        """What was still undecided when the video ended."""
        return self._tell(self._seen)

    def _tell(self, until: int) -> list[bool]:
        answers = []
        for frame in range(self._told, max(until, self._told)):
            if frame in self._cuts and (length := self._flash_length(frame)):
                self._cuts -= set(range(frame, frame + length + 1))
            answers.append(frame in self._cuts)
        self._told += len(answers)
        self._cuts = {frame for frame in self._cuts if frame >= self._told}
        return answers

    def _flash_length(self, start: int) -> int:
        """Frames of the flash that begins with a frame, 0 when none does."""
        first = self._seen - len(self._recent)
        if start - 1 < first:
            return 0
        before, during = self._recent[start - 1 - first], self._recent[start - first]
        change = during - before
        size, brighter = float(np.abs(change).mean()), float(np.maximum(change, 0).mean())
        if max(brighter, size - brighter) < FLASH_SHARE * size:
            return 0
        if unexplained(during, before) > max(FLASH_REST * float(during.std()), FLASH_GREY):
            return 0
        for length in range(1, min(FLASH, self._seen - 1 - start) + 1):
            if float(np.abs(self._recent[start + length - first] - before).mean()) <= FLASH_RETURN * size:
                return length
        return 0


class DissolveFinder:
    """Says of each frame, 42 late, whether a dissolve has its middle there: pictures are even mixtures of two unlike ends."""

    def __init__(self) -> None:
        self._recent: deque[np.ndarray] = deque(maxlen=DISSOLVE_WINDOWS[-1] + 1)  # float32 [pixels], mean 0
        self._seen, self._told = 0, 0
        self._best: tuple[float, int] | None = None  # of a dissolve that is going on: how much changes, and the middle
        self._until = 0  # the frame with which it is over
        self._last = -DISSOLVE_WINDOWS[-1]  # the middle of the last one: two do not follow each other sooner than that
        self._middles: set[int] = set()

    def add(self, picture: np.ndarray) -> list[bool]:
        """Takes the next picture uint8 [h w 3]; returns what is now known of the oldest undecided frames, in order."""
        small = shrink(picture, CUT_SIDE).mean(axis=2, dtype=np.float32).ravel()
        self._recent.append(small - small.mean())
        for window in DISSOLVE_WINDOWS:
            change = self._change(window) if window < len(self._recent) else 0.0
            middle = self._seen - window // 2
            if not change or middle - self._last < DISSOLVE_WINDOWS[-1]:
                continue
            if self._best is None:
                self._until = self._seen + DISSOLVE_WAIT
            if self._best is None or change > self._best[0]:
                self._best = (change, middle)
        if self._best and self._seen == self._until:
            self._end()
        self._seen += 1
        return self._tell(self._seen - DISSOLVE_LOOKAHEAD)

    def finish(self) -> list[bool]:
        """What was still undecided when the video ended."""
        self._end()
        return self._tell(self._seen)

    def _end(self) -> None:
        if self._best:
            self._last = self._best[1]
            self._middles.add(self._last)
        self._best = None

    def _tell(self, until: int) -> list[bool]:
        answers = [frame in self._middles for frame in range(self._told, max(until, self._told))]
        self._told += len(answers)
        return answers

    def _change(self, window: int) -> float:
        """How unlike the last picture and the one `window` frames before it are; 0 where they are not the ends of a dissolve."""
        first, last = self._recent[-1 - window], self._recent[-1]
        power, other_power, product = float(first @ first), float(last @ last), float(first @ last)
        apart = power * other_power - product**2  # 0 where one is the other times a factor
        if apart <= MIN_UNLIKE * power * other_power or apart / power <= MIN_CONTRAST**2 * len(first):
            return 0.0
        places = np.linspace(0, window, DISSOLVE_CHECKS + 2)[1:-1].round().astype(int)
        between = np.stack([self._recent[place - 1 - window] for place in places])  # k pixels
        with_first, with_last = between @ first, between @ last
        old = (with_first * other_power - with_last * product) / apart
        new = (with_last * power - with_first * product) / apart
        rest = ((between - old[:, None] * first - new[:, None] * last) ** 2).sum(axis=1)
        uneven = max(np.abs(new - places / window).max(), np.abs(old - 1 + places / window).max())
        return apart / power if rest.max() <= MAX_REST * apart / power and uneven <= MAX_UNEVEN else 0.0


def with_cuts(pictures: Iterable[np.ndarray]) -> Iterator[tuple[np.ndarray, bool]]:
    """Each picture with whether a hard cut lies before it; holds six pictures."""
    finder, waiting = CutFinder(), deque()
    for picture in pictures:
        waiting.append(picture)
        for is_cut in finder.add(picture):
            yield waiting.popleft(), is_cut
    for is_cut in finder.finish():
        yield waiting.popleft(), is_cut


def shot_starts(pictures: Iterable[np.ndarray]) -> list[int]:
    """Frames with which shots begin, 0 among them where there are any: hard cuts and middles of dissolves."""
    dissolves, cuts, middles = DissolveFinder(), [], []
    for picture, is_cut in with_cuts(pictures):
        cuts.append(is_cut)
        middles += dissolves.add(picture)
    middles += dissolves.finish()
    return [frame for frame, begins in enumerate(zip(cuts, middles, strict=True)) if frame == 0 or any(begins)]


def unexplained(picture: np.ndarray, other: np.ndarray) -> float:
    """Grey levels, root mean square, of a picture that are not another one [h w] times a factor plus an offset."""
    x, y = other - other.mean(), picture - picture.mean()
    factor = float((x * y).sum()) / max(float((x * x).sum()), 1e-6)
    return float(np.sqrt(np.mean((y - factor * x) ** 2)))


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
    scores: list[float] = field(default_factory=list)  # of `Face.score`
    colours: list[np.ndarray | None] = field(default_factory=list)  # of `Face.colours`; those of gaps are the last ones
    landmark_smoother: LandmarkSmoother | None = None
    appearance: np.ndarray | float = 0.0  # sum of `Face.appearance`, where it is known

    @property
    def stop(self) -> int:
        return self.start + len(self.boxes)

    @property
    def mean_width(self) -> float:
        return float(np.mean([box[2] - box[0] for box in self.boxes]))

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
            self.scores.append(self.scores[-step] * (1 - float(share)) + face.score * float(share))
            self.colours.append(self.colours[-1])
        self.boxes.append(face.box)
        self.anchors.append(anchors)
        self.scores.append(face.score)
        self.appearance = self.appearance + (0.0 if face.appearance is None else face.appearance)
        self.colours.append(face.colours)


@dataclass
class Person:
    """The tracks of one person of one shot, in order of time."""

    tracks: list[Track]
    shot_length: int

    @property
    def mean_area(self) -> float:
        """Square pixels, 0 in frames of the shot without the person."""
        return float(sum(np.prod(box[2:] - box[:2]) for track in self.tracks for box in track.boxes)) / self.shot_length

    @property
    def mean_x(self) -> float:
        return float(np.mean([(box[0] + box[2]) / 2 for track in self.tracks for box in track.boxes]))

    @property
    def appearance(self) -> np.ndarray:
        """The mean of what the tracks look like, float32 [n]; zeros in single parts that are missing."""
        total = sum(track.appearance for track in self.tracks)
        return total / sum(len(track.boxes) for track in self.tracks)

    def box_at(self, frame: int) -> np.ndarray | None:
        """The box x0 y0 x1 y1 in a frame, or None where the person is not seen."""
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
            track = Track(frame, landmark_smoother=LandmarkSmoother() if "laplacian" in self._smoothing else None)
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
    total = convolve1d(points.astype(np.float64), WINDOW, axis=0, mode="constant")
    norm = convolve1d(np.ones((len(points), 1, 1)), WINDOW, axis=0, mode="constant")
    return (total / norm).astype(np.float32)
