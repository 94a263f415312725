"""`VideoReader`: the frames of a video as a stream, forwards and backwards, in bounded memory; decoding ahead on a thread."""

import logging
import re
import subprocess
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import TypeVar

import ffmpeg
import numpy as np

from latentsync.constants import VIDEO_FPS
from latentsync.errors import InputError
from latentsync.media.deep import HDR, DeepFormat, deep_format, deep_frame, is_tone_mapped, write_lut
from latentsync.media.probe import QUIET, Child, MediaInfo, probe, read_exactly, read_filters, require_program

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
_END = object()  # behind the last item
SEGMENT_BYTES = 512 << 20  # frames held at once while a video plays backwards
_SEEK_MARGINS = (1.0, 15.0)  # seconds to enter before the first frame wanted: tried in this order
_SEEKABLE = frozenset({"mov", "matroska"})  # containers with an index of key frames and a clock without jumps
_ANNOUNCE = "metadata=add:key=lavfi.latentsync:value=1:enable=eq(n\\,0),metadata=print:file=pipe\\\\:2:direct=1:enable=eq(n\\,0)"
_TURNS = {0: [], 90: ["transpose=clock"], 180: ["hflip", "vflip"], 270: ["transpose=cclock"]}
_ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}  # ffmpeg's own leave alpha out
_SHOWN = re.compile(r"\bn: *\d+ .*\bpts_time:(\S+) .*\biskey:(\d)")  # what ffmpeg's showinfo filter writes for each frame
_ERROR = re.compile(r"\[(?:error|fatal|panic)\]|corrupt decoded frame")


def prefetch(items: Iterable[Item], depth: int = 4) -> Iterator[Item]:
    """Yield `items` in order while a thread computes up to `depth` ahead; errors come at their place; closing this closes `items`."""
    iterator = iter(items)
    with ThreadPoolExecutor(1, "prefetch") as thread:
        ahead = deque(thread.submit(next, iterator, _END) for _ in range(max(depth, 1)))
        try:
            while (item := ahead.popleft().result()) is not _END:
                ahead.append(thread.submit(next, iterator, _END))
                yield item
        finally:
            for future in ahead:
                future.cancel()
            if hasattr(iterator, "close"):
                thread.submit(iterator.close).result()


def source_index(index: int, total_frames: int) -> int:
    """Frame at `index` of a video that plays forwards, backwards, ..., turning frames twice: 0 1 2 2 1 0 0 1 ... for three frames."""
    place = index % (2 * total_frames)
    return min(place, 2 * total_frames - 1 - place)


