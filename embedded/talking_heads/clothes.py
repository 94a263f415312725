"""x"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numba import njit
from scipy.interpolate import PchipInterpolator

from embedded.talking_heads.solids import GOLD, ROSE, SILVER, Material, Mesh, ball, grid_faces, join, metal, tube
from embedded.talking_heads.traits import Traits, stream

NECK_Z = -1.5  # cm, the neck's axis
_START = 26.0  # cm from the anchor of a ray, outside of everybody
_STEPS = 70

# Rays that find the surface: height of their anchor, how far the anchor moves out, elevation in degrees, by `down`
_DOWN = np.array([0.0, 0.15, 0.3, 0.45, 0.6, 1.0])
_SIDE = {
    "height": [-19.0, -24.0, -26.5, -27.5, -29.5, -47.0],
    "out": [0.0, 4.5, 10.5, 13.0, 13.0, 13.0],
    "rise": [52.0, 78.0, 82.0, 42.0, 2.0, 0.0],
}
_FRONT = {"height": [-19.0, -21.5, -24.5, -28.0, -32.0, -47.0], "out": [0.0] * 6, "rise": [30.0, 24.0, 16.0, 7.0, 0.0, 0.0]}
_BACK_RAYS = {"height": [-19.0, -22.5, -25.5, -28.5, -32.0, -47.0], "out": [0.0] * 6, "rise": [52.0, 48.0, 34.0, 16.0, 0.0, 0.0]}


@dataclass(frozen=True)
class Torso:
    """The body of a person as round cones that melt into each other."""

    cones: np.ndarray  # float32 c 8, cm: one end xyz and radius, other end xyz and radius
    melt: float  # cm over which neighbours blend

    def surface(self, angle: np.ndarray, down: np.ndarray, distance: np.ndarray | float = 0.0) -> np.ndarray:
        """Points (float32 ... 3) at (angle, down), `distance` cm outside of the skin; the three broadcast."""
        angle, down, distance = np.broadcast_arrays(angle, down, distance)
        anchor, direction = _rays(angle.ravel(), down.ravel())
        found = _march(self.cones, self.melt, anchor, direction, distance.ravel().astype(np.float32))
        return found.reshape(*angle.shape, 3)

    def distance(self, points: np.ndarray) -> np.ndarray:
        """How far points (n 3) lie outside of the skin in cm (float32 n), about; negative inside."""
        return _distances(self.cones, self.melt, np.ascontiguousarray(points, np.float32))

    def lift(self, points: np.ndarray, margin: np.ndarray | float = 0.03, width: float = 0.45) -> np.ndarray:
        """Points (n 3) of which those inside of the skin are moved straight out to `margin` cm above it, the others stay.

        Points up to `width` cm above the margin rise a little too, so that a sheet that dips in meets the skin without a crease.
        """
        points = np.ascontiguousarray(points, np.float32)
        here = self.distance(points)
        step = 0.1 * np.eye(3, dtype=np.float32)
        slope = np.stack([self.distance(points + axis) - self.distance(points - axis) for axis in step], -1)
        slope /= np.maximum(np.linalg.norm(slope, axis=-1, keepdims=True), 1e-6)
        above = here - margin
        wanted = np.where(above > width, above, np.clip(above + width, 0, None) ** 2 / (4 * width))
        return points + (wanted - above)[:, None] * slope


def build_torso(traits: Traits, neck_radius: float) -> Torso:
    """The body of a person; `neck_radius` in cm as the head ends, about 5 (feminine) .. 6.2 (masculine)."""
    rng = stream(traits.seed, "torso")
    fem, full = traits.femininity, traits.fullness
    half = 21.2 - 2.9 * fem + 0.9 * full + rng.normal(0, 0.45)  # shoulder half width
    slope = rng.normal(0, 0.45)  # sloping or square shoulders
    top = -21.6 - 0.5 * fem - slope
    arm = 4.4 - 0.9 * fem + 0.7 * full
    deep = 8.2 - 1.2 * fem + 1.4 * full
    wide = 6.4 - 0.8 * fem + 0.6 * full
    trapezius = 2.6 - 0.8 * fem + 0.3 * full
    middle = [
        [0.0, -12.0, -1.35, neck_radius - 0.6, 0.0, -19.5, -1.3, neck_radius + 0.06],  # leaves the neck at a flat angle
        [0.0, -20.2, -0.75, neck_radius, 0.0, -30.0, 0.2, 6.5],  # the pit of the throat, just outside of the neck's lower rim
        [0.0, -17.0, -4.6, 2.6, 0.0, -26.0, -6.5, 4.0],
    ]
    chest = 0.9 * (1 - fem) + 0.2
    right = [
        [1.7, -13.0, -4.2, 0.65 * trapezius, half - 6.5, top, -2.0, trapezius],
        [1.4, -20.0, -0.45, neck_radius - 0.85, 4.0, -30.0, -0.2, 5.5],
        [2.2, -20.6, 3.2, 0.9, half - 5.5, top + 0.6, 0.8, 1.0],
        [half - arm - 0.4, top - 1.6, -1.2, arm - 0.2, half - arm + 0.8, -52.0, -0.6, arm],
        [wide, -27.0, -1.8, deep, wide - 0.6, -52.0, -1.2, deep - 0.2],
        [7.0, -29.5, 3.6 + 0.3 * deep - 2.0, 3.4 + chest, 5.0, -31.0, 3.4 + 0.3 * deep - 2.0, 3.6 + chest],
        [5.5, -22.5, -6.0, 3.6, 7.0, -34.0, -6.5, 4.4],
    ]
    if fem > 0.5:
        size = float(np.clip(4.2 + 0.8 * full + rng.normal(0, 0.4), 3.3, 5.6))
        right.append([6.9, -31.5, 3.6, size - 0.6, 7.2, -35.5, 4.3, size])
        middle.append([-5.5, -34.5, 4.1, size - 0.5, 5.5, -34.5, 4.1, size - 0.5])  # cloth spans the cleft
    mirror = np.array([-1, 1, 1, 1, -1, 1, 1, 1])
    cones = np.array([*middle, *right, *(np.array(cone) * mirror for cone in right)], np.float32)
    return Torso(cones, 1.9)


def _rays(angle: np.ndarray, down: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Anchors and unit directions (both float32 n 3) of the rays that meet the surface at (angle, down)."""
    side = np.sin(angle) ** 2
    front = np.where(np.cos(angle) > 0, 1 - side, 0.0)
    back = 1 - side - front

    def blend(name: str) -> np.ndarray:
        tables = [PchipInterpolator(_DOWN, table[name])(np.clip(down, 0, 1)) for table in (_SIDE, _FRONT, _BACK_RAYS)]
        return side * tables[0] + front * tables[1] + back * tables[2]

    height, out, rise = blend("height"), blend("out"), np.radians(blend("rise"))
    anchor = np.stack([out * np.sin(angle), height, np.full_like(height, NECK_Z)], -1)
    direction = np.stack([np.sin(angle) * np.cos(rise), np.sin(rise), np.cos(angle) * np.cos(rise)], -1)
    return anchor.astype(np.float32), direction.astype(np.float32)


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
        radius = cones[c, 3] + along * (cones[c, 7] - cones[c, 3])
        distance = np.sqrt(dx * dx + dy * dy + dz * dz) - radius
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
            x = anchor[ray, 0] + length * direction[ray, 0]
            y = anchor[ray, 1] + length * direction[ray, 1]
            z = anchor[ray, 2] + length * direction[ray, 2]
            gap = _field(cones, melt, x, y, z) - distance[ray]
            if abs(gap) < 0.004 or length <= 0.0:
                break
            length -= np.float32(0.85) * gap
        for axis in range(3):
            found[ray, axis] = anchor[ray, axis] + length * direction[ray, axis]
    return found


