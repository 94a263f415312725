"""How a result is encoded: which codecs fit which file, what quality means for each, and whether the user's sound can be copied."""

import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from latentsync.errors import InputError, LatentSyncError
from latentsync.media.ffmpeg import AudioStream
from latentsync.media.files import check_target, refuse_address
from latentsync.media.process import require_program

PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow")
# Measured at 1280x720 and crf 18 on two cores: superfast 8.4 ms a frame and SSIM 0.995, veryfast 9.5 ms, 0.994 and half the bytes.
DEFAULT_PRESET = "superfast"
_PIXEL_FORMAT = "yuv420p"  # what every player shows
_LOSSLESS_AUDIO = {"flac": "flac", "alac": "alac"}  # codec -> encoder: cutting or padding these costs nothing but time


@dataclass(frozen=True)
class Codec:
    """One way to encode the picture."""

    encoder: str  # ffmpeg's name
    crf: int  # default quality, on the codec's own scale: all about as good as 18 of H.264
    crf_max: int
    lossless_encoder: str | None = None
    lossless_format: str = "gbrp"

    def options(self, crf: int, preset: str) -> dict[str, object]:
        """ffmpeg output options for the lossy encode."""
        speed = PRESETS.index(preset)  # 0 = fastest
        if self.encoder == "libvpx-vp9":
            return {"b:v": 0, "crf": crf, "deadline": "good", "cpu-used": max(8 - speed, 0), "row-mt": 1}
        if self.encoder == "libsvtav1":
            return {"crf": crf, "preset": 12 - speed}
        return {"crf": crf, "preset": preset} | ({"x265-params": "log-level=error"} if self.encoder == "libx265" else {})

    def lossless_options(self, preset: str) -> dict[str, object]:
        """ffmpeg output options for an encode that keeps every RGB value."""
        if self.encoder == "libvpx-vp9":
            return {"lossless": 1, "deadline": "good", "cpu-used": max(8 - PRESETS.index(preset), 0), "row-mt": 1}
        if self.encoder == "libx265":
            return {"preset": preset, "x265-params": "lossless=1:log-level=error"}
        return {"qp": 0, "preset": preset}


@dataclass(frozen=True)
class Container:
    """One kind of result file."""

    codecs: tuple[str, ...]  # the first is the default
    copied_audio: frozenset[str]  # sound that is copied as it is: what the file format takes and its usual players play
    audio_encoder: str
    fast_start: bool = False


CODECS = {
    "h264": Codec("libx264", 18, 51, "libx264rgb", "rgb24"),
    "hevc": Codec("libx265", 20, 51, "libx265"),
    "vp9": Codec("libvpx-vp9", 24, 63, "libvpx-vp9"),
    "av1": Codec("libsvtav1", 24, 63),
}
_PLAYED = frozenset({"aac", "mp3", "alac", "ac3", "eac3"})
_PCM = frozenset({"pcm_s16le", "pcm_s24le", "pcm_s32le", "pcm_f32le"})
CONTAINERS = {
    ".mp4": Container(("h264", "hevc", "av1", "vp9"), _PLAYED, "aac", fast_start=True),
    ".mov": Container(("h264", "hevc"), _PLAYED | _PCM, "aac", fast_start=True),
    ".mkv": Container(("h264", "hevc", "av1", "vp9"), _PLAYED | _PCM | {"flac", "opus", "vorbis", "mp2"}, "aac"),
    ".webm": Container(("vp9", "av1"), frozenset({"opus", "vorbis"}), "libopus"),
}


@dataclass(frozen=True)
class Encoding:
    """A choice that fits together: container, codec, quality."""

    container: Container
    codec_name: str
    crf: int
    preset: str
    lossless: bool

    @property
    def codec(self) -> Codec:
        """The codec's entry in the table."""
        return CODECS[self.codec_name]

    @property
    def encoder(self) -> str:
        """ffmpeg's name of the encoder in use."""
        lossless = self.codec.lossless_encoder
        return lossless if self.lossless and lossless else self.codec.encoder

    @property
    def pixel_format(self) -> str:
        """What the frames are converted to before the encode."""
        return self.codec.lossless_format if self.lossless else _PIXEL_FORMAT

    def options(self) -> dict[str, object]:
        """ffmpeg output options of the picture and of the file."""
        quality = self.codec.lossless_options(self.preset) if self.lossless else self.codec.options(self.crf, self.preset)
        options = {"c:v": self.encoder, **quality}
        if self.container.fast_start:
            options["movflags"] = "+faststart"
            if self.codec_name == "hevc":
                options["tag:v"] = "hvc1"  # the tag that Apple's players ask for
        return options


