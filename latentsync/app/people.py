"""The people in a video, as thumbnails to choose from: faces are detected in a few frames, spread over the video."""

import base64
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from latentsync.constants import VIDEO_FPS
from latentsync.faces.detector import Face, FaceDetector, MtcnnDetector, is_plausible, shrink
from latentsync.faces.plan import MIN_WIDTH
from latentsync.media.video_reader import VideoReader

NUM_SAMPLES = 12  # frames in which faces are detected
MIN_DISTANCE = 5  # frames from one of them to the next
MAX_PEOPLE = 8
MAX_SHIFT = 1.0  # between two sightings of one person, in box widths
MAX_WIDTH_RATIO = 1.6  # of their boxes
MARGIN = 1.7  # side of a thumbnail in box heights
THUMBNAIL = 144  # pixels a side


@dataclass
class FaceSighting:
    """A face in one frame."""

    face: Face
    seconds: float
    picture: np.ndarray  # uint8 h w 3, of the thumbnail alone

    @property
    def point(self) -> str:
        """Its middle, as the option `face` wants it."""
        x, y = (max(float(value), 0.0) for value in middle(self.face))
        return f"{x:.0f},{y:.0f}@{self.seconds:.3f}"


@dataclass
class PersonFound:
    """The sightings of one person, in order of time."""

    sightings: list[FaceSighting] = field(default_factory=list)

    @property
    def best(self) -> FaceSighting:
        """The largest face: the best thumbnail."""
        return max(self.sightings, key=lambda sighting: sighting.face.width)

    @property
    def points(self) -> str:
        """All sightings as one choice, so that each shot that shows the person is covered."""
        return ";".join(sighting.point for sighting in self.sightings)

    def is_near(self, face: Face) -> bool:
        """Whether a face of a later frame can be the same person's."""
        last = self.sightings[-1].face
        narrow, wide = sorted((last.width, face.width))
        return wide <= MAX_WIDTH_RATIO * narrow and float(np.hypot(*(middle(last) - middle(face)))) <= MAX_SHIFT * wide


class PeopleFinder:
    """Finds the people of a video with a small detector of its own, which waits for no job."""

    def __init__(self, detector: FaceDetector | None = None) -> None:
        self._detector = detector
        self._lock = threading.Lock()

    def __call__(self, path: Path, longest: float) -> list[PersonFound]:
        """The people who are seen in the first `longest` seconds, those who are seen most first.

        Raises:
            InputError: the file is no video, or cannot be decoded.
        """
        people: list[PersonFound] = []
        with self._lock:
            if self._detector is None:
                self._detector = MtcnnDetector()
            for seconds, frame in sample_frames(path, longest):
                picture = shrink(frame, self._detector.long_side)
                scale = max(frame.shape[:2]) / max(picture.shape[:2])
                faces = [face.scaled(scale) for face in self._detector.detect(picture) if is_plausible(face)]
                for face in (face for face in faces if face.width >= MIN_WIDTH):  # narrower ones are not worked on
                    person = next((person for person in people if person.sightings[-1].seconds < seconds and person.is_near(face)), None)
                    if person is None:
                        people.append(person := PersonFound())
                    person.sightings.append(FaceSighting(face, seconds, cut_face(frame, face)))
        people.sort(key=lambda person: -sum(sighting.face.width * sighting.face.height for sighting in person.sightings))
        return people[:MAX_PEOPLE]


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


def middle(face: Face) -> np.ndarray:
    """The middle of a face's box: x, y."""
    return (face.box[:2] + face.box[2:]) / 2


def cut_face(frame: np.ndarray, face: Face) -> np.ndarray:
    """A square picture uint8 of a face with some air around it."""
    side = max(round(face.height * MARGIN), 2)
    x, y = (round(float(value) - side / 2) for value in middle(face))
    height, width = frame.shape[:2]
    x, y = min(max(x, 0), max(width - side, 0)), min(max(y, 0), max(height - side, 0))
    square = frame[y : y + side, x : x + side]
    side = min(square.shape[:2])
    top, left = (square.shape[0] - side) // 2, (square.shape[1] - side) // 2
    return cv2.resize(square[top : top + side, left : left + side], (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)


def data_address(picture: np.ndarray) -> str:
    """A picture uint8 h w 3 as an address that holds it: no file is served, and nothing stays behind."""
    _, jpeg = cv2.imencode(".jpg", np.ascontiguousarray(picture[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, 85])
    return "data:image/jpeg;base64," + base64.b64encode(jpeg.tobytes()).decode("ascii")
