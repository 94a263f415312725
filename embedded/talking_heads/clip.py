"""Rendered clips: a person before a camera, the video with its sound, and its labels.

Labels are a JSON file beside the video: `plan` (split, identity, voice, text, seed), `settings`, `said` (voice, text, phones with their
times), and per frame `lip_gap_cm`, `lip_width_cm`, `mouth` (channels of speech.visemes) and 68 `landmarks` (pixels; 0 is the outer edge of
the first).
"""

import json
import wave
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from embedded.talking_heads.motion import Motion, Pose, motion, poses
from embedded.talking_heads.person import Head
from embedded.talking_heads.render.picture import prepare, render, tone
from embedded.talking_heads.scene import apply_effects, background, draw_effects, expose, frame_camera, light
from embedded.talking_heads.solids import Camera
from embedded.talking_heads.speech import phones
from embedded.talking_heads.speech.synthesis import Speech, augment, excerpt, loudness, speak
from embedded.talking_heads.speech.visemes import CHANNELS, draw_style, mouth_channels
from embedded.talking_heads.speech.voices import ClipPlan, other_text, plan_clip
from embedded.talking_heads.traits import draw_traits, stream
from latentsync.constants import AUDIO_SAMPLE_RATE, VIDEO_FPS
from latentsync.media.files import write_text
from latentsync.media.video_writer import AudioTrack, VideoWriter

LABELS_VERSION = 1
_WORDS_PER_SECOND = 4.5  # more than anybody says, so that a clip is full of speech
_LEAD = 0.24  # s of silence before the first word
_FINE = 320  # pixels of picture height from which on textures are painted at full size


@dataclass(frozen=True)
class RenderedFrame:
    """One picture and its labels."""

    picture: np.ndarray  # uint8 h w 3, RGB
    landmarks: np.ndarray  # float32 68 2, pixels: x, y; 0 is the outer edge of the first pixel
    lip_gap: float  # cm between the lips at their middle
    lip_width: float  # cm between the corners of the mouth


class RenderedScene:
    """One person in one scene; a frame is a pure function of (identity, seed, size, camera, pose, index)."""

    def __init__(self, identity: int, seed: int, width: int, height: int, camera: Camera | None = None) -> None:
        """`identity` is the seed of the person, `seed` that of light, background and camera; sizes in pixels."""
        self.width, self.height, self._seed = width, height, seed
        self.head = Head(draw_traits(identity), texture_size=1024 if height > _FINE else 512)
        self._prepared = prepare(self.head.mesh)
        self._light, self.camera, self._effects = light(seed), camera or frame_camera(seed), draw_effects(seed)
        self._background = background(seed, width, height)

    def frame(self, pose: Pose, index: int) -> RenderedFrame:
        """The picture of a pose; `index` numbers the frame in its clip and picks the sensor's noise."""
        posed = self.head.pose(pose)
        mesh = replace(self.head.mesh, vertices=posed.vertices, occlusion=posed.occlusion)
        strands = [replace(kind, points=points) for kind, points in zip(self.head.strands, posed.strands, strict=True)]
        linear = render(mesh, strands, self._light, self.camera, self._background, self._prepared)
        picture = apply_effects(self._effects, tone(expose(self._effects, linear)), index, self._seed)
        landmarks = self.camera.project(posed.landmarks, self.width, self.height)[:, :2]
        return RenderedFrame(picture, landmarks, posed.lip_gap, posed.lip_width)


class SpokenClip:
    """Who says what with which movements, frame by frame; with another speech the same person and motion say something else."""

    def __init__(self, plan: ClipPlan, speech: Speech, seconds: float, is_clean: bool = False) -> None:
        """`speech` lasts for `seconds` at least; the mouth moves as if it went on. `is_clean`: no room, noise and microphone."""
        self.plan, self.speech, self.frames = plan, speech, round(seconds * VIDEO_FPS)
        self.mouth = mouth_channels(speech.phones, self.frames, draw_style(plan.identity), loudness(speech))
        self.motion: Motion = motion(plan.seed, self.frames)
        self.poses = poses(self.mouth, self.motion)
        samples = speech.samples[: round(self.frames / VIDEO_FPS * AUDIO_SAMPLE_RATE)]
        self.samples = samples if is_clean else augment(samples, stream(plan.seed, "acoustics"))  # float32 t

    def write(self, path: Path, frames: Iterable[RenderedFrame], size: int, crf: int) -> None:
        """Write square pictures of `size` pixels with the sound into `path` (.mp4) and then the labels beside it (.json)."""
        seen = write_video(path, frames, size, self.samples, crf)
        settings = {"width": size, "height": size, "crf": crf}
        pictured = {
            "lip_gap_cm": [round(frame.lip_gap, 4) for frame in seen],
            "lip_width_cm": [round(frame.lip_width, 4) for frame in seen],
            "landmarks": [_rounded(frame.landmarks, 2) for frame in seen],
        }
        mouth = {"channels": list(CHANNELS), "values": _rounded(self.mouth)}
        _write_labels(path, asdict(self.plan), self.speech, len(seen), settings, {"mouth": mouth, **pictured})


