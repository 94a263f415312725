"""The people in a video, as thumbnails to choose from: faces are detected in a few frames, spread over the video."""

import base64
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import cv2
import numpy as np

from latentsync.constants import VIDEO_FPS
from latentsync.faces.detector import FaceDetector, MtcnnDetector, is_plausible, shrink
from latentsync.faces.plan import MIN_WIDTH
from latentsync.faces.tracking import Track, group_people
from latentsync.media.video_reader import VideoReader

NUM_SAMPLES = 12  # frames in which faces are detected
MIN_DISTANCE = 5  # frames from one of them to the next
MAX_PEOPLE = 8
MARGIN = 1.7  # side of a thumbnail in box heights
THUMBNAIL = 144  # pixels a side


@dataclass
class FaceSighting(Track):
    """A face in one of the sampled frames, as a track of that frame alone."""

    point: str = ""  # its middle, as the option `face` wants it
    picture: np.ndarray | None = None  # its thumbnail, uint8 h w 3


class PeopleFinder:
    """Finds the people of a video with a small detector of its own, which waits for no job."""

    def __init__(self) -> None:
        self._detector: FaceDetector | None = None
        self._lock = threading.Lock()

    def __call__(self, path: Path, longest: float, is_wanted: Callable[[], bool] = lambda: True) -> list[tuple[np.ndarray, str]]:
        """The people of the first `longest` seconds, those seen most first: thumbnail, and a choice of `face` with all sightings.

        `is_wanted` is asked again and again: who is no longer wanted is not looked for any further.
        """
        sightings: list[FaceSighting] = []
        with self._lock:
            self._detector = self._detector or MtcnnDetector()
            for number, (seconds, frame) in enumerate(takewhile(lambda _: is_wanted(), sample_frames(path, longest))):
                picture = shrink(frame, self._detector.long_side)
                scale = max(frame.shape[:2]) / max(picture.shape[:2])
                faces = [face.scaled(scale) for face in self._detector.detect(picture) if is_plausible(face)]
                for box in (face.box for face in faces if face.width >= MIN_WIDTH):  # narrower ones get no new mouth
                    x, y = (max(float(value), 0.0) for value in (box[:2] + box[2:]) / 2)
                    sightings.append(FaceSighting(number, [box], point=f"{x:.0f},{y:.0f}@{seconds:.3f}", picture=cut_face(frame, box)))
        people = sorted(group_people(sightings, NUM_SAMPLES), key=lambda person: -person.mean_area)[:MAX_PEOPLE]
        best = [max(person.tracks, key=lambda track: track.mean_width).picture for person in people]
        return list(zip(best, ("".join(f"{track.point}|" for track in person.tracks) for person in people), strict=True))


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


def cut_face(frame: np.ndarray, box: np.ndarray) -> np.ndarray:
    """A square picture uint8 of a face with a margin around it."""
    side = max(round(float(box[3] - box[1]) * MARGIN), 2)
    x, y = (round(float(value) - side / 2) for value in (box[:2] + box[2:]) / 2)
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
