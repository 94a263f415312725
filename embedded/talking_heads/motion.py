"""How a person moves besides speaking: head, gaze, blinks and expression, and the pose of every frame.

Angles: yaw > 0 turns the nose to the right of the picture, pitch > 0 lifts it, roll > 0 tilts the crown to the left of the picture.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.interpolate import BSpline

from embedded.talking_heads.expression import MouthShape
from embedded.talking_heads.speech.visemes import CHANNELS
from embedded.talking_heads.traits import stream
from latentsync.constants import VIDEO_FPS

NECK_PIVOT = np.array([0.0, -9.0, -1.5], np.float32)  # cm, about which the head turns
GAZE_LIMIT = 0.5  # radians, an eye in its socket
_BLINK_AHEAD = 6  # frames, more than lids take to shut: a blink behind the end of a clip may begin in it
_SMILE_WHILE_SPEAKING = 0.6  # share of a smile that is left where the mouth works


@dataclass(frozen=True)
class Pose:
    """Everything that moves in one frame."""

    mouth: MouthShape = field(default_factory=MouthShape)
    turn: Sequence[float] = (0.0, 0.0, 0.0)  # yaw, pitch, roll in radians
    translation: Sequence[float] = (0.0, 0.0, 0.0)  # cm
    gaze: Sequence[float] = (0.0, 0.0)  # radians relative to the head: to the right of the picture, up
    blink: Sequence[float] = (0.0, 0.0)  # left and right of the picture, 0 (open) .. 1 (shut)
    brow_raise: float = 0.0
    brow_knit: float = 0.0
    squint: float = 0.0
    breath: float = 0.0


@dataclass(frozen=True)
class Motion:
    """The values of all n frames by their names in `Pose`, and the smile; all float32."""

    turn: np.ndarray  # n 3, radians: yaw, pitch, roll
    translation: np.ndarray  # n 3, cm
    gaze: np.ndarray  # n 2
    blink: np.ndarray  # n 2
    brow_raise: np.ndarray  # n, -0.5 .. 1
    brow_knit: np.ndarray  # n, 0 .. 1
    smile: np.ndarray  # n, 0 .. 0.4
    squint: np.ndarray  # n, 0 .. 0.5
    breath: np.ndarray  # n, 0 (out) .. 1 (in)


def rotation(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """Rotation (float32 3 3) that applies roll first, then pitch, then yaw."""
    (cy, cp, cr), (sy, sp, sr) = np.cos([yaw, pitch, roll]), np.sin([yaw, pitch, roll])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
    about_z = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return (about_y @ about_x @ about_z).astype(np.float32)


def place(points: np.ndarray, pose: np.ndarray, translation: np.ndarray) -> np.ndarray:
    """Points (... 3) of the head at rest -> where they are at a pose (3) and translation (3)."""
    return (points - NECK_PIVOT) @ rotation(*pose).T + (NECK_PIVOT + translation).astype(np.float32)


def motion(seed: int, frames: int) -> Motion:
    """The movement of a clip of `frames` frames at 25 a second, whatever is said; a longer clip begins alike."""
    temperament = stream(seed, "temperament")
    liveliness, warmth, tension = temperament.uniform(0.45, 1.5), temperament.beta(1.2, 2.5), temperament.beta(1.2, 4.0)

    def drift(name: str, period: float, scale: float) -> np.ndarray:
        return _drift(stream(seed, name), frames, period, scale)

    phase = temperament.uniform(0.2, 0.32) * np.arange(frames) / VIDEO_FPS + temperament.random() + drift("breath", 4.0, 0.04)
    breath = ((0.5 - 0.5 * np.cos(2 * np.pi * phase)) ** 1.3).astype(np.float32)
    turn, translation = _turn(seed, frames, liveliness)
    translation[:, 1] += 0.12 * breath
    return Motion(
        turn=np.clip(turn, [-0.6, -0.3, -0.25], [0.6, 0.3, 0.25]).astype(np.float32),
        translation=translation,
        gaze=_gaze(seed, frames, turn),
        blink=_blink(seed, frames),
        brow_raise=np.clip(0.3 * (warmth - 0.3) + drift("raise", 1.4, 0.14 * liveliness), -0.5, 1).astype(np.float32),
        brow_knit=np.clip(0.5 * tension - 0.05 + drift("knit", 2.2, 0.1), 0, 1).astype(np.float32),
        smile=np.clip(0.34 * warmth + drift("smile", 2.5, 0.06), 0, 0.4).astype(np.float32),
        squint=np.clip(0.25 * tension + 0.12 * warmth + drift("squint", 1.8, 0.05), 0, 0.5).astype(np.float32),
        breath=breath,
    )


def poses(mouth: np.ndarray, moves: Motion) -> list[Pose]:
    """The pose of every frame from mouth channels (n 11, order of CHANNELS) and motion (n)."""
    busy = np.clip(mouth[:, : CHANNELS.index("tongue_up")].max(1), 0, 1)
    smile = moves.smile * (1 - (1 - _SMILE_WHILE_SPEAKING) * busy)
    return [
        Pose(
            mouth=MouthShape(**dict(zip(CHANNELS, channels.tolist(), strict=True)), smile=float(smile[index])),
            **{name: value[index].tolist() for name, value in vars(moves).items() if name != "smile"},
        )
        for index, channels in enumerate(mouth)
    ]


def _drift(rng: np.random.Generator, frames: int, period: float, scale: float) -> np.ndarray:
    """Smooth noise (float32 n) with values about +-`scale`: a cubic B-spline with one knot every `period` seconds.

    The first frames do not depend on how many follow.
    """
    seconds = np.arange(frames) / VIDEO_FPS / period
    count = int(np.ceil(seconds[-1])) + 5 if frames else 5
    values = np.clip(rng.normal(0, 1.0, count), -2, 2) * 1.5 * scale  # 1.5 makes up for what the spline averages away
    return BSpline(np.arange(count + 4) - 3.0, values, 3)(seconds).astype(np.float32)


def _turn(seed: int, frames: int, liveliness: float) -> tuple[np.ndarray, np.ndarray]:
    """Head angles (n 3) and displacement (n 3): a habitual pose, slow turns and a faint unrest."""
    habit = stream(seed, "habit")
    mean = habit.normal(0, 1, 3) * np.array([0.26 if habit.random() < 0.18 else 0.09, 0.05, 0.04])  # some people turn further aside
    mean = np.clip(mean, [-0.42, -0.1, -0.1], [0.42, 0.1, 0.1])
    scales = {"yaw": 0.075 * liveliness, "pitch": 0.045 * liveliness, "roll": 0.03 * liveliness}
    turns = [_drift(stream(seed, f"turn {name}"), frames, 1.7, scale) for name, scale in scales.items()]
    unrest = [_drift(stream(seed, f"unrest {name}"), frames, 0.42, 0.11 * scale) for name, scale in scales.items()]
    sway = [_drift(stream(seed, f"sway {axis}"), frames, 2.6, size * liveliness) for axis, size in (("x", 0.5), ("y", 0.16), ("z", 0.5))]
    return (mean + np.stack(turns, -1) + np.stack(unrest, -1)).astype(np.float32), np.stack(sway, -1).astype(np.float32)


def _gaze(seed: int, frames: int, turn: np.ndarray) -> np.ndarray:
    """Where the eyes point relative to the head (n 2): fixations, mostly on the camera, with saccades between."""
    rng = stream(seed, "gaze")
    shyness = rng.beta(1.2, 5)
    target = np.zeros((frames, 2), np.float32)
    frame = 0
    while frame < frames:
        length = max(5, int(rng.gamma(2.2, 0.45) * VIDEO_FPS))
        away = rng.random() < shyness
        target[frame : frame + length] = rng.normal(0, [0.22, 0.12] if away else [0.022, 0.016])
        frame += length
    return np.clip(target - turn[:, :2], -GAZE_LIMIT, GAZE_LIMIT).astype(np.float32)


def _blink(seed: int, frames: int) -> np.ndarray:
    """Lid closure (n 2): 12 .. 25 blinks a minute; 0.10 .. 0.15 s to shut, one frame shut, about 0.2 s to open."""
    rng = stream(seed, "blink")
    mean = 60.0 / rng.uniform(12.5, 24.0)
    lag = rng.uniform(-0.12, 0.12)  # frames by which one eye leads
    lids = np.zeros((frames, 2))
    frame = int(rng.uniform(0.15, 1.0) * mean * VIDEO_FPS)
    while frame < frames + _BLINK_AHEAD:
        time = np.arange(frames)[:, None] - frame - np.array([0.0, lag])
        lid = np.clip(np.minimum(1 + time / rng.uniform(2.5, 3.7), 1 - (time - 0.8) / rng.uniform(4.5, 6.0)), 0, 1)
        lids = np.maximum(lids, np.where(np.abs(time) < 0.5, 1.0, lid * lid * (3 - 2 * lid)))
        frame += max(14, int(rng.gamma(4.0, mean / 4.0) * VIDEO_FPS))
    return lids.astype(np.float32)