def spoken_clips(plan: ClipPlan, seconds: float, is_pair: bool = False, is_clean: bool = False) -> list[SpokenClip]:
    """The clip of a plan, `seconds` long, and for a pair the same with other words."""
    texts = [plan.text, other_text(plan, _words(seconds))] if is_pair else [plan.text]
    return [SpokenClip(plan, _speech(replace(plan, text=text), seconds), seconds, is_clean) for text in texts]


def plan_of(seed: int, index: int, split: str, seconds: float) -> ClipPlan:
    """The plan of clip `index` of a collection with words that fill it."""
    return plan_clip(seed, index, split, _words(seconds))


def write_pictures(paths: list[Path], plan: ClipPlan, seconds: float, size: int, is_clean: bool, crf: int) -> None:
    """Render a clip of a head, or with two `paths` a pair of clips with other words, as videos of `size` pixels a side."""
    scene = RenderedScene(plan.identity, plan.seed, size, size)
    for path, clip in zip(paths, spoken_clips(plan, seconds, len(paths) > 1, is_clean), strict=True):
        clip.write(path, (scene.frame(pose, index) for index, pose in enumerate(clip.poses)), size, crf)


def write_video(path: Path, frames: Iterable[RenderedFrame], size: int, samples: np.ndarray, crf: int) -> list[RenderedFrame]:
    """Write pictures and sound (float32 t) into `path` (.mp4) as they come; what is known of the frames, without the pictures."""
    seen = []
    with TemporaryDirectory(prefix="latentsync-") as folder:
        sound = Path(folder) / "speech.wav"
        write_wave(sound, samples)
        track = AudioTrack(sound, len(samples) / AUDIO_SAMPLE_RATE)
        with VideoWriter(path, size, size, VIDEO_FPS, audio=track, crf=crf) as sink:
            for frame in frames:
                sink.write(frame.picture)
                seen.append(replace(frame, picture=np.empty((0, 0, 3), np.uint8)))
    return seen


def write_wave(path: Path, samples: np.ndarray) -> None:
    """Mono float samples in [-1, 1] into a 16-bit wave file."""
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, AUDIO_SAMPLE_RATE, 0, "NONE", ""))
        file.writeframes((np.clip(samples, -1, 1) * 32767).round().astype("<i2").tobytes())


def _speech(plan: ClipPlan, seconds: float) -> Speech:
    """What a clip says: at least `seconds` long, with silence at the end where the words are few."""
    speech = speak(plan.text, plan.voice, lead=_LEAD)
    return speech if speech.duration >= seconds else excerpt(speech, 0.0, seconds)


def _words(seconds: float) -> int:
    return int(seconds * _WORDS_PER_SECOND) + 2


def _rounded(values: np.ndarray, digits: int = 4) -> list[Any]:
    return np.round(np.asarray(values, np.float64), digits).tolist()


def _write_labels(path: Path, plan: dict[str, Any], speech: Speech, frames: int, settings: dict[str, Any], known: dict[str, Any]) -> None:
    """The labels beside a file, one line a key."""
    spoken = phones.tile(speech.phones, frames / VIDEO_FPS)
    said = {"voice": asdict(speech.voice), "text": speech.text, "phones": phones.to_json(spoken)}
    content = {"version": LABELS_VERSION, "fps": VIDEO_FPS, "frames": frames, "plan": plan, "settings": settings, "said": said, **known}
    lines = [f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in content.items()]
    write_text(path.with_suffix(".json"), "{\n" + ",\n".join(lines) + "\n}\n")
