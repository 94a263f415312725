"""`VideoWriter`: frames and the user's sound to a file that appears whole or not at all; codecs, containers, quality."""

import contextlib
import logging
import subprocess
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import ffmpeg
import numpy as np

from latentsync.errors import InputError, LatentSyncError, OutputError
from latentsync.media.audio import fill_holes
from latentsync.media.deep import DeepFormat, changed_planes, seen_colour
from latentsync.media.files import check_target, refuse_address, staged
from latentsync.media.probe import (
    DISK_FULL,
    QUIET,
    AudioStream,
    Child,
    Colour,
    MediaInfo,
    VideoStream,
    convert_filters,
    file_url,
    probe,
    require_program,
    tag_filter,
    tag_options,
    write_all,
    write_filters,
    written,
)

logger = logging.getLogger(__name__)

PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow")
# Measured at 1280x720 and crf 18 on two cores: superfast 8.4 ms a frame and SSIM 0.995, veryfast 9.5 ms, 0.994 and half the bytes.
DEFAULT_PRESET = "superfast"
GENERATED = "AI-generated: the mouth was made by LatentSync"  # comment of each file with generated frames
_OF_THE_FILE = frozenset({"major_brand", "minor_version", "compatible_brands", "encoder", "timecode", "duration", "comment"})  # tags
_QUEUE_BYTES = 64 << 20  # frames that wait for the encoder
_QUEUE_FRAMES = 16
_RGB = Colour("pc", "gbr", "bt709", "iec61966-2-1")
_LOSSLESS_AUDIO = ("flac", "alac")  # cutting or padding these costs nothing but time


@dataclass(frozen=True)
class Codec:
    encoder: str  # ffmpeg's name
    crf: int | None  # default quality, on the codec's own scale: all about as good as 18 of H.264; None: it has no such scale
    crf_max: int = 0
    lossless_encoder: str | None = None
    lossless_format: str = "gbrp"
    pixel_format: str = "yuv420p"  # what every player shows
    deep_chroma: tuple[str, ...] = ("420", "422", "444")  # with 10 bits; the first stands in for what is not there
    alpha_format: str | None = None


@dataclass(frozen=True)
class Container:
    codecs: tuple[str, ...]  # the first is the default
    copied_audio: frozenset[str]  # sound that is copied as it is: what the file format takes and its usual players play
    audio_encoder: str
    fast_start: bool = False


CODECS = {
    "h264": Codec("libx264", 18, 51, "libx264rgb", "rgb24"),
    "hevc": Codec("libx265", 20, 51, "libx265"),
    "vp9": Codec("libvpx-vp9", 24, 63, "libvpx-vp9", alpha_format="yuva420p"),
    "av1": Codec("libsvtav1", 24, 63, deep_chroma=("420",)),
    "prores": Codec("prores_ks", None, pixel_format="yuv422p10le", deep_chroma=("422", "444"), alpha_format="yuva444p10le"),
}
_PLAYED = frozenset({"aac", "mp3", "alac", "ac3", "eac3"})
_PCM = frozenset({"pcm_s16le", "pcm_s24le", "pcm_s32le", "pcm_f32le"})
CONTAINERS = {
    ".mp4": Container(("h264", "hevc", "av1", "vp9"), _PLAYED, "aac", fast_start=True),
    ".mov": Container(("h264", "hevc", "prores"), _PLAYED | _PCM, "aac", fast_start=True),
    ".mkv": Container(("h264", "hevc", "av1", "vp9"), _PLAYED | _PCM | {"flac", "opus", "vorbis", "mp2"}, "aac"),
    ".webm": Container(("vp9", "av1"), frozenset({"opus", "vorbis"}), "libopus"),
}
_ALPHA_CODECS = {".mov": "prores", ".webm": "vp9"}


