"""New lines laid into the sound of a film: sample-exact places, short fades, the film's own sound lowered under them, constant memory."""

import logging
import os
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path

import ffmpeg
import numpy as np

from latentsync.errors import OutputError
from latentsync.media.audio import FULL_SCALE, AudioSamples, Excerpt, fill_holes
from latentsync.media.probe import QUIET, AudioStream, Child, file_url, probe, write_all

logger = logging.getLogger(__name__)

BLOCK = 1 << 16  # samples of each channel that are mixed together
DEFAULT_RATE = 48000  # Hz, of films without sound
FADE = 0.01  # seconds over which a line begins and ends
RAMP = 0.1  # seconds before and after a line over which the film's own sound goes down and up
_MONO = AudioStream(index=0, codec="pcm_f32le", sample_rate=DEFAULT_RATE, channels=1, start_time=None, duration=None)


class SampleStore:
    """Recordings as mono samples one behind the other in one unnamed file; a context manager."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="latentsync-")  # noqa: SIM115 - closed by `__exit__`
        self._length = 0

    def __enter__(self) -> "SampleStore":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, part: slice) -> np.ndarray:
        """The samples of a slice: float32 in [-1, 1]."""
        start, stop, _ = part.indices(self._length)
        content = os.pread(self._file.fileno(), 2 * max(stop - start, 0), 2 * start)
        return np.frombuffer(content, "<i2").astype(np.float32) / np.float32(FULL_SCALE)

    def add(self, samples: AudioSamples) -> Excerpt:
        """Keep a copy of all samples; what is returned reads it."""
        start = self._length
        for first in range(0, len(samples), BLOCK):
            block = np.rint(samples[first : first + BLOCK] * FULL_SCALE).astype("<i2")
            self._file.write(block.tobytes())
        self._file.flush()
        self._length += len(samples)
        return Excerpt(self, start, self._length)


@dataclass(frozen=True)
class MixedLine:
    """A recording at its place in a film; times in seconds."""

    path: Path
    stream: AudioStream
    start: Fraction
    stop: Fraction  # where it ends, or is cut
    gain: float = 1.0
    pan: str = ""  # ffmpeg filters, each with a comma behind it, that make one channel where a mix of all would not do


@dataclass(frozen=True)
class FilmSound:
    """What lines are laid into: a track of a file, or silence where there is none."""

    path: Path | None = None
    stream: AudioStream = _MONO
    offset: Fraction = Fraction(0)  # seconds between the first picture and the first sample

    @classmethod
    def of(cls, video: Path, bed: Path | None, lines: Sequence[MixedLine]) -> "FilmSound":
        """The bed, or else the sound of the video at its place beside the picture, or else silence as wide as the widest line."""
        info = probe(video if bed is None else bed)
        if info.audio is None:
            channels = min(2, max((line.stream.channels for line in lines), default=1))
            return cls(None, AudioStream(**{**vars(_MONO), "channels": channels}))
        starts = (info.audio.start_time, info.video.start_time if info.video and bed is None else None)
        offset = Fraction(0) if None in starts else Fraction(starts[0]) - Fraction(starts[1])
        return cls(info.path, info.audio, offset)


class _Decoder:
    """The samples of a track from its first one on, float32 (t, c) at a rate, block by block; zeros behind its end."""

    def __init__(self, path: Path, stream: AudioStream, rate: int, channels: int, pan: str = "") -> None:
        node = ffmpeg.input(file_url(path), copyts=None, protocol_whitelist="file")
        how = {"map": f"0:{stream.index}", "af": f"{pan}{fill_holes(stream)}", "ar": rate, "ac": channels, "f": "f32le"}
        arguments = ["ffmpeg", *QUIET, "-nostdin", *ffmpeg.get_args(ffmpeg.output(node, "pipe:1", **how))]
        self._child, self._channels = Child(arguments, stdout=subprocess.PIPE), channels

    def read(self, count: int) -> np.ndarray:
        content = self._child.stdout.read(4 * self._channels * count)
        found = np.frombuffer(content[: len(content) // (4 * self._channels) * 4 * self._channels], "<f4").reshape(-1, self._channels)
        return np.pad(found, ((0, count - len(found)), (0, 0)))

    def close(self) -> None:
        self._child.kill()


def mix(film: FilmSound, lines: Sequence[MixedLine], seconds: Fraction, original_gain: float, target: Path) -> list[str]:
    """Write `seconds` of sound as .flac, in the film's rate and channels; returns what the user must know. Raises OutputError.

    `original_gain`: by what the film's own sound is multiplied under a line.
    """
    stream = film.stream
    rate, channels, total = stream.sample_rate, stream.channels, round(seconds * stream.sample_rate)
    width = 1 if channels == 1 or stream.has_centre else 2
    shape = {"format": "f32le", "ar": rate, "ac": channels}
    node = ffmpeg.output(ffmpeg.input("pipe:0", **shape), file_url(target), **{"c:a": "flac", "sample_fmt": "s32", "compression_level": 0})
    encoder = Child(["ffmpeg", *QUIET, *ffmpeg.get_args(node, overwrite_output=True)], feed=True)
    base = None if film.path is None else _Decoder(film.path, stream, rate, channels)
    waiting, playing, loudest = list(lines), [], 0.0
    try:
        lead = max(0, round(film.offset * rate))  # samples of silence before the film's own first one
        if base is not None and film.offset < 0:
            base.read(round(-film.offset * rate))
        for start in range(0, total, BLOCK):
            count = min(BLOCK, total - start)
            block = np.zeros((count, channels), np.float32)
            if base is not None:
                silent = min(max(lead - start, 0), count)
                block[silent:] = base.read(count - silent)
                block *= duck(lines, start, count, rate, original_gain)[:, None]
            while waiting and round(waiting[0].start * rate) < start + count:
                playing.append((line := waiting.pop(0), _Decoder(line.path, line.stream, rate, width, line.pan if width == 1 else "")))
            for line, decoder in playing:
                lay_in(block, start, line, decoder, rate, stream.has_centre)
            for line, decoder in [pair for pair in playing if round(pair[0].stop * rate) <= start + count]:
                decoder.close()
                playing.remove((line, decoder))
            loudest = max(loudest, float(np.abs(block).max(initial=0)))
            write_all(encoder.stdin, np.ascontiguousarray(block.clip(-1, 1), "<f4"))
        if encoder.finish():
            raise OutputError(f"the mixed sound could not be written to {target.parent}: {encoder.reason()}")
    except BrokenPipeError:
        encoder.finish()
        raise OutputError(f"the mixed sound could not be written to {target.parent}: {encoder.reason()}") from None
    finally:
        for child in filter(None, (base, *(decoder for _, decoder in playing))):
            child.close()
        encoder.kill()
    if loudest <= 1:
        return []
    decibels = 20 * np.log10(loudest)
    return [f"The mixed sound is too loud by {decibels:.1f} dB at its loudest moment and clipped there: give the lines a lower gain_db."]


def ramp(places: np.ndarray, length: float) -> np.ndarray:
    """A raised cosine that is 0 up to place 0 and 1 from `length` on; float32."""
    return (0.5 - 0.5 * np.cos(np.pi * (places / max(length, 1)).clip(0, 1))).astype(np.float32)


def duck(lines: Sequence[MixedLine], start: int, count: int, rate: int, gain: float) -> np.ndarray:
    """The factors float32 (t) of a film's own sound in samples from `start` on: `gain` under lines, 1 from a ramp beside them on."""
    length = RAMP * rate
    under = np.zeros(count, np.float32)
    for line in lines:
        first, last = round(line.start * rate), round(line.stop * rate)
        if first - length < start + count and start < last + length:
            places = np.arange(start, start + count)
            under = np.maximum(under, np.minimum(ramp(places - first + length, length), ramp(last + length - places, length)))
    return 1 - (1 - np.float32(gain)) * under