class VideoReader:
    """A video as upright RGB frames (uint8 h w 3) at a constant rate; each call of `frames` decodes anew, nothing is held.

    Frame k is the picture shown k / fps after the first frame, so variable and other frame rates are honoured by time. Rotation and
    mirroring, also by EXIF, are applied. Pixels within 15 % of square stay on their stored grid (`VideoWriter` writes their shape again),
    others are stretched. Interlaced video is deinterlaced, colours follow the tags, depth is 8 bits (HDR: tone-mapped to SDR), an alpha
    channel is left out. Where `deep` is not None `ping_pong` gives frames that bring the stored 10 bits or alpha along.
    """

    def __init__(self, path: str | Path, fps: Fraction | int | None = Fraction(VIDEO_FPS)) -> None:
        """Probe `path`; `fps` is the rate of the frames given out, None for the rate of the file. Raises InputError."""
        self.info: MediaInfo = probe(path)
        self.video = self.info.require_video()
        self.path, self.width, self.height = self.info.path, self.video.width, self.video.height
        self.fps = Fraction(self.video.native_fps if fps is None else fps)
        self.problem: str | None = None  # why the file could not be decoded to its end, when it could not
        self.met_errors = False  # ffmpeg complained while frames were read
        formats = set(self.info.container.split(","))
        self._seekable = bool(formats & _SEEKABLE) and self.video.start_time is not None
        if self.video.interlaced:
            logger.info("%s is interlaced: it is deinterlaced while reading", self.info.path)
        self.deep: DeepFormat | None = deep_format(self.video)
        self._lut = None
        if is_tone_mapped(self.video):
            self._lut = tempfile.NamedTemporaryFile("w", suffix=".cube")  # noqa: SIM115 - it goes with the reader
            self._lut.write(write_lut(self.video.colour))
            self._lut.flush()
        if self.video.bits > 8 and not (self.deep and self.deep.bits > 8):
            logger.info("%s has %d bits a colour: they are rounded to 8", self.info.path, self.video.bits)

    @property
    def expected_frames(self) -> int | None:
        """How many frames there should be at `fps`, by what the file says of itself; None when it says nothing."""
        if self.video.duration is not None:
            return round(Fraction(self.video.duration) * self.fps)
        if self.video.frame_count is not None:
            return round(self.video.frame_count / self.video.average_fps * self.fps)
        return None

    @property
    def losses(self) -> tuple[str, ...]:
        """What the picture loses on its way through this project, in one sentence each."""
        video = self.video
        if video.colour.transfer not in HDR or is_tone_mapped(video):
            return ()
        kind = f"{HDR[video.colour.transfer]}, {video.bits} bits{' RGB' if video.chroma is None else ''}"
        return (
            f"{self.path} is HDR that is not kept ({kind}): the result keeps its colour tags but has 8 bits and no mastering data, and "
            "the networks see a dim and flat face: nothing is tone-mapped, so convert it to YUV of 10 bits, or to SDR, if you can.",
        )

    @property
    def frame_bytes(self) -> int:
        """What one frame of `ping_pong` takes in memory."""
        return self.width * self.height * 3 + (self.deep.frame_bytes(self.width, self.height) if self.deep else 0)

    def frames(self, start: int = 0, stop: int | None = None) -> Iterator[np.ndarray]:
        """Frames [start, stop), uint8 h w 3 RGB, fresh; fewer where the file ends or breaks (see `problem`). Raises InputError: none."""
        if start < 0:
            raise ValueError(f"frames start at 0, not at {start}")
        if stop is not None and stop <= start:
            return
        child = self._open_near(start, stop) or self._open(start, stop, None)
        count = 0
        try:
            while True:
                frame = np.empty((self.height, self.width, 3), np.uint8)  # h w c
                if not read_exactly(child.stdout, frame):
                    break
                count += 1
                yield frame
            status = child.finish()
        finally:
            child.kill()
        self.met_errors |= bool(child.errors())
        if stop is None or start + count < stop:
            self._check_end(start + count, count, status, child)

    def _exactly(self, start: int, stop: int) -> Iterator[np.ndarray]:
        """`frames`, when all of them are known to be there. Raises InputError where they are not."""
        count = 0
        for frame in self.frames(start, stop):
            count += 1
            yield frame
        if count != stop - start:
            raise InputError(f"{self.path} gave {count} frames instead of {stop - start} from frame {start} on: did it change meanwhile?")

    def damaged_runs(self, stop: int) -> list[tuple[int, int]]:
        """Runs of frames (half open) below `stop` from a decoder's error to the next key frame; decodes again if `frames` met errors."""
        if not self.met_errors:
            return []
        damaged = np.zeros(stop, bool)  # f
        start = None  # of the run that is open
        since = 0  # frames shown since the last error, that one included
        error = False
        for time, is_key in self._decoder_log(stop):
            if time is None:
                error = True
                continue
            frame = max(0, round(time * self.fps))
            since = 0 if error else since + 1
            if start is None and error:
                start = frame
            elif start is not None and is_key and since > self.video.reorder:  # the frame with the error has been shown by now
                damaged[start:frame] = True
                start = None
            error = False
        if start is not None:
            damaged[start:] = True
        edges = np.flatnonzero(np.diff(damaged, prepend=False, append=False)).tolist()
        return list(zip(edges[::2], edges[1::2], strict=True))

    def ping_pong(self, count: int, total_frames: int, segment_bytes: int = SEGMENT_BYTES, first: int = 0) -> Iterator[np.ndarray]:
        """Frames `first` to `count` of the order of `source_index` in `total_frames`, backwards by pieces of `segment_bytes`."""
        piece = max(1, segment_bytes // self.frame_bytes)
        for leg in range(first // total_frames, -(-count // total_frames)):
            begin, end = (min(max(place - leg * total_frames, 0), total_frames) for place in (first, count))
            if leg % 2 == 0:
                yield from self._kept(begin, end)
                continue
            for top in range(total_frames - begin, total_frames - end, -piece):
                held = list(self._kept(max(top - piece, total_frames - end), top))
                while held:
                    yield held.pop()

    def _decoder_log(self, stop: int) -> Iterator[tuple[float | None, bool]]:
        """What a decoder on one thread says, in order: (None, False) for an error, (seconds after the first frame, is a key frame)."""
        url, how = self.info.source()
        node = ffmpeg.input(url, **how, protocol_whitelist="file", reinit_filter=0, threads=1)
        length = float((stop + 1) / self.fps)
        node = ffmpeg.output(node, "-", map=f"0:{self.video.index}", vf=f"trim=duration={length:.6f},showinfo=checksum=0", f="null")
        arguments = ["ffmpeg", "-hide_banner", "-nostats", "-loglevel", "level+info", "-nostdin", *ffmpeg.get_args(node)]
        require_program("ffmpeg")
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        first = None
        with subprocess.Popen(arguments, **streams, text=True, errors="replace", start_new_session=True) as process:
            try:
                for line in process.stderr or ():
                    shown = _SHOWN.search(line)
                    if shown and shown[1] != "NOPTS":
                        first = float(shown[1]) if first is None else first
                        yield float(shown[1]) - first, shown[2] == "1"
                    elif _ERROR.search(line) and not line.startswith("[null @"):
                        yield None, False
            finally:
                process.kill()

    def _kept(self, start: int, stop: int) -> Iterator[np.ndarray]:
        """`_exactly`, with what is stored of the frames where 8-bit RGB does not hold all. Raises InputError."""
        if self.deep is None:
            yield from self._exactly(start, stop)
            return
        with closing(self._exactly(start, stop)) as frames, closing(self._stored(start, stop, self.deep)) as stored:
            for frame in frames:
                planes = next(stored, None)
                if planes is None:
                    raise InputError(f"{self.path} gave fewer frames when it was read once more: did it change meanwhile?")
                yield deep_frame(frame, planes, self.deep)

    def _stored(self, start: int, stop: int, deep: DeepFormat) -> Iterator[np.ndarray]:
        """The stored planes [n] of the same `frames`."""
        child = self._open_near(start, stop, deep) or self._open(start, stop, None, deep)
        try:
            while read_exactly(child.stdout, planes := deep.new(self.width, self.height)):
                yield planes
        finally:
            child.kill()

    def _open_near(self, start: int, stop: int | None, deep: DeepFormat | None = None) -> Child | None:
        """Start decoding shortly before `start`, as the first frame's time proves; None: decode from the beginning instead."""
        if not self._seekable:
            return None
        wanted = float(start / self.fps) + self.video.start_time  # seconds on the file's clock
        for margin in _SEEK_MARGINS:
            seek = wanted - margin - self.info.start_time
            if seek <= 0:
                return None
            child = self._open(start, stop, seek, deep)
            try:
                first = child.first_frame_time()
            except BaseException:
                child.kill()
                raise
            if first is not None and (first - self.video.start_time) * self.fps <= start:
                return child
            child.kill()
        return None

    def _open(self, start: int, stop: int | None, seek: float | None, deep: DeepFormat | None = None) -> Child:
        """Start ffmpeg, for frames as RGB or in a `deep` format.

        After a seek the frame clock still counts from the first frame of the file, so numbers stay what they were.
        """
        url, options = self.info.source()
        options |= {"protocol_whitelist": "file", "reinit_filter": 0, "noautorotate": None}
        origin = None if self.video.start_time is None else self.video.start_time - self.info.start_time
        if self._seekable:
            options["copyts"] = None
            origin = self.video.start_time
        if seek is not None:
            options |= {"noaccurate_seek": None, "ss": f"{seek:.6f}"}
        if deep and deep.has_alpha and self.video.codec in _ALPHA_DECODERS:
            options["c:v"] = _ALPHA_DECODERS[self.video.codec]
        clock = f"fps={self.fps.numerator}/{self.fps.denominator}" + ("" if origin is None else f":start_time={origin:.6f}")
        trim = f"trim=start_frame={start}" + ("" if stop is None else f":end_frame={stop}")
        stored = (self.height, self.width) if self.video.rotation in (90, 270) else (self.width, self.height)  # before it is upright
        lut, pixel_format = Path(self._lut.name) if self._lut else None, deep.pixel_format if deep else "rgb24"
        rgb = read_filters(self.video.colour, *stored, stretched=self.video.stretched, lut=lut)
        steps = [
            *([] if seek is None else [_ANNOUNCE]),
            *(["bwdif=mode=send_frame:deint=interlaced"] if self.video.interlaced else []),
            clock, f"{trim},setpts=PTS-STARTPTS",
            f"scale={stored[0]}:{stored[1]}:flags=bicubic" if deep else rgb,
            *_TURNS[self.video.rotation], *(["hflip"] if self.video.mirrored else []), *([f"format={pixel_format}"] if deep else []),
        ]  # fmt: skip
        node = ffmpeg.input(url, **options)
        node = ffmpeg.output(node, "pipe:1", map=f"0:{self.video.index}", vf=",".join(steps), f="rawvideo", pix_fmt=pixel_format)
        return Child(["ffmpeg", *QUIET, "-nostdin", *ffmpeg.get_args(node)], stdout=subprocess.PIPE)

    def _check_end(self, reached: int, count: int, status: int, child: Child) -> None:
        """Note in `problem` where frames end before the video does. Raises InputError when not one frame could be decoded."""
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
