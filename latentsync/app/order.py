"""What a person asks for, and what is too much to ask."""

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path

from latentsync.constants import VIDEO_FPS
from latentsync.errors import InputError
from latentsync.media.ffmpeg import probe
from latentsync.pipelines.options import LipsyncOptions

MEGABYTE = 1 << 20
SLACK = 1.0  # seconds that a recording may last over the limit: nobody means one minute to the sample


@dataclass(frozen=True)
class Limits:
    """How long and how large the inputs of one job may be."""

    minutes: float = 5.0
    megabytes: int = 500

    @property
    def seconds(self) -> float:
        """The longest result."""
        return self.minutes * 60 + SLACK

    def check_file(self, path: Path) -> None:
        """Raise InputError for a file that is too large."""
        size = path.stat().st_size
        if size > self.megabytes * MEGABYTE:
            raise InputError(f"{path} has {size / MEGABYTE:.0f} MB and {self.megabytes} MB are allowed here: make it smaller or shorter.")

    def check_length(self, path: Path, seconds: float | None) -> None:
        """Raise InputError for a recording or a video that is too long; an unknown length passes, and is watched later."""
        if seconds is not None and seconds > self.seconds:
            raise InputError(
                f"{path} lasts {describe_minutes(seconds)} and {describe_minutes(self.minutes * 60)} are allowed here: cut it, "
                "or start the app with a larger --max_minutes."
            )


@dataclass(frozen=True)
class Order:
    """One job as it was asked for.

    Attributes:
        model: key of the model.
        steps: denoising steps of one clip, for the progress.
        frames_at_once: frames in one pass of the networks, likewise.
    """

    video: Path
    audio: Path
    options: LipsyncOptions
    model: str
    limits: Limits
    steps: int = 20
    frames_at_once: int = 16

    def check(self) -> None:
        """Refuse at once what can be refused without the networks. Raises InputError."""
        for path in (self.video, self.audio):
            self.limits.check_file(path)
        video, audio = probe(self.video), probe(self.audio)
        picture, sound = video.require_video(), audio.require_audio()
        if self.options.length == "audio":
            self.limits.check_length(self.audio, sound.duration or audio.duration)
        else:
            self.limits.check_length(self.video, picture.duration or video.duration)

    @cached_property
    def fps(self) -> Fraction:
        """Frames a second of the result."""
        return probe(self.video).require_video().native_fps if self.options.keep_fps else Fraction(VIDEO_FPS)

    @cached_property
    def sound_frames(self) -> int | None:
        """Frames of the result where the sound decides, by what its file says; None where that is not known."""
        sound = probe(self.audio)
        seconds = (sound.audio and sound.audio.duration) or sound.duration
        return round(seconds * self.fps) if seconds and self.options.length == "audio" else None

    def check_frames(self, frames: int) -> None:
        """Refuse a result that grows too long although its file did not say so. Raises InputError."""
        self.limits.check_length(self.audio if self.options.length == "audio" else self.video, float(frames / self.fps))


def describe_minutes(seconds: float) -> str:
    """A length for a person: "45 s", "3 min", "3 min 20 s"."""
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest} s"
    return f"{minutes} min {rest} s" if rest else f"{minutes} min"
