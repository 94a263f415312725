"""The head under the features: one smooth surface through measured points, from the crown to the base of the neck.

Rows run down the head at heights t of the template plane, columns around it at s; each entry is where that point of the average adult lies
in head space (cm). Face rows follow the averages of Farkas (Anthropometry of the Head and Face, 1994); depths follow skull profiles.
"""

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import RectBivariateSpline

from embedded.talking_heads.traits import bump, smooth

COLUMNS = np.array([0.0, 1.6, 3.2, 4.8, 6.4, 8.4, 10.6, 13.5, 17.0, 21.0, 24.0])  # s of the columns; the last is the middle of the back
S_BACK = float(COLUMNS[-1])
T_CROWN, T_NECK = 17.0, -21.5

# Height t of a row on the plane; then where the points of its columns lie: y (one for all or one each), x, z
_ROWS: tuple[tuple[float, float | tuple[float, ...], tuple[float, ...], tuple[float, ...]], ...] = (
    (17, 11.9, (0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0), (-1.2, -1.2, -1.2, -1.2, -1.2, -1.2, -1.2, -1.2, -1.2, -1.2, -1.2)),
    (14.6, 11.5, (0, 0.75, 1.4, 1.9, 2.25, 2.45, 2.45, 2.2, 1.7, 0.85, 0), (1.2, 1.15, 0.9, 0.5, 0, -0.6, -1.3, -2.1, -2.9, -3.45, -3.6)),
    (12, 10.55, (0, 1.3, 2.5, 3.45, 4.1, 4.5, 4.55, 4.25, 3.3, 1.7, 0), (3.8, 3.7, 3.35, 2.6, 1.5, 0, -1.6, -3.4, -5.1, -6.2, -6.4)),
    (9.2, 8.9, (0, 1.52, 2.95, 4.2, 5.2, 5.95, 6.15, 5.98, 4.9, 2.55, 0), (6.8, 6.7, 6.2, 5.2, 3.5, 1.2, -1.3, -3.8, -6.4, -8.1, -8.45)),
    (6.7, 6.65,
     (0, 1.58, 3.12, 4.58, 5.88, 6.8, 7.1, 6.98, 5.82, 3.05, 0), (8.65, 8.5, 8, 6.95, 4.95, 2.05, -0.9, -3.7, -6.9, -8.95, -9.35)),
    (4.5, 4.5, (0, 1.6, 3.2, 4.75, 6.2, 7.15, 7.45, 7.4, 6.2, 3.25, 0), (9.5, 9.38, 8.9, 7.8, 5.45, 2.35, -0.6, -3.5, -7, -9.3, -9.75)),
    (2.3, 2.3, (0, 1.6, 3.2, 4.8, 6.25, 7.05, 7.35, 7.4, 6.25, 3.25, 0), (9.7, 9.62, 9.25, 8.1, 5.4, 2.65, -0.3, -3.2, -6.9, -9.4, -9.85)),
    (0, 0, (0, 1.6, 3.2, 4.78, 6.3, 6.95, 7.2, 7.3, 6.2, 3.2, 0), (8.95, 8.45, 8.05, 7.3, 5.05, 2.65, 0, -3, -6.6, -9.15, -9.6)),
    (-1.7, -1.7, (0, 1.6, 3.2, 4.8, 6.35, 6.95, 7.1, 7.15, 6.05, 3.1, 0), (8.85, 8.85, 8.72, 7.85, 5.55, 2.85, 0, -2.9, -6.2, -8.6, -9.1)),
    (-3.2, -3.2, (0, 1.6, 3.2, 4.78, 6.25, 6.8, 6.9, 6.75, 5.75, 3, 0), (9.2, 9.15, 8.75, 7.7, 5.45, 2.8, -0.1, -2.8, -5.8, -8, -8.45)),
    (-4.55, -4.55,
     (0, 1.6, 3.2, 4.72, 6.05, 6.55, 6.6, 6.4, 5.35, 2.8, 0), (9.85, 9.5, 8.72, 7.5, 5.3, 2.7, -0.2, -2.7, -5.35, -7.3, -7.7)),
    (-5.6, -5.6,
     (0, 1.6, 3.15, 4.6, 5.85, 6.3, 6.3, 6.05, 5.05, 2.7, 0), (10.05, 9.65, 8.72, 7.32, 5.2, 2.65, -0.2, -2.6, -5, -6.8, -7.15)),
    (-6.6, (-6.6, -6.6, -6.6, -6.55, -6.4, -6.2, -6.3, -6.5, -6.6, -6.6, -6.6),
     (0, 1.6, 3.1, 4.5, 5.65, 6.05, 6, 5.8, 4.9, 2.6, 0), (10, 9.6, 8.6, 7.15, 5.1, 2.6, -0.1, -2.5, -4.8, -6.5, -6.85)),
    (-7.6, (-7.6, -7.6, -7.55, -7.4, -7.1, -6.8, -6.95, -7.3, -7.6, -7.6, -7.6),
     (0, 1.6, 3.05, 4.35, 5.4, 5.78, 5.65, 5.5, 4.75, 2.55, 0), (9.85, 9.45, 8.45, 7, 5, 2.55, 0, -2.4, -4.7, -6.4, -6.75)),
    (-8.45, (-8.4, -8.4, -8.3, -8.05, -7.65, -7.3, -7.5, -8, -8.4, -8.4, -8.4),
     (0, 1.58, 2.98, 4.2, 5.15, 5.55, 5.4, 5.25, 4.65, 2.5, 0), (9.75, 9.35, 8.35, 6.85, 4.9, 2.5, 0.1, -2.3, -4.65, -6.35, -6.75)),
    (-9.9, (-9.85, -9.8, -9.6, -9.15, -8.55, -8.05, -8.35, -9, -9.6, -9.8, -9.9),
     (0, 1.55, 2.85, 3.98, 4.8, 5.2, 5.05, 5, 4.5, 2.45, 0), (10, 9.6, 8.35, 6.6, 4.75, 2.55, 0.25, -2.25, -4.65, -6.3, -6.7)),
    (-11.3, (-11.2, -11.1, -10.75, -10.1, -9.3, -8.75, -9.1, -9.95, -10.8, -11.2, -11.3),
     (0, 1.45, 2.65, 3.6, 4.32, 4.72, 4.75, 4.8, 4.35, 2.4, 0), (9.1, 8.75, 7.65, 6.1, 4.5, 2.6, 0.4, -2.15, -4.6, -6.3, -6.7)),
    (-12.6, (-11.85, -11.75, -11.45, -10.95, -10.3, -9.85, -10.2, -11.1, -12, -12.5, -12.6),
     (0, 1.4, 2.5, 3.35, 4, 4.4, 4.65, 4.75, 4.25, 2.35, 0), (6.9, 6.65, 5.95, 4.9, 3.75, 2.3, 0.35, -2.1, -4.6, -6.25, -6.65)),
    (-14, (-12.8, -12.75, -12.6, -12.35, -12, -11.8, -12.1, -12.8, -13.5, -13.9, -14),
     (0, 1.4, 2.55, 3.4, 4.1, 4.55, 4.75, 4.75, 4.2, 2.35, 0), (4.6, 4.5, 4.1, 3.4, 2.6, 1.5, 0, -2.2, -4.6, -6.2, -6.6)),
    (-16.2, (-14.9, -14.9, -14.85, -14.8, -14.75, -14.7, -14.8, -15, -15.2, -15.4, -15.4),
     (0, 1.4, 2.65, 3.6, 4.3, 4.75, 4.9, 4.8, 4.2, 2.3, 0), (3.9, 3.8, 3.4, 2.8, 1.95, 0.8, -0.6, -2.4, -4.6, -6.2, -6.5)),
    (-18.8, -17.5,
     (0, 1.4, 2.65, 3.6, 4.35, 4.8, 4.95, 4.85, 4.25, 2.3, 0), (3.8, 3.7, 3.3, 2.7, 1.85, 0.7, -0.7, -2.5, -4.65, -6.2, -6.5)),
    (-21.5, -20.2, (0, 1.4, 2.65, 3.6, 4.35, 4.8, 4.95, 4.85, 4.25, 2.3, 0), (3.7, 3.6, 3.2, 2.6, 1.75, 0.6, -0.8, -2.6, -4.7, -6.2, -6.5)),
)  # fmt: skip


