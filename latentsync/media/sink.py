"""`VideoSink`: frames and a sound track in, one video file out, in one lossy encode, whole or not at all."""

import contextlib
import logging
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import ffmpeg
import numpy as np

from latentsync.errors import OutputError
from latentsync.media.audio import fill_holes
from latentsync.media.colour import Colour, tag_options, write_filters, written
from latentsync.media.encoding import Encoding, audio_options, choose_encoding
from latentsync.media.ffmpeg import MediaInfo, probe
from latentsync.media.files import staged
from latentsync.media.overlap import BackgroundWriter
from latentsync.media.process import DISK_FULL, QUIET, Child, file_url, write_all

logger = logging.getLogger(__name__)

_QUEUE_BYTES = 64 << 20  # frames that wait for the encoder
_QUEUE_FRAMES = 16
_RGB = Colour("pc", "gbr", "bt709", "iec61966-2-1")


@dataclass(frozen=True)
class AudioTrack:
    """The user's own sound for a result."""

    path: Path
    duration: float  # seconds that the result shall last: the sound is cut or padded with silence to it
    length: float | None = None  # seconds of sound in `path` as decoded, where that is known; else the file's word is taken
    track: str | None = None  # number or language of the track in `path`; None for the default one
    can_be_copied: bool = True  # whether its packets play as its samples do; else it is encoded, its holes filled with silence


