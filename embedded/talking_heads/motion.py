"""x"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields

import numpy as np
from scipy.interpolate import BSpline

from embedded.talking_heads.expression import Mouth
from embedded.talking_heads.speech.synthesis import Speech, loudness
from embedded.talking_heads.speech.visemes import CHANNELS, draw_style, mouth_channels
from embedded.talking_heads.traits import stream
from latentsync.constants import AUDIO_SAMPLE_RATE, VIDEO_FPS


@dataclass(frozen=True)
class Pose:
    """Everything that moves in one frame."""

    mouth: Mouth = field(default_factory=Mouth)
    turn: tuple[float, float, float] = (0.0, 0.0, 0.0)  # yaw, pitch, roll in radians
    translation: tuple[float, float, float] = (0.0, 0.0, 0.0)  # cm
    gaze: tuple[float, float] = (0.0, 0.0)  # radians to the right of the picture, up
    blink: tuple[float, float] = (0.0, 0.0)  # left and right of the picture, 0 .. 1
    brow_raise: float = 0.0
    brow_knit: float = 0.0
    squint: float = 0.0
    breath: float = 0.0


NECK_PIVOT = np.array([0.0, -9.0, -1.5], np.float32)  # cm, about which the head turns
GAZE_LIMIT = 0.5  # radians, an eye in its socket
_BLINK_AHEAD = 6  # frames, more than lids take to shut: a blink behind the end of a clip may begin in it


@dataclass(frozen=True)
class Motion:
    """One value a frame; all float32."""

    pose: np.ndarray  # n 3, radians: yaw, pitch, roll
    translation: np.ndarray  # n 3, cm
    gaze: np.ndarray  # n 2, radians relative to the head: to the right, up
    blink: np.ndarray  # n 2, 0 (open) .. 1 (shut): eye at the left of the picture, at the right
    brow_raise: np.ndarray  # n, -0.5 .. 1
    brow_knit: np.ndarray  # n, 0 .. 1
    smile: np.ndarray  # n, 0 .. 0.4
    squint: np.ndarray  # n, 0 .. 0.5
    breath: np.ndarray  # n, 0 (out) .. 1 (in)

    def __len__(self) -> int:
        return len(self.pose)


def rotation(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """Rotation (float32 3 3) that applies roll first, then pitch, then yaw; angles in radians, see the head of this file."""
    (cy, cp, cr), (sy, sp, sr) = np.cos([yaw, pitch, roll]), np.sin([yaw, pitch, roll])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
    about_z = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return (about_y @ about_x @ about_z).astype(np.float32)


def place(points: np.ndarray, pose: np.ndarray, translation: np.ndarray) -> np.ndarray:
    """Points (... 3) of the head at rest -> where they are at a pose (3) and translation (3)."""
    return (points - NECK_PIVOT) @ rotation(*pose).T + (NECK_PIVOT + translation).astype(np.float32)


def drift(rng: np.random.Generator, frames: int, period: float, scale: float) -> np.ndarray:
    """Smooth noise (float32 n) with values about +-`scale`: a cubic B-spline with one knot every `period` seconds.

    Velocity stays below 6 `scale` a period, since knots are cut at 3 `scale`; the first frames do not depend on how many follow.
    """
    seconds = np.arange(frames) / VIDEO_FPS / period
    count = int(np.ceil(seconds[-1])) + 5 if frames else 5
    values = np.clip(rng.normal(0, 1.0, count), -2, 2) * 1.5 * scale  # 1.5 makes up for what the spline averages away
    return BSpline(np.arange(count + 4) - 3.0, values, 3)(seconds).astype(np.float32)


def _pose(seed: int, frames: int, liveliness: float) -> tuple[np.ndarray, np.ndarray]:
    """Head angles (n 3) and displacement (n 3): a habitual pose, slow turns and a faint unrest."""
    habit = stream(seed, "habit")
    wide = habit.random() < 0.18  # some clips look further aside
    mean = habit.normal(0, 1, 3) * np.array([0.26 if wide else 0.09, 0.05, 0.04])
    mean = np.clip(mean, [-0.42, -0.1, -0.1], [0.42, 0.1, 0.1])
    scales = np.array([0.075, 0.045, 0.03]) * liveliness
    names = ("yaw", "pitch", "roll")
    turns = [drift(stream(seed, f"turn {name}"), frames, 1.7, scale) for name, scale in zip(names, scales, strict=True)]
    unrest = [drift(stream(seed, f"unrest {name}"), frames, 0.42, 0.11 * scale) for name, scale in zip(names, scales, strict=True)]
    pose = mean + np.stack(turns, -1) + np.stack(unrest, -1)
    sway = [drift(stream(seed, f"sway {axis}"), frames, 2.6, s * liveliness) for axis, s in (("x", 0.5), ("y", 0.16), ("z", 0.5))]
    return pose.astype(np.float32), np.stack(sway, -1).astype(np.float32)


def _gaze(seed: int, frames: int, pose: np.ndarray) -> np.ndarray:
    """Where the eyes point relative to the head (n 2): fixations, mostly on the camera, with saccades of one or two frames between."""
    rng = stream(seed, "gaze")
    shyness = rng.beta(1.2, 5)
    target = np.zeros((frames, 2), np.float32)
    frame, aim = 0, np.zeros(2)
    while frame < frames:
        length = max(5, int(rng.gamma(2.2, 0.45) * VIDEO_FPS))
        away = rng.random() < shyness
        following = rng.normal(0, [0.22, 0.12]) if away else rng.normal(0, [0.022, 0.016])
        if np.abs(following - aim).max() > 0.08:  # a wide saccade takes two frames
            target[frame] = 0.55 * following + 0.45 * aim
            target[frame + 1 : frame + length] = following
        else:
            target[frame : frame + length] = following
        frame, aim = frame + length, following
    return np.clip(target - pose[:, :2], -GAZE_LIMIT, GAZE_LIMIT).astype(np.float32)


def _blink(seed: int, frames: int) -> np.ndarray:
    """Lid closure (n 2): 12 .. 25 blinks a minute; 0.10 .. 0.15 s to shut, one frame shut, about 0.2 s to open."""
    rng = stream(seed, "blink")
    mean = 60.0 / rng.uniform(12.5, 24.0)
    lag = rng.uniform(-0.12, 0.12)  # frames by which one eye leads
    lids = np.zeros((frames, 2), np.float32)
    frame = int(rng.uniform(0.15, 1.0) * mean * VIDEO_FPS)
    while frame < frames + _BLINK_AHEAD:
        shut = rng.uniform(2.5, 3.7)
        opened = rng.uniform(4.5, 6.0)
        time = np.arange(frames)[:, None] - frame - np.array([0.0, lag])
        closing = np.clip(1 + time / shut, 0, 1)
        opening = np.clip(1 - (time - 0.8) / opened, 0, 1)
        lid = np.minimum(_ease(closing), opening * opening * (3 - 2 * opening))
        lids = np.maximum(lids, np.where(np.abs(time) < 0.5, 1.0, lid))
        frame += max(14, int(rng.gamma(4.0, mean / 4.0) * VIDEO_FPS))
    return lids.astype(np.float32)


def _ease(x: np.ndarray) -> np.ndarray:
    return x * x * (3 - 2 * x)


def motion(seed: int, frames: int) -> Motion:
    """The movement of a clip of `frames` frames at 25 a second, whatever is said."""
    temperament = stream(seed, "temperament")
    liveliness, warmth, tension = temperament.uniform(0.45, 1.5), temperament.beta(1.2, 2.5), temperament.beta(1.2, 4.0)
    breaths = temperament.uniform(0.2, 0.32)  # a second
    pose, translation = _pose(seed, frames, liveliness)
    seconds = np.arange(frames) / VIDEO_FPS
    phase = breaths * seconds + temperament.random() + drift(stream(seed, "breath"), frames, 4.0, 0.04)
    breath = (0.5 - 0.5 * np.cos(2 * np.pi * phase)) ** 1.3
    translation[:, 1] += (0.12 * breath).astype(np.float32)
    pose[:, 1] += (0.006 * breath).astype(np.float32)

    def mood(name: str, period: float, scale: float) -> np.ndarray:
        return drift(stream(seed, f"mood {name}"), frames, period, scale)

    return Motion(
        pose=np.clip(pose, [-0.6, -0.3, -0.25], [0.6, 0.3, 0.25]).astype(np.float32),
        translation=translation,
        gaze=_gaze(seed, frames, pose),
        blink=_blink(seed, frames),
        brow_raise=np.clip(0.3 * (warmth - 0.3) + mood("raise", 1.4, 0.14 * liveliness), -0.5, 1).astype(np.float32),
        brow_knit=np.clip(0.5 * tension - 0.05 + mood("knit", 2.2, 0.1), 0, 1).astype(np.float32),
        smile=np.clip(0.34 * warmth + mood("smile", 2.5, 0.06), 0, 0.4).astype(np.float32),
        squint=np.clip(0.25 * tension + 0.12 * warmth + mood("squint", 1.8, 0.05), 0, 0.5).astype(np.float32),
        breath=breath.astype(np.float32),
    )


def speech_gestures(seed: int, envelope: np.ndarray) -> Motion:
    """What speech adds to `motion`: offsets driven by the loudness per frame (float32 n, 0 .. 1); exactly zero for silence.

    Stressed moments (peaks of loudness) get a nod and sometimes a lift of the brows; louder passages bring the head a little forward.
    """
    rng = stream(seed, "gestures")
    strength = rng.uniform(0.3, 1.3)
    loudness = np.clip(np.asarray(envelope, np.float32), 0, 1)
    frames = len(loudness)
    smooth, slow = _smoothed(loudness, 9), _smoothed(loudness, 33)
    nod, tilt, brow = np.zeros(frames), np.zeros(frames), np.zeros(frames)
    time = np.arange(frames)
    last = -100
    for peak in range(1, frames - 1):
        rising = smooth[peak - 1] < smooth[peak] >= smooth[peak + 1]
        if not rising or smooth[peak] < slow[peak] * 1.1 or peak - last < 7:
            continue
        size, side, lift = rng.uniform(0.2, 1.0), rng.normal(0, 0.35), rng.random() < 0.35
        beat = smooth[peak] * size * np.maximum(1 - ((time - peak - 1) / 7.0) ** 2, 0) ** 2
        nod, tilt, brow, last = nod + beat, tilt + side * beat, brow + lift * beat, peak
    pose = strength * np.stack([0.05 * tilt, -0.075 * nod + 0.02 * slow, 0.04 * tilt], -1)
    translation = strength * np.stack([0 * slow, -0.08 * nod, 0.5 * slow], -1)
    still = np.zeros((frames, 2), np.float32)
    gaze = -pose[:, :2]  # the eyes hold their target while the head beats
    zero = np.zeros(frames, np.float32)
    lift = (0.6 * strength * brow).astype(np.float32)
    return Motion(pose.astype(np.float32), translation.astype(np.float32), gaze.astype(np.float32), still, lift, zero, zero, zero, zero)


def _smoothed(values: np.ndarray, width: int) -> np.ndarray:
    """Values (n) averaged over a raised cosine of `width` frames; as many, however few they are."""
    window = np.hanning(width)
    return np.convolve(np.pad(values, width // 2), window / window.sum(), "valid")


def add(base: Motion, offset: Motion) -> Motion:
    """The sum of a movement and offsets of the same length, cut to the ranges of `Motion`."""
    total = {field.name: getattr(base, field.name) + getattr(offset, field.name) for field in fields(Motion)}
    limits = {"gaze": (-GAZE_LIMIT, GAZE_LIMIT), "blink": (0, 1), "brow_raise": (-0.5, 1), "brow_knit": (0, 1), "smile": (0, 0.4)}
    limits |= {"squint": (0, 0.5), "breath": (0, 1)}
    for name, (low, high) in limits.items():
        total[name] = np.clip(total[name], low, high)
    return Motion(**total)


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
