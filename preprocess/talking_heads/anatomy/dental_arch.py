"""Where teeth stand: the curve of the two dental arches and the size, place and irregularity of every crown.

Arch space: cm, origin at the edge of the upper central incisors, between them; x to the right of the picture, y up, z to the viewer.
Crown sizes: averages of Wheeler's Dental Anatomy (labial height, mesiodistal and labiolingual width).
"""

from dataclasses import dataclass

import numpy as np

from preprocess.talking_heads.traits import Traits, stream

TEETH = 7  # of one half of one jaw: central and lateral incisor, canine, two premolars, two molars
UPPER_WIDTH = (0.86, 0.67, 0.77, 0.70, 0.67, 1.02, 0.92)
UPPER_HEIGHT = (1.00, 0.88, 0.98, 0.84, 0.76, 0.72, 0.66)
UPPER_DEPTH = (0.68, 0.60, 0.78, 0.88, 0.88, 1.05, 1.05)
UPPER_EDGE = (0.0, 0.06, -0.02, 0.05, 0.06, 0.06, 0.06)  # how far the edge stays behind the line of the bite
LOWER_WIDTH = (0.53, 0.57, 0.67, 0.69, 0.70, 1.05, 1.00)
LOWER_HEIGHT = (0.88, 0.90, 1.00, 0.84, 0.78, 0.72, 0.66)
LOWER_DEPTH = (0.58, 0.62, 0.74, 0.76, 0.80, 1.00, 1.00)
EDGE_DEPTH = (0.17, 0.16, 0.22, 0.50, 0.54, 0.74, 0.74)  # thickness at the edge, or between the cusps
TIP = (0.02, 0.05, 0.20, 0.12, 0.08, 0.04, 0.04)  # how far the middle of the edge stands out before its ends
LEAN = (0.14, 0.12, 0.04, 0.0, -0.04, -0.08, -0.1)  # radians that the edge leans outwards
BITE_SLOPE = 0.10  # the line of the bite rises towards the back
CURVE_POWER = 2.8
OVERJET = 0.36  # upper incisor edges stand this far in front of the lower ones


@dataclass(frozen=True)
class Dentition:
    """What tells one person's teeth from another's."""

    seed: int
    size: float  # factor on all lengths, about 0.94 .. 1.06
    half_width: float  # cm between the middle and the outer face of the molars, at size 1
    overbite: float  # cm that the upper incisors cover of the lower ones
    irregularity: float  # 0 (straight) .. 1 (crooked)
    gap: float  # cm between the upper central incisors
    wear: float  # 0 .. 1: worn edges
    stain: float  # 0 (bleached) .. 1 (yellow-brown)
    missing: int  # index of the lost upper premolar or molar, counted from the left; -1: none
    gold: int  # index of the upper crown of gold, counted alike; -1: none


@dataclass(frozen=True)
class Crown:
    """One tooth, standing in arch space with its edge at `edge`."""

    edge: np.ndarray  # float 3, cm: middle of the outer face at the edge
    along: np.ndarray  # float 3, unit: along the arch, to the right of the picture
    out: np.ndarray  # float 3, unit: out of the mouth
    root: np.ndarray  # float 3, unit: from the edge to the neck
    width: float
    height: float  # from the edge to the gum
    depth: float  # labiolingual, at the neck
    edge_depth: float
    tip: float
    place: int  # 0 central incisor .. 6 second molar
    start: float  # where the tooth begins and ends along the arch
    end: float


def draw_dentition(traits: Traits) -> Dentition:
    """Teeth of a person: whiter and straighter for most young, worn and stained with age."""
    rng = stream(traits.seed, "dentition")
    age = float(np.clip((traits.age - 18) / 55, 0, 1))
    lost, gilded = rng.choice([2, 3, 4, 9, 10, 11], 2, replace=False)
    return Dentition(
        seed=traits.seed,
        size=float(np.clip(1.01 - 0.03 * traits.femininity + 0.025 * rng.normal(), 0.93, 1.07)),
        half_width=float(np.clip(2.85 + 0.1 * rng.normal(), 2.6, 3.1)),
        overbite=float(np.clip(0.2 + 0.05 * rng.normal(), 0.1, 0.3)),
        irregularity=float(rng.beta(1.3, 2.6)),
        gap=float(rng.uniform(0.05, 0.16)) if rng.random() < 0.08 else 0.0,
        wear=float(np.clip(0.15 + 0.6 * age + 0.15 * rng.normal(), 0, 1)),
        stain=float(np.clip(0.12 + 0.5 * age + 0.2 * rng.normal(), 0, 1)),
        missing=int(lost) if rng.random() < 0.02 + 0.07 * age else -1,
        gold=int(gilded) if rng.random() < 0.05 * age else -1,
    )