@njit(cache=True, nogil=True)
def _distances(cones: np.ndarray, melt: float, points: np.ndarray) -> np.ndarray:
    result = np.empty(points.shape[0], np.float32)
    for i in range(points.shape[0]):
        result[i] = _field(cones, melt, points[i, 0], points[i, 1], points[i, 2])
    return result


LEFT, TOP, WIDTH, HEIGHT = -25.0, -12.0, 50.0, 36.0  # cm, the part of the picture plane that textures of clothes cover
TEXELS = 256

# Dyes, linear RGB: what shops sell most of first (black, navy, greys, white), vivid ones last
_DYES = np.array(
    [
        [0.012, 0.012, 0.014],
        [0.016, 0.024, 0.058],
        [0.055, 0.057, 0.062],
        [0.21, 0.21, 0.22],
        [0.74, 0.73, 0.70],
        [0.045, 0.075, 0.14],
        [0.42, 0.38, 0.30],
        [0.10, 0.065, 0.04],
        [0.055, 0.075, 0.045],
        [0.10, 0.014, 0.022],
        [0.26, 0.37, 0.52],
        [0.45, 0.30, 0.29],
        [0.033, 0.13, 0.12],
        [0.40, 0.050, 0.040],
        [0.52, 0.31, 0.055],
        [0.16, 0.24, 0.11],
        [0.16, 0.08, 0.20],
        [0.05, 0.18, 0.42],
    ],
    np.float32,
)
_SHIRTS = np.array(
    [[0.74, 0.74, 0.74], [0.44, 0.55, 0.70], [0.62, 0.64, 0.70], [0.66, 0.52, 0.52], [0.05, 0.08, 0.16], [0.015, 0.015, 0.018]], np.float32
)
_SUITS = np.array(
    [[0.014, 0.016, 0.024], [0.02, 0.03, 0.06], [0.05, 0.052, 0.058], [0.12, 0.12, 0.125], [0.15, 0.105, 0.065], [0.045, 0.055, 0.04]],
    np.float32,
)


@dataclass(frozen=True)
class Cloth:
    """What a garment is cut from."""

    colour: np.ndarray  # float32 3, linear RGB
    second: np.ndarray  # float32 3, of stripes, checks and prints
    pattern: str  # plain, melange, stripes, pinstripes, check, dots, band
    weave: str  # jersey, woven, knit, wool


def dye(rng: np.random.Generator, kind: str = "any") -> np.ndarray:
    """A believable colour (float32 3, linear RGB) of casual clothes, of a `shirt` or of a `suit`."""
    table = {"any": _DYES, "shirt": _SHIRTS, "suit": _SUITS}[kind]
    place = rng.beta(0.9, 1.6) if kind == "any" else rng.beta(0.8, 1.5)
    colour = table[min(int(len(table) * place), len(table) - 1)]
    return np.clip(colour * np.exp(rng.normal(0, 0.12)) * np.exp(rng.normal(0, 0.06, 3)), 0.008, 0.82).astype(np.float32)


def front_uv(points: np.ndarray) -> np.ndarray:
    """Texture coordinates (... 2) of points (... 3): a projection along z, so that patterns run straight over the chest."""
    return np.stack([(points[..., 0] - LEFT) / WIDTH, (TOP - points[..., 1]) / HEIGHT], -1).astype(np.float32)


def _plane() -> tuple[np.ndarray, np.ndarray]:
    """x and y in cm (float32 h w) at the texels."""
    middle = (np.arange(TEXELS, dtype=np.float32) + 0.5) / TEXELS
    return np.meshgrid(LEFT + WIDTH * middle, TOP - HEIGHT * middle)


def _noise(rng: np.random.Generator, cells: int) -> np.ndarray:
    """Smooth noise (float32 h w) of unit variance at the grid, `cells` across."""
    return cv2.resize(rng.standard_normal((cells, cells), np.float32), (TEXELS, TEXELS), interpolation=cv2.INTER_CUBIC)


