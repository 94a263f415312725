"""Shot boundaries, found while the frames stream by."""

from collections.abc import Iterable, Iterator

import cv2
import numpy as np
from scenedetect import FrameTimecode
from scenedetect.detectors import AdaptiveDetector, ContentDetector

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


def shrink(picture: np.ndarray, long_side: int | None) -> np.ndarray:
    """A picture whose long side is at most `long_side` pixels (area filter); smaller ones and None come back as they are."""
    height, width = picture.shape[:2]
    if long_side is None or max(height, width) <= long_side:
        return picture
    scale = long_side / max(height, width)
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
