"""The lips at rest: the red with its border, the line where they meet, and the wet inner side."""

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import PchipInterpolator

from preprocess.talking_heads.anatomy.sheet import FOCUS, INNER_RINGS, MOUTH_T, Sheet
from preprocess.talking_heads.curves import bump, smooth

# Height of the red over (under) the line where the lips meet, along |s| / half the mouth's width
_UPPER_RED = PchipInterpolator([0, 0.12, 0.215, 0.4, 0.6, 0.8, 0.92, 1.0], [0.73, 0.80, 0.88, 0.76, 0.55, 0.29, 0.12, 0.0])
_LOWER_RED = PchipInterpolator([0, 0.2, 0.4, 0.6, 0.8, 0.92, 1.0], [1.02, 1.0, 0.90, 0.70, 0.38, 0.15, 0.0])
# Forward bulge over the head's surface along the share of the red: 0 where the lips meet, 1 at the border
_UPPER_BULGE = PchipInterpolator(
    [0, 0.15, 0.35, 0.6, 0.85, 1.0, 1.12, 1.4, 1.9, 2.6, 3.2], [0.26, 0.44, 0.62, 0.70, 0.68, 0.63, 0.55, 0.46, 0.34, 0.14, 0.0]
)
_LOWER_BULGE = PchipInterpolator(
    [0, 0.15, 0.35, 0.6, 0.82, 1.0, 1.15, 1.45, 1.9, 2.6], [0.24, 0.42, 0.64, 0.72, 0.64, 0.46, 0.30, 0.12, 0.02, 0.0]
)


@dataclass(frozen=True)
class LipShape:
    """How a mouth differs from the average."""

    width: float = 1.0
    upper: float = 1.0  # factors on the height of the red
    lower: float = 1.0
    bow: float = 1.0  # depth of the dip in the upper border
    pout: float = 1.0  # factor on the forward bulge
    corner: float = 0.0  # cm: the corners higher
    down: float = 0.0  # cm: the whole mouth lower


def red_height(s: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """Height in cm of the red of the lip on the template plane over (under) the slit at s."""
    u = np.clip(np.abs(s) / FOCUS, 0, 1)
    return np.where(upper, _UPPER_RED(u), _LOWER_RED(u))


def red_share(mu: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """How far out of the slit points lie: 0 where the lips meet, 1 at the border of the red, growing beyond."""
    sine = np.abs(np.sin(alpha))
    height = red_height(1.03 * FOCUS * np.cos(alpha), np.sin(alpha) >= 0)
    border = np.arcsinh(height / np.maximum(FOCUS * sine, 1e-6))
    return mu / np.maximum(border, 0.035)


def raise_lips(shape: LipShape, sheet: Sheet) -> np.ndarray:
    """Displacements (v 3) in cm that make the closed lips."""
    s, t = sheet.st.T
    mu, alpha = sheet.mu, sheet.alpha
    share, upper = red_share(mu, alpha), np.sin(alpha) >= 0
    across = np.abs(np.sin(alpha)) ** 0.55
    bulge = np.where(upper, _UPPER_BULGE(np.clip(share, 0, 3.2)), _LOWER_BULGE(np.clip(share, 0, 2.6)))
    bulge *= np.where(np.abs(s) > 3.4, 0.0, 1.0)
    near = np.exp(-((mu / 0.75) ** 2))
    moved = np.zeros((len(s), 3))
    moved[:, 2] = shape.pout * bulge * (0.2 + 0.8 * across) * near**0.5
    moved[:, 2] += 0.06 * bump(s, 0.35) * bump(share - 0.55, 0.4) * upper  # the tubercle of the upper lip
    moved[:, 2] -= 0.14 * bump(np.abs(s) - FOCUS * 1.04, 0.32) * bump(t - MOUTH_T, 0.4)  # the dimple at the corners
    thick = np.where(upper, shape.upper, shape.lower) - 1
    reach = np.minimum(np.abs(t - MOUTH_T), 1.0) * np.exp(-((np.maximum(share - 1, 0) / 1.2) ** 2))
    moved[:, 1] = np.sign(np.sin(alpha)) * thick * reach
    moved[:, 1] -= (shape.bow - 1) * 0.12 * bump(s, 0.28) * bump(share - 1, 0.5) * upper
    wide = np.exp(-((mu / 0.95) ** 2))
    moved[:, 0] = s * (shape.width - 1) * wide
    edge = np.abs(np.cos(alpha)) ** 3
    moved[:, 1] += (shape.corner * edge + shape.down) * wide
    moved[:, 1] += 0.05 * bump(s, 0.5) * bump(mu, 0.03) - 0.05 * bump(np.abs(s) - 1.25, 0.6) * bump(mu, 0.06)  # the line is a bow, too
    return moved + _inner_side(sheet)


def _inner_side(sheet: Sheet) -> np.ndarray:
    """The wet rings behind the line where the lips meet: back, and apart above and below."""
    moved = np.zeros((len(sheet.st), 3))
    for ring in range(INNER_RINGS):
        deep = (INNER_RINGS - ring) / INNER_RINGS  # 1 at the deepest
        vertices = sheet.mouth[ring]
        sine = np.sin(sheet.alpha[vertices])
        moved[vertices, 2] = -0.14 * smooth(0, 0.3, deep) - 1.15 * deep**1.3
        moved[vertices, 1] = 0.62 * sine * deep**0.8
        moved[vertices, 0] = -0.12 * np.cos(sheet.alpha[vertices]) * deep
    return moved
