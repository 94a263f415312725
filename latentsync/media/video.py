"""`VideoSource`: the frames of a video as a stream, from anywhere in it, forwards and back, in bounded memory."""

import logging
import subprocess
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import ffmpeg
import numpy as np

from latentsync.constants import VIDEO_FPS
from latentsync.errors import InputError
from latentsync.media.colour import read_filters
from latentsync.media.ffmpeg import MediaInfo, probe
from latentsync.media.process import QUIET, Child, file_url, read_exactly

logger = logging.getLogger(__name__)

SEGMENT_BYTES = 512 << 20  # frames held at once while a video plays backwards
_SEEK_MARGINS = (1.0, 15.0)  # seconds to enter before the first frame wanted: tried in this order
_SEEKABLE = frozenset({"mov", "matroska"})  # containers with an index of key frames and a clock without jumps
_ANNOUNCE = "metadata=add:key=lavfi.latentsync:value=1:enable=eq(n\\,0),metadata=print:file=pipe\\\\:2:direct=1:enable=eq(n\\,0)"


def source_index(index: int, total_frames: int) -> int:
    """Frame of a video of `total_frames` that is shown at `index` when it plays forwards, backwards, forwards, ...

    The turning frame is shown twice: 0 1 2 2 1 0 0 1 ... for three frames.
    """
    place = index % (2 * total_frames)
    return min(place, 2 * total_frames - 1 - place)