@dataclass(frozen=True)
class SkullShape:
    """How a head differs from the average, in cm where nothing else is said."""

    width: float = 1.0  # factors on the whole skull
    depth: float = 1.0
    upper: float = 1.0  # face heights: hairline to brow, brow to the foot of the nose, the foot of the nose to the chin
    middle: float = 1.0
    lower: float = 1.0
    cheekbone: float = 0.0  # sideways
    cheek: float = 0.0  # fullness of the soft cheek, negative: hollow
    jaw: float = 0.0  # half width at the jaw angle
    jaw_drop: float = 0.0  # how far the jaw angle sits lower: a square jaw
    chin_width: float = 0.0
    chin_depth: float = 0.0
    chin_point: float = 0.0
    brow_ridge: float = 0.0
    forehead_slope: float = 0.0  # the hairline moves back
    temple: float = 0.0  # hollowness
    mouth_depth: float = 0.0  # the whole mouth forwards
    double_chin: float = 0.0
    neck: float = 1.0  # factor on the neck's radius


def surface(shape: SkullShape, s: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Points (n 3) of the head without nose, lids and lips at plane coordinates s, t (n)."""
    rows = sorted(_ROWS, key=lambda row: row[0])
    heights = np.array([row[0] for row in rows])
    net = np.stack([np.stack([x, np.broadcast_to(y, len(COLUMNS)), z], -1) for _, y, x, z in rows]).astype(np.float64)
    half = _moulded(net, shape)  # r c 3
    mirrored = half[:, -2:0:-1] * np.array([-1, 1, 1])
    around = np.concatenate([half, mirrored], 1)
    columns = np.concatenate([COLUMNS, 2 * S_BACK - COLUMNS[-2:0:-1]])
    columns, around = np.concatenate([columns - 2 * S_BACK, columns, columns + 2 * S_BACK]), np.concatenate([around] * 3, 1)
    where = np.mod(s, 2 * S_BACK)
    points = np.stack([RectBivariateSpline(heights, columns, around[..., axis]).ev(t, where) for axis in range(3)], -1)
    return points


def _moulded(net: np.ndarray, shape: SkullShape) -> np.ndarray:
    """The net of the average head with the differences of one head worked in (r c 3)."""
    x, y, z = (net[..., k].copy() for k in range(3))
    front = smooth(-1.0, 5.0, z)
    face = smooth(-14.5, -11.0, y)
    side = smooth(3.0, 6.0, x)
    moved_x = x * (1 + (shape.width - 1) * smooth(-13, -6, y)) * (1 + (shape.neck - 1) * smooth(-10.5, -13.5, y))
    moved_x += shape.cheekbone * side * bump(y + 1.9, 2.2) * smooth(0.0, 3.5, z)
    moved_x += shape.jaw * smooth(2.0, 5.0, x) * bump(y + 7.6, 2.6) * smooth(-3.0, 1.5, z)
    moved_x += shape.chin_width * bump(y + 10.4, 1.8) * bump(x - 2.2, 1.8) * front
    moved_x += shape.cheek * 0.45 * bump(y + 5.2, 2.6) * side * front
    moved_x -= shape.temple * bump(y - 2.2, 2.2) * bump(x - 6.3, 1.0) * front
    moved_z = z * (1 + (shape.depth - 1))
    moved_z += shape.cheek * 0.7 * bump(y + 5.2, 2.4) * bump(x - 4.4, 1.7) * front
    moved_z += shape.cheekbone * 0.5 * bump(y + 2.0, 1.6) * bump(x - 4.8, 1.6) * front
    moved_z += shape.chin_depth * bump(y + 10.2, 1.9) * bump(x, 3.2) * front
    moved_z += shape.brow_ridge * bump(y - 2.1, 1.1) * bump(x - 1.8, 3.2) * front
    moved_z -= shape.forehead_slope * smooth(2.5, 8.0, y) * front
    moved_z += shape.mouth_depth * bump(y + 6.4, 2.6) * bump(x, 3.4) * front
    moved_z += shape.double_chin * 1.2 * bump(y + 12.4, 1.6) * bump(x, 4.5) * front
    moved_z = np.where(y < -12.0, (moved_z + 1.2) * (1 + (shape.neck - 1) * smooth(-10.5, -13.5, y)) - 1.2, moved_z)
    # the thirds of the face are scaled about the pupils: brow and hairline upwards, nose and chin downwards
    moved_y = np.maximum(y - 2.3, 0) * shape.upper + np.clip(y, 0, 2.3) * (0.5 + 0.5 * shape.middle) + np.clip(y, -4.55, 0) * shape.middle
    moved_y += np.clip(y + 4.55, -6.9, 0) * shape.lower + np.minimum(y + 4.55 + 6.9, 0)
    moved_y -= shape.jaw_drop * bump(x - 5.0, 1.6) * bump(y + 8.2, 1.7) * smooth(-3.0, 1.5, z) * face
    moved_y -= shape.chin_point * bump(x, 1.6) * bump(y + 11.0, 1.6) * front
    moved_y -= shape.double_chin * 0.9 * bump(y + 12.2, 1.8) * bump(x, 4.0) * front
    return np.stack([moved_x, moved_y, moved_z], -1)
