"""A small video for a person to look at: the source on the left, what was made of it on the right, with the sound it was to say."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from eval.measures.measure import Case
from latentsync.constants import VIDEO_FPS
from latentsync.media.ffmpeg import probe
from latentsync.media.sink import AudioTrack, VideoSink
from latentsync.media.video import VideoSource

HEIGHT = 288  # rows of the small video at most
LONGEST = 10 * VIDEO_FPS  # frames: the beginning is enough to see what is wrong


def write_side_by_side(case: Case, path: Path) -> None:
    """Write the small video, unless it is there already and no older than the video. Raises InputError, OutputError."""
    if path.is_file() and path.stat().st_mtime >= case.video.stat().st_mtime:
        return
    video, source = VideoSource(case.video), VideoSource(case.source)
    height = min(HEIGHT, source.height) // 2 * 2
    width = max(2, round(source.width * height / source.height) // 2 * 2)
    count = min(LONGEST, video.expected_frames or LONGEST, source.expected_frames or LONGEST)
    audio = AudioTrack(case.audio, count / VIDEO_FPS) if probe(case.audio).has_audio else None
    with VideoSink(path, 2 * width, height, VIDEO_FPS, audio=audio, crf=26) as sink:
        for pair in zip(source.frames(0, count), video.frames(0, count), strict=False):
            sink.write(np.hstack(list(_resized(pair, (width, height)))))


def _resized(frames: tuple[np.ndarray, ...], size: tuple[int, int]) -> Iterator[np.ndarray]:
    """Frames uint8 h w 3 at another (width, height)."""
    for frame in frames:
        yield cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
