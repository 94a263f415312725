"""A rendered clip: the person before a camera, the video with its sound, and the truth beside it."""

import json
import wave
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from embedded.talking_heads.motion import Motion, Pose, motion_of, mouth_of, poses
from embedded.talking_heads.person import Head
from embedded.talking_heads.render.picture import prepare, render, tone
from embedded.talking_heads.room import background
from embedded.talking_heads.scene import apply, draw_look, expose, frame_camera, light
from embedded.talking_heads.speech import phones
from embedded.talking_heads.speech.synthesis import Speech, augment, excerpt, speak
from embedded.talking_heads.speech.visemes import CHANNELS
from embedded.talking_heads.speech.voices import ClipPlan, Voice
from embedded.talking_heads.traits import draw_traits, stream
from latentsync.constants import AUDIO_SAMPLE_RATE, VIDEO_FPS
from latentsync.errors import InputError
from latentsync.media.audio import read_audio
from latentsync.media.files import write_text
from latentsync.media.sink import AudioTrack, VideoSink

_FINE = 320  # pixels of picture height from which on textures are painted at full size


@dataclass(frozen=True)
class Frame:
    """One picture and the truth about it."""

    picture: np.ndarray  # uint8 h w 3, RGB
    landmarks: np.ndarray  # float32 68 2, pixels: x, y; 0 is the outer edge of the first pixel
    lip_gap: float  # cm between the lips at their middle
    lip_width: float  # cm between the corners of the mouth


class Studio:
    """Renders one identity in one scene; a frame is a pure function of (identity, seed, size, pose, index)."""

    def __init__(self, identity: int, seed: int, width: int, height: int) -> None:
        """`identity` is the seed of the person, `seed` that of light, room and camera; sizes in pixels."""
        self.width, self.height, self._seed = width, height, seed
        self.head = Head(draw_traits(identity), texture_size=1024 if height > _FINE else 512)
        self._prepared = prepare(self.head.mesh)
        self._light, self.camera, self._look = light(seed), frame_camera(seed, width / height), draw_look(seed)
        self._background = background(seed, width, height)

    def frame(self, pose: Pose, index: int) -> Frame:
        """The picture of a pose; `index` numbers the frame in its clip and picks the sensor's noise."""
        posed = self.head.pose(pose)
        mesh = replace(self.head.mesh, vertices=posed.vertices, occlusion=posed.occlusion)
        strands = [replace(kind, points=points) for kind, points in zip(self.head.strands, posed.strands, strict=True)]
        linear = render(mesh, strands, self._light, self.camera, self._background, self.width, self.height, self._prepared)
        picture = apply(self._look, tone(expose(self._look, linear)), index, self._seed)
        landmarks = self.camera.project(posed.landmarks, self.width, self.height)[:, :2]
        return Frame(picture, landmarks, posed.lip_gap, posed.lip_width)


VERSION = 1


@dataclass
class Truth:
    """All that is known about a clip. Lists have one entry a frame."""

    plan: dict[str, Any]  # split, identity, voice, text, seed
    said: dict[str, Any]  # voice, text and phones of the speech that drives the mouth
    settings: dict[str, Any]
    mouth: np.ndarray  # n 11, order of CHANNELS
    motion: dict[str, Any]
    landmarks: list[np.ndarray] = field(default_factory=list)  # 68 2 each, pixels
    lip_gap: list[float] = field(default_factory=list)  # cm
    lip_width: list[float] = field(default_factory=list)  # cm

    @staticmethod
    def empty(plan: ClipPlan, speech: Speech, settings: dict[str, Any], mouth: np.ndarray, motion: Motion) -> "Truth":
        """The truth before the first frame is rendered."""
        said = {"voice": asdict(speech.voice), "text": speech.text, "phones": phones.to_json(speech.phones)}
        return Truth(asdict(plan), said, settings, mouth, {key: np.round(value, 4).tolist() for key, value in asdict(motion).items()})

    def add(self, frame: Frame) -> None:
        """What one more frame shows."""
        self.landmarks.append(np.round(frame.landmarks, 2))
        self.lip_gap.append(round(frame.lip_gap, 4))
        self.lip_width.append(round(frame.lip_width, 4))


def dump_truth(truth: Truth) -> str:
    """The sidecar's text: one line a key, so that a person can find things."""
    content = {
        "version": VERSION,
        "fps": VIDEO_FPS,
        "frames": len(truth.landmarks),
        "plan": truth.plan,
        "settings": truth.settings,
        "said": truth.said,
        "lip_gap_cm": truth.lip_gap,
        "lip_width_cm": truth.lip_width,
        "mouth": {"channels": list(CHANNELS), "values": np.round(truth.mouth, 4).tolist()},
        "motion": truth.motion,
        "landmarks": [np.asarray(points).tolist() for points in truth.landmarks],
    }
    lines = [f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in content.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def read_truth(path: Path) -> dict[str, Any]:
    """A sidecar as it was written. Raises InputError for what is not one."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): give a clip that has its .json beside it") from None
    except ValueError:
        content = None
    if not isinstance(content, dict) or content.get("version") != VERSION or "said" not in content:
        raise InputError(f"{path} is no truth of a rendered clip: give a clip that preprocess.talking_heads has written")
    return content


def read_speech(audio: Path) -> Speech:
    """The speech of a rendered clip or of a recording that has such a clip's .json beside it.

    Raises InputError where the sidecar is missing: a recording does not say by itself when which phone is spoken.
    """
    beside = audio.with_suffix(".json")
    if not beside.is_file():
        raise InputError(f"{audio} has no {beside.name} beside it with the times of its phones: give the sound of a rendered clip")
    said = read_truth(beside)["said"]
    try:
        spoken, text, voice = phones.from_json(said["phones"]), str(said["text"]), Voice(**said["voice"])
        end = spoken[-1].end
    except (KeyError, IndexError, TypeError):
        raise InputError(f"{beside} does not say what is spoken when: give a clip that preprocess.talking_heads has written") from None
    return Speech(read_audio(audio)[: round(end * AUDIO_SAMPLE_RATE)], spoken, text, voice)  # encoders pad the end


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