def folds(rng: np.random.Generator, looseness: float) -> np.ndarray:
    """Height of soft folds in cm (float32 h w): drawn from armpits and shoulders towards the chest, hanging down below it."""
    x, y = _plane()
    x = x + 0.5 * _noise(rng, 9)
    y = y + 0.5 * _noise(rng, 9)
    height = np.zeros_like(x)
    for _ in range(int(10 + 14 * looseness)):
        side = rng.choice([-1.0, 1.0])
        if rng.random() < 0.6:  # from the armpit
            start = np.array([side * rng.uniform(11, 16), rng.uniform(-34, -27)])
            end = np.array([side * rng.uniform(-1, 9), start[1] + rng.uniform(-5, 8)])
        elif rng.random() < 0.6:  # hanging down
            start = np.array([side * rng.uniform(1, 12), rng.uniform(-32, -24)])
            end = start + np.array([rng.normal(0, 2.5), -rng.uniform(8, 18)])
        else:  # across the sleeve
            start = np.array([side * rng.uniform(15, 19), rng.uniform(-42, -28)])
            end = start + np.array([side * rng.uniform(2, 6), rng.normal(0, 3)])
        along, away = _along(x, y, start, end, bend=rng.normal(0, 0.12))
        width = rng.uniform(0.5, 1.3)
        taper = np.clip(along * 4, 0, 1) * np.clip((1 - along) * 1.6, 0, 1)
        ridge = np.exp(-((away / width) ** 2)) - 0.6 * np.exp(-(((away - 1.6 * width) / (1.3 * width)) ** 2))
        height += rng.uniform(0.08, 0.26) * looseness * taper * ridge
    return (height + 0.03 * looseness * _noise(rng, 14)).astype(np.float32)


def _along(x: np.ndarray, y: np.ndarray, start: np.ndarray, end: np.ndarray, bend: float) -> tuple[np.ndarray, np.ndarray]:
    """Share of the way from start to end and signed distance in cm from that (bent) line, for every texel."""
    length = float(np.hypot(*(end - start)))
    direction = (end - start) / length
    along = ((x - start[0]) * direction[0] + (y - start[1]) * direction[1]) / length
    away = -(x - start[0]) * direction[1] + (y - start[1]) * direction[0]
    return along, away + 4 * bend * length * along * (1 - along)


def _drawn(rng: np.random.Generator, cloth: Cloth) -> np.ndarray:
    """Weight of the second colour (float32 h w, 0 .. 1)."""
    x, y = _plane()
    x = x + 0.12 * _noise(rng, 8)
    y = y + 0.25 * _noise(rng, 6) + 0.012 * x * x  # stripes sag around the body
    period = rng.uniform(1.6, 4.5)
    if cloth.pattern == "stripes":
        return _wave(y, period, rng.uniform(0.25, 0.5))
    if cloth.pattern == "pinstripes":
        return 0.8 * _wave(x, rng.uniform(0.9, 1.6), 0.25)
    if cloth.pattern == "check":
        return 0.5 * _wave(x, period, 0.45) + 0.5 * _wave(y, period, 0.45)
    if cloth.pattern == "dots":
        across, row = x / period, y / (0.8 * period)
        column = across + 0.5 * (np.floor(row) % 2)
        spot = np.hypot(column % 1 - 0.5, (row % 1 - 0.5) * 0.8)
        return np.clip((0.22 - spot) / 0.05, 0, 1)
    if cloth.pattern == "band":
        return np.clip((rng.uniform(2.5, 4.5) - np.abs(y - 0.012 * x * x + rng.uniform(33, 36))) / 0.15, 0, 1)
    return np.clip(0.4 + 0.13 * _noise(rng, TEXELS) + 0.05 * _noise(rng, 50), 0, 1) if cloth.pattern == "melange" else np.zeros_like(x)


def _wave(position: np.ndarray, period: float, share: float) -> np.ndarray:
    """1 inside stripes that take `share` of every `period`, with soft edges of a texel."""
    place = np.abs(position / period % 1 - 0.5)
    return np.clip((0.5 * share - place) * period / (WIDTH / TEXELS) + 0.5, 0, 1)


_WEAVES = {  # amplitude in cm, repeats over the texture's width, roughness
    "jersey": (0.006, 90, 0.82),
    "woven": (0.004, 110, 0.72),
    "knit": (0.045, 62, 0.9),
    "wool": (0.012, 70, 0.92),
}


def weave_tile(weave: str) -> np.ndarray:
    """Height in cm (float32 32 32) of one repeat of a weave: V-shaped stitches of knits, a twill otherwise."""
    amplitude = _WEAVES[weave][0]
    y, x = np.mgrid[0:32, 0:32].astype(np.float32) / 32
    if weave in ("knit", "jersey"):
        leg = np.abs(x - 0.5)
        stitch = np.cos(2 * np.pi * (2 * (y + 0.9 * leg))) * 0.35 + np.cos(4 * np.pi * (x - 0.25)) * -0.65
        return (amplitude * stitch).astype(np.float32)
    return (amplitude * np.sin(2 * np.pi * 2 * (x + y)) * np.cos(2 * np.pi * 2 * (x - y))).astype(np.float32)


def cut(rng: np.random.Generator, cloth: Cloth, looseness: float, placket: bool = False, two_sided: bool = False) -> Material:
    """The cloth as a material over the front of the bust, with folds; `placket` adds the buttoned edge of a shirt down the middle."""
    albedo = cloth.colour + _drawn(rng, cloth)[..., None] * (cloth.second - cloth.colour)
    albedo = albedo * (1 + 0.05 * _noise(rng, 20) + 0.03 * _noise(rng, TEXELS))[..., None]
    bump = folds(rng, looseness)
    if placket:
        albedo, bump = _add_placket(albedo, bump)
    _, repeat, roughness = _WEAVES[cloth.weave]
    return Material(
        albedo=np.clip(albedo, 0.005, 0.9).astype(np.float32),
        roughness=roughness,
        specular=0.022,
        scatter=(0.12, 0.12, 0.12) if cloth.weave in ("knit", "wool") else (0.04, 0.04, 0.04),
        bump=bump,
        detail=weave_tile(cloth.weave),
        detail_repeat=float(repeat),
        two_sided=two_sided,
    )


