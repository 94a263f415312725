"""The plane on which the skin is drawn: where each feature of the average face lies, in cm.

The skin is one sheet. Its plane (s, t) is the picture plane of the average adult face seen from the front: s runs to the right and equals x
as far as the outer corners of the eyes, from there it wraps around the side of the head; t runs up and equals y on the face, further up it
follows the skull to the crown, further down the throat. The sheet has holes: the two eye openings and the slit between the lips.
Every identity moves the same sheet in space, so that a texture drawn at the mouth here lies on the mouth of everybody.

Sizes: adult averages of craniofacial anthropometry (Farkas, Anthropometry of the Head and Face, 2nd ed. 1994), women and men pooled.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.spatial import Delaunay, cKDTree

from embedded.talking_heads.skull import S_BACK, T_CROWN, T_NECK

# Extent of textures over the plane
S_LIMIT = 16.0  # the texture covers s in [-16, 16]: from ear to ear and some way behind
T_TOP, T_BOTTOM = 17.0, -15.0  # and t from the crown to the throat

# Features (right half of the picture; the left mirrors them)
PUPIL = (3.15, 0.0)
INNER_CANTHUS = (1.68, -0.12)
OUTER_CANTHUS = (4.55, 0.12)
EYE_MIDDLE, EYE_HALF = (INNER_CANTHUS[0] + OUTER_CANTHUS[0]) / 2, (OUTER_CANTHUS[0] - INNER_CANTHUS[0]) / 2
EYE_TOP, EYE_BOTTOM = (3.1, 0.52), (3.2, -0.52)  # middle of the lid margins, eye open
BROW = ((1.2, 1.55), (2.3, 1.85), (3.5, 2.1), (4.6, 1.95), (5.45, 1.45))  # middle line of the brow, from the nose outwards
NOSE_TIP = (0.0, -3.55)
ALA = (1.72, -3.85)  # the widest point of the nostril's wing
NOSTRIL = (0.72, -4.2)
SUBNASALE = (0.0, -4.55)
MOUTH_CORNER = (2.55, -6.6)
CHIN = (0.0, -9.9)  # the foremost point of the chin
MENTON = (0.0, -11.3)  # the lowest
CHEEKBONE = (5.4, -1.9)
EAR = (10.6, -1.0)  # the ear canal; the ear is attached from t = -3.6 to t = 2
HAIRLINE = ((0.0, 6.7), (3.0, 6.5), (5.2, 5.2), (6.2, 3.2), (7.4, 1.6), (8.3, -0.6))  # average, from the middle to the sideburn


def to_uv(s: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Plane coordinates in cm -> texture coordinates (... 2) in [0, 1], v downwards."""
    return np.stack([(s + S_LIMIT) / (2 * S_LIMIT), (T_TOP - t) / (T_TOP - T_BOTTOM)], -1).astype(np.float32)


def plane(size: int) -> tuple[np.ndarray, np.ndarray]:
    """s and t (float32 size size) at the texel centres of a square texture over the plane."""
    middle = (np.arange(size, dtype=np.float32) + 0.5) / size
    s = 2 * S_LIMIT * middle - S_LIMIT
    t = T_TOP - (T_TOP - T_BOTTOM) * middle
    return np.broadcast_to(s[None], (size, size)), np.broadcast_to(t[:, None], (size, size))


FOCUS = MOUTH_CORNER[0]  # the mouth's corners are the foci of its elliptic coordinates, the slit lies between them
MOUTH_T = MOUTH_CORNER[1]
MOUTH_ANGLES = 84  # vertices in a ring around the mouth; the first is the left corner of the picture's right half
MOUTH_RINGS = np.array([0.0, 0.022, 0.05, 0.085, 0.125, 0.17, 0.215, 0.26, 0.305, 0.35, 0.4, 0.46])
INNER_RINGS = 5  # rings of wet lip behind the line where the lips meet
_HOLE = 0.14  # elliptic radius of the hole that the mouth is opened to for triangulation
EYE_ANGLES = 56
# cm outside the lid margin; two at 0: its inner and outer edge
EYE_RINGS = np.array([0.0, 0.0, 0.07, 0.15, 0.24, 0.34, 0.46, 0.6, 0.78, 1.0, 1.25])


