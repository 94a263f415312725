"""Clips with the number of each frame in its picture, as stripes, and in its sound, as a level."""

import subprocess
from pathlib import Path

import numpy as np
from media_fixtures import run_ffmpeg
from scipy.io import wavfile

from latentsync.media.audio import read_audio
from latentsync.media.video_reader import VideoReader
from preprocess.clip_writer import PICTURE
from preprocess.step import ClipFile

BITS, RATE, BLOCK = 8, 16_000, 640
STEP = 100  # 16-bit levels from one frame's sound to the next's


def striped(number: int, height: int = 64, width: int = 128, ground: int = 40, rows: int | None = None) -> np.ndarray:
    """A frame uint8 h w 3 with the bits of a number as white stripes (only in the first `rows`), on a ground."""
    bits = np.repeat([number >> k & 1 for k in range(BITS)], width // BITS).astype(bool)
    frame = np.full((height, width, 3), ground, np.uint8)
    frame[:rows, bits] = 235
    return frame


def number_of(frame: np.ndarray, row: float = 0.3) -> int:
    """The number in the stripes of a frame, read in one row."""
    line = frame[int(row * len(frame)), :, 1].reshape(BITS, -1)
    middle = line[:, line.shape[1] // 3 : -line.shape[1] // 3].astype(float).mean(1)
    return sum(1 << k for k, value in enumerate(middle) if value > 150)


def numbers_of(path: Path, row: float = 0.3) -> list[int]:
    return [number_of(frame, row) for frame in VideoReader(path).frames()]


def levels(numbers: list[int] | range) -> np.ndarray:
    """Sound int16 t with these numbers as levels, for a frame each."""
    return np.repeat(np.array(numbers) * STEP, BLOCK).astype("<i2")


def sound_numbers(path: Path) -> list[float]:
    """The number in the sound of each frame; a fraction where it changes inside."""
    sound = read_audio(path) * 32768 / STEP
    return sound[: len(sound) // BLOCK * BLOCK].reshape(-1, BLOCK).mean(1).round(3).tolist()


def encode(path: Path, frames: list[np.ndarray], samples: np.ndarray, *options: str) -> Path:
    """Frames and sound as a file (default: exactly as the pipeline's own clips)."""
    height, width, _ = frames[0].shape
    sound = path.with_suffix(".wav")
    wavfile.write(sound, RATE, samples.astype("<i2"))
    own = [part for name, value in PICTURE.items() for part in (f"-{name}", str(value))] + ["-c:a", "flac", "-strict", "experimental"]
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-video_size", f"{width}x{height}", "-framerate", "25", "-i", "pipe:0"]
    command = ["ffmpeg", "-loglevel", "error", "-y", *raw, "-i", str(sound), *(options or own), str(path)]
    subprocess.run(command, input=b"".join(np.ascontiguousarray(frame).tobytes() for frame in frames), check=True)
    sound.unlink()
    return path


def numbered(path: Path, count: int, late: int = 0) -> Path:
    """A clip of the pipeline's kind; its sound comes `late` frames late."""
    return encode(path, [striped(number) for number in range(count)], levels([max(number - late, 0) for number in range(count)]))


def clip(path: Path, **facts: float) -> ClipFile:
    """As the pipeline hands it to a step."""
    return ClipFile(path, path.name, path.name, facts)


def remux(source: Path, target: Path, *options: str) -> Path:
    run_ffmpeg("-i", source, "-c", "copy", *options, target)
    return target