class VideoSource:
    """A video as upright RGB frames (uint8 h w 3) at a constant rate; each call of `frames` decodes anew, nothing is held.

    The frames lie on a clock that starts with the first frame of the file; frame k is the picture shown at k / fps, so a variable
    frame rate, or one that differs, is honoured by time. Rotation is applied. Pixels within 15 % of square stay on their stored grid
    (`VideoSink` writes their shape again), others are stretched to square ones. Interlaced video is deinterlaced. Colours follow the
    file's tags. Anything is brought to 8 bits; an alpha channel is dropped.
    """

    def __init__(self, path: str | Path, fps: Fraction | int | None = Fraction(VIDEO_FPS)) -> None:
        """Probe `path`; `fps` is the rate of the frames given out, None for the rate of the file. Raises InputError."""
        self.info: MediaInfo = probe(path)
        self.video = self.info.require_video()
        self.fps = Fraction(self.video.native_fps if fps is None else fps)
        self.problem: str | None = None  # why the file could not be decoded to its end, when it could not
        formats = set(self.info.container.split(","))
        self._seekable = bool(formats & _SEEKABLE) and self.video.start_time is not None
        if self.video.interlaced:
            logger.info("%s is interlaced: it is deinterlaced while reading", self.info.path)

    @property
    def path(self) -> Path:
        """The file."""
        return self.info.path

    @property
    def width(self) -> int:
        """Pixels in a row of a frame."""
        return self.video.width

    @property
    def height(self) -> int:
        """Rows of a frame."""
        return self.video.height

    @property
    def expected_frames(self) -> int | None:
        """How many frames there should be at `fps`, by what the file says of itself; None when it says nothing."""
        if self.video.duration is not None:
            return round(Fraction(self.video.duration) * self.fps)
        if self.video.frame_count is not None:
            return round(self.video.frame_count / self.video.average_fps * self.fps)
        return None

    def frames(self, start: int = 0, stop: int | None = None) -> Iterator[np.ndarray]:
        """Yield the frames [start, stop) (uint8 h w 3, RGB, each a fresh array), or to the end when `stop` is None.

        The same arrays as in one pass from the beginning, wherever `start` is. Fewer when the file ends before; a file that cannot be
        decoded to its end gives what there is, then logs a warning and notes it in `problem`. Raises InputError when not one frame can
        be decoded. Closing the iterator ends ffmpeg.
        """
        if start < 0:
            raise ValueError(f"frames start at 0, not at {start}")
        if stop is not None and stop <= start:
            return
        child = self._open_near(start, stop) or self._open(start, stop, None)
        count = 0
        try:
            assert child.stdout is not None
            while True:
                frame = np.empty((self.height, self.width, 3), np.uint8)  # h w c
                if not read_exactly(child.stdout, frame):
                    break
                count += 1
                yield frame
            status = child.finish()
        finally:
            child.kill()
        if stop is None or start + count < stop:
            self._judge_end(start + count, count, status, child)

    def ping_pong(self, count: int, total_frames: int, segment_bytes: int = SEGMENT_BYTES) -> Iterator[np.ndarray]:
        """Yield `count` frames of the first `total_frames`: forwards, backwards, forwards, ... (see `source_index`).

        Backwards the video is decoded piece by piece; a piece holds at most `segment_bytes` of frames.
        """
        piece = max(1, segment_bytes // (self.width * self.height * 3))
        given = 0
        forwards = True
        while given < count:
            leg = min(total_frames, count - given)
            if forwards:
                yield from self._exactly(0, leg)
            else:
                for top in range(total_frames, total_frames - leg, -piece):
                    held = list(self._exactly(max(top - piece, total_frames - leg), top))
                    while held:
                        yield held.pop()
            given += leg
            forwards = not forwards

    def _exactly(self, start: int, stop: int) -> Iterator[np.ndarray]:
        """`frames`, when all of them are known to be there."""
        count = 0
        for frame in self.frames(start, stop):
            count += 1
            yield frame
        if count != stop - start:
            raise InputError(f"{self.path} gave {count} frames instead of {stop - start} from frame {start} on: did it change meanwhile?")

    def _open_near(self, start: int, stop: int | None) -> Child | None:
        """Start decoding shortly before `start`; None when the file must be decoded from its beginning instead.

        Containers seek by decoding time, so beside a long still picture the entry may come too late; the first frame's time tells.
        """
        if not self._seekable or self.video.start_time is None:
            return None
        wanted = float(start / self.fps) + self.video.start_time  # seconds on the file's clock
        for margin in _SEEK_MARGINS:
            seek = wanted - margin - self.info.start_time
            if seek <= 0:
                return None
            child = self._open(start, stop, seek)
            try:
                first = child.first_frame_time()
            except BaseException:
                child.kill()
                raise
            if first is not None and (first - self.video.start_time) * self.fps <= start:
                return child
            child.kill()
        return None

    def _open(self, start: int, stop: int | None, seek: float | None) -> Child:
        """Start ffmpeg. After a seek the frame clock still counts from the first frame of the file, so numbers stay what they were."""
        options: dict[str, object] = {"protocol_whitelist": "file", "reinit_filter": 0}
        origin = None if self.video.start_time is None else self.video.start_time - self.info.start_time
        if self._seekable:
            options["copyts"] = None
            origin = self.video.start_time
        if seek is not None:
            options |= {"noaccurate_seek": None, "ss": f"{seek:.6f}"}
        clock = f"fps={self.fps.numerator}/{self.fps.denominator}" + ("" if origin is None else f":start_time={origin:.6f}")
        trim = f"trim=start_frame={start}" + ("" if stop is None else f":end_frame={stop}")
        steps = [
            *([] if seek is None else [_ANNOUNCE]),
            *(["bwdif=mode=send_frame:deint=interlaced"] if self.video.interlaced else []),
            clock, f"{trim},setpts=PTS-STARTPTS",
            read_filters(self.video.colour, self.width, self.height, stretched=self.video.stretched),
        ]  # fmt: skip
        node = ffmpeg.input(file_url(self.path), **options)
        node = ffmpeg.output(node, "pipe:1", map=f"0:{self.video.index}", vf=",".join(steps), f="rawvideo", pix_fmt="rgb24")
        return Child(["ffmpeg", *QUIET, "-nostdin", *ffmpeg.get_args(node)], stdout=subprocess.PIPE)

    def _judge_end(self, reached: int, count: int, status: int, child: Child) -> None:
        """Was that the end of the video, or the end of what can be decoded?"""
        errors = child.errors()
        if count == 0 and reached == 0:
            reason = child.reason() if errors or status else "it holds no frame"
            raise InputError(f"{self.path} cannot be decoded: {reason}")
        expected = self.expected_frames
        whole = expected is not None and expected - reached <= max(2, expected // 100)
        if self.problem or (status == 0 and (whole or not errors)):
            return
        of_all = "" if expected is None else f" of about {max(expected, reached)}"
        self.problem = f"only {reached}{of_all} frames could be decoded ({child.reason()})"
        logger.warning("%s: %s", self.path, self.problem)