@dataclass(frozen=True)
class SkinMesh:
    """The skin's vertices and triangles, the same for everybody."""

    st: np.ndarray  # float64 v 2, template plane
    faces: np.ndarray  # int32 f 3, counter-clockwise from outside
    mouth: np.ndarray  # int32 r a: vertices of the rings around the mouth; rows 0 .. INNER_RINGS-1 lie inside, deepest first
    eyes: tuple[np.ndarray, np.ndarray]  # int32 r a each: rings around the left (x < 0) and the right eye, from the lid margin outwards
    mu: np.ndarray  # float64 v, elliptic radius around the mouth: 0 on the slit
    alpha: np.ndarray  # float64 v, elliptic angle: 0 at the right corner, pi/2 above


def eye_outline(angle: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """s and t of the lid margin of the right eye, open; angle 0 is the outer corner, pi/2 the top."""
    u = np.cos(angle)
    line = INNER_CANTHUS[1] + (OUTER_CANTHUS[1] - INNER_CANTHUS[1]) * (u + 1) / 2
    return EYE_MIDDLE + EYE_HALF * u, line + lid_height(u, np.sin(angle) >= 0) * np.sign(np.sin(angle) + 1e-12)


def lid_height(u: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """Height (cm, >= 0) of the lid margin over the line between the corners; u = -1 is the inner corner, 1 the outer."""
    rise, fall = EYE_TOP[1], -EYE_BOTTOM[1]
    arch_up = (1 - u * u) ** 0.72 * (1 - 0.16 * u)  # highest a little inwards of the middle
    arch_down = (1 - u * u) ** 0.85 * (1 + 0.22 * u)  # lowest a little outwards
    return np.where(upper, (rise + 0.02) * arch_up, (fall - 0.02) * arch_down)


def mouth_coordinates(s: np.ndarray, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Elliptic radius and angle around the slit of points of the plane."""
    place = np.arccosh(np.asarray((s + 1j * (t - MOUTH_T)) / FOCUS, np.complex128))
    mu, alpha = place.real, place.imag
    return np.abs(mu), np.where(mu < 0, -alpha, alpha)


@lru_cache(maxsize=1)
def skin_mesh() -> SkinMesh:
    """The one sheet that all heads share."""
    mouth_st, mouth_flat = _mouth_rings()
    right_st, right_flat = _eye_rings(1)
    left_st, left_flat = _eye_rings(-1)
    rings_st = np.concatenate([mouth_st, left_st, right_st])
    rings_flat = np.concatenate([mouth_flat, left_flat, right_flat])
    free = _free_points(rings_st)
    st, flat = np.concatenate([rings_st, free]), np.concatenate([rings_flat, free])
    triangles = _triangles(flat, len(mouth_st), len(left_st))
    count = (INNER_RINGS + len(MOUTH_RINGS)) * MOUTH_ANGLES
    eye_count = len(EYE_RINGS) * EYE_ANGLES
    mu, alpha = mouth_coordinates(st[:, 0], st[:, 1])
    index = np.arange(len(st), dtype=np.int32)
    mouth = index[:count].reshape(-1, MOUTH_ANGLES)
    angles = np.broadcast_to(_ring_angles(MOUTH_ANGLES), mouth.shape)
    alpha[mouth] = angles  # on the slit itself the plane cannot tell the upper lip from the lower
    mu[mouth[:INNER_RINGS]] = 0.0
    left = index[count : count + eye_count].reshape(-1, EYE_ANGLES)
    right = index[count + eye_count : count + 2 * eye_count].reshape(-1, EYE_ANGLES)
    return SkinMesh(st, triangles, mouth, (left, right), mu, alpha)


def _ring_angles(count: int) -> np.ndarray:
    return np.linspace(0, 2 * np.pi, count, endpoint=False)


def _mouth_rings() -> tuple[np.ndarray, np.ndarray]:
    """Rings around the mouth: on the plane, and flattened with the mouth opened so that they can be triangulated (n 2 each)."""
    angle = _ring_angles(MOUTH_ANGLES)[None]
    mu = np.concatenate([np.zeros(INNER_RINGS), MOUTH_RINGS])[:, None]
    st = np.stack([FOCUS * np.cosh(mu) * np.cos(angle), FOCUS * np.sinh(mu) * np.sin(angle) + MOUTH_T], -1)
    opened = np.concatenate([np.linspace(-0.11, -0.02, INNER_RINGS), MOUTH_RINGS])[:, None] + _HOLE  # rings in the widened hole
    flat = np.stack([FOCUS * np.cosh(opened) * np.cos(angle), FOCUS * np.sinh(opened) * np.sin(angle) + MOUTH_T], -1)
    return st.reshape(-1, 2), flat.reshape(-1, 2)


def _eye_rings(side: int) -> tuple[np.ndarray, np.ndarray]:
    """Rings around one eye, like `_mouth_rings`."""
    angle = _ring_angles(EYE_ANGLES)
    s, t = eye_outline(angle)
    middle = np.array([EYE_MIDDLE, 0.0])
    outward = np.stack([s, t], -1) - middle
    outward[:, 1] += 0.25 * np.sin(angle)
    outward /= np.linalg.norm(outward, axis=1, keepdims=True)
    st = np.stack([s, t], -1)[None] + EYE_RINGS[:, None, None] * outward[None]
    flat = st.copy()
    flat[0] = middle + 0.9 * (st[0] - middle)
    mirror = np.array([side, 1.0])
    return (st * mirror).reshape(-1, 2), (flat * mirror).reshape(-1, 2)


def _free_points(rings: np.ndarray) -> np.ndarray:
    """Points of the rest of the sheet: grids that grow coarser away from nose, face and front, clear of the rings (n 2)."""
    tree = cKDTree(rings)
    kept: list[np.ndarray] = []
    levels = (
        (0.115, (-2.07, 2.07), (-5.175, -2.99)),
        (0.21, (-2.52, 2.52), (-5.25, 1.05)),
        (0.23, (-3.68, 3.68), (-9.2, -4.6)),
        (0.42, (-8.4, 8.4), (-12.6, 7.14)),
        (0.85, (-13.6, 13.6), (T_NECK + 0.4, 11.05)),
        (1.3, (-S_BACK, S_BACK), (T_NECK, T_CROWN)),
    )
    inside = np.zeros((0, 2))
    for step, across, along in levels:
        columns = np.linspace(*across, round((across[1] - across[0]) / step) + 1)
        rows = np.linspace(*along, round((along[1] - along[0]) / step) + 1)
        points = np.stack(np.meshgrid(columns, rows), -1).reshape(-1, 2)
        if len(inside):
            points = points[cKDTree(inside).query(points)[0] > 0.8 * step]
        points = points[(tree.query(points)[0] > 0.75 * min(step, 0.42)) & ~_inside_rings(points)]
        kept.append(points)
        inside = np.concatenate(kept)
    return inside


def _inside_rings(points: np.ndarray) -> np.ndarray:
    """Which points lie within the outermost rings of the mouth or an eye."""
    mu, _ = mouth_coordinates(points[:, 0], points[:, 1])
    reach = EYE_RINGS[-1] + 0.1
    eye = ((np.abs(points[:, 0]) - EYE_MIDDLE) / (EYE_HALF + reach)) ** 2 + (points[:, 1] / (EYE_TOP[1] + reach)) ** 2
    return (mu < MOUTH_RINGS[-1] + 0.03) | (eye < 1)


def _triangles(flat: np.ndarray, mouth_count: int, eye_count: int) -> np.ndarray:
    """Delaunay triangles of the flattened sheet without those that span the holes (int32 f 3)."""
    pushed = flat.copy()
    outside = slice(mouth_count + 2 * eye_count, None)
    pushed[outside] = _make_room(flat[outside])
    pushed[mouth_count:][: 2 * eye_count] = _make_room(flat[mouth_count:][: 2 * eye_count])
    simplices = Delaunay(pushed).simplices
    a, b, c = (pushed[simplices[:, k]] for k in range(3))
    turn = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])
    simplices = np.where((turn < 0)[:, None], simplices[:, [0, 2, 1]], simplices)
    inner_mouth = (simplices < MOUTH_ANGLES).all(1)
    eye = (simplices - mouth_count) // EYE_ANGLES
    inner_eye = (simplices >= mouth_count).all(1) & ((eye == 0).all(1) | (eye == len(EYE_RINGS)).all(1))
    on_rim = (np.abs(flat[:, 0]) > S_BACK - 1e-6) | (flat[:, 1] > T_CROWN - 1e-6) | (flat[:, 1] < T_NECK + 1e-6)
    along_rim = on_rim[simplices].all(1)  # without area on the plane, but not in space
    return simplices[~inner_mouth & ~inner_eye & ~along_rim].astype(np.int32)


def _make_room(points: np.ndarray) -> np.ndarray:
    """Points around the mouth moved outwards in elliptic radius as the mouth's own rings were."""
    mu, alpha = mouth_coordinates(points[:, 0], points[:, 1])
    wider = mu + _HOLE * np.exp(-np.maximum(mu - MOUTH_RINGS[-1], 0) / 0.6)
    return np.stack([FOCUS * np.cosh(wider) * np.cos(alpha), FOCUS * np.sinh(wider) * np.sin(alpha) + MOUTH_T], -1)