def lay_in(block: np.ndarray, start: int, line: MixedLine, decoder: _Decoder, rate: int, has_centre: bool) -> None:
    """Add what of a line lies in a block (t, c) that begins with sample `start`: to the centre where there is one, else left and right."""
    first, last = round(line.start * rate), round(line.stop * rate)
    begin, end = max(first, start), min(last, start + len(block))
    if begin >= end:
        return
    places = np.arange(begin, end) + 0.5
    fades = ramp(places - first, FADE * rate) * ramp(last - places, FADE * rate)
    sound = decoder.read(end - begin) * (np.float32(line.gain) * fades)[:, None]  # t c
    part = block[begin - start : end - start]
    if has_centre:
        part[:, 2] += sound[:, 0]
    else:
        part[:, : sound.shape[1]] += sound


@cache
def stretch_filter(tempo: float) -> str:
    """The ffmpeg filter that plays sound faster at the same pitch: Rubber Band's where it was built with it."""
    answer = subprocess.run(["ffmpeg", "-hide_banner", "-filters"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    return f"rubberband=tempo={tempo:.6f}" if " rubberband " in answer.stdout else f"atempo={tempo:.6f}"


def stretched(path: Path, stream: AudioStream, tempo: float, target: Path) -> Path:
    """Write a track, played `tempo` times as fast, as .wav. Raises OutputError."""
    node = ffmpeg.input(file_url(path), copyts=None, protocol_whitelist="file")
    how = {"map": f"0:{stream.index}", "af": f"{fill_holes(stream)},{stretch_filter(tempo)}", "c:a": "pcm_s24le", "rf64": "auto"}
    child = Child(["ffmpeg", *QUIET, "-nostdin", *ffmpeg.get_args(ffmpeg.output(node, file_url(target), **how), overwrite_output=True)])
    if child.finish():
        raise OutputError(f"{path} could not be stretched into {target.parent}: {child.reason()}")
    return target
