"""The original on the clock of the result: small, playable everywhere, frame beside frame."""

from collections.abc import Callable
from contextlib import closing
from fractions import Fraction
from pathlib import Path

from latentsync.faces.cuts import shrink
from latentsync.media.overlap import prefetch
from latentsync.media.sink import VideoSink
from latentsync.media.video import VideoSource
from latentsync.pipelines.report import LipsyncResult

LONG_SIDE = 640  # pixels: it is shown at half the width of a page
CRF = 23


def write_before(result: LipsyncResult, path: Path, on_frame: Callable[[], None]) -> Path:
    """Write what the result shows, without its new mouth and without sound.

    Args:
        result: of the job; its source is played as the result plays it, forwards and backwards.
        path: an .mp4 file.
        on_frame: called before each frame; may raise to stop.
    """
    source = VideoSource(result.video_path, Fraction(result.fps).limit_denominator(1001))
    longest = max(source.width, source.height)
    scale = min(1.0, LONG_SIDE / longest)
    width, height = max(round(source.width * scale), 1), max(round(source.height * scale), 1)
    frames = prefetch(source.ping_pong(result.frames, result.source_frames))
    with closing(frames), VideoSink(path, width, height, source.fps, like=source.info, crf=CRF, preset="ultrafast") as sink:
        for frame in frames:
            on_frame()
            sink.write(shrink(frame, LONG_SIDE))
    return path
