"""The people in a video, as boxes on its frames to choose from: faces are detected in a few frames, spread over the video."""

import base64
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path

import cv2
import numpy as np

from latentsync.constants import VIDEO_FPS
from latentsync.faces.detector import FaceDetector, MtcnnDetector, is_plausible, shrink
from latentsync.faces.plan import MIN_WIDTH, detect_each
from latentsync.faces.tracking import Person, Track, group_people
from latentsync.media.video_reader import VideoReader

NUM_SAMPLES = 12  # frames in which faces are detected
MIN_DISTANCE = 5  # frames from one of them to the next
MAX_PEOPLE = 8
FRAME_SIDE = 640  # pixels of the longer side of a frame that is shown


@dataclass
class FaceSighting(Track):
    """A face in one of the sampled frames, as a track of that frame alone."""

    point: str = ""  # its middle, as the option `face` wants it
    place: tuple[float, ...] = ()  # x, y, width, height of its box, as shares of the frame's
    turns: int = 0  # of `Face`


@dataclass(frozen=True)
class FoundPerson:
    points: str  # a choice of `face` with all sightings
    frame: int  # number of one of `FoundPeople.frames`
    place: tuple[float, ...]  # of the face in it, see `FaceSighting`
    turns: int  # quarter turns by which the face lies there


@dataclass(frozen=True)
class FoundPeople:
    """Those seen most first, and as few frames, uint8 h w 3, as show them all."""

    people: list[FoundPerson] = field(default_factory=list)
    frames: list[np.ndarray] = field(default_factory=list)
    widest: float = 0.0  # pixels: the widest face, those that are too narrow for a new mouth too


class PeopleFinder:
    """Finds the people of a video with a small detector of its own, which waits for no job."""

    def __init__(self) -> None:
        self._detector: FaceDetector | None = None
        self._lock = threading.Lock()

    def __call__(self, path: Path, longest: float, is_wanted: Callable[[], bool] = lambda: True) -> FoundPeople:
        """The people of the first `longest` seconds; `is_wanted` is asked again and again: else nobody is looked for any further."""
        sightings: list[FaceSighting] = []
        shown, widest = [], 0.0
        with self._lock:
            self._detector = self._detector or MtcnnDetector()
            for number, (seconds, frame) in enumerate(takewhile(lambda _: is_wanted(), sample_frames(path, longest))):
                shown.append(shrink(frame, FRAME_SIDE))
                picture = shrink(frame, self._detector.long_side)
                scale = max(frame.shape[:2]) / max(picture.shape[:2])
                ((found, _),) = detect_each([(picture, True)], self._detector)
                faces = [face.scaled(scale) for face in found if is_plausible(face)]
                widest = max([widest, *(face.width for face in faces)])
                size = np.array(frame.shape[1::-1] * 2, dtype=float)
                for face in (face for face in faces if face.width >= MIN_WIDTH):  # narrower ones get no new mouth
                    box = face.box
                    x, y = (max(float(value), 0.0) for value in (box[:2] + box[2:]) / 2)
                    place = tuple((np.concatenate([box[:2], box[2:] - box[:2]]) / size).tolist())
                    point = f"{x:.0f},{y:.0f}@{seconds:.3f}"
                    sightings.append(FaceSighting(number, [box], point=point, place=place, turns=face.turns))
        people = sorted(group_people(sightings, NUM_SAMPLES), key=lambda person: -person.mean_area)[:MAX_PEOPLE]
        return place_people(people, shown, widest)


def place_people(people: list[Person], shown: list[np.ndarray], widest: float) -> FoundPeople:
    """Each person in one of the sampled frames: again and again that which shows most of those who have none yet."""
    left, frames, found = dict(enumerate(people)), [], {}
    while left:
        seen = [track.start for person in left.values() for track in person.tracks]
        number = max(sorted(set(seen)), key=seen.count)
        for index, person in list(left.items()):
            for track in (track for track in person.tracks if track.start == number):
                points = "".join(f"{each.point}|" for each in person.tracks)
                found[index] = FoundPerson(points, len(frames), track.place, track.turns)
                left.pop(index, None)
        frames.append(shown[number])
    return FoundPeople([found[index] for index in range(len(people))], frames, widest)


def sample_frames(path: Path, longest: float) -> Iterator[tuple[float, np.ndarray]]:
    """(seconds, frame uint8 h w 3) of a few frames, the time being the middle of the frame's."""
    source = VideoReader(path)
    total = min(source.expected_frames or NUM_SAMPLES * VIDEO_FPS, int(longest * VIDEO_FPS))
    count = max(1, min(NUM_SAMPLES, total // MIN_DISTANCE))
    for k in range(count):
        index = (2 * k + 1) * total // (2 * count)
        with closing(source.frames(index, index + 1)) as frames:
            for frame in frames:
                yield (index + 0.5) / VIDEO_FPS, frame


def data_address(picture: np.ndarray) -> str:
    """A picture uint8 h w 3 as an address that holds it: no file is served, and nothing stays behind."""
    _, jpeg = cv2.imencode(".jpg", np.ascontiguousarray(picture[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, 85])
    return "data:image/jpeg;base64," + base64.b64encode(jpeg.tobytes()).decode("ascii")