class VideoSink:
    """Encodes RGB frames (uint8 h w 3) into `path`; a context manager.

    The file appears, whole, when the block ends well; on any error or Ctrl-C nothing is left and a file that was there stays.
    Encoding runs beside the caller: `write` queues. Colour tags, range and pixel shape are those of `like`.
    Odd sizes get one more column or row, a copy of the last, because 4:2:0 video is even; lossless results keep theirs.
    """

    def __init__(
        self,
        path: str | Path,
        width: int,
        height: int,
        fps: Fraction | int,
        *,
        like: MediaInfo | None = None,
        audio: AudioTrack | None = None,
        codec: str | None = None,
        crf: int | None = None,
        preset: str | None = None,
        lossless: bool = False,
    ) -> None:
        """Check what can be checked; nothing is written before `__enter__`.

        `codec` (h264, hevc, vp9, av1), `crf` (on the codec's own scale) and `preset` (x264's words, for every codec): None for
        the default of the file's ending. Raises InputError.
        """
        self.path = Path(path)
        self.width, self.height, self.fps = width, height, Fraction(fps)
        self.encoding: Encoding = choose_encoding(path, codec, crf, preset, lossless=lossless)
        self.frames_written = 0
        self._like = like
        self._audio = audio
        self._pad = (0, 0) if lossless else (height % 2, width % 2)
        self._stack = contextlib.ExitStack()
        self._child: Child | None = None
        self._writer: BackgroundWriter[np.ndarray] | None = None

    def __enter__(self) -> "VideoSink":
        """Start the encoder. Raises OutputError when the folder cannot be written, InputError when the sound cannot be read."""
        if any(self._pad):
            even = f"{self.width + self._pad[1]}x{self.height + self._pad[0]}"
            logger.info("%s: %dx%d is odd, the result is %s (the last column or row is repeated)", self.path, self.width, self.height, even)
        with contextlib.ExitStack() as stack:
            temporary = stack.enter_context(staged(self.path))
            self._child = Child(self._arguments(temporary), feed=True)
            stack.callback(self._child.kill)
            depth = max(2, min(_QUEUE_FRAMES, _QUEUE_BYTES // (self.width * self.height * 3)))
            self._writer = BackgroundWriter(self._encode, depth)
            self._stack = stack.pop_all()
        return self

    def write(self, frame: np.ndarray) -> None:
        """Queue one frame (uint8 h w 3), which must not be changed afterwards. Raises OutputError when the encoder has given up."""
        if frame.shape != (self.height, self.width, 3) or frame.dtype != np.uint8:
            raise ValueError(f"a frame of {self.path} must be uint8 {self.height}x{self.width}x3, not {frame.dtype} {frame.shape}")
        assert self._writer is not None, "write outside of the with block"
        self._writer.put(frame)
        self.frames_written += 1

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Finish the file and put it in its place, or leave nothing. Raises OutputError."""
        assert self._child is not None
        assert self._writer is not None
        with self._stack:  # removes the temporary file, or moves it to its place when nothing is raised here
            try:
                if error is not None:
                    raise error
                self._writer.finish()
                self._finish_encoder()
            except BaseException:
                self._child.interrupt()
                self._writer.abandon()
                raise

    def _finish_encoder(self) -> None:
        assert self._child is not None
        status = self._child.finish()
        if self.frames_written == 0:
            raise OutputError(f"{self.path} was not written: there was no frame to write")
        if status or any(DISK_FULL in line for line in self._child.errors()):
            raise self._failure()

    def _encode(self, frame: np.ndarray) -> None:
        """Runs on the writer's thread: one frame into the encoder's pipe."""
        assert self._child is not None
        assert self._child.stdin is not None
        if any(self._pad):
            frame = np.pad(frame, ((0, self._pad[0]), (0, self._pad[1]), (0, 0)), mode="edge")  # h w c
        try:
            write_all(self._child.stdin, np.ascontiguousarray(frame))
        except OSError:  # the encoder is gone
            self._child.finish()
            raise self._failure() from None

    def _failure(self) -> OutputError:
        assert self._child is not None
        return OutputError(f"{self.path} was not written: ffmpeg stopped with: {self._child.reason()}")

    def _arguments(self, temporary: Path) -> list[str]:
        """The ffmpeg command: raw frames on standard input, the sound from its file, one output."""
        size = (self.width + self._pad[1], self.height + self._pad[0])
        rate = f"{self.fps.numerator}/{self.fps.denominator}"
        inputs = [ffmpeg.input("pipe:0", f="rawvideo", pix_fmt="rgb24", video_size=size, framerate=rate)["v:0"]]
        options = {"vf": self._filters(), "map_metadata": -1, "map_chapters": -1, **self.encoding.options(), **tag_options(self._colour())}
        if self._audio is not None:
            info = probe(self._audio.path)
            stream = info.require_audio(self._audio.track)
            before, after = audio_options(
                self.encoding.container,
                stream,
                fill_holes(stream),
                duration=self._audio.duration,
                length=self._audio.length,
                tolerance=0.501 / float(self.fps),
                can_be_copied=self._audio.can_be_copied,
            )
            late = (stream.start_time or info.start_time) - info.start_time
            if after["c:a"] != "copy":
                options["copyts"] = None  # what the filters read
            elif late > 1e-3:  # the track starts later than the file: its first sample goes with frame 0
                before["itsoffset"] = f"{-late:.6f}"
            inputs.append(ffmpeg.input(file_url(self._audio.path), protocol_whitelist="file", **before)[str(stream.index)])
            options |= after
        node = ffmpeg.output(*inputs, file_url(temporary), **options)
        return ["ffmpeg", *QUIET, *ffmpeg.get_args(node, overwrite_output=True)]

    def _colour(self) -> Colour:
        if self.encoding.lossless:
            source = self._source_colour() or _RGB
            return Colour("pc", "gbr", source.primaries, source.transfer)
        return written(self._source_colour())

    def _source_colour(self) -> Colour | None:
        return self._like.video.colour if self._like and self._like.video else None

    def _filters(self) -> str:
        shape = self._like.video.sample_aspect if self._like and self._like.video else Fraction(1)
        picture = "format=" + self.encoding.pixel_format
        if not self.encoding.lossless:
            picture = write_filters(self._colour(), self.encoding.pixel_format)
        return f"{picture},setsar={shape.numerator}/{shape.denominator}"
