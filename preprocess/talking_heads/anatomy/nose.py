"""The nose and the groove under it, raised over the head's surface on the template plane."""

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import PchipInterpolator

from preprocess.talking_heads.curves import bump, smooth

# Height of the ridge over the surface (cm) along t, and the half width of the ridge
_RIDGE = PchipInterpolator(
    [-5.45, -5.05, -4.75, -4.55, -4.4, -4.25, -4.05, -3.8, -3.5, -3.1, -2.5, -1.5, -0.6, 0.2, 0.8, 1.6],
    [0.0, 0.05, 0.22, 0.5, 1.0, 1.75, 2.35, 2.72, 2.86, 2.78, 2.45, 1.72, 1.05, 0.52, 0.22, 0.0],
)
_HALF_WIDTH = PchipInterpolator([-4.8, -4.2, -3.6, -3.0, -2.0, -1.0, 0.2, 1.6], [0.8, 1.0, 1.2, 1.16, 1.06, 0.92, 0.78, 1.1])


@dataclass(frozen=True)
class NoseShape:
    """How a nose differs from the average."""

    projection: float = 1.0  # factor on the height of the tip
    bridge: float = 1.0  # factor on the height of the bridge
    hump: float = 0.0  # cm: a convex (or hollow) back
    width: float = 1.0  # factor at the wings
    bridge_width: float = 1.0
    tip: float = 1.0  # factor on the breadth of the tip
    tip_up: float = 0.0  # cm: the tip is turned up
    wings: float = 1.0  # factor on the bulge of the wings
    bend: float = 0.0  # cm to one side
    philtrum: float = 1.0


def raise_nose(shape: NoseShape, s: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Displacements (n 3) in cm that make the nose at plane coordinates s, t (n)."""
    away = np.abs(s)
    tip_share = smooth(-0.5, -3.2, t)
    ridge = _RIDGE(np.clip(t, -5.45, 1.6)) * (shape.bridge + (shape.projection - shape.bridge) * tip_share)
    ridge = ridge + shape.hump * bump(t + 1.3, 0.95)
    half = _HALF_WIDTH(np.clip(t, -4.8, 1.6)) * (shape.bridge_width + (shape.tip - shape.bridge_width) * tip_share)
    back = ridge * np.exp(-((away / half) ** 2.2))
    ball = 0.2 * shape.tip * bump(away, 0.7) * bump(t + 3.55, 0.6)
    low, high = smooth(-4.72, -4.28, t), 1 - smooth(-3.9, -2.7, t)
    wing = 1.5 * shape.wings * shape.projection * np.exp(-((np.abs(away - 1.0) / 0.66) ** 3.4)) * low * high
    height = _smooth_maximum(back + ball, wing, 0.22)
    height -= 0.16 * bump(away - 1.84, 0.17) * bump(t + 3.95, 0.75)  # the groove around the wing
    height -= 0.7 * bump(away - 0.68, 0.25) * bump(t + 4.36, 0.16) * shape.projection  # the nostril
    height -= 0.1 * shape.philtrum * bump(away, 0.2) * bump(t + 5.2, 0.55)
    height += 0.07 * shape.philtrum * bump(away - 0.42, 0.2) * bump(t + 5.2, 0.6)
    height *= 1 - smooth(2.2, 2.6, away)
    moved = np.zeros((len(s), 3))
    share = np.clip(height / 2.4, 0, 1)
    at_wings = bump(t + 3.95, 1.0) * smooth(0.2, 1.3, away) * (1 - smooth(2.0, 3.0, away))
    moved[:, 0] = s * (shape.width - 1) * at_wings + shape.bend * share * smooth(0.6, -1.5, t)
    moved[:, 1] = shape.tip_up * bump(t + 3.7, 0.8) * bump(away, 1.0) - 0.16 * bump(t + 4.25, 0.3) * bump(away, 0.9)
    moved[:, 2] = height
    return moved


def _smooth_maximum(a: np.ndarray, b: np.ndarray, width: float) -> np.ndarray:
    """The larger of both, rounded where they meet."""
    return 0.5 * (a + b + np.sqrt((a - b) ** 2 + width**2)) - 0.5 * width
