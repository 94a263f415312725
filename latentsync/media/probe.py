"""What a media file holds, how ffmpeg and ffprobe are run, and the colour conversions that reading and writing share."""

import contextlib
import fcntl
import io
import json
import math
import os
import re
import shutil
import subprocess
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import IO, Any

import numpy as np

from latentsync.constants import VIDEO_FPS
from latentsync.errors import InputError, LatentSyncError, StalledError
from latentsync.media.files import check_readable
from latentsync.media.pictures import FrameSeries, find_series, is_opaque

QUIET = ("-hide_banner", "-nostats", "-loglevel", "error")  # ffmpeg then writes nothing but errors
PIPE_BYTES = 1 << 20  # asked of the system for each frame pipe: fewer, larger reads than the usual 64 KiB
DISK_FULL = "No space left on device"  # how ffmpeg says it
DISK_FAILS = "Input/output error"  # likewise
_TAIL_LINES = 40  # lines of stderr that are kept: enough for the cause, bounded for a file with thousands of errors
_FIRST_FRAME = re.compile(r"^frame:\d+\s+pts:\S+\s+pts_time:(\S+)")  # what ffmpeg's metadata=print filter writes
_ECHO = re.compile(r"^(frame:\d+\s|lavfi\.latentsync)")  # the same filter's lines: ours, no errors
_ORIGIN = re.compile(r"^(?:\[[^\]]* @ 0x[0-9a-f]+\]\s*)+")  # "[libx264 @ 0x5581] "
_EMPTY_WORDS = ("conversion failed", "last message repeated", "error closing file", "terminating thread", "task finished")


