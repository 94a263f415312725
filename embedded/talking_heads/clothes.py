"""What a person wears: the bust with a garment, and glasses.

The body below the neck is a distance field. A point of its front is named by (angle, down): angle 0 is the middle, pi / 2 the shoulder at
the right of the picture; down 0 lies on the neck, about 0.15 at its root, about 0.45 on the shoulder's edge and 1 at the lower end of the
bust, y = -47 cm. Necklines and collars are curves down(angle), and cloth is the same surface at a greater distance.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numba import njit
from scipy.interpolate import PchipInterpolator

from embedded.talking_heads.solids import Material, Mesh, grid_faces, join
from embedded.talking_heads.traits import Traits, smooth, stream, unit

NECK_Z = -1.5  # cm, the neck's axis
_START, _STEPS = 26.0, 70  # cm from the anchor of a ray, outside of everybody; and steps towards the surface
# Rays that find the surface: height of their anchor, how far the anchor moves out, elevation in degrees, by `down`
_DOWN = np.array([0.0, 0.15, 0.3, 0.45, 0.6, 1.0])
_SIDE_RAYS = ([-19.0, -24.0, -26.5, -27.5, -29.5, -47.0], [0.0, 4.5, 10.5, 13.0, 13.0, 13.0], [52.0, 78.0, 82.0, 42.0, 2.0, 0.0])
_FRONT_RAYS = ([-19.0, -21.5, -24.5, -28.0, -32.0, -47.0], [0.0] * 6, [30.0, 24.0, 16.0, 7.0, 0.0, 0.0])
_RAY_CURVES = [[PchipInterpolator(_DOWN, column) for column in table] for table in (_SIDE_RAYS, _FRONT_RAYS)]
_ANGLES = np.linspace(-2.2, 2.2, 57)  # radians: nothing is seen of the back
_TEXELS, _LEFT, _TOP, _WIDTH, _HEIGHT = 256, -25.0, -12.0, 50.0, 36.0  # of textures, and the part of the picture plane they cover, cm
_DYES = np.array(  # linear RGB: dark and neutral ones first
    [[0.012, 0.012, 0.014], [0.016, 0.024, 0.058], [0.055, 0.057, 0.062], [0.21, 0.21, 0.22], [0.74, 0.73, 0.70], [0.045, 0.075, 0.14],
     [0.42, 0.38, 0.30], [0.10, 0.065, 0.04], [0.055, 0.075, 0.045], [0.10, 0.014, 0.022], [0.26, 0.37, 0.52], [0.45, 0.30, 0.29],
     [0.033, 0.13, 0.12], [0.40, 0.050, 0.040], [0.52, 0.31, 0.055], [0.16, 0.24, 0.11], [0.16, 0.08, 0.20], [0.05, 0.18, 0.42]],
    np.float32,
)  # fmt: skip


@dataclass(frozen=True)
class _Garment:
    """A kind of garment; ranges of its neckline as seen from the front, in cm."""

    masculine: float  # how often masculine and feminine people wear it
    feminine: float
    half_width: tuple[float, float]  # from the middle to where the neckline crosses the shoulder
    depth: tuple[float, float]  # y of its deepest point
    point: float  # 1 a straight V, 2 a round scoop
    thick: float  # cm off the skin
    collar: bool = False


_GARMENTS = (
    _Garment(4.0, 2.5, (8.2, 9.4), (-22.4, -20.8), 2.0, 0.3),  # t-shirt
    _Garment(2.0, 2.0, (8.0, 8.6), (-21.5, -20.5), 2.0, 0.75),  # jumper
    _Garment(1.0, 2.2, (7.4, 8.6), (-28.5, -24.0), 1.0, 0.4),  # V-neck
    _Garment(0.0, 2.4, (8.5, 13.0), (-29.5, -23.5), 2.4, 0.2),  # dress
    _Garment(4.5, 2.0, (6.6, 6.8), (-26.0, -19.8), 1.0, 0.35, collar=True),  # shirt
)


@dataclass(frozen=True)
class Torso:
    """The body of a person as round cones that melt into each other."""

    cones: np.ndarray  # float32 c 8, cm: one end xyz and radius, other end xyz and radius
    melt: float = 1.9  # cm over which neighbours blend

    def surface(self, angle: np.ndarray, down: np.ndarray, distance: np.ndarray | float = 0.0) -> np.ndarray:
        """Points (float32 ... 3) at (angle, down), `distance` cm outside of the skin; the three broadcast."""
        angle, down, distance = np.broadcast_arrays(angle, down, distance)
        side = np.where(np.cos(angle) > 0, np.sin(angle) ** 2, 1.0)
        aside, ahead = ([curve(np.clip(down, 0, 1)) for curve in curves] for curves in _RAY_CURVES)
        height, out, rise = (side * a + (1 - side) * b for a, b in zip(aside, ahead, strict=True))
        rise = np.radians(rise)
        anchor = np.stack([out * np.sin(angle), height, np.full_like(height, NECK_Z)], -1)
        direction = np.stack([np.sin(angle) * np.cos(rise), np.sin(rise), np.cos(angle) * np.cos(rise)], -1)
        rays = (np.ascontiguousarray(rows.reshape(-1, 3), np.float32) for rows in (anchor, direction))
        return _march(self.cones, self.melt, *rays, distance.ravel().astype(np.float32)).reshape(*angle.shape, 3)


def build_torso(traits: Traits, neck_radius: float) -> Torso:
    """The body of a person; `neck_radius` in cm as the head ends, about 5 (feminine) .. 6.2 (masculine)."""
    rng = stream(traits.seed, "torso")
    fem, full = traits.femininity, traits.fullness
    half = 21.2 - 2.9 * fem + 0.9 * full + rng.normal(0, 0.45)  # shoulder half width
    top = -21.6 - 0.5 * fem - rng.normal(0, 0.45)
    arm, deep, wide = 4.4 - 0.9 * fem + 0.7 * full, 8.2 - 1.2 * fem + 1.4 * full, 6.4 - 0.8 * fem + 0.6 * full
    trapezius, chest = 2.6 - 0.8 * fem + 0.3 * full, 0.9 * (1 - fem) + 0.2
    middle = [
        [0.0, -12.0, -1.35, neck_radius - 0.6, 0.0, -19.5, -1.3, neck_radius + 0.06],  # leaves the neck at a flat angle
        [0.0, -20.2, -0.75, neck_radius, 0.0, -30.0, 0.2, 6.5],  # the pit of the throat, just outside of the neck's lower rim
        [0.0, -17.0, -4.6, 2.6, 0.0, -26.0, -6.5, 4.0],
    ]
    right = [
        [1.7, -13.0, -4.2, 0.65 * trapezius, half - 6.5, top, -2.0, trapezius],
        [1.4, -20.0, -0.45, neck_radius - 0.85, 4.0, -30.0, -0.2, 5.5],
        [2.2, -20.6, 3.2, 0.9, half - 5.5, top + 0.6, 0.8, 1.0],
        [half - arm - 0.4, top - 1.6, -1.2, arm - 0.2, half - arm + 0.8, -52.0, -0.6, arm],
        [wide, -27.0, -1.8, deep, wide - 0.6, -52.0, -1.2, deep - 0.2],
        [7.0, -29.5, 1.6 + 0.3 * deep, 3.4 + chest, 5.0, -31.0, 1.4 + 0.3 * deep, 3.6 + chest],
    ]
    if fem > 0.5:
        size = float(np.clip(4.2 + 0.8 * full + rng.normal(0, 0.4), 3.3, 5.6))
        right.append([6.9, -31.5, 3.6, size - 0.6, 7.2, -35.5, 4.3, size])
        middle.append([-5.5, -34.5, 4.1, size - 0.5, 5.5, -34.5, 4.1, size - 0.5])  # cloth spans the cleft
    mirror = np.array([-1, 1, 1, 1, -1, 1, 1, 1])
    return Torso(np.array([*middle, *right, *(np.array(cone) * mirror for cone in right)], np.float32))


@njit(cache=True, nogil=True)
def _field(cones: np.ndarray, melt: float, x: float, y: float, z: float) -> float:
    """Distance in cm from (x, y, z) to the body: round cones under a smooth minimum."""
    total = np.float32(1e6)
    for c in range(cones.shape[0]):
        ax, ay, az = x - cones[c, 0], y - cones[c, 1], z - cones[c, 2]
        bx, by, bz = cones[c, 4] - cones[c, 0], cones[c, 5] - cones[c, 1], cones[c, 6] - cones[c, 2]
        along = (ax * bx + ay * by + az * bz) / max(bx * bx + by * by + bz * bz, 1e-6)
        along = min(max(along, 0.0), 1.0)
        dx, dy, dz = ax - along * bx, ay - along * by, az - along * bz
        distance = np.sqrt(dx * dx + dy * dy + dz * dz) - cones[c, 3] - along * (cones[c, 7] - cones[c, 3])
        blend = max(melt - abs(total - distance), 0.0) / melt
        total = min(total, distance) - blend * blend * melt * 0.25
    return total


@njit(cache=True, nogil=True)
def _march(cones: np.ndarray, melt: float, anchor: np.ndarray, direction: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """From outside towards the anchor until the field falls to `distance`: float32 n 3."""
    found = np.empty_like(anchor)
    for ray in range(anchor.shape[0]):
        length = np.float32(_START)
        for _ in range(_STEPS):
            for axis in range(3):
                found[ray, axis] = anchor[ray, axis] + length * direction[ray, axis]
            gap = _field(cones, melt, found[ray, 0], found[ray, 1], found[ray, 2]) - distance[ray]
            if abs(gap) < 0.004 or length <= 0.0:
                break
            length -= np.float32(0.85) * gap
    return found


def bust(traits: Traits, neck_radius: float, skin_albedo: np.ndarray, skin_scatter: tuple[float, float, float] = (0.5, 0.2, 0.12)) -> Mesh:
    """Chest skin and clothes of a person, down to y = -47 cm.

    `neck_radius` (cm) is that of the lower rim of the head's skin, a ring at y = -19 about the axis z = -1.5, which lies inside of the
    bust; `skin_albedo` (float32 3, linear RGB) and `skin_scatter` are those of the neck.
    """
    torso, rng = build_torso(traits, neck_radius), stream(traits.seed, "wardrobe")
    share = np.array([kind.masculine + traits.femininity * (kind.feminine - kind.masculine) for kind in _GARMENTS])
    kind = _GARMENTS[rng.choice(len(_GARMENTS), p=share / share.sum())]
    neckline = _neckline(torso, float(rng.uniform(*kind.half_width)), float(rng.uniform(*kind.depth)), kind.point)
    cloth = _cloth(rng, kind.collar)
    skin = Material(np.full((1, 1, 3), skin_albedo, np.float32), roughness=0.5, specular=0.028, scatter=skin_scatter)
    worn = [
        _sheet(torso.surface(_ANGLES, np.linspace(0, 1, 14)[:, None] * (neckline + 0.05)), skin),
        _cover(torso, neckline, cloth, kind.thick),
        _flaps(torso, neckline, cloth, rng) if kind.collar else _band(torso, neckline, cloth, kind.thick),
    ]
    if rng.random() < 0.25:  # a jacket, open in front
        opening = _neckline(torso, float(rng.uniform(7.4, 8.2)), float(rng.uniform(-50.0, -36.0)), 1.0)
        worn.append(_cover(torso, opening, _cloth(rng, plain=True), 1.45))
    return join(worn)


def breathe(vertices: np.ndarray, amount: float) -> np.ndarray:
    """Vertices (float32 v 3) of a bust at rest -> with the chest lifted by a breath, `amount` 0 (out) .. 1 (in); the neck stays."""
    lifted = smooth(-18.0, -28.0, vertices[:, 1])
    chest = lifted * np.exp(-((vertices[:, 0] / 13.0) ** 2)) * np.clip(vertices[:, 2] / 8.0, 0, 1)
    moved = np.asarray(vertices, np.float32).copy()
    moved[:, 1] += np.float32(0.28 * amount) * lifted
    moved[:, 2] += np.float32(0.35 * amount) * chest
    return moved


def _neckline(torso: Torso, half_width: float, depth: float, point: float) -> np.ndarray:
    """`down` of a neckline at _ANGLES: the straight V or scoop of the front view, laid on the body."""
    angle, down = np.linspace(0, np.pi / 2, 49), np.linspace(0.02, 1.0, 90)
    points = torso.surface(angle[:, None], down)
    top = float(np.interp(half_width, np.maximum.accumulate(points[-1][:, 0]), points[-1][:, 1]))
    across = np.clip(points[..., 0] / half_width, 0, 1)
    curve = depth + (top - depth) * (across if point <= 1 else 1 - (1 - across**point) ** (1 / point))
    passed = (across >= 1) | (curve > points[..., 1])  # below and outside of the neckline
    table = np.where(passed.any(1), down[passed.argmax(1)], 1.0)
    table = np.convolve(np.pad(table, 3, mode="reflect"), np.ones(7) / 7, "valid")
    return np.interp(np.abs(_ANGLES), angle, table)


def _sheet(points: np.ndarray, material: Material) -> Mesh:
    """A mesh of a grid of points (rows columns 3) seen from outside with rows running down; textures are projected along z."""
    uv = np.stack([(points[..., 0] - _LEFT) / _WIDTH, (_TOP - points[..., 1]) / _HEIGHT], -1)
    return Mesh.of(points.reshape(-1, 3), grid_faces(*points.shape[:2]), np.clip(uv, 0, 1).reshape(-1, 2), material)


def _cover(torso: Torso, neckline: np.ndarray, material: Material, distance: float) -> Mesh:
    """Cloth from a neckline to the lower end of the bust, `distance` cm off the skin and looser below the chest; its hem turns in."""
    share = np.concatenate([[0.0], np.linspace(0, 1, 30)])[:, None]
    down = neckline + (1 - neckline) * share
    off = distance * np.clip(0.5 + 8 * share, 0, 1) + 0.5 * np.clip((down - 0.4) / 0.4, 0, 1)
    off[0] = 0.0
    return _sheet(torso.surface(_ANGLES, down, off), material)


def _band(torso: Torso, neckline: np.ndarray, material: Material, distance: float) -> Mesh:
    """A rounded hem along a neckline that lies on the skin at its inner edge, so that no gap shows."""
    rows = ((-0.9, 0.0), (-1.0, 0.7), (-0.6, 1.0), (0.0, 1.0), (0.35, 0.35))
    width = 0.02 + 0.012 * distance
    return _sheet(np.stack([torso.surface(_ANGLES, neckline + shift * width, (distance + 0.12) * lift) for shift, lift in rows]), material)


def _flaps(torso: Torso, neckline: np.ndarray, material: Material, rng: np.random.Generator) -> Mesh:
    """A folded shirt collar, open in front: it stands on the neckline, folds over and falls on the shoulders to two tips."""
    opening, size = rng.uniform(0.1, 0.5), rng.uniform(5.5, 7.0)
    halves = []
    for turn in (-1, 1):
        share = np.linspace(0, 1, 25)  # from the tip to the back
        angle, spread = (first + (2.2 - first) * share for first in (opening, opening + 0.38))
        away = np.stack([turn * np.sin(angle), 0 * angle, np.cos(angle)], -1)
        tip = np.exp(-((share / 0.17) ** 2))[:, None]
        start, shoulder = np.interp(angle, _ANGLES, neckline), float(np.interp(np.pi / 2, _ANGLES, neckline))
        edge_down = (1 - tip[:, 0]) * (shoulder + 0.035) + tip[:, 0] * (min(float(start[0]), shoulder + 0.06) + 0.03 * size)
        base = torso.surface(turn * angle, start, 0.4)
        fold = base + (1.5 + 1.3 * share[:, None] ** 0.7) * ([0, 0.92, 0] + 0.06 * away)
        edge, under = torso.surface(turn * spread, edge_down, 0.85), torso.surface(turn * spread, edge_down - 0.012, 0.45)
        lying = torso.surface(turn * 0.5 * (angle + spread), 0.4 * start + 0.6 * edge_down, 1.15)
        over, middle = fold + 0.42 * away - [0, 0.12, 0], 0.65 * lying + 0.35 * (0.4 * fold + 0.6 * edge)
        rows = np.stack([base - 0.6 * away - [0, 0.9, 0], 0.5 * (base + fold), fold, over, 0.5 * (over + middle), middle, edge, under])
        halves.append(_sheet(rows[:, ::turn], material))
    return join(halves)


def _cloth(rng: np.random.Generator, plain: bool) -> Material:
    """Cloth of a colour with soft folds: plain, or with stripes, checks or a print."""
    x, y = np.meshgrid(_LEFT + _WIDTH * (np.arange(_TEXELS) + 0.5) / _TEXELS, _TOP - _HEIGHT * (np.arange(_TEXELS) + 0.5) / _TEXELS)

    def noise(cells: int) -> np.ndarray:
        return cv2.resize(rng.standard_normal((cells, cells), np.float32), (_TEXELS, _TEXELS), interpolation=cv2.INTER_CUBIC)

    colour, second = (_DYES[int(len(_DYES) * rng.beta(0.9, 1.6))] * np.exp(rng.normal(0, 0.08, 3)) for _ in range(2))
    period, kind = rng.uniform(1.6, 4.5), "plain" if plain else rng.choice(["plain", "stripes", "check", "print"], p=[0.6, 0.2, 0.1, 0.1])
    across, along = (
        np.clip(4 * (np.abs((axis + 0.2 * noise(8)) / period % 1 - 0.5) - 0.22) + 0.5, 0, 1) for axis in (x, y + 0.012 * x * x)
    )
    weight = {"plain": 0 * x, "stripes": along, "check": 0.5 * (across + along), "print": np.clip(noise(24), 0, 1)}[str(kind)]
    albedo = (colour + weight[..., None] * (second - colour)) * (1 + 0.05 * noise(20) + 0.04 * noise(_TEXELS))[..., None]
    folds = 0.12 * noise(7) + 0.06 * noise(14) + 0.1 * np.cos(0.9 * x + 2 * noise(5)) * np.clip((-24 - y) / 8, 0, 1)
    bump = (rng.uniform(0.4, 1.0) * folds).astype(np.float32)
    return Material(np.clip(albedo, 0.005, 0.9).astype(np.float32), roughness=0.8, specular=0.022, scatter=(0.06, 0.06, 0.06), bump=bump)


# Frames: squareness (2 an ellipse, 4 nearly a rectangle), half height over half width, upswept outer corner, narrower lower half, and
# half width of the rim in cm
_FRAMES = ((2.0, 0.92, 0.0, 0.0, 0.07), (4.0, 0.62, 0.03, 0.04, 0.12), (3.8, 0.62, 0.0, 0.05, 0.05), (3.2, 0.76, 0.1, 0.14, 0.2),
           (2.7, 0.74, 0.24, 0.1, 0.14), (2.4, 0.86, 0.03, 0.1, 0.12))  # fmt: skip
_ACETATE = np.array([[0.012, 0.012, 0.013], [0.05, 0.025, 0.013], [0.015, 0.025, 0.06], [0.09, 0.015, 0.02], [0.28, 0.27, 0.26]])
_METALS = np.array([[0.75, 0.52, 0.20], [0.72, 0.72, 0.72], [0.22, 0.22, 0.24], [0.03, 0.03, 0.03]])


def wears_glasses(traits: Traits) -> bool:
    """Whether a person wears glasses: about one in six of the young, four in ten of the old."""
    chance = 0.15 + 0.27 * float(np.clip((traits.age - 40) / 25, 0, 1))
    return bool(stream(traits.seed, "wears glasses").random() < chance)


def glasses(
    seed: int,
    pupils: tuple[np.ndarray, np.ndarray],
    nose_bridge: np.ndarray,
    ears: tuple[np.ndarray, np.ndarray],
    temple_width: float,
    brow_y: float,
) -> Mesh:
    """Glasses of a seed's shape and colour on a face: rims with clear lenses, a bridge and temples. Lengths in cm, points in head space.

    pupils: left and right of the picture, 3 each, the fronts of the eyes. nose_bridge: 3, the skin on the ridge of the nose a little below
    the pupils. ears: 3 each, the top of the ear's root. temple_width: of the head. brow_y: height of the middle of the brows.
    """
    rng = stream(seed, "glasses")
    square, height, upswept, narrow, rim = _FRAMES[rng.integers(len(_FRAMES))]
    if rim < 0.08:
        material = Material(np.full((1, 1, 3), 0.45 * _METALS[rng.integers(4)], np.float32), roughness=0.28, specular=0.55)
    else:
        colour = _ACETATE[int(len(_ACETATE) * rng.beta(0.8, 1.6))]
        material = Material(np.full((1, 1, 3), colour, np.float32), roughness=0.16, specular=0.05)
    gap = rng.uniform(0.85, 1.0)  # half of the bridge between the lenses
    half = float(np.clip((0.5 * temple_width - gap - 0.45) / 2 * rng.uniform(0.95, 1.03), 2.15, 2.95))
    left, right = pupils
    middle = 0.5 * (left[1] + right[1]) - 0.32
    high = min(half * height, brow_y + 0.25 - middle)
    front = max(0.5 * (left[2] + right[2]) + 1.2, nose_bridge[2] + 0.2)

    def to_face(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        z = front - 0.016 * x * x + 0.1 * (y - middle)  # bent around the face, lower edge nearer to the cheeks
        return np.stack(np.broadcast_arrays(0.5 * (left[0] + right[0]) + x, y, z), -1)

    angle = np.linspace(0, 2 * np.pi, 45)
    cosine, sine = np.cos(angle), np.sin(angle)
    reach = (np.abs(cosine) ** square + np.abs(sine) ** square) ** (-1 / square)
    parts = []
    for side, ear in zip((-1.0, 1.0), ears, strict=True):
        outward, up = reach * cosine * side, reach * sine
        x = half * outward * (1 - narrow * np.clip(-up, 0, 1) + 0.3 * upswept * np.clip(up, 0, 1))
        y = high * (up + upswept * np.clip(outward + 0.1, 0, 1) ** 2 * np.clip(up + 0.35, 0, 1))
        edge = to_face(side * (gap + half + x), middle + y)
        parts.append(_tube(edge, edge - edge.mean(0), rim, 0.9 * rim, material))
        hinge = to_face(np.array(side * (gap + 2 * half)), np.array(middle + 0.55 * high))
        knee = hinge + np.array([side * 0.28, 0.0, -0.45])
        behind = ear + np.array([[0, 0, 0], [-side * 0.25, -0.9, -1.1], [-side * 0.55, -2.8, -1.9]])
        points = np.stack([hinge, knee, 0.5 * (knee + ear) + [side * 0.1, 0.1, 0.0], *behind])
        share = np.linspace(0, len(points) - 1, 16)
        path = np.stack([np.interp(share, np.arange(len(points)), points[:, axis]) for axis in range(3)], -1)
        parts.append(_tube(path, np.array([0.0, 1.0, 0.15]), max(1.15 * rim, 0.06), max(0.6 * rim, 0.05), material))
    x = np.linspace(-gap - 0.12, gap + 0.12, 11)
    bridge = to_face(x, middle + high * (0.16 + 0.2 * (1 - (x / gap) ** 2))) + np.array([0, 0, 0.06])
    return join([*parts, _tube(bridge, np.array([0.0, 1.0, 0.0]), max(rim, 0.06), max(0.8 * rim, 0.06), material)])


def _tube(path: np.ndarray, across: np.ndarray, half_across: float, half_along: float, material: Material, sides: int = 7) -> Mesh:
    """A tube along a polyline (k 3, cm), `half_across` cm wide to both sides of the path along `across` (3 or k 3)."""
    tangent = unit(np.gradient(path, axis=0))
    wide = np.broadcast_to(np.asarray(across, np.float64), path.shape)
    wide = unit(wide - (wide * tangent).sum(-1, keepdims=True) * tangent)
    angle = np.linspace(0, 2 * np.pi, sides, endpoint=False)
    ring = wide[:, None] * (half_across * np.cos(angle))[:, None] + np.cross(tangent, wide)[:, None] * (half_along * np.sin(angle))[:, None]
    points = path[:, None] + ring
    faces = grid_faces(len(path), sides, closed=True)[:, ::-1]
    return Mesh.of(points.reshape(-1, 3), faces, np.zeros((points.size // 3, 2)), material)
