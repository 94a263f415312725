"""The truth about a clip: what was said when, where the mouth and the face were; kept as JSON beside the video."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from latentsync.constants import AUDIO_SAMPLE_RATE, VIDEO_FPS
from latentsync.errors import InputError
from latentsync.media.audio import read_audio
from preprocess.talking_heads.scene.motion import Motion
from preprocess.talking_heads.speech import phones
from preprocess.talking_heads.speech.splits import ClipPlan
from preprocess.talking_heads.speech.synthesis import Speech
from preprocess.talking_heads.speech.viseme_table import CHANNELS
from preprocess.talking_heads.speech.voices import Voice
from preprocess.talking_heads.studio import Frame

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