class Child:
    """One running ffmpeg or ffprobe, out of reach of Ctrl-C, its stderr drained. Whoever starts it ends it with `finish` or `kill`."""

    def __init__(
        self, arguments: Sequence[str], *, feed: bool = False, stdout: int | IO[bytes] = subprocess.DEVNULL, files: Sequence[IO[bytes]] = ()
    ) -> None:
        """Start a program; `feed` opens its standard input; `files` stay open in it for `pipe_url`."""
        require_program(arguments[0])
        pipes = {"stdin": subprocess.PIPE if feed else subprocess.DEVNULL, "stdout": stdout, "stderr": subprocess.PIPE}
        self._process = subprocess.Popen(arguments, **pipes, start_new_session=True, pass_fds=[file.fileno() for file in files])
        self.stdin, self.stdout = self._process.stdin, self._process.stdout
        for pipe in filter(None, (self.stdin, self.stdout)):
            if hasattr(fcntl, "F_SETPIPE_SZ"):
                with contextlib.suppress(OSError):  # a refusal costs speed only
                    fcntl.fcntl(pipe.fileno(), fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._first_time: float | None = None
        self._first_known = threading.Event()
        self._drain = threading.Thread(target=self._read_errors, name="ffmpeg-stderr", daemon=True)
        self._drain.start()

    def first_frame_time(self) -> float | None:
        """Time stamp in seconds of the first frame that a metadata=print filter announced; None when it ended without one."""
        self._first_known.wait()
        return self._first_time

    def finish(self) -> int:
        """Wait for the end; returns the exit status. The program is killed where the wait is interrupted."""
        for pipe in filter(None, (self.stdin, self.stdout)):
            with contextlib.suppress(OSError):
                pipe.close()
        try:
            status = self._process.wait()
        except BaseException:
            self.interrupt()
            raise
        self._drain.join()
        return status

    def interrupt(self) -> None:
        """End it at once, and reap it, but leave the pipes: for a thread that may still be writing and is about to notice."""
        self._process.kill()
        self._process.wait()

    def kill(self) -> None:
        self.interrupt()
        self.finish()

    def errors(self) -> list[str]:
        """The last lines it wrote to standard error, oldest first, without the addresses that ffmpeg prefixes."""
        return [line for line in self._tail if not any(word in line.lower() for word in _EMPTY_WORDS)]

    def reason(self) -> str:
        """The most telling line of its standard error, for the user: the cause comes first, what follows from it later."""
        lines = self.errors()
        full = [line for line in lines if DISK_FULL in line]
        return (full or lines or [f"it ended with status {self._process.returncode} and no message"])[0]

    def _read_errors(self) -> None:
        with io.TextIOWrapper(self._process.stderr, "utf-8", "replace") as stream:
            for text in stream:
                line = _ORIGIN.sub("", text.strip())
                first = _FIRST_FRAME.match(line)
                if first and not self._first_known.is_set():
                    with contextlib.suppress(ValueError):
                        self._first_time = float(first.group(1))
                    self._first_known.set()
                elif line and not _ECHO.match(line):
                    self._tail.append(line)
        self._first_known.set()


def require_program(name: str) -> None:
    """Raise LatentSyncError when `name` (ffmpeg, ffprobe) is not installed."""
    if shutil.which(name) is None:
        raise LatentSyncError(f"the program {name} was not found on PATH: install ffmpeg (`apt-get install ffmpeg`, for example)")


def file_url(path: object) -> str:
    """A path as ffmpeg must be told it: with the protocol, so that no name is read as an option, a URL or a device."""
    return f"file:{path}"


def pipe_url(file: IO[bytes]) -> str:
    """An open file as ffmpeg must be told it; it is written from where it stands."""
    return f"pipe:{file.fileno()}"


def read_exactly(stream: IO[bytes], target: np.ndarray) -> bool:
    """Fill `target` (contiguous, any shape) from a pipe; False when the stream ended before it was full."""
    return stream.readinto(target.data) == target.nbytes  # type: ignore[attr-defined]


def write_all(stream: IO[bytes], frame: np.ndarray) -> None:
    stream.write(frame.data)
    stream.flush()


SQUARE_ENOUGH = Fraction(115, 100)  # pixels up to 15 % wider or taller than square are left as they are
PROBE_SECONDS = 120  # a file that ffprobe cannot describe in this time (a stalled network disk) is refused
_NOT_MEDIA = frozenset({"tty", "ffmetadata", "hls", "dash", "concat", "srt", "ass", "webvtt", "lrc", "sdp"})  # text that ffmpeg plays
_LEVEL = re.compile(r"\[(?:panic|fatal|error)\] ")  # how ffprobe marks a message
_ESTIMATED = "Estimating duration from bitrate"  # its words where it guesses a length
_PROMISES = frozenset({"mov", "matroska", "avi", "flac", "aiff", "mp3"})  # headers that tell the length of the sound
_UNKNOWN_SIZE = 0x7FFF0000  # bytes: what programs that stream a .wav file write in the place of its size, or more
_CLOCK = re.compile(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)")  # "00:01:02.5"
_WITH_CENTRE = frozenset(
    {
        *("3.0", "3.1", "4.0", "4.1", "5.0", "5.0(side)", "5.1", "5.1(side)", "6.0", "6.1", "6.1(back)", "hexagonal"),
        *("7.0", "7.0(front)", "7.1", "7.1(wide)", "7.1(wide-side)", "octagonal", "3.1.2", "5.1.2", "5.1.4", "7.1.2", "7.1.4", "22.2"),
    }
)  # ffmpeg's names of the channel layouts FL FR FC ...
_CLOCK_MAY_JUMP = frozenset({"mpegts", "mpeg", "ogg"})  # containers that may be joined end to end: last minus first time is no length
_LONGEST_STEP = 10.0  # seconds between two packets of one stream; a longer step is a jump of the clock (as in ffmpeg: dts_delta_threshold)
_CHROMA = {(1, 1): "420", (1, 0): "422"}  # bits by which width and height are shifted
_PICTURES = frozenset({"mjpeg", "jpegls", "png", "apng", "webp", "tiff", "jpegxl"})  # codecs with the orientation in the picture (EXIF)
_EXIF = {1: (0, False), 2: (0, True), 3: (180, False), 4: (180, True), 5: (90, True), 6: (90, False), 7: (270, True), 8: (270, False)}
_USUAL_RATES = tuple(Fraction(n, d) for n, d in ((24000, 1001), (24, 1), (25, 1), (30000, 1001), (30, 1), (50, 1), (60000, 1001), (60, 1)))


@dataclass(frozen=True)
class Colour:
    """Colour tags in ffmpeg's words; None where the file says nothing."""

    range: str | None = None  # tv (16..235) or pc (0..255)
    space: str | None = None  # the YUV matrix: bt709, smpte170m, ...; gbr for RGB
    primaries: str | None = None
    transfer: str | None = None


@dataclass(frozen=True)
class VideoStream:
    """The picture of a file as this project decodes it: upright, on the grid it is stored on."""

    index: int  # stream number in the file
    codec: str
    pixel_format: str
    bits: int  # of the deepest component
    has_alpha: bool  # transparency is stored, as a fourth component or as a second picture
    reorder: int  # frames that the decoder holds back to put them into the order they are shown in
    width: int  # pixels of a decoded frame: after rotation, and after the stretch of far from square pixels
    height: int
    rotation: int  # degrees clockwise that bring the stored picture upright: 0, 90, 180, 270 (the nearest of them)
    mirrored: bool  # left and right are swapped after the rotation
    sample_aspect: Fraction  # width / height of one pixel of a decoded frame; 1 after a stretch
    stretched: bool  # the stored pixels were far from square: frames are scaled to square ones
    interlaced: bool
    colour: Colour
    average_fps: Fraction  # frames / seconds
    native_fps: Fraction  # the constant rate that shows every frame of the file once, or nearly so
    start_time: float | None  # seconds on the file's clock of the first frame; None when the file has no clock
    duration: float | None  # seconds, of this stream alone; None when the file does not say
    frame_count: int | None  # as the file says, or duration * rate: an estimate
    chroma: str | None = "420"  # how chroma is sampled: 420, 422 or 444 (the next that holds all); None for RGB and gray
    chroma_location: str | None = None  # ffmpeg's word
    mastering_display: str | None = None  # of HDR, in the words of x265: "G(13250,34500)B(7500,3000)R(...)WP(...)L(10000000,1)"
    content_light: str | None = None  # likewise: most and average cd/m2, "1000,400"


@dataclass(frozen=True)
class AudioStream:
    index: int  # stream number in the file
    codec: str
    sample_rate: int
    channels: int
    start_time: float | None  # seconds on the file's clock
    duration: float | None  # seconds; None when the file does not say
    layout: str | None = None  # ffmpeg's name of the channel layout: "stereo", "5.1(side)", ...; None where the file does not say
    language: str | None = None  # as the file says, mostly three letters: "eng"
    title: str | None = None
    is_default: bool = False  # whether the file marks it as the track to play
    promised: float | None = None  # seconds that a header promises, no estimate from the file's size; None without such a header

    @property
    def has_centre(self) -> bool:
        return self.layout in _WITH_CENTRE


@dataclass(frozen=True)
class MediaInfo:
    """What `probe` found in one file."""

    path: Path
    container: str  # ffmpeg's name of the format: "mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", ...
    duration: float | None  # seconds
    start_time: float  # seconds on the file's clock: the earliest stream
    video: VideoStream | None  # the moving picture; cover art is none
    audio_tracks: tuple[AudioStream, ...] = ()
    tags: dict[str, str] = field(default_factory=dict, compare=False)  # of the file: title, copyright, ...; in lower case
    series: FrameSeries | None = None  # where `path` is a folder of frames

    def source(self) -> tuple[str, dict[str, object]]:
        """What ffmpeg must be told to open it: a URL and input options."""
        if self.series is None:
            return file_url(self.path), {}
        return file_url(self.series.pattern), {"f": "image2", "framerate": VIDEO_FPS, "start_number": self.series.start}

    @property
    def audio(self) -> AudioStream | None:
        """The sound: the first track that the file marks as default, or the first of all; None without sound."""
        return next((track for track in self.audio_tracks if track.is_default), self.audio_tracks[0] if self.audio_tracks else None)

    @property
    def has_audio(self) -> bool:
        return self.audio is not None

    def require_video(self) -> VideoStream:
        if self.video is None:
            what = "only sound" if self.has_audio else "neither picture nor sound"
            raise InputError(f"{self.path} holds {what}: a video with a picture is needed here")
        return self.video

    def require_audio(self, track: str | None = None) -> AudioStream:
        """The sound, or InputError. `track`: a number, counted from 0, or a language (any case; the first track in it)."""
        if self.audio is None:
            raise InputError(f"{self.path} has no audio track: give a file with sound")
        if track is None:
            return self.audio
        for number, stream in enumerate(self.audio_tracks):
            if track.strip().lower() in (str(number), (stream.language or "").lower()):
                return stream
        raise InputError(f"{self.path} has no audio track {track!r}: choose a number or a language of {self.describe_audio_tracks()}")

    def describe_audio_tracks(self) -> str:
        """All audio tracks for a person: `0 (aac, ger, "Music"), 1 (aac, eng, default)`."""
        texts = []
        for number, stream in enumerate(self.audio_tracks):
            title = f'"{stream.title}"' if stream.title else None
            facts = (stream.codec, stream.language, title, "default" if stream.is_default else None)
            texts.append(f"{number} ({', '.join(fact for fact in facts if fact)})")
        return ", ".join(texts)


def probe(path: str | Path) -> MediaInfo:
    """Look into a media file, or a folder of frames, without decoding it. Raises InputError: unusable; StalledError: its disk fails."""
    path = Path(path)
    if os.path.isdir(path):  # noqa: PTH112 - never raises
        return _probe_series(path)
    check_readable(path)
    report = _ask_ffprobe(path)
    formats = set((container := report["format"].get("format_name", "")).split(","))
    if _NOT_MEDIA & formats:
        raise InputError(f"{path} is not a media file (it looks like text): give a video or an audio file")
    streams = report["streams"]
    pictures = [s for s in streams if s.get("codec_type") == "video" and s.get("width")]
    video = next((s for s in pictures if not s.get("disposition", {}).get("attached_pic")), None)  # that one is a cover
    tracks = [s for s in streams if s.get("codec_type") == "audio" and int(s.get("sample_rate", 0))]
    if video is None and not tracks:
        raise InputError(f"{path} holds neither a picture nor sound that ffmpeg can read: give a video or an audio file")
    duration = _seconds(report["format"].get("duration"))
    if _CLOCK_MAY_JUMP & formats:
        lengths = _packet_lengths(path)
        for stream in streams:
            stream["duration"] = lengths.get(stream["index"])
        duration = max(lengths.values(), default=None)
    if video and video.get("codec_name") in _PICTURES:
        full = {"color_range": "pc"} if video.get("pix_fmt") == "gray" else {}  # a gray JPEG has no tag, but no other range either
        video = {**video, **full, **_first_frame(path, video["index"])}
    elif video and video.get("color_transfer") == "smpte2084":  # some containers leave the mastering display to the pictures
        video["side_data_list"] = video.get("side_data_list", []) + _first_frame(path, video["index"]).get("side_data_list", [])
    depths = {item["name"]: item for item in report["pixel_formats"]}
    picture = _video_stream(video, depths, None if tracks else duration) if video else None
    if picture and picture.has_alpha and picture.codec in _PICTURES and is_opaque(path):
        picture = replace(picture, has_alpha=False)
    return MediaInfo(
        path=path,
        container=container,
        duration=duration,
        start_time=_seconds(report["format"].get("start_time")) or 0.0,
        video=picture,
        audio_tracks=tuple(_audio_stream(s, _promised(path, report, s, alone=len(streams) == 1)) for s in tracks),
        tags={key.lower(): value for key, value in report["format"].get("tags", {}).items()},
    )


def _probe_series(folder: Path) -> MediaInfo:
    """A folder of numbered frames as a video."""
    series = find_series(folder)
    rate, seconds = Fraction(VIDEO_FPS), series.count / VIDEO_FPS
    times = {"average_fps": rate, "native_fps": rate, "start_time": 0.0, "duration": seconds, "frame_count": series.count}
    video = replace(probe(series.first).require_video(), has_alpha=series.has_alpha, **times)
    return MediaInfo(folder, "image2", seconds, 0.0, video, series=series)


def _run_ffprobe(path: Path, *what: str) -> subprocess.CompletedProcess[bytes]:
    require_program("ffprobe")
    arguments = ["ffprobe", "-v", "level+warning", "-protocol_whitelist", "file", *what, file_url(path)]
    how = {"stdin": subprocess.DEVNULL, "capture_output": True, "timeout": PROBE_SECONDS, "start_new_session": True}
    try:
        return subprocess.run(arguments, check=False, **how)
    except subprocess.TimeoutExpired:
        raise StalledError(f"{path} could not be read within {PROBE_SECONDS} s: copy it to a local disk and try again") from None


def _ask_ffprobe(path: Path) -> dict[str, Any]:
    facts = "pixel_format=name,nb_components,log2_chroma_w,log2_chroma_h:pixel_format_flags=alpha,rgb:pixel_format_components"
    formats = ("-show_pixel_formats", "-show_entries", facts)  # "component" alone is one of frames, too, and has all of them decoded
    answer = _run_ffprobe(path, "-show_format", "-show_streams", *formats, "-of", "json")
    report = json.loads(answer.stdout.decode("utf-8", "replace") or "{}")
    messages = [line.strip() for line in answer.stderr.decode("utf-8", "replace").splitlines() if line.strip()]
    report["estimated"] = any(_ESTIMATED in line for line in messages)
    if answer.returncode or "format" not in report:
        lines = [_LEVEL.sub("", line) for line in messages if "[warning] " not in line]
        detail = lines[-1].replace(file_url(path) + ": ", "") if lines else "no known format"
        if any("moov atom not found" in line for line in lines):
            detail = "its index is missing, so it is cut short or no video at all"
        if DISK_FAILS in detail:
            raise StalledError(f"{path} cannot be read from its disk ({detail}): copy it to another one")
        raise InputError(f"{path} is not a media file that ffmpeg can read: {detail}")
    report.setdefault("streams", [])
    return report


def _packet_lengths(path: Path) -> dict[int, float]:
    """Seconds of each stream by its packets, a jump of the clock counting as one; reads the whole file, empty where that takes too long."""
    try:
        answer = _run_ffprobe(path, "-show_entries", "packet=stream_index,dts_time,duration_time", "-of", "csv=p=0")
    except StalledError:
        return {}
    lengths: dict[int, float] = {}
    last: dict[int, tuple[float, float]] = {}  # time and length of the packet before
    for line in answer.stdout.decode("ascii", "replace").splitlines():
        index, time, length = (line.split(",") + ["N/A"] * 3)[:3]
        if not index.isdigit() or time == "N/A":
            continue
        stream, now = int(index), float(time)
        before, usual = last.get(stream, (now, 0.0))
        step = now - before
        lengths[stream] = lengths.get(stream, 0.0) + (step if 0 <= step < _LONGEST_STEP else usual)
        last[stream] = (now, _seconds(length) or 0.0)
    return {stream: length + last[stream][1] for stream, length in lengths.items()}


def _first_frame(path: Path, index: int) -> dict[str, Any]:
    """Tags and side data of the first picture of a stream, as the stream itself would give them; decodes one packet."""
    what = ("-show_entries", "frame_tags=Orientation:frame_side_data", "-select_streams", str(index), "-read_intervals", "%+#1")
    answer = _run_ffprobe(path, *what, "-show_frames", "-of", "json")
    frames = json.loads(answer.stdout.decode("utf-8", "replace") or "{}").get("frames") or [{}]
    return {key: frames[0][key] for key in ("tags", "side_data_list") if key in frames[0]}


def _video_stream(stream: dict[str, Any], depths: dict[str, Any], fallback_duration: float | None) -> VideoStream:
    rotation, mirrored = _orientation(stream)
    depth = depths.get(stream.get("pix_fmt", ""), {})
    flags = depth.get("flags", {})
    tags = {key.lower(): value for key, value in stream.get("tags", {}).items()}  # that of VP8 and VP9 in Matroska tells of alpha
    alpha = bool(flags.get("alpha")) and stream.get("codec_name") != "gif" and depth.get("name") != "pal8"  # no palette
    width, height, aspect = int(stream["width"]), int(stream["height"]), _ratio(stream.get("sample_aspect_ratio"), ":") or Fraction(1)
    if rotation % 180:
        width, height, aspect = height, width, 1 / aspect
    stretched = max(aspect, 1 / aspect) > SQUARE_ENOUGH
    if stretched:
        width, height = (round(width * aspect), height) if aspect > 1 else (width, round(height / aspect))
    span, space, primaries, transfer = (_tag(stream.get(f"color_{name}")) for name in ("range", "space", "primaries", "transfer"))
    average = _ratio(stream.get("avg_frame_rate"), "/") or _ratio(stream.get("r_frame_rate"), "/") or Fraction(25)
    duration = _seconds(stream.get("duration")) or fallback_duration
    count = int(stream["nb_frames"]) if str(stream.get("nb_frames", "")).isdigit() else None
    return VideoStream(
        index=int(stream["index"]),
        codec=stream.get("codec_name", "unknown"),
        pixel_format=stream.get("pix_fmt", "unknown"),
        bits=max((component["bit_depth"] for component in depth.get("components", ())), default=8),
        has_alpha=alpha or tags.get("alpha_mode") == "1",
        reorder=int(stream.get("has_b_frames", 0)),
        width=width,
        height=height,
        rotation=rotation,
        mirrored=mirrored,
        sample_aspect=Fraction(1) if stretched else aspect,
        stretched=stretched,
        interlaced=stream.get("field_order", "unknown") in {"tt", "bb", "tb", "bt"},
        colour=Colour(span, "gbr" if flags.get("rgb") else space, primaries, transfer),
        average_fps=average,
        native_fps=_native_fps(average, _ratio(stream.get("r_frame_rate"), "/")),
        start_time=_seconds(stream.get("start_time")),
        duration=duration,
        frame_count=count or (round(duration * average) if duration else None),
        chroma=None if flags.get("rgb") or depth.get("nb_components", 3) < 3 else _CHROMA.get(_shifts(depth), "444"),
        chroma_location=_tag(stream.get("chroma_location")),
        **_light(stream.get("side_data_list", ())),
    )


def _shifts(depth: dict[str, Any]) -> tuple[int, int]:
    """By how many bits the width and the height of chroma are shifted in a pixel format."""
    return depth.get("log2_chroma_w", 0), depth.get("log2_chroma_h", 0)


def _light(side_data: Sequence[dict[str, Any]]) -> dict[str, str]:
    """What HDR says of the display it was made on, and of its brightest pictures."""
    found = {}
    for side in side_data:
        if "white_point_x" in side and "max_luminance" in side:

            def point(name: str, side: dict[str, Any] = side) -> str:
                return ",".join(str(round(Fraction(side[f"{name}_{axis}"]) * 50_000)) for axis in "xy")

            most, least = (round(Fraction(side[f"{end}_luminance"]) * 10_000) for end in ("max", "min"))
            colours = f"G({point('green')})B({point('blue')})R({point('red')})"
            found["mastering_display"] = f"{colours}WP({point('white_point')})L({most},{least})"
        elif "max_content" in side:
            found["content_light"] = f"{side['max_content']},{side.get('max_average', 0)}"
    return found


def _audio_stream(stream: dict[str, Any], promised: float | None) -> AudioStream:
    tags = {key.lower(): value for key, value in stream.get("tags", {}).items()}
    language = tags.get("language", "und")
    return AudioStream(
        index=int(stream["index"]),
        codec=stream.get("codec_name", "unknown"),
        sample_rate=int(stream["sample_rate"]),
        channels=int(stream.get("channels", 1)),
        start_time=_seconds(stream.get("start_time")),
        duration=_seconds(stream.get("duration")),
        layout=_tag(stream.get("channel_layout")),
        language=None if language == "und" else language,
        title=tags.get("title") or None,
        is_default=bool(stream.get("disposition", {}).get("default")),
        promised=promised,
    )


def _promised(path: Path, report: dict[str, Any], stream: dict[str, Any], *, alone: bool) -> float | None:
    """Seconds from the first sample of an audio stream to its end, by a header that was written when the file was whole."""
    container = report["format"].get("format_name", "")
    if container == "wav":
        return _wav_seconds(path)
    if report["estimated"] or not _PROMISES & set(container.split(",")):
        return None
    if "matroska" not in container:
        return _seconds(stream.get("duration"))
    clock = _CLOCK.fullmatch(stream.get("tags", {}).get("DURATION", ""))
    end = int(clock[1]) * 3600 + int(clock[2]) * 60 + float(clock[3]) if clock else 0.0
    end = end or (_seconds(report["format"].get("duration")) if alone else None)
    return None if end is None else end - max(0.0, _seconds(stream.get("start_time")) or 0.0)


def _wav_seconds(path: Path) -> float | None:
    """The length that the header of a .wav file gives; ffmpeg tells that of the bytes there are. None for a stream of unknown length."""
    with path.open("rb") as file:
        if file.read(12)[:4] != b"RIFF":
            return None
        rate = 0
        while len(header := file.read(8)) == 8:
            size = int.from_bytes(header[4:], "little")
            if header[:4] == b"data":
                return size / rate if rate and size < _UNKNOWN_SIZE else None
            body = file.read(min(size, 16))
            if header[:4] == b"fmt ":
                rate = int.from_bytes(body[8:12], "little")  # bytes a second
            file.seek(size - len(body) + size % 2, 1)
    return None


def _native_fps(average: Fraction, nominal: Fraction | None) -> Fraction:
    """The nominal rate where it is near what the file holds (some frames missing); else the average, or a usual rate within 2 % of it."""
    if nominal and average <= nominal <= min(2 * average, Fraction(60)):
        return nominal
    nearest = min(_USUAL_RATES, key=lambda rate: abs(rate - average))
    if abs(nearest - average) <= average / 50:
        return nearest
    return average.limit_denominator(1001)


def _orientation(stream: dict[str, Any]) -> tuple[int, bool]:
    """Degrees clockwise to upright, and whether left and right are swapped then: from the display matrix, else from the EXIF number."""
    for side in stream.get("side_data_list", ()):
        if "displaymatrix" in side:
            rows = [re.findall(r"-?\d+", line.partition(":")[2]) for line in side["displaymatrix"].strip().splitlines()]
            (a, b), (c, d) = ((int(row[0]), int(row[1])) for row in rows[:2])  # a point x y is shown at ax+cy, bx+dy
            mirrored = a * d < b * c
            angle = math.degrees(math.atan2(b, -a if mirrored else a))
            return round(angle / 90) * 90 % 360, mirrored
    number = str(stream.get("tags", {}).get("Orientation", "")).strip()
    return _EXIF.get(int(number) if number.isdigit() else 1, _EXIF[1])


def _tag(value: str | None) -> str | None:
    return None if value in (None, "", "unknown", "unspecified", "reserved") else value


def _seconds(value: str | None) -> float | None:
    return None if value in (None, "N/A") else float(value)


def _ratio(value: str | None, separator: str) -> Fraction | None:
    """A fraction like "30000/1001" or "16:15"; None when absent or not positive."""
    try:
        return max(Fraction((value or "0").replace(separator, "/")), Fraction(0)) or None
    except (ValueError, ZeroDivisionError):
        return None


# swscale's fast YUV -> RGB path is 1.1 grey levels too dark (measured on BT.709 video); through planar RGB it rounds correctly,
# at 3 ms more a frame of 1280x720. Writing rounds correctly with `accurate_rnd`.
_READ_FLAGS = "bilinear"
_STRETCH_FLAGS = "bicubic"
_WRITE_FLAGS = "area+accurate_rnd+full_chroma_inp"
UNTAGGED_SPACE = "smpte170m"  # what ffmpeg takes untagged video for, whatever its size
NEW_SPACE = "bt709"  # for a picture that never was YUV (gif, RGB) or has no source
_SCALE_NAMES = {  # ffmpeg's colour spaces -> the names that its scale filter knows
    "bt709": "bt709", "fcc": "fcc", "bt470bg": "bt601", "smpte170m": "bt601", "smpte240m": "smpte240m",
    "bt2020nc": "bt2020", "bt2020c": "bt2020",
}  # fmt: skip


def read_filters(colour: Colour, width: int, height: int, *, stretched: bool, lut: Path | None = None) -> str:
    """ffmpeg filters from decoded video to RGB of `width` x `height`; `lut`: a .cube file that this goes through."""
    flags = _STRETCH_FLAGS if stretched else _READ_FLAGS
    matrix = _SCALE_NAMES.get(colour.space or UNTAGGED_SPACE, "bt601")
    curve = "" if lut is None else f"format=gbrp10le,lut3d=file={_escaped(str(lut))}:interp=tetrahedral,"
    return f"scale={width}:{height}:in_color_matrix={matrix}:in_range={colour.range or 'tv'}:flags={flags},{curve}format=gbrp,format=rgb24"


def _escaped(text: str) -> str:
    """A text as the value of an option of a filter."""
    return re.sub(r"([\\'\[\],;])", r"\\\1", re.sub(r"([\\':])", r"\\\1", text))


def written(source: Colour | None) -> Colour:
    """Tags for a YUV file whose frames came from a file tagged `source` (None: from nowhere)."""
    source = source or Colour(space="gbr")
    if source.space == "gbr":
        return Colour("tv", NEW_SPACE, source.primaries or NEW_SPACE, source.transfer or NEW_SPACE)
    space = "bt2020nc" if source.space == "bt2020c" else source.space
    known = space is None or space in _SCALE_NAMES
    return Colour(source.range, space if known else None, source.primaries, source.transfer)


def write_filters(colour: Colour, pixel_format: str) -> str:
    """ffmpeg filters from RGB frames to YUV in `pixel_format` with the tags `colour`."""
    matrix = _SCALE_NAMES[colour.space or UNTAGGED_SPACE]
    return f"scale=out_color_matrix={matrix}:out_range={colour.range or 'tv'}:flags={_WRITE_FLAGS},format={pixel_format}"


def convert_filters(source: Colour, target: Colour, pixel_format: str) -> str:
    """ffmpeg filters from YUV to YUV of another sampling, depth or range, with the same matrix."""
    matrix = _SCALE_NAMES.get(source.space or UNTAGGED_SPACE, "bt601")
    sides = ":".join(f"{side}_color_matrix={matrix}:{side}_range={tags.range or 'tv'}" for side, tags in (("in", source), ("out", target)))
    return f"scale={sides}:flags={_WRITE_FLAGS},format={pixel_format}"


def tag_filter(colour: Colour) -> str:
    """An ffmpeg filter that tells raw frames their tags."""
    tags = {"range": colour.range, "colorspace": colour.space, "color_primaries": colour.primaries, "color_trc": colour.transfer}
    return "setparams=" + ":".join(f"{name}={value}" for name, value in tags.items() if value) if any(tags.values()) else "null"


def tag_options(colour: Colour) -> dict[str, str]:
    """ffmpeg output options that write the tags; absent tags stay absent."""
    options = {
        "color_range": colour.range,
        "colorspace": "rgb" if colour.space == "gbr" else colour.space,
        "color_primaries": colour.primaries,
        "color_trc": colour.transfer,
    }
    return {name: value for name, value in options.items() if value}
