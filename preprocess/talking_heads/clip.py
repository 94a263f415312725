"""One clip: a person who says something, rendered into a video with its sound and the truth beside it."""

import wave
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from latentsync.constants import AUDIO_SAMPLE_RATE, VIDEO_FPS
from latentsync.media.files import write_text
from latentsync.media.sink import AudioTrack, VideoSink
from preprocess.talking_heads.head import Pose
from preprocess.talking_heads.performance import motion_of, mouth_of, poses
from preprocess.talking_heads.speech.acoustics import augment
from preprocess.talking_heads.speech.splits import ClipPlan
from preprocess.talking_heads.speech.synthesis import Speech, excerpt, speak
from preprocess.talking_heads.studio import Frame, Studio
from preprocess.talking_heads.traits import stream
from preprocess.talking_heads.truth import Truth, dump_truth

WORDS_PER_SECOND = 4.5  # more than anybody says, so that a clip is full of speech
_LEAD = 0.24  # s of silence before the first word


@dataclass(frozen=True)
class ClipSettings:
    """How clips are made, whatever they show."""

    width: int = 512
    height: int = 512
    clean_sound: bool = False  # no room, no noise, no equaliser
    gestures: bool = False  # head and brows stress the words of the clip's own speech
    crf: int = 16  # quality of the video, x264's scale


def speech_of(plan: ClipPlan, seconds: float) -> Speech:
    """What the clip says: at least `seconds` long, with silence at the end where the words are few."""
    speech = speak(plan.text, plan.voice, lead=_LEAD)
    return speech if speech.duration >= seconds else excerpt(speech, 0.0, seconds)


def frame_count(speech: Speech) -> int:
    """Frames that fit into a speech; a rest of less than a frame has none."""
    return max(int(speech.duration * VIDEO_FPS + 1e-6), 1)


class Clip:
    """A planned clip, ready to be rendered; with another speech, the same person and motion say something else."""

    def __init__(
        self, plan: ClipPlan, speech: Speech, settings: ClipSettings, beats: Speech | None = None, frames: int | None = None
    ) -> None:
        """`beats` is the speech that gestures stress when it is not `speech` itself: that of the clip before it was redriven.

        `frames` cuts the clip short of the speech; the mouth then moves as if the speech went on.
        """
        self.plan, self.speech, self.settings = plan, speech, settings
        self.frames = frame_count(speech) if frames is None else min(frames, frame_count(speech))
        self.mouth = mouth_of(speech, self.frames, plan.identity)
        self.motion = motion_of(plan.seed, self.frames, (beats or speech) if settings.gestures else None)
        self.poses: list[Pose] = list(poses(self.mouth, self.motion))

    def render(self) -> Iterator[Frame]:
        """The frames in order."""
        studio = Studio(self.plan.identity, self.plan.seed, self.settings.width, self.settings.height)
        yield from (studio.frame(pose, index) for index, pose in enumerate(self.poses))

    def sound(self) -> np.ndarray:
        """The samples of the clip's sound track (float32 t)."""
        samples = self.speech.samples[: round(self.frames / VIDEO_FPS * AUDIO_SAMPLE_RATE)]
        return samples if self.settings.clean_sound else augment(samples, stream(self.plan.seed, "acoustics"))

    def write(self, path: Path) -> Path:
        """Render into `path` (.mp4) and write the truth beside it (.json), which comes last; returns the path of the truth."""
        spoken = excerpt(self.speech, 0.0, self.frames / VIDEO_FPS)
        truth = Truth.empty(self.plan, spoken, asdict(self.settings), self.mouth, self.motion)
        for frame in self.write_video(path):
            truth.add(frame)
        beside = path.with_suffix(".json")
        write_text(beside, dump_truth(truth))
        return beside

    def write_video(self, path: Path) -> list[Frame]:
        """Render into `path` (.mp4); what is known of its frames, without the pictures."""
        settings, seen = self.settings, []
        with TemporaryDirectory(prefix="latentsync-") as folder:
            sound = Path(folder) / "speech.wav"
            write_wave(sound, self.sound())
            track = AudioTrack(sound, self.frames / VIDEO_FPS)
            with VideoSink(path, settings.width, settings.height, VIDEO_FPS, audio=track, crf=settings.crf) as sink:
                for frame in self.render():
                    sink.write(frame.picture)
                    seen.append(replace(frame, picture=np.empty((0, 0, 3), np.uint8)))
        return seen


def write_wave(path: Path, samples: np.ndarray) -> None:
    """Mono float samples in [-1, 1] into a 16-bit wave file."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(AUDIO_SAMPLE_RATE)
        file.writeframes((np.clip(samples, -1, 1) * 32767).round().astype("<i2").tobytes())