def _add_placket(albedo: np.ndarray, bump: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A strip 3.2 cm wide with two seams and a button every 8 cm."""
    x, y = _plane()
    edge = np.exp(-(((np.abs(x) - 1.6) / 0.16) ** 2))
    seam = np.exp(-(((np.abs(x) - 1.25) / 0.12) ** 2))
    albedo = albedo * (1 - 0.35 * edge - 0.1 * seam)[..., None]
    bump = bump * np.clip(np.abs(x) / 3, 0.35, 1) + 0.09 * np.clip((1.6 - np.abs(x)) / 0.25, 0, 1)
    radius = np.hypot(x, (y + 22.5) % 8.0 - 4.0)
    button = np.clip((0.55 - radius) / 0.15, 0, 1)[..., None]
    pale = np.clip(0.25 + 0.8 * albedo.mean(), 0, 0.7)
    return albedo * (1 - 0.4 * np.exp(-(((radius - 0.6) / 0.15) ** 2)))[..., None] * (1 - button) + pale * button, bump + 0.08 * button[
        ..., 0
    ]


@dataclass(frozen=True)
class Shape:
    """A neckline as a tailor sees it from the front. Lengths in cm."""

    half_width: float  # from the middle to where it crosses the shoulder
    depth: float  # y of its deepest point in front
    back: float  # `down` behind the neck
    point: float = 2.0  # 1 a straight V, 2 a round scoop, more: squarer


@dataclass(frozen=True)
class Neckline:
    """The upper edge of a garment on one torso: `down` by angle."""

    table: np.ndarray  # float64 n, at angles 0 .. pi

    def down(self, angle: np.ndarray) -> np.ndarray:
        """`down` of the edge at angles (radians, any turn)."""
        turn = np.abs((np.asarray(angle) + np.pi) % (2 * np.pi) - np.pi)
        return np.interp(turn, np.linspace(0, np.pi, len(self.table)), self.table)


def fit_neckline(torso: Torso, shape: Shape) -> Neckline:
    """Where a neckline runs on a torso: the straight V or scoop of the front view, laid on the body."""
    angle = np.linspace(0, np.pi, 97)
    front = angle <= np.pi / 2
    down = np.linspace(0.02, 1.0, 90)
    points = torso.surface(angle[front, None], down)
    side = points[-1]
    top = float(np.interp(shape.half_width, np.maximum.accumulate(side[:, 0]), side[:, 1]))
    across = np.clip(points[..., 0] / shape.half_width, 0, 1)
    curve = shape.depth + (top - shape.depth) * (across if shape.point <= 1 else 1 - (1 - across**shape.point) ** (1 / shape.point))
    passed = np.where(across >= 1, 1.0, curve - points[..., 1])  # positive below and outside of the neckline
    first = np.clip(np.argmax(passed > 0, axis=1), 1, len(down) - 1)
    row = np.arange(len(first))
    before, after = passed[row, first - 1], passed[row, first]
    share = np.clip(-before / np.maximum(after - before, 1e-6), 0, 1)
    table = np.empty_like(angle)
    table[front] = np.where(passed.max(1) > 0, down[first - 1] + share * (down[1] - down[0]), 1.0)
    behind = angle[~front] / np.pi * 2 - 1
    table[~front] = table[front][-1] + (shape.back - table[front][-1]) * behind * behind * (3 - 2 * behind)
    return Neckline(np.convolve(np.pad(table, 2, mode="reflect"), [0.1, 0.2, 0.4, 0.2, 0.1], "valid"))


def sheet(points: np.ndarray, material: Material, uv: np.ndarray | None = None, closed: bool = False) -> Mesh:
    """A mesh of a grid of points (rows columns 3) seen from outside with rows running down; uv (rows columns 2), else from the front."""
    rows, columns = points.shape[:2]
    coordinates = front_uv(points) if uv is None else uv
    return Mesh.of(points.reshape(-1, 3), grid_faces(rows, columns, closed), coordinates.reshape(-1, 2), material)


def _outward(angle: np.ndarray) -> np.ndarray:
    return np.stack([np.sin(angle), np.zeros_like(angle), np.cos(angle)], -1)


def _once_around(columns: int) -> np.ndarray:
    """Angles from the back over the front to the back again, where the seam of a texture is out of sight."""
    return np.linspace(-np.pi, np.pi, columns)


def _own_uv(rows: int, columns: int, height: float) -> np.ndarray:
    """Texture coordinates (rows columns 2) of a sheet that has the texture to itself; `height` is its share of it."""
    v, u = np.meshgrid(np.linspace(0, height, rows), np.linspace(0, 1, columns), indexing="ij")
    return np.stack([u, v], -1).astype(np.float32)


def band(torso: Torso, neckline: Neckline, material: Material, distance: float, width: float) -> Mesh:
    """A ribbed band along a neckline: a rounded hem that lies on the skin at its inner edge, so that no gap shows."""
    angle = _once_around(73)
    edge = neckline.down(angle)
    rows = [(-0.9, 0.0), (-1.0, 0.7), (-0.6, 1.0), (0.0, 1.0), (0.35, 0.35)]
    points = [torso.surface(angle, edge + shift * width, distance * lift + 0.12 * (lift > 0)) for shift, lift in rows]
    return sheet(np.stack(points), material, _own_uv(len(rows), len(angle), 0.06))


def flaps(torso: Torso, neckline: Neckline, material: Material, distance: float, opening: float, size: float) -> Mesh:
    """A folded shirt collar: it stands on the neckline, folds over and falls on the shoulders to two tips.

    `opening` is the angle (radians) left free at the front, `size` the length of the tips in cm. A collar that is nearly closed gets
    the buttoned band below its tips.
    """
    turn = np.linspace(0, 1, 73)
    angle = opening + (2 * np.pi - 2 * opening) * turn
    side = np.minimum(turn, 1 - turn) * 2  # 0 at the tips, 1 at the back
    away = _outward(angle)
    start = neckline.down(angle)
    base = torso.surface(angle, start, distance)
    stand = (1.5 + 1.3 * side**0.7)[:, None]
    fold = base + stand * ([0, 0.92, 0] + 0.06 * away)
    spread = opening + 0.38
    edge_angle = spread + (2 * np.pi - 2 * spread) * turn
    tip = np.exp(-((side / 0.17) ** 2))
    throat = min(float(neckline.down(0.0)), float(neckline.down(np.pi / 2)) + 0.06)
    edge_down = (1 - tip) * (float(neckline.down(np.pi / 2)) + 0.035) + tip * (throat + 0.03 * size)
    edge = torso.surface(edge_angle, edge_down, distance + 0.45)
    lying = torso.surface(0.5 * (angle + edge_angle), 0.4 * start + 0.6 * edge_down, distance + 0.75)
    middle = 0.65 * lying + 0.35 * (0.4 * fold + 0.6 * edge)
    over = fold + 0.42 * away - [0, 0.12, 0]
    under = torso.surface(edge_angle, edge_down - 0.012, distance + 0.05)
    grid = np.stack(
        [base - 0.6 * away - [0, 0.9, 0], 0.5 * (base + fold) - 0.1 * away, fold, over, 0.5 * (over + middle), middle, edge, under]
    )
    collar = sheet(grid, material)
    return join([collar, _button_band(base[[0, -1]], material)]) if opening < 0.2 else collar


def _button_band(ends: np.ndarray, material: Material) -> Mesh:
    """The front of the band that a collar stands on, between its two ends (2 3)."""
    across = np.linspace(-0.6, 1.6, 9)[:, None]
    line = ends[1] + (ends[0] - ends[1]) * across - [0, 0, 0.12] - 0.5 * (across - 0.5) ** 2 * [0, 0, 1]
    return sheet(np.stack([line + np.array([0, 1.5, -0.35]), line + np.array([0, 0.7, 0.0]), line - np.array([0, 0.7, -0.25])]), material)


def lapels(torso: Torso, neckline: Neckline, material: Material, distance: float, width: float) -> Mesh:
    """The collar and lapels of a jacket along its V: widest above the chest, with a notch, narrow behind the neck."""
    knots = np.array([0.0, 0.08, 0.46, 0.465, 0.52, 0.525, 0.7, 1.0])
    widths = np.array([0.25, 0.55, 1.0, 0.98, 0.45, 0.72, 0.66, 0.5]) * width
    height = np.linspace(0, 1, 48)  # along the edge, by length
    fine = np.linspace(0, np.pi, 200)
    edge = torso.surface(fine, neckline.down(fine), distance)
    length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(edge, axis=0), axis=1))])
    share = np.unique(np.concatenate([height, knots]))
    angle = np.interp(share, length / length[-1], fine)
    wide = np.interp(share, knots, widths)
    down = neckline.down(angle)
    sideways = np.clip((0.64 - share) / 0.14, 0, 1)  # lapels lie sideways on the chest, the collar falls down around the neck
    meshes = []
    for turn in (1.0, -1.0):

        def lay(part: float, lift: float, turn: float = turn) -> np.ndarray:
            return torso.surface(
                turn * (angle + part * sideways * wide / 11.5), down + part * (0.012 - 0.004 * sideways) * wide, distance + lift
            )

        rows = np.stack([lay(0.0, 0.1), lay(0.06, 0.6), lay(0.4, 0.75), lay(0.97, 0.5), lay(1.0, 0.0)])
        meshes.append(sheet(rows if turn > 0 else rows[:, ::-1], material))
    return join(meshes)


def tie(torso: Torso, material: Material, distance: float, start: float) -> Mesh:
    """A tie from `down` = start: a knot, then a blade that widens downwards."""
    down = np.concatenate([np.linspace(start - 0.02, start + 0.07, 6), np.linspace(start + 0.085, 0.99, 12)])
    half = np.concatenate([[1.55, 1.75, 1.7, 1.55, 1.3, 1.05], np.linspace(1.2, 4.2, 12)])
    lift = np.concatenate([[0.5, 1.0, 1.15, 1.1, 0.95, 0.5], np.full(12, 0.45)])
    across = np.linspace(-1, 1, 7)
    angle = half[:, None] * across / 7.5
    bulge = lift[:, None] * (1 - 0.75 * across**4)
    points = torso.surface(angle, down[:, None], distance + bulge)
    points[..., 0] = half[:, None] * across
    return sheet(points, material, np.stack([0.5 + points[..., 0] / 9, -points[..., 1] / 60], -1))


def rolled_neck(torso: Torso, neckline: Neckline, material: Material, neck_radius: float, height: float) -> Mesh:
    """A turtleneck: up the neck to `height` (cm, about -14), folded over and down again."""
    angle = _once_around(65)
    centre = np.array([0.0, 0.0, NECK_Z])
    base = torso.surface(angle, neckline.down(angle) + 0.03, 0.45)
    tilt = 0.5 * np.cos(angle)  # lower in front

    def ring(radius: float, level: float) -> np.ndarray:
        circle = centre + (neck_radius + radius) * _outward(angle)
        circle[:, 1] = level - tilt
        return circle

    rows = [ring(0.02, height - 0.6), ring(0.15, height), ring(0.5, height + 0.12), ring(0.85, height - 0.3), ring(1.0, height - 1.6)]
    rows += [0.55 * ring(1.0, height - 2.4) + 0.45 * base, 0.3 * ring(1.0, height - 3.4) + 0.7 * base, base]
    points = np.stack(rows)
    return sheet(points, material, _own_uv(len(rows), len(angle), 0.1))


def hood(torso: Torso, neckline: Neckline, material: Material) -> Mesh:
    """A hood that lies back: a soft roll around the neck, thick behind, thin where it meets at the throat."""
    angle = _once_around(65)
    back = 0.5 - 0.5 * np.cos(angle)
    base = torso.surface(angle, neckline.down(angle) + 0.02, 0.3)
    thick = 0.7 + 1.7 * back**0.9 + 0.2 * np.sin(5 * angle + 1.0) * back
    away = _outward(angle)
    turns = np.linspace(np.pi * 1.1, -0.35 * np.pi, 9)
    centre = base + thick[:, None] * (0.55 * away + [0, 0.2, 0])
    rows = [centre + thick[:, None] * (1.25 * np.cos(t) * away + 0.95 * np.sin(t) * np.array([0, 1.0, 0])) for t in turns]
    return sheet(np.stack(rows), material, _own_uv(len(rows), len(angle), 0.12))


def cords(torso: Torso, material: Material, start: float, length: float) -> Mesh:
    """The two cords of a hood: they hang from `down` = start."""
    meshes = []
    for side in (-1.0, 1.0):
        down = np.linspace(start, start + length, 10)
        middle = torso.surface(side * 0.42 * (1 - 0.25 * np.linspace(0, 1, 10)), down, 1.0)
        turn = np.linspace(0, 2 * np.pi, 6, endpoint=False)
        ring = 0.24 * np.stack([np.cos(turn), np.zeros(6), -np.sin(turn)], -1)
        meshes.append(sheet(middle[:, None] + ring, material, _own_uv(10, 6, 1.0), closed=True))
    return join(meshes)


_PEARL = Material(np.full((1, 1, 3), [0.72, 0.67, 0.60], np.float32), roughness=0.18, specular=0.06, scatter=(0.2, 0.2, 0.2))


def _precious(rng: np.random.Generator) -> Material:
    return metal(np.array([GOLD, GOLD, SILVER, ROSE])[rng.integers(4)])


def earrings(traits: Traits, lobe_left: np.ndarray, lobe_right: np.ndarray) -> Mesh | None:
    """Earrings of a person at the fronts of the ear lobes (each 3, cm of head space; left of the picture first), or None."""
    rng = stream(traits.seed, "earrings")
    if rng.random() > 0.04 + 0.6 * traits.femininity**2:
        return None
    kind = str(rng.choice(["stud", "pearl", "hoop", "drop"], p=[0.36, 0.2, 0.26, 0.18]))
    material, size = _precious(rng), float(rng.uniform(0, 1))
    return join(
        [_earring(kind, np.asarray(lobe, np.float64), side, material, size) for side, lobe in ((-1.0, lobe_left), (1.0, lobe_right))]
    )


def _earring(kind: str, lobe: np.ndarray, side: float, material: Material, size: float) -> Mesh:
    """One earring; `size` 0 .. 1 from small to large."""
    if kind == "stud":
        return ball(lobe + np.array([side * 0.1, 0, 0.1]), 0.16 + 0.12 * size, material)
    if kind == "pearl":
        return ball(lobe + np.array([side * 0.12, 0, 0.12]), 0.26 + 0.16 * size, _PEARL)
    if kind == "hoop":
        radius = 0.55 + 1.3 * size * size
        angle = np.linspace(0, 2 * np.pi, 32, endpoint=False)
        spoke = np.stack([0.25 * side * np.sin(angle), np.cos(angle), np.sin(angle)], -1)
        path = lobe + np.array([side * 0.08, 0.1 - radius, 0]) + radius * spoke
        return tube(path, spoke, 0.05 + 0.04 * size, 0.05 + 0.04 * size, material, closed=True, sides=6)
    drop = lobe + np.array([side * 0.15, -0.9 - 1.2 * size, 0.1])
    wire = tube(np.linspace(lobe, drop, 4), np.array([1.0, 0, 0]), 0.03, 0.03, material, closed=False, sides=5)
    return join([wire, ball(drop, np.array([0.2, 0.38, 0.2]), material)])


def necklace(torso: Torso, rng: np.random.Generator) -> Mesh:
    """A fine chain or a row of pearls around the root of the neck, lying on the skin."""
    angle = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    hang = rng.uniform(0.05, 0.13)
    path = torso.surface(angle, 0.1 + hang * np.clip(np.cos(angle), 0, 1) ** 3, 0.08)
    if rng.random() < 0.2:
        shown = path[np.cos(angle) > -0.1]
        return join([ball(point, 0.34, _PEARL, 6, 8) for point in shown])
    material = _precious(rng)
    chain = tube(path, np.array([0.0, 1.0, 0.0]), 0.06, 0.06, material, closed=True, sides=5)
    return join([chain, ball(path[0] + np.array([0, -0.35, 0.1]), np.array([0.2, 0.3, 0.1]), material)]) if rng.random() < 0.5 else chain


_CLOTH_COLUMNS, _ROWS = 72, 30
_CREW = Shape(half_width=8.4, depth=-20.8, back=0.13)
_HIGH = Shape(half_width=6.6, depth=-19.4, back=0.08)
_STAND = Shape(half_width=6.7, depth=-19.8, back=0.08)  # of shirt collars


def bust(traits: Traits, neck_radius: float, skin_albedo: np.ndarray, skin_scatter: tuple[float, float, float] = (0.5, 0.2, 0.12)) -> Mesh:
    """Chest skin and clothes of a person.

    `neck_radius` (cm) is that of the lower rim of the head's skin, a ring at y = -19 about the axis z = -1.5, which lies inside of the
    bust; `skin_albedo` (float32 3, linear RGB) and `skin_scatter` are those of the neck.
    """
    torso = build_torso(traits, neck_radius)
    rng = stream(traits.seed, "wardrobe")
    names, weights = zip(*_OUTFITS.items(), strict=True)
    share = np.array([masculine + traits.femininity * (feminine - masculine) for masculine, feminine, _ in weights])
    outfit = weights[rng.choice(len(names), p=share / share.sum())][2]
    skin = Material(np.full((1, 1, 3), skin_albedo, np.float32), roughness=0.5, specular=0.028, scatter=skin_scatter)
    worn = outfit(torso, rng, skin, neck_radius)
    wearing = stream(traits.seed, "necklace")
    if outfit in (_t_shirt, _v_neck, _dress) and wearing.random() < 0.4 * traits.femininity:
        worn.append(necklace(torso, wearing))
    return join(worn)


class NeckSeat:
    """Keeps the foot of a head's neck on the chest of the same person's `bust`, at rest and while the head moves."""

    def __init__(self, traits: Traits, neck_radius: float, vertices: np.ndarray) -> None:
        """`vertices` (v 3): the skin of the head at rest. Only what lies below y = -12.5 is ever moved."""
        self.low = np.nonzero(vertices[:, 1] < -12.5)[0]
        # the lowest rim dives under the skin of the chest
        self._margin = np.interp(vertices[self.low, 1], [-18.0, -16.4], [-0.4, 0.08]).astype(np.float32)
        self._torso = build_torso(traits, neck_radius)

    def settle(self, vertices: np.ndarray) -> np.ndarray:
        """Skin (v 3, or more vertices behind it) -> float32, the same with the neck's foot spread over the chest without a seam."""
        settled = np.array(vertices, np.float32)
        settled[self.low] = self._torso.lift(settled[self.low], self._margin)
        return settled


def breathe(vertices: np.ndarray, amount: float) -> np.ndarray:
    """Vertices (float32 v 3) of a bust at rest -> with the chest lifted by a breath, `amount` 0 (out) .. 1 (in); the neck stays."""
    below = np.clip((-18.0 - vertices[:, 1]) / 10.0, 0, 1)
    lifted = below * below * (3 - 2 * below)
    chest = lifted * np.exp(-((vertices[:, 0] / 13.0) ** 2)) * np.clip(vertices[:, 2] / 8.0, 0, 1)
    moved = np.asarray(vertices, np.float32).copy()
    moved[:, 1] += np.float32(0.28 * amount) * lifted
    moved[:, 2] += np.float32(0.35 * amount) * chest
    return moved


def _angles(columns: int) -> np.ndarray:
    """Angles once around, closer together in front."""
    turn = np.linspace(0, 2 * np.pi, columns, endpoint=False)
    return turn - 0.45 * np.sin(turn)


def skin_sheet(torso: Torso, skin: Material, neckline: Neckline) -> Mesh:
    """The skin from inside the neck to somewhat below a neckline."""
    angle = _angles(_CLOTH_COLUMNS)
    down = np.linspace(0, 1, 14)[:, None] * (neckline.down(angle) + 0.05)
    return sheet(torso.surface(angle, down), skin, np.zeros((14, _CLOTH_COLUMNS, 2), np.float32), closed=True)


def garment(torso: Torso, neckline: Neckline, material: Material, distance: float, drape: float = 0.0, edge: float = 0.35) -> Mesh:
    """Cloth from a neckline to the lower end of the bust, `distance` cm off the skin (at its upper edge `edge` times that) and up to
    `drape` cm more below the chest."""
    angle = _angles(_CLOTH_COLUMNS)
    start = neckline.down(angle)
    share = np.linspace(0, 1, _ROWS)[:, None]
    down = start + (1 - start) * share
    off = distance * np.clip(edge + 8 * share, 0, 1) + drape * np.clip((down - 0.4) / 0.4, 0, 1)
    down, off = np.concatenate([down[:1], down]), np.concatenate([np.minimum(off[:1], 0.2), off])  # the hem turns in
    return sheet(torso.surface(angle, down, off), material, closed=True)


def _cloth(rng: np.random.Generator, patterns: dict[str, float], weave: str, kind: str = "any") -> Cloth:
    """A cloth of one weave whose pattern is drawn by weight."""
    weights = np.array(list(patterns.values()))
    pattern = str(rng.choice(list(patterns), p=weights / weights.sum()))
    colour, second = dye(rng, kind), dye(rng, kind)
    if abs(float(second.mean() - colour.mean())) < 0.1:  # a pattern that shows
        second = colour * 0.35 if colour.mean() > 0.2 else colour + 0.35
    if pattern == "melange":
        second = 0.55 * colour + 0.12
    return Cloth(colour, np.clip(second, 0.01, 0.8).astype(np.float32), pattern, weave)


def _t_shirt(torso: Torso, rng: np.random.Generator, skin: Material, _: float) -> list[Mesh]:
    shape = replace(_CREW, depth=_CREW.depth - rng.uniform(0, 1.6), half_width=_CREW.half_width + rng.uniform(-0.2, 1.0))
    cloth = _cloth(rng, {"plain": 5, "melange": 2, "stripes": 1.6, "band": 0.5}, "jersey")
    return _knitted(torso, rng, skin, shape, cloth, looseness=rng.uniform(0.5, 1.0), thick=0.3)


def _v_neck(torso: Torso, rng: np.random.Generator, skin: Material, _: float) -> list[Mesh]:
    shape = Shape(half_width=rng.uniform(7.4, 8.6), depth=rng.uniform(-28.5, -24.0), back=0.13, point=1.0)
    wool = rng.random() < 0.5
    cloth = _cloth(rng, {"plain": 4, "melange": 1.5, "stripes": 0.6}, "knit" if wool else "jersey")
    return _knitted(torso, rng, skin, shape, cloth, looseness=rng.uniform(0.4, 0.9), thick=0.6 if wool else 0.3)


def _jumper(torso: Torso, rng: np.random.Generator, skin: Material, _: float) -> list[Mesh]:
    cloth = _cloth(rng, {"plain": 4, "melange": 3, "stripes": 1}, str(rng.choice(["knit", "wool"])))
    return _knitted(torso, rng, skin, _CREW, cloth, looseness=rng.uniform(0.7, 1.1), thick=0.75)


def _knitted(
    torso: Torso, rng: np.random.Generator, skin: Material, shape: Shape, cloth: Cloth, looseness: float, thick: float
) -> list[Mesh]:
    """Skin, a pulled-over garment and its ribbed neckband."""
    neckline = fit_neckline(torso, shape)
    rib = cut(rng, replace(cloth, pattern="plain", colour=cloth.colour * np.float32(rng.uniform(0.85, 1.0))), 0.1)
    body = garment(torso, neckline, cut(rng, cloth, looseness), thick, 0.6 * looseness)
    return [skin_sheet(torso, skin, neckline), body, band(torso, neckline, rib, thick, 0.02 + 0.012 * thick)]


def _shirt(torso: Torso, rng: np.random.Generator, skin: Material, _: float) -> list[Mesh]:
    cloth = _cloth(rng, {"plain": 4, "check": 2, "pinstripes": 1.5, "dots": 0.4}, "woven", str(rng.choice(["shirt", "any"])))
    return _buttoned(torso, rng, skin, cloth, is_open=rng.random() < 0.7)


def _polo(torso: Torso, rng: np.random.Generator, skin: Material, _: float) -> list[Mesh]:
    return _buttoned(torso, rng, skin, _cloth(rng, {"plain": 4, "stripes": 1.5, "melange": 1}, "jersey"), is_open=True)


def _buttoned(torso: Torso, rng: np.random.Generator, skin: Material, cloth: Cloth, is_open: bool, drape: float = 0.7) -> list[Mesh]:
    """Skin, a shirt with a placket and its collar, closed or open at the throat."""
    shape = replace(_STAND, depth=rng.uniform(-26.0, -23.0), point=1.0) if is_open else _STAND
    neckline = fit_neckline(torso, shape)
    opening = rng.uniform(0.38, 0.5) if is_open else rng.uniform(0.06, 0.12)
    body = garment(torso, neckline, cut(rng, cloth, rng.uniform(0.5, 1.0), placket=True), 0.35, drape, edge=1.0)
    plain = replace(cloth, pattern="plain" if cloth.pattern != "check" else "check")
    collar = flaps(torso, neckline, cut(rng, plain, 0.05, two_sided=True), 0.4, opening, rng.uniform(5.5, 7.0))
    return [skin_sheet(torso, skin, neckline), body, collar]


def _suit(torso: Torso, rng: np.random.Generator, skin: Material, _: float) -> list[Mesh]:
    wears_tie = rng.random() < 0.5
    under = _buttoned(torso, rng, skin, _cloth(rng, {"plain": 4, "pinstripes": 1}, "woven", "shirt"), is_open=not wears_tie, drape=0.0)
    if wears_tie:
        cloth = _cloth(rng, {"plain": 2, "stripes": 2, "dots": 1}, "woven")
        under.append(tie(torso, cut(rng, cloth, 0.05), 0.6, float(fit_neckline(torso, _STAND).down(0.0))))
    return under + _jacket(torso, rng)


def _blazer(torso: Torso, rng: np.random.Generator, skin: Material, neck_radius: float) -> list[Mesh]:
    under = _t_shirt if rng.random() < 0.7 else _roll_neck
    return under(torso, rng, skin, neck_radius) + _jacket(torso, rng)


def _jacket(torso: Torso, rng: np.random.Generator) -> list[Mesh]:
    """A jacket with lapels over what has been put on before."""
    cloth = _cloth(rng, {"plain": 5, "melange": 1, "pinstripes": 0.5}, "wool", "suit")
    neckline = fit_neckline(torso, Shape(half_width=rng.uniform(7.4, 8.2), depth=rng.uniform(-50.0, -41.0), back=0.11, point=1.0))
    body = garment(torso, neckline, cut(rng, cloth, 0.45), 1.45, 0.6, edge=1.0)
    return [body, lapels(torso, neckline, cut(rng, cloth, 0.05, two_sided=True), 1.45, rng.uniform(5.0, 7.0))]


def _hoodie(torso: Torso, rng: np.random.Generator, skin: Material, _: float) -> list[Mesh]:
    cloth = _cloth(rng, {"plain": 3, "melange": 2}, "jersey")
    neckline = fit_neckline(torso, replace(_CREW, depth=-21.5))
    body = garment(torso, neckline, cut(rng, cloth, 1.1), 0.8, 0.8)
    meshes = [skin_sheet(torso, skin, neckline), body, hood(torso, neckline, cut(rng, replace(cloth, pattern="plain"), 0.5))]
    if rng.random() < 0.75:
        string = np.full(3, rng.choice([0.03, 0.6])) if rng.random() < 0.5 else cloth.colour
        cord = Material(np.full((1, 1, 3), string, np.float32), roughness=0.8, specular=0.02)
        meshes.append(cords(torso, cord, float(neckline.down(0.4)) + 0.06, rng.uniform(0.22, 0.4)))
    return meshes


def _roll_neck(torso: Torso, rng: np.random.Generator, skin: Material, neck_radius: float) -> list[Mesh]:
    cloth = _cloth(rng, {"plain": 4, "melange": 1.5}, "knit")
    neckline = fit_neckline(torso, replace(_HIGH, half_width=neck_radius + 1.0))
    body = garment(torso, neckline, cut(rng, cloth, rng.uniform(0.4, 0.8)), 0.6, 0.4, edge=1.0)
    neck = rolled_neck(torso, neckline, cut(rng, cloth, 0.05), neck_radius + 0.6, rng.uniform(-14.6, -13.6))
    return [skin_sheet(torso, skin, neckline), body, neck]


def _dress(torso: Torso, rng: np.random.Generator, skin: Material, _: float) -> list[Mesh]:
    shape = Shape(half_width=rng.uniform(8.5, 13.0), depth=rng.uniform(-29.0, -23.5), back=0.18, point=rng.uniform(1.6, 3.2))
    neckline = fit_neckline(torso, shape)
    cloth = _cloth(rng, {"plain": 3, "dots": 1, "stripes": 0.5}, "woven")
    hem = cut(rng, replace(cloth, pattern="plain"), 0.05)
    body = garment(torso, neckline, cut(rng, cloth, rng.uniform(0.4, 0.7)), 0.2, 0.4)
    return [skin_sheet(torso, skin, neckline), body, band(torso, neckline, hem, 0.22, 0.009)]


# How often each is worn by masculine and feminine people
_OUTFITS: dict[str, tuple[float, float, Callable[[Torso, np.random.Generator, Material, float], list[Mesh]]]] = {
    "t-shirt": (4.0, 2.5, _t_shirt),
    "v-neck": (1.0, 2.2, _v_neck),
    "jumper": (1.6, 1.6, _jumper),
    "shirt": (3.0, 1.4, _shirt),
    "polo": (1.2, 0.4, _polo),
    "suit": (2.0, 0.3, _suit),
    "blazer": (0.8, 1.3, _blazer),
    "hoodie": (1.6, 0.9, _hoodie),
    "turtleneck": (0.5, 1.0, _roll_neck),
    "dress": (0.0, 2.4, _dress),
}
