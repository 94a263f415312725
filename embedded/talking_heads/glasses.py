"""Glasses: rims around two lens outlines, a bridge and temples to the ears, fitted to a face. The lenses themselves are clear."""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from embedded.talking_heads.solids import GOLD, SILVER, STEEL, Material, Mesh, ball, join, metal, tube
from embedded.talking_heads.traits import Traits, stream


@dataclass(frozen=True)
class FaceFit:
    """Where glasses rest, in cm of head space. Left and right are those of the picture."""

    pupil_left: np.ndarray  # float 3, the front of the eye
    pupil_right: np.ndarray
    nose_bridge: np.ndarray  # float 3, the skin on the ridge of the nose a little below the pupils' height
    ear_left: np.ndarray  # float 3, the top of the ear's root, where a temple lies
    ear_right: np.ndarray
    temple_width: float  # width of the head at the temples
    brow_y: float  # height of the middle of the brows


@dataclass(frozen=True)
class _Frame:
    """A model of frame; lengths in cm, of an average head."""

    squareness: float  # 2 an ellipse, 4 nearly a rectangle
    height: float  # half height of the lens over its half width
    upswept: float  # how far the outer upper corner rises, as with cat's eyes
    narrowing: float  # by how much the lower half is narrower, as with wayfarers
    rim: float  # half width of the rim seen from the front
    depth: float  # half thickness of the rim
    lower_rim: bool


_FRAMES = {
    "round": _Frame(2.0, 0.92, 0.0, 0.0, 0.10, 0.11, True),
    "thin round": _Frame(2.1, 0.88, 0.0, 0.04, 0.045, 0.05, True),
    "rectangle": _Frame(4.2, 0.62, 0.03, 0.04, 0.12, 0.14, True),
    "thin rectangle": _Frame(3.8, 0.62, 0.0, 0.05, 0.05, 0.055, True),
    "half rim": _Frame(3.6, 0.6, 0.02, 0.05, 0.075, 0.08, False),
    "wayfarer": _Frame(3.2, 0.76, 0.1, 0.14, 0.19, 0.19, True),
    "thick": _Frame(3.4, 0.78, 0.04, 0.08, 0.24, 0.2, True),
    "cat eye": _Frame(2.7, 0.74, 0.24, 0.1, 0.14, 0.15, True),
    "panto": _Frame(2.4, 0.86, 0.03, 0.1, 0.12, 0.13, True),
}
_ACETATE = np.array(
    [[0.012, 0.012, 0.013], [0.05, 0.025, 0.013], [0.015, 0.025, 0.06], [0.09, 0.015, 0.02], [0.28, 0.27, 0.26], [0.16, 0.10, 0.05]]
)


def wears_glasses(traits: Traits) -> bool:
    """Whether a person wears glasses: about one in six of the young, four in ten of the old."""
    chance = 0.15 + 0.27 * float(np.clip((traits.age - 40) / 25, 0, 1))
    return bool(stream(traits.seed, "wears glasses").random() < chance)


def glasses(traits: Traits, fit: FaceFit) -> Mesh | None:
    """The glasses of a person, in head space, or None for those who wear none."""
    return make_glasses(traits.seed, traits.femininity, fit) if wears_glasses(traits) else None


