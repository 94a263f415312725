"""What a person does in a clip: the mouth follows the speech, everything else the person's own motion."""

import math
from collections.abc import Sequence
from dataclasses import fields

import numpy as np

from latentsync.constants import AUDIO_SAMPLE_RATE, VIDEO_FPS
from preprocess.talking_heads.anatomy.expression import Mouth
from preprocess.talking_heads.head import Pose
from preprocess.talking_heads.scene.motion import Motion, add, motion, speech_gestures
from preprocess.talking_heads.speech.synthesis import Speech, loudness
from preprocess.talking_heads.speech.visemes import CHANNELS, draw_style, mouth_channels

_SETTLING = 33  # frames after a speech in which its last gestures die away
_FAINT = 0.01  # of the loudest frame: what is fainter is no speech
_SMILE_WHILE_SPEAKING = 0.6  # share of a smile that is left where the mouth works


def mouth_of(speech: Speech, frames: int, identity: int) -> np.ndarray:
    """Mouth channels (float32 n 11, order of CHANNELS) of a person who says this."""
    return mouth_channels(speech.phones, frames, draw_style(identity), loudness(speech))


def motion_of(seed: int, frames: int, beats: Speech | None = None) -> Motion:
    """Head, gaze and brows of a clip; with the gestures that stress `beats` where given. A longer clip begins alike."""
    moves = motion(seed, frames)
    if beats is None:
        return moves
    gestures = speech_gestures(seed, envelope(beats, _frames_of(beats) + _SETTLING))
    return add(moves, Motion(*(_fitted(getattr(gestures, field.name), frames) for field in fields(Motion))))


def envelope(speech: Speech, frames: int) -> np.ndarray:
    """Loudness of a speech at each frame: float32 n, 0 .. 1, beside the whole speech, however much of it is asked for; 0 after its end."""
    edges = np.round(np.arange(_frames_of(speech) + 1) * (AUDIO_SAMPLE_RATE / VIDEO_FPS)).astype(int)
    energy = np.concatenate([[0.0], np.cumsum(np.square(speech.samples, dtype=np.float64))])
    power = np.diff(energy[np.minimum(edges, len(speech.samples))])
    level = np.sqrt(power / np.diff(edges))
    sounding = level[level >= _FAINT * level.max()]  # silence around a speech must not change what counts as loud
    return _fitted(np.clip(level / max(float(np.quantile(sounding, 0.97)), 1e-4), 0, 1).astype(np.float32), frames)


def _frames_of(speech: Speech) -> int:
    """Frames that a speech has a part in, at least 1."""
    return max(math.ceil(speech.duration * VIDEO_FPS - 1e-6), 1)


def _fitted(values: np.ndarray, frames: int) -> np.ndarray:
    """Values (m ...) of the first `frames` frames, zeros where there are none."""
    fitted = np.zeros((frames, *values.shape[1:]), values.dtype)
    fitted[: len(values)] = values[:frames]
    return fitted


def poses(mouth: np.ndarray, moves: Motion) -> Sequence[Pose]:
    """The pose of every frame from mouth channels (n 11) and motion (n)."""
    busy = np.clip(mouth[:, : CHANNELS.index("tongue_up")].max(1), 0, 1)
    smile = moves.smile * (1 - (1 - _SMILE_WHILE_SPEAKING) * busy)
    return [_pose(mouth[index], moves, index, float(smile[index])) for index in range(len(mouth))]


def _pose(channels: np.ndarray, moves: Motion, index: int, smile: float) -> Pose:
    return Pose(
        mouth=Mouth(**dict(zip(CHANNELS, channels.tolist(), strict=True)), smile=smile),
        turn=tuple(moves.pose[index].tolist()),
        translation=tuple(moves.translation[index].tolist()),
        gaze=tuple(moves.gaze[index].tolist()),
        blink=tuple(moves.blink[index].tolist()),
        brow_raise=float(moves.brow_raise[index]),
        brow_knit=float(moves.brow_knit[index]),
        squint=float(moves.squint[index]),
        breath=float(moves.breath[index]),
    )
