"""What a person does in a clip: the mouth follows the speech, everything else the person's own motion."""

from collections.abc import Sequence

import numpy as np

from latentsync.constants import VIDEO_FPS
from preprocess.talking_heads.anatomy.expression import Mouth
from preprocess.talking_heads.head import Pose
from preprocess.talking_heads.scene.motion import Motion, add, motion, speech_gestures
from preprocess.talking_heads.speech.synthesis import Speech, loudness
from preprocess.talking_heads.speech.visemes import CHANNELS, draw_style, mouth_channels

_SMILE_WHILE_SPEAKING = 0.6  # share of a smile that is left where the mouth works


def mouth_of(speech: Speech, frames: int, identity: int) -> np.ndarray:
    """Mouth channels (float32 n 11, order of CHANNELS) of a person who says this."""
    return mouth_channels(speech.phones, frames, draw_style(identity), loudness(speech))


def motion_of(seed: int, frames: int, beats: Speech | None = None) -> Motion:
    """Head, gaze and brows of a clip; with the gestures that stress `beats` where given."""
    moves = motion(seed, frames)
    return moves if beats is None else add(moves, speech_gestures(seed, envelope(beats, frames)))


def envelope(speech: Speech, frames: int) -> np.ndarray:
    """Loudness of a speech at each frame: float32 n, 0 .. 1."""
    edges = np.round(np.arange(frames + 1) / VIDEO_FPS * (len(speech.samples) / max(speech.duration, 1e-9))).astype(int)
    energy = np.concatenate([[0.0], np.cumsum(np.square(speech.samples, dtype=np.float64))])
    last = len(speech.samples)
    power = energy[np.minimum(edges[1:], last)] - energy[np.minimum(edges[:-1], last)]
    level = np.sqrt(power / np.maximum(np.diff(edges), 1))
    return np.clip(level / max(float(np.quantile(level, 0.97)), 1e-4), 0, 1).astype(np.float32)


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