@dataclass(frozen=True)
class Encoding:
    """A choice that fits together: container, codec, quality."""

    container: Container
    codec_name: str
    crf: int | None
    preset: str
    lossless: bool
    deep: DeepFormat | None = None  # of frames with 10 bits or alpha

    @property
    def encoder(self) -> str:
        codec = CODECS[self.codec_name]
        return codec.lossless_encoder if self.lossless and not self.deep and codec.lossless_encoder else codec.encoder

    @property
    def pixel_format(self) -> str:
        """What the frames are converted to before the encode."""
        codec = CODECS[self.codec_name]
        if self.deep is None:
            return codec.lossless_format if self.lossless else codec.pixel_format
        if self.deep.has_alpha:
            return codec.alpha_format
        return f"yuv{self.deep.chroma if self.deep.chroma in codec.deep_chroma else codec.deep_chroma[0]}p10le"

    def options(self) -> dict[str, object]:
        """ffmpeg output options of the picture and of the file; a lossless encode keeps every RGB value, or the stored ones."""
        options: dict[str, object] = {"c:v": self.encoder} | ({} if self.lossless or self.crf is None else {"crf": self.crf})
        speed = PRESETS.index(self.preset)  # 0 = fastest
        if self.codec_name == "vp9":
            options |= {"deadline": "good", "cpu-used": max(8 - speed, 0), "row-mt": 1}
            options |= {"lossless": 1} if self.lossless else {"b:v": 0}
            options |= {"auto-alt-ref": 0} if self.deep and self.deep.has_alpha else {}
        elif self.codec_name == "prores":
            options |= {"profile:v": "4444" if "444" in self.pixel_format else "hq", "vendor": "apl0"}  # as Apple's own programs want it
        else:
            options["preset"] = 12 - speed if self.codec_name == "av1" else self.preset
        if self.codec_name == "hevc":
            options["x265-params"] = "lossless=1:log-level=error" if self.lossless else "log-level=error"
        if self.codec_name == "h264" and self.lossless:
            options["qp"] = 0
        if self.container.fast_start:
            options["movflags"] = "+faststart"
            if self.codec_name == "hevc":
                options["tag:v"] = "hvc1"  # the tag that Apple's players ask for
        return options


def choose_encoding(
    path: str | Path,
    codec: str | None = None,
    crf: int | None = None,
    preset: str | None = None,
    *,
    lossless: bool = False,
    deep: DeepFormat | None = None,
) -> Encoding:
    """The encoding for a result named `path`; None means the default. Raises InputError for what does not fit together.

    `deep`: what of the frames shall be kept beyond 8-bit RGB. Then the default is hevc, or vp9, and with alpha what keeps it.
    """
    container = CONTAINERS.get(Path(path).suffix.lower())
    if container is None:
        ending = Path(path).suffix or "(none)"
        raise InputError(f"{path}: the ending {ending} is not a video format that can be written, use {_any(CONTAINERS)}")
    usual = container.codecs if deep is None else [name for name in container.codecs if name != "h264"]
    has_alpha = deep is not None and deep.has_alpha
    name = codec or (_ALPHA_CODECS.get(Path(path).suffix.lower()) if has_alpha else None) or usual[0]
    if name not in CODECS:
        raise InputError(f"codec {name!r} is not known, use {_any(CODECS)}")
    if name not in container.codecs:
        raise InputError(f"{path}: a {Path(path).suffix} file does not hold {name} video, use {_any(container.codecs)} or another ending")
    if has_alpha and _ALPHA_CODECS.get(Path(path).suffix.lower()) != name:
        raise InputError(
            f"{path}: the video has transparency, which {name} in a {Path(path).suffix} file does not keep: name a .mov (prores) or a "
            ".webm (vp9) file, or give a video without transparency (ffmpeg -i VIDEO -pix_fmt yuv420p NEW.mp4)"
        )
    if lossless and CODECS[name].lossless_encoder is None:
        raise InputError(f"lossless {name} is not offered, use {_any(key for key, entry in CODECS.items() if entry.lossless_encoder)}")
    is_exact = deep is None or (deep.pixel_format == CODECS[name].alpha_format if has_alpha else name != "vp9")  # it misses by 1 at 10 bits
    if lossless and not is_exact:
        advice = "leave lossless out" if has_alpha else "use hevc or h264, or leave lossless out"
        raise InputError(f"{path}: {name} does not keep {deep.pixel_format} without any loss: {advice}")
    if preset is not None and preset not in PRESETS:
        raise InputError(f"preset {preset!r} is not known, use {_any(PRESETS)}")
    if crf is not None and CODECS[name].crf is None:
        raise InputError(f"{name} has no crf: leave it out")
    if crf is not None and not 0 <= crf <= CODECS[name].crf_max:
        raise InputError(f"crf {crf} is out of range for {name}: 0 (best) to {CODECS[name].crf_max}")
    return Encoding(container, name, CODECS[name].crf if crf is None else crf, preset or DEFAULT_PRESET, lossless, deep)