def make_glasses(seed: int, femininity: float, fit: FaceFit) -> Mesh:
    """Glasses of a seed's shape and colour on a face."""
    rng = stream(seed, "glasses")
    names = list(_FRAMES)
    weights = np.array([1.0, 1.2, 1.4, 1.3, 0.8, 1.3, 0.9, 1.6 * femininity, 1.1])
    frame = _FRAMES[str(rng.choice(names, p=weights / weights.sum()))]
    material = _material(rng, thin=frame.rim < 0.08)
    gap = rng.uniform(0.85, 1.0)  # half of the bridge between the lenses
    half = float(np.clip((0.5 * fit.temple_width - gap - 0.45) / 2 * rng.uniform(0.95, 1.03), 2.15, 2.95))
    middle = 0.5 * (fit.pupil_left[1] + fit.pupil_right[1]) - 0.32
    top = min(middle + half * frame.height, fit.brow_y + 0.25)
    high = top - middle
    front = max(0.5 * (fit.pupil_left[2] + fit.pupil_right[2]) + 1.2, fit.nose_bridge[2] + 0.2)
    axis = 0.5 * (fit.pupil_left[0] + fit.pupil_right[0])

    def to_face(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        z = front - 0.016 * x * x + 0.1 * (y - middle)  # bent around the face, lower edge nearer to the cheeks
        return np.stack(np.broadcast_arrays(axis + x, y, z), -1)

    parts = []
    for side in (-1.0, 1.0):
        x, y = _outline(frame, side, gap + half, middle, half, high)
        parts.append(_rim(frame, to_face(x, y), material))
        parts.append(_temple(frame, side, to_face(np.array(side * (gap + 2 * half)), np.array(middle + 0.55 * high)), fit, material))
        if frame.rim < 0.08:
            parts.append(
                ball(to_face(np.array(side * 0.75), np.array(middle - 0.5)) - [0, 0, 0.55], np.array([0.12, 0.32, 0.16]), metal(SILVER))
            )
    parts.append(_bridge(frame, to_face, gap, middle, high, material))
    return join(parts)


def _material(rng: np.random.Generator, thin: bool) -> Material:
    """Metal for thin frames; black, coloured or tortoise-shell acetate for thick ones."""
    if thin:
        return metal(np.array([GOLD, SILVER, STEEL, STEEL, np.full(3, 0.03)])[rng.integers(5)])
    colour = _ACETATE[min(int(len(_ACETATE) * rng.beta(0.8, 1.6)), len(_ACETATE) - 1)]
    albedo = np.tile(colour, (16, 128, 1))
    if rng.random() < 0.3:  # tortoise shell
        spots = cv2.resize(rng.standard_normal((4, 40), np.float32), (128, 16), interpolation=cv2.INTER_CUBIC)
        albedo = np.where(spots[..., None] > 0.2, [0.20, 0.085, 0.02], [0.03, 0.014, 0.008])
    return Material(albedo.astype(np.float32), roughness=0.16, specular=0.05)


def _outline(frame: _Frame, side: float, centre: float, middle: float, half: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """x and y (44 each) of a lens' edge in the plane of the frame, counter-clockwise seen from the front."""
    angle = np.linspace(0, 2 * np.pi, 44, endpoint=False)
    cosine, sine = np.cos(angle), np.sin(angle)
    reach = (np.abs(cosine) ** frame.squareness + np.abs(sine) ** frame.squareness) ** (-1 / frame.squareness)
    outward, up = reach * cosine * side, reach * sine
    x = half * outward * (1 - frame.narrowing * np.clip(-up, 0, 1) + 0.3 * frame.upswept * np.clip(up, 0, 1))
    y = high * (up + frame.upswept * np.clip(outward + 0.1, 0, 1) ** 2 * np.clip(up + 0.35, 0, 1))
    return side * centre + side * x, middle + y


def _rim(frame: _Frame, edge: np.ndarray, material: Material) -> Mesh:
    """The rim around a lens; of half rims only the upper part, the lower is a thread."""
    across = edge - edge.mean(0)
    if frame.lower_rim:
        return tube(edge, across, frame.rim, frame.depth, material, closed=True)
    upper = slice(0, 23)  # from one side over the top to the other
    thread = Material(np.full((1, 1, 3), 0.5, np.float32), roughness=0.2)
    lower = np.r_[22:44, 0]
    return join(
        [
            tube(edge[upper], across[upper], frame.rim, frame.depth, material, closed=False),
            tube(edge[lower], across[lower], 0.018, 0.03, thread, closed=False, sides=5),
        ]
    )


def _bridge(
    frame: _Frame, to_face: Callable[[np.ndarray, np.ndarray], np.ndarray], gap: float, middle: float, high: float, material: Material
) -> Mesh:
    """The arch over the nose."""
    x = np.linspace(-gap - 0.12, gap + 0.12, 11)
    lift = 0.16 + 0.22 * (1 - (x / gap) ** 2) * (0.5 if frame.rim > 0.15 else 1.0)
    path = to_face(x, middle + high * lift) + np.array([0, 0, 0.06])
    return tube(path, np.array([0.0, 1.0, 0.0]), max(frame.rim, 0.06), max(0.8 * frame.depth, 0.06), material, closed=False)


def _temple(frame: _Frame, side: float, hinge: np.ndarray, fit: FaceFit, material: Material) -> Mesh:
    """From the hinge back to the ear and down behind it."""
    ear = np.asarray(fit.ear_left if side < 0 else fit.ear_right, np.float64)
    knee = hinge + np.array([side * 0.28, 0.0, -0.45])
    behind = ear + np.array([[0.0, 0.0, 0.0], [-side * 0.25, -0.9, -1.1], [-side * 0.55, -2.8, -1.9]])
    points = np.stack([hinge, knee, 0.5 * (knee + ear) + np.array([side * 0.1, 0.1, 0.0]), *behind])
    share = np.linspace(0, len(points) - 1, 20)
    path = np.stack([np.interp(share, np.arange(len(points)), points[:, axis]) for axis in range(3)], -1)
    path[1:-1] = 0.25 * path[:-2] + 0.5 * path[1:-1] + 0.25 * path[2:]
    return tube(
        path, np.array([0.0, 1.0, 0.15]), max(1.15 * frame.rim, 0.06), max(0.6 * frame.depth, 0.05), material, closed=False, sides=6
    )