def choose_encoding(
    path: str | Path, codec: str | None = None, crf: int | None = None, preset: str | None = None, *, lossless: bool = False
) -> Encoding:
    """The encoding for a result named `path`; None means the default. Raises InputError for what does not fit together."""
    container = CONTAINERS.get(Path(path).suffix.lower())
    if container is None:
        ending = Path(path).suffix or "(none)"
        raise InputError(f"{path}: the ending {ending} is not a video format that can be written, use {_any(CONTAINERS)}")
    name = codec or container.codecs[0]
    if name not in CODECS:
        raise InputError(f"codec {name!r} is not known, use {_any(CODECS)}")
    if name not in container.codecs:
        raise InputError(f"{path}: a {Path(path).suffix} file does not hold {name} video, use {_any(container.codecs)} or another ending")
    if lossless and CODECS[name].lossless_encoder is None:
        raise InputError(f"lossless {name} is not offered, use {_any(key for key, entry in CODECS.items() if entry.lossless_encoder)}")
    if preset is not None and preset not in PRESETS:
        raise InputError(f"preset {preset!r} is not known, use {_any(PRESETS)}")
    if crf is not None and not 0 <= crf <= CODECS[name].crf_max:
        raise InputError(f"crf {crf} is out of range for {name}: 0 (best) to {CODECS[name].crf_max}")
    return Encoding(container, name, CODECS[name].crf if crf is None else crf, preset or DEFAULT_PRESET, lossless)


def check_output(
    path: str | Path,
    inputs: Iterable[str | Path] = (),
    codec: str | None = None,
    crf: int | None = None,
    preset: str | None = None,
    *,
    lossless: bool = False,
) -> None:
    """Everything that can be known before the work: will this video be writable, in this codec, without touching an input?

    Raises InputError or OutputError with the reason, LatentSyncError when the ffmpeg at hand cannot encode it. Leaves nothing behind.
    """
    refuse_address(Path(path))
    encoding = choose_encoding(path, codec, crf, preset, lossless=lossless)
    check_target(path, inputs)
    require_encoder(encoding.encoder)


def require_encoder(name: str) -> None:
    """Raise LatentSyncError when the installed ffmpeg was built without the encoder `name`."""
    require_program("ffmpeg")
    answer = subprocess.run(["ffmpeg", "-hide_banner", "-encoders"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if name not in answer.stdout.split():
        raise LatentSyncError(f"the ffmpeg on PATH has no encoder {name}: install a full build of ffmpeg or choose another codec")


def audio_options(
    container: Container,
    stream: AudioStream,
    filters: str,
    *,
    duration: float,
    length: float | None,
    tolerance: float,
    can_be_copied: bool = True,
) -> tuple[dict[str, object], dict[str, object]]:
    """ffmpeg (input, output) options that give `duration` seconds of a track that lasts `length` (None: unknown).

    Copied when nothing must be added (a cut falls between two packets, some 25 ms) and its packets `can_be_copied`, else encoded:
    losslessly where it was. `filters` of ffmpeg bring the decoded track onto its time line before it is cut or padded.
    `tolerance` (seconds, half a video frame) is how much may be missing or too long.
    """
    fits = stream.codec in container.copied_audio
    copyable = fits and can_be_copied
    known = stream.duration if length is None else length
    if copyable and known is not None and abs(known - duration) <= tolerance:
        return {}, {"c:a": "copy"}
    if copyable and known is not None and known > duration and stream.codec not in _LOSSLESS_AUDIO:
        return {"t": f"{duration:.6f}"}, {"c:a": "copy"}
    encoder = _LOSSLESS_AUDIO.get(stream.codec, container.audio_encoder) if fits else container.audio_encoder
    if fits and stream.codec in _PCM:
        encoder = stream.codec
    samples = round(duration * stream.sample_rate)
    options: dict[str, object] = {"c:a": encoder, "af": f"{filters},apad,atrim=end_sample={samples}"}
    if encoder in ("aac", "libopus"):
        options["b:a"] = f"{max(stream.channels, 1) * (96 if stream.channels > 1 else 128)}k"
    return {}, options


def _any(names: Iterable[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last