def check_output(
    path: str | Path,
    inputs: Iterable[str | Path] = (),
    codec: str | None = None,
    crf: int | None = None,
    preset: str | None = None,
    *,
    lossless: bool = False,
    deep: DeepFormat | None = None,
) -> None:
    """Will this video be writable, in this codec, without touching an input? Raises InputError, OutputError, LatentSyncError (encoder)."""
    refuse_address(Path(path))
    encoding = choose_encoding(path, codec, crf, preset, lossless=lossless, deep=deep)
    check_target(path, inputs)
    require_encoder(encoding.encoder)


def require_encoder(name: str) -> None:
    """Raise LatentSyncError when the installed ffmpeg was built without the encoder `name`."""
    require_program("ffmpeg")
    answer = subprocess.run(["ffmpeg", "-hide_banner", "-encoders"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if name not in answer.stdout.split():
        raise LatentSyncError(f"the ffmpeg on PATH has no encoder {name}: install a full build of ffmpeg or choose another codec")


@dataclass(frozen=True)
class AudioTrack:
    """The user's own sound for a result."""

    path: Path
    duration: float  # seconds that the result shall last: the sound is cut or padded with silence to it
    length: float | None = None  # seconds of sound in `path` as decoded, where that is known; else the file's word is taken
    track: str | None = None  # number or language of the track in `path`; None for the default one
    can_be_copied: bool = True  # whether its packets play as its samples do; else it is encoded, its holes filled with silence


def audio_options(container: Container, stream: AudioStream, sound: AudioTrack, tolerance: float) -> tuple[dict[str, object], ...]:
    """ffmpeg input and output options for the `sound` of a result: copied within `tolerance` seconds, else encoded on its time line."""
    fits, duration = stream.codec in container.copied_audio, sound.duration
    known = stream.duration if sound.length is None else sound.length
    if fits and sound.can_be_copied and known is not None:
        if abs(known - duration) <= tolerance:
            return {}, {"c:a": "copy"}
        if known > duration and stream.codec not in _LOSSLESS_AUDIO:
            return {"t": f"{duration:.6f}"}, {"c:a": "copy"}
    encoder = stream.codec if fits and stream.codec in (*_LOSSLESS_AUDIO, *_PCM) else container.audio_encoder
    samples = round(duration * stream.sample_rate)
    options: dict[str, object] = {"c:a": encoder, "af": f"{fill_holes(stream)},apad,atrim=end_sample={samples}"}
    if encoder in ("aac", "libopus"):
        options["b:a"] = f"{max(stream.channels, 1) * (96 if stream.channels > 1 else 128)}k"
    return {}, options


def _any(names: Iterable[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last


class BackgroundWriter:
    """Hand items to `consume` in order on a thread, at most `depth` waiting; an error there is raised by a later call here."""

    def __init__(self, consume: Callable[[Any], None], depth: int) -> None:
        self._consume, self._depth = consume, max(depth, 1)
        self._thread = ThreadPoolExecutor(1, "writer")
        self._waiting: deque[Future[None]] = deque()

    def put(self, item: Any) -> None:
        """Queue one item; blocks while the queue is full. Raises what `consume` raised."""
        while self._waiting and (self._waiting[0].done() or len(self._waiting) >= self._depth):
            self._waiting.popleft().result()
        self._waiting.append(self._thread.submit(self._consume, item))

    def finish(self) -> None:
        """Wait until all is consumed. Raises what `consume` raised."""
        while self._waiting:
            self._waiting.popleft().result()
        self._thread.shutdown()

    def abandon(self) -> None:
        """End the thread without consuming what waits. Whatever blocks `consume` must have been ended before."""
        self._thread.shutdown(cancel_futures=True)


def padded(stored: np.ndarray, layout: DeepFormat, width: int, height: int) -> np.ndarray:
    """Stored planes [n] of an odd size with one more row or column where the chroma has them already."""
    even = layout.shapes(width + width % 2, height + height % 2)
    planes = zip(layout.planes(stored, width, height), even, strict=True)
    grown = [np.pad(plane, [(0, more - has) for has, more in zip(plane.shape, shape, strict=True)], mode="edge") for plane, shape in planes]
    return np.concatenate([plane.ravel() for plane in grown])


def keep_light(options: dict[str, object], video: VideoStream) -> None:
    """Add to ffmpeg's output options where chroma lies in a video and what its HDR says of itself, as far as the encoder takes it."""
    if video.chroma_location:
        options["chroma_sample_location"] = video.chroma_location
    if options["c:v"] == "libx265":
        facts = {"master-display": video.mastering_display, "max-cll": video.content_light}
        options["x265-params"] = ":".join([options["x265-params"], *(f"{name}={fact}" for name, fact in facts.items() if fact)])


def generated_tags(source: Mapping[str, str]) -> dict[str, str]:
    """Tags of a file with generated frames: those of its source, and the comment that says so before the comment of the source."""
    kept = {key: value for key, value in source.items() if key not in _OF_THE_FILE}
    comment = source.get("comment", "")
    return kept | {"comment": comment if comment.startswith(GENERATED) else f"{GENERATED}. {comment}".removesuffix(". ")}


class VideoWriter:
    """Encodes RGB frames (uint8 h w 3) into `path`; a context manager.

    The file appears, whole, when the block ends well; on any error or Ctrl-C nothing is left and a file that was there stays.
    Encoding runs beside the caller: `write` queues. Colour tags, range and pixel shape are those of `like`.
    Odd sizes get one more column or row, a copy of the last, because 4:2:0 video is even; lossless RGB results keep theirs.
    With `is_generated` the comment says so, and the tags of `like` (title, copyright, ...) are kept, as far as the container takes them.
    With `deep` frames are `DeepFrame`s, and what is written is their stored picture with what has changed in them.
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
        deep: DeepFormat | None = None,
        is_generated: bool = False,
    ) -> None:
        """Check what can be checked. `codec`, `crf` (on its scale), `preset` (x264's words): None for the default. Raises InputError."""
        self.path = Path(path)
        self.width, self.height, self.fps = width, height, Fraction(fps)
        self.encoding: Encoding = choose_encoding(path, codec, crf, preset, lossless=lossless, deep=deep)
        self.frames_written = 0
        self._like = like.video if like else None
        self._audio, self._deep = audio, deep
        self._tags = generated_tags(like.tags if like else {}) if is_generated else {}
        self._pad = (0, 0) if lossless and deep is None else (height % 2, width % 2)

    def __enter__(self) -> "VideoWriter":
        """Start the encoder. Raises OutputError when the folder cannot be written, InputError when the sound cannot be read."""
        if any(self._pad):
            even = f"{self.width + self._pad[1]}x{self.height + self._pad[0]}"
            logger.info("%s: %dx%d is odd, the result is %s (the last column or row is repeated)", self.path, self.width, self.height, even)
        with contextlib.ExitStack() as stack:
            temporary = stack.enter_context(staged(self.path))
            self._child = Child(["ffmpeg", *QUIET, *self._arguments(temporary)], feed=True)
            stack.callback(self._child.kill)
            size = self.width * self.height * 3
            size = 2 * size + self._deep.frame_bytes(self.width, self.height) if self._deep else size  # what was seen, too
            depth = max(2, min(_QUEUE_FRAMES, _QUEUE_BYTES // size))
            self._writer = BackgroundWriter(self._encode, depth)
            self._stack = stack.pop_all()
        return self

    def write(self, frame: np.ndarray) -> None:
        """Queue one frame (uint8 h w 3), which must not be changed afterwards. Raises OutputError when the encoder has given up."""
        if frame.shape != (self.height, self.width, 3) or frame.dtype != np.uint8:
            raise ValueError(f"a frame of {self.path} must be uint8 {self.height}x{self.width}x3, not {frame.dtype} {frame.shape}")
        if self._deep is not None and getattr(frame, "picture", None) is None:
            raise ValueError(f"a frame of {self.path} must bring its stored picture along, as those of VideoReader.ping_pong do")
        self._writer.put(frame)
        self.frames_written += 1

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Finish the file and put it in its place, or leave nothing. Raises OutputError."""
        with self._stack:  # removes the temporary file, or moves it to its place when nothing is raised here
            try:
                if error is not None:
                    raise error
                self._writer.finish()
                status = self._child.finish()
                if self.frames_written == 0:
                    raise OutputError(f"{self.path} was not written: there was no frame to write")
                if status or any(DISK_FULL in line for line in self._child.errors()):
                    raise self._failure()
            except BaseException:
                self._child.interrupt()
                self._writer.abandon()
                raise

    def _encode(self, frame: np.ndarray) -> None:
        if self._deep is not None:
            frame = padded(changed_planes(frame), self._deep, self.width, self.height) if any(self._pad) else changed_planes(frame)
        elif any(self._pad):
            frame = np.pad(frame, ((0, self._pad[0]), (0, self._pad[1]), (0, 0)), mode="edge")  # h w c
        try:
            write_all(self._child.stdin, np.ascontiguousarray(frame))
        except OSError:  # the encoder is gone
            self._child.finish()
            raise self._failure() from None

    def _failure(self) -> OutputError:
        return OutputError(f"{self.path} was not written: ffmpeg stopped with: {self._child.reason()}")

    def _colours(self) -> tuple[Colour, str]:
        """The colour tags of the result, and ffmpeg's filters from what is piped in to what is encoded."""
        deep, pixel_format, source = self._deep, self.encoding.pixel_format, seen_colour(self._like) if self._like else None
        if deep is None and self.encoding.lossless:
            return replace(source or _RGB, range="pc", space="gbr"), f"format={pixel_format}"
        is_prores = self.encoding.codec_name == "prores"  # which knows no other range, and takes its tags from the pictures
        limited = {"range": "tv"} if is_prores else {}
        if deep is not None and deep.chroma is not None:
            colour = replace(deep.colour, **limited)
            is_same = (pixel_format, colour.range) == (deep.pixel_format, deep.colour.range)
            return colour, tag_filter(deep.colour) + ("" if is_same else f",{convert_filters(deep.colour, colour, pixel_format)}")
        colour = replace(written(source), **limited)
        return colour, write_filters(colour, pixel_format) + (f",{tag_filter(colour)}" if is_prores else "")

    def _arguments(self, temporary: Path) -> list[str]:
        """ffmpeg's arguments: raw frames on standard input, the sound from its file, one output."""
        size = (self.width + self._pad[1], self.height + self._pad[0])
        rate = f"{self.fps.numerator}/{self.fps.denominator}"
        shape = self._like.sample_aspect if self._like else Fraction(1)
        colour, picture = self._colours()
        raw_format = self._deep.pixel_format if self._deep else "rgb24"
        inputs = [ffmpeg.input("pipe:0", f="rawvideo", pix_fmt=raw_format, video_size=size, framerate=rate)["v:0"]]
        options = {
            "vf": f"{picture},setsar={shape.numerator}/{shape.denominator}",
            "map_metadata": -1,
            "map_chapters": -1,
            **self.encoding.options(),
            **tag_options(colour),
        }
        if self._deep and self._like:
            keep_light(options, self._like)
        return self._command(inputs, options, temporary)

    def joining(self, segments: Path, temporary: Path) -> list[str]:
        """ffmpeg's arguments that copy the packets of segments, by a list for its concat demuxer, beside the sound."""
        picture = ffmpeg.input(file_url(segments), format="concat", protocol_whitelist="file")["v:0"]
        options = {key: value for key, value in self.encoding.options().items() if key in ("movflags", "tag:v")}
        return self._command([picture], {"c:v": "copy", "map_metadata": -1, "map_chapters": -1, **options}, temporary)

    def _command(self, inputs: list[Any], options: dict[str, object], temporary: Path) -> list[str]:
        """ffmpeg's arguments for a picture with its options, and the sound."""
        if self._audio is not None:
            info = probe(self._audio.path)
            stream = info.require_audio(self._audio.track)
            before, after = audio_options(self.encoding.container, stream, self._audio, tolerance=0.501 / float(self.fps))
            late = (stream.start_time or info.start_time) - info.start_time
            if after["c:a"] != "copy":
                options["copyts"] = None  # what the filters read
            elif late > 1e-3:  # the track starts later than the file: its first sample goes with frame 0
                before["itsoffset"] = f"{-late:.6f}"
            inputs.append(ffmpeg.input(file_url(self._audio.path), protocol_whitelist="file", **before)[str(stream.index)])
            options |= after
        *arguments, target = ffmpeg.get_args(ffmpeg.output(*inputs, file_url(temporary), **options))
        tags = [word for key, value in self._tags.items() for word in ("-metadata", f"{key}={value}")]
        return [*arguments, *tags, target, "-y"]