def arch_frames(position: np.ndarray, dentition: Dentition, lower: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points, directions along and out of the arch (each n 3) at arc lengths `position` (n, signed from the middle).

    The outline is z = -depth |x / half width|^p: flat at the incisors, straight at the molars.
    """
    half_width = (dentition.half_width - (0.22 if lower else 0.0)) * dentition.size
    depth = 4.5 * dentition.size
    x = np.linspace(0, 1.25 * half_width, 400)
    z = -depth * (x / half_width) ** CURVE_POWER
    length = np.concatenate([[0], np.cumsum(np.hypot(np.diff(x), np.diff(z)))])
    at = np.interp(np.abs(position), length, x)
    slope = -depth * CURVE_POWER / half_width * (at / half_width) ** (CURVE_POWER - 1) * np.sign(position)
    side = np.sign(position) * at
    forward = -depth * (at / half_width) ** CURVE_POWER
    points = np.stack([side, -BITE_SLOPE * forward, forward - (OVERJET if lower else 0.0)], -1)
    along = np.stack([np.ones_like(slope), np.zeros_like(slope), slope], -1)
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    out = np.stack([-along[:, 2], np.zeros_like(slope), along[:, 0]], -1)
    return points, along, out


def crowns(dentition: Dentition, lower: bool) -> list[Crown]:
    """The 14 crowns of one jaw at rest, from the left of the picture to the right; a missing one is among them."""
    rng = stream(dentition.seed, "crowns lower" if lower else "crowns upper")
    half = np.asarray(LOWER_WIDTH if lower else UPPER_WIDTH) * dentition.size
    place = np.concatenate([np.arange(TEETH)[::-1], np.arange(TEETH)])
    mirror = np.repeat([-1, 1], TEETH)
    ends = np.cumsum(half) + (0.0 if lower else 0.5 * dentition.gap)
    starts = ends - half
    centre = mirror * (0.5 * (starts + ends))[place]
    points, along, out = arch_frames(centre, dentition, lower)
    jitter = rng.normal(size=(2 * TEETH, 5)) * _looseness(dentition, lower)[place][:, None]
    return [
        _crown(dentition, lower, int(place[i]), int(mirror[i]), (points[i], along[i], out[i]), (starts, ends), jitter[i])
        for i in range(2 * TEETH)
    ]


def _looseness(dentition: Dentition, lower: bool) -> np.ndarray:
    """How far teeth stray (7): crowding shows at the front, and more below."""
    front = np.array([1.0, 1.2, 1.0, 0.6, 0.5, 0.4, 0.4])
    return front * (1.2 if lower else 0.8) * dentition.irregularity


def _crown(
    dentition: Dentition,
    lower: bool,
    place: int,
    mirror: int,
    frame: tuple[np.ndarray, np.ndarray, np.ndarray],
    span: tuple[np.ndarray, np.ndarray],
    jitter: np.ndarray,
) -> Crown:
    """One crown on its place of the arch, turned, tipped, moved in or out and lengthened by `jitter` (5, about -1 .. 1)."""
    point, along, out = frame
    turn, lean = 0.14 * jitter[0], LEAN[place] * (0.6 if lower else 1.0) + 0.05 * jitter[1]
    along, out = along * np.cos(turn) + out * np.sin(turn), out * np.cos(turn) - along * np.sin(turn)
    up = np.array([0.0, -1.0 if lower else 1.0, 0.0])
    root = up * np.cos(lean) - out * np.sin(lean)
    root = root * np.cos(0.04 * jitter[2]) + along * np.sin(0.04 * jitter[2])
    size = dentition.size
    if lower:
        cover = dentition.overbite * float(np.interp(place, [0, 2, 3, 4], [1.0, 0.85, 0.15, 0.0])) - 0.03 * (place > 2)
        edge = point + np.array([0.0, cover - 0.02 * place * (place < 3), 0.0])
        height = LOWER_HEIGHT[place] * size
    else:
        edge = point + up * (UPPER_EDGE[place] * size + 0.03 * jitter[3] + 0.06 * dentition.wear * (place in (0, 2)))
        height = (UPPER_HEIGHT[place] - UPPER_EDGE[place] - 0.06 * dentition.wear) * size
    depth = (LOWER_DEPTH if lower else UPPER_DEPTH)[place] * size
    inwards = min(0.035 * jitter[4], 0.0) if lower else max(0.035 * jitter[4], -0.01)
    starts, ends = span
    sides = sorted((mirror * float(starts[place]), mirror * float(ends[place])))
    return Crown(
        edge=edge + out * inwards,
        along=along,
        out=out,
        root=root / np.linalg.norm(root),
        width=float(ends[place] - starts[place]) * 0.985,
        height=height,
        depth=depth,
        edge_depth=EDGE_DEPTH[place] * size,
        tip=TIP[place] * size * (1 - 0.6 * dentition.wear),
        place=place,
        start=sides[0],
        end=sides[1],
    )
