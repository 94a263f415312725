"""x"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np

from embedded.talking_heads.scene import Ambience, black_body, draw_ambience, frame_camera, luminance
from embedded.talking_heads.traits import stream

Paint = np.ndarray | Callable[[np.ndarray], np.ndarray]  # one colour (3), or a function of scene points (n 3) -> colours (n 3)

_NEAR = 20.0  # cm; nothing is drawn nearer
_AVERAGE = np.array([0.2126, 0.7152, 0.0722], np.float32)


@dataclass(frozen=True)
class Lamp:
    """A light of a diorama that shines evenly to all sides."""

    place: np.ndarray  # float 3, cm
    colour: np.ndarray  # float 3, linear RGB
    power: float  # irradiance on a facing surface at 100 cm
    size: float = 40.0  # cm: nearer than this it does not grow brighter


class Diorama:
    """Buffers of one picture: add polygons in any order, then `shade`. The scene is turned by `yaw` radians about the camera."""

    def __init__(self, width: int, height: int, focal: float, yaw: float = 0.0) -> None:
        self.width, self.height, self.focal = width, height, focal
        cosine, sine = np.cos(yaw), np.sin(yaw)
        self._turn = np.array([[cosine, 0, sine], [0, 1, 0], [-sine, 0, cosine]])
        self._depth = np.full((height, width), np.inf, np.float32)
        self._albedo = np.zeros((height, width, 3), np.float32)
        self._normal = np.zeros((height, width, 3), np.float32)
        self._point = np.zeros((height, width, 3), np.float32)
        self._emission = np.zeros((height, width, 3), np.float32)

    def polygon(self, corners: np.ndarray, paint: Paint, emission: bool = False, normal: np.ndarray | None = None) -> None:
        """A flat convex polygon (k 3, scene cm). `emission`: paint is radiance, not albedo. `normal` (3) bends how it is lit."""
        corners = np.asarray(corners, np.float64)
        view = _clip(corners @ self._turn.T)
        if len(view) < 3:
            return
        pixels = np.stack(
            [0.5 * self.width + view[:, 0] / view[:, 2] * self._scale, 0.5 * self.height - view[:, 1] / view[:, 2] * self._scale], -1
        )
        low = np.clip(np.floor(pixels.min(0)), 0, [self.width, self.height]).astype(int)
        high = np.clip(np.ceil(pixels.max(0)) + 1, 0, [self.width, self.height]).astype(int)
        if (high <= low).any():
            return
        mask = np.zeros((high[1] - low[1], high[0] - low[0]), np.uint8)
        cv2.fillConvexPoly(mask, np.round((np.clip(pixels, -4000, 8000) - low - 0.5) * 16).astype(np.int32), 1, shift=4)
        row, column = np.nonzero(mask)
        if len(row):
            self._fill(row + low[1], column + low[0], view, paint, emission, normal)

    @property
    def _scale(self) -> float:
        return self.focal * self.height

    def _fill(self, row: np.ndarray, column: np.ndarray, view: np.ndarray, paint: Paint, emission: bool, normal: np.ndarray | None) -> None:
        """Writes the pixels of a polygon that are nearer than what stands there."""
        flat = np.cross(view[1] - view[0], view[2] - view[0])
        flat = flat / max(float(np.linalg.norm(flat)), 1e-9)
        ray = np.stack(
            [(column + 0.5 - 0.5 * self.width) / self._scale, (0.5 * self.height - row - 0.5) / self._scale, np.ones(len(row))], -1
        )
        slope = ray @ flat
        depth = (flat @ view[0]) / np.where(np.abs(slope) < 1e-6, 1e-6, slope)
        seen = (depth > 0.5 * _NEAR) & (depth < self._depth[row, column])
        row, column, depth = row[seen], column[seen], depth[seen]
        point = (ray[seen] * depth[:, None]) @ self._turn
        colour = paint(point) if callable(paint) else paint
        scene_normal = self._turn.T @ flat if normal is None else normal
        if scene_normal @ (self._turn.T @ view.mean(0)) > 0:
            scene_normal = -scene_normal
        self._depth[row, column] = depth
        self._point[row, column] = point
        self._normal[row, column] = scene_normal
        self._albedo[row, column] = 0.0 if emission else colour
        self._emission[row, column] = colour if emission else 0.0

    def box(self, low: Sequence[float], high: Sequence[float], paint: Paint) -> None:
        """A box from its least to its greatest corner; the faces that can be seen."""
        (x0, y0, z0), (x1, y1, z1) = low, high
        self.polygon([[x0, y0, z0], [x1, y0, z0], [x1, y1, z0], [x0, y1, z0]], paint)
        for x in (x0, x1):
            self.polygon([[x, y0, z0], [x, y1, z0], [x, y1, z1], [x, y0, z1]], paint)
        for y in (y0, y1):
            self.polygon([[x0, y, z0], [x1, y, z0], [x1, y, z1], [x0, y, z1]], paint)

    def shade(self, lamps: Sequence[Lamp], ambient: np.ndarray, level: float) -> np.ndarray:
        """Radiance (float32 h w 3): lamps and an even ambient light (3), scaled to a mean luminance of `level` where nothing glows."""
        total = np.ones_like(self._point) * ambient * (0.8 + 0.2 * self._normal[..., 1:2])
        for lamp in lamps:
            to_lamp = lamp.place.astype(np.float32) - self._point
            square = (to_lamp**2).sum(-1, keepdims=True)
            cosine = np.clip((to_lamp * self._normal).sum(-1, keepdims=True) / np.sqrt(square + 1), 0, 1)
            total += lamp.power * lamp.colour * cosine * 1e4 / (square + lamp.size**2)
        lit = self._albedo * total
        matt = self._albedo.any(-1)
        mean = float((lit[matt] @ _AVERAGE).mean()) if matt.any() else 1.0
        return (lit * (level / max(mean, 1e-6)) + self._emission).astype(np.float32)


def _clip(corners: np.ndarray) -> np.ndarray:
    """The part of a polygon (k 3) in front of the near plane."""
    result = []
    for here, there in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        if here[2] >= _NEAR:
            result.append(here)
        if (here[2] >= _NEAR) != (there[2] >= _NEAR):
            result.append(here + (there - here) * ((_NEAR - here[2]) / (there[2] - here[2])))
    return np.array(result)


def defocus(picture: np.ndarray, radius: float) -> np.ndarray:
    """Linear RGB (float32 h w 3) through a lens whose blur disc has `radius` pixels: even, with the brighter rim of real lenses."""
    reach = int(np.ceil(radius + 1))
    offset = np.arange(-reach, reach + 1, dtype=np.float32)
    distance = np.hypot(offset[:, None], offset[None])
    kernel = np.clip(radius + 0.5 - distance, 0, 1) * (1 + 0.3 * np.clip(distance / max(radius, 1), 0, 1) ** 4)
    return cv2.filter2D(picture, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REFLECT_101)


def even_noise(points: np.ndarray, size: float) -> np.ndarray:
    """Smooth noise (n) in about -1 .. 1 of scene points (n 3) with features of `size` cm; the same for the same points."""
    p = points / size
    x, y, z = p[:, 0], p[:, 1], p[:, 2]
    return (
        np.sin(2.1 * x + 1.3 * np.sin(1.7 * y + z)) + np.sin(1.9 * y + 1.1 * np.sin(2.3 * z - x)) + np.sin(2.7 * z + np.sin(1.3 * x + y))
    ) / 3


_WOODS = np.array([[0.36, 0.22, 0.11], [0.20, 0.11, 0.055], [0.50, 0.36, 0.21], [0.09, 0.05, 0.03], [0.68, 0.66, 0.62]])
_REDS = [[0.28, 0.07, 0.05], [0.42, 0.27, 0.11]]
_COLD = [[0.06, 0.10, 0.18], [0.08, 0.14, 0.09], [0.03, 0.03, 0.035], [0.2, 0.2, 0.22]]
_BOOKS = np.array([*_REDS, *_COLD, [0.55, 0.50, 0.40], [0.6, 0.6, 0.6]])
_TEXTILES = np.array(
    [[0.30, 0.29, 0.27], [0.10, 0.12, 0.15], [0.45, 0.38, 0.28], [0.13, 0.19, 0.20], [0.32, 0.12, 0.07], [0.60, 0.57, 0.52]]
)


def wood(rng: np.random.Generator) -> np.ndarray:
    """A colour of wood or lacquer (3)."""
    return _WOODS[rng.integers(len(_WOODS))] * rng.uniform(0.75, 1.2)


def textile(rng: np.random.Generator) -> np.ndarray:
    """A colour of upholstery and curtains (3)."""
    return _TEXTILES[rng.integers(len(_TEXTILES))] * rng.uniform(0.75, 1.2)


def rectangle(x0: float, x1: float, y0: float, y1: float, z: float) -> np.ndarray:
    """Corners (4 3) of an upright rectangle that faces the camera."""
    return np.array([[x0, y0, z], [x1, y0, z], [x1, y1, z], [x0, y1, z]])


def picture_frame(scene: Diorama, rng: np.random.Generator, x: float, y: float, z: float, size: float) -> None:
    """A framed picture: frame, mount and a print of a few large soft shapes."""
    half_x, half_y = 0.5 * size * rng.uniform(0.6, 1.3), 0.5 * size
    frame = wood(rng) if rng.random() < 0.6 else np.full(3, rng.choice([0.02, 0.7]))
    scene.polygon(rectangle(x - half_x - 2, x + half_x + 6, y - half_y - 7, y + half_y, z - 0.5), np.full(3, 0.1))  # its shadow
    scene.box([x - half_x - 2.5, y - half_y - 2.5, z - 3], [x + half_x + 2.5, y + half_y + 2.5, z], frame)
    scene.polygon(rectangle(x - half_x, x + half_x, y - half_y, y + half_y, z - 3.1), np.full(3, 0.72))
    base, top = textile(rng), textile(rng) + rng.uniform(0, 0.2)
    horizon, bend = y + half_y * rng.uniform(-0.5, 0.4), rng.uniform(4, 16)

    def print_of(points: np.ndarray) -> np.ndarray:
        edge = points[:, 1] - horizon + bend * even_noise(points + x, 14.0)
        share = np.clip(edge / 3 + 0.5, 0, 1)[:, None]
        return (base + (top - base) * share) * (1 + 0.25 * even_noise(points * 2, 9.0)[:, None])

    mount = rng.uniform(0.7, 0.95)
    scene.polygon(rectangle(x - mount * half_x, x + mount * half_x, y - mount * half_y, y + mount * half_y, z - 3.2), print_of)


def bookshelf(scene: Diorama, rng: np.random.Generator, x0: float, x1: float, floor: float, top: float, z: float) -> None:
    """Shelves full of books with gaps and things between; depth 28 cm in front of the wall at z."""
    colour = wood(rng)
    front = z - 28
    scene.polygon(rectangle(x0, x1, floor, top, z - 2), 0.55 * colour)
    for x in (x0, x1 - 3):
        scene.box([x, floor, front], [x + 3, top, z], colour)
    level = top
    while level > floor + 20:
        gap = rng.uniform(28, 38)
        scene.box([x0, level - 2.5, front], [x1, level, z], colour)
        level -= gap
        _row_of_books(scene, rng, x0 + 4, x1 - 4, level, gap - 3, front)


def _row_of_books(scene: Diorama, rng: np.random.Generator, x0: float, x1: float, y: float, height: float, front: float) -> None:
    x, tone = x0, _BOOKS[rng.integers(len(_BOOKS))]
    while x < x1 - 5:
        if rng.random() < 0.1:  # a gap, sometimes with a vase
            width = rng.uniform(8, 22)
            if rng.random() < 0.6 and x + width < x1:
                scene.box([x + 2, y, front + 8], [x + 0.6 * width, y + rng.uniform(8, 18), front + 16], textile(rng))
            x += width
            continue
        if rng.random() < 0.3:
            tone = _BOOKS[rng.integers(len(_BOOKS))]
        width, tall = rng.uniform(1.8, 5.0), height * rng.uniform(0.62, 0.92)
        inset = rng.uniform(1, 7)
        scene.box([x, y, front + inset], [x + width, y + tall, front + 22], np.clip(tone * rng.uniform(0.6, 1.3, 3), 0.02, 0.8))
        band = y + tall * rng.uniform(0.6, 0.85)
        scene.polygon(rectangle(x, x + width, band, band + 2, front + inset - 0.1), tone * 0.5 + 0.25)
        x += width + (rng.random() < 0.1) * 1.5


def window(scene: Diorama, rng: np.random.Generator, x0: float, x1: float, y0: float, y1: float, z: float, glow: float) -> Lamp:
    """A window with frame, sill and the view outside at radiance `glow`; returns the light it sheds. The night is dark outside."""
    sky = np.array([0.80, 0.90, 1.05]) * glow
    green = np.array([0.30, 0.36, 0.22]) * glow * 0.8
    horizon = y0 + (y1 - y0) * rng.uniform(0.15, 0.5)

    def outside(points: np.ndarray) -> np.ndarray:
        edge = points[:, 1] - horizon - 14 * even_noise(points + 7, 22.0)
        share = np.clip(edge / 8, 0, 1)[:, None]
        leaves = green * (1 + 0.5 * even_noise(points, 6.0)[:, None])
        return leaves + (sky * (1 + 0.1 * even_noise(points, 50.0)[:, None]) - leaves) * share

    scene.polygon(rectangle(x0, x1, y0, y1, z - 2.0), outside, emission=True)
    paint = np.full(3, rng.choice([0.72, 0.72, 0.12]))
    bars = [x0, *np.linspace(x0, x1, int(rng.integers(2, 4)) + 1)[1:-1] - 2, x1 - 4]
    for x in bars:
        scene.box([x, y0, z - 5], [x + 4, y1, z - 3], paint)
    for y in (y0, y1 - 4, *([0.5 * (y0 + y1)] if rng.random() < 0.4 else [])):
        scene.box([x0, y, z - 5], [x1, y + 4, z - 3], paint)
    scene.box([x0 - 8, y0 - 4, z - 16], [x1 + 8, y0, z], paint)
    middle = np.array([0.5 * (x0 + x1), 0.5 * (y0 + y1), z - 30])
    return Lamp(middle, np.array([0.92, 1.0, 1.1]), 0.6 * glow * (x1 - x0) * (y1 - y0) / 1e4, 0.5 * (x1 - x0))


def curtain(scene: Diorama, rng: np.random.Generator, x0: float, x1: float, y0: float, y1: float, z: float) -> None:
    """Cloth in upright folds."""
    colour = textile(rng) + rng.uniform(0, 0.25)
    count = max(6, int((x1 - x0) / rng.uniform(2.5, 4.5)))
    edges = np.linspace(x0, x1, count + 1)
    for left, right in pairwise(edges):
        tilt = np.sin(2 * np.pi * rng.random()) * 0.8
        normal = np.array([np.sin(tilt), 0.0, -np.cos(tilt)])
        scene.polygon(rectangle(left, right, y0, y1, z - 6 - 2 * np.sin(3 * tilt)), colour * rng.uniform(0.8, 1.05), normal=normal)


def door(scene: Diorama, rng: np.random.Generator, x: float, floor: float, z: float) -> None:
    """A panelled door 84 cm wide in its frame."""
    colour = np.full(3, 0.68) if rng.random() < 0.6 else wood(rng)
    scene.box([x - 50, floor, z - 3], [x + 50, floor + 212, z], colour * 0.9)
    scene.polygon(rectangle(x - 42, x + 42, floor, floor + 204, z - 3.2), colour)
    for low, high in ((15, 90), (105, 190)):
        for left in (-34, 4):
            scene.polygon(rectangle(x + left, x + left + 30, floor + low, floor + high, z - 3.4), colour * 0.8)
            scene.polygon(rectangle(x + left + 2, x + left + 30, floor + low, floor + high - 2, z - 3.5), colour * 0.95)
    scene.box([x + 34, floor + 98, z - 9], [x + 38, floor + 101, z - 4], np.full(3, 0.4))


def plant(scene: Diorama, rng: np.random.Generator, x: float, base: float, z: float, height: float) -> None:
    """A pot with leaves: broad ones on stems, or long blades."""
    pot = textile(rng) if rng.random() < 0.7 else np.array([0.42, 0.19, 0.11])
    radius = 0.16 * height
    for turn in np.linspace(-1.2, 1.2, 7):
        left, right = x + radius * np.sin(turn - 0.2), x + radius * np.sin(turn + 0.2)
        corners = rectangle(left, right, base, base + 0.3 * height, z - radius * np.cos(turn))
        scene.polygon(corners, pot, normal=np.array([np.sin(turn), 0.0, -np.cos(turn)]))
    green = np.array([0.075, 0.125, 0.045]) * rng.uniform(0.5, 1.2)
    blades = rng.random() < 0.35
    for _ in range(26 if blades else 60):
        start = np.array([x + rng.normal(0, 0.3 * radius), base + 0.28 * height, z + rng.normal(0, 0.3 * radius)])
        lean = np.array([rng.normal(0, 0.42), rng.uniform(0.5, 1.0), rng.normal(0, 0.3)])
        end = start + lean * height * rng.uniform(0.35, 0.8)
        normal = rng.normal(0, 1, 3) + np.array([0, 0.8, -0.8])
        colour = green * np.array([rng.uniform(0.7, 1.5), rng.uniform(0.8, 1.3), rng.uniform(0.7, 1.2)])
        length = 1.0 if blades else rng.uniform(0.16, 0.3)
        _leaf(scene, end + (start - end) * length, end, (0.03 if blades else 0.06) * height, normal / np.linalg.norm(normal), colour)


def _leaf(scene: Diorama, root: np.ndarray, tip: np.ndarray, width: float, normal: np.ndarray, colour: np.ndarray) -> None:
    """A pointed oval that bends its tip down."""
    axis = tip - root
    across = np.cross(axis, normal)
    across = across / max(float(np.linalg.norm(across)), 1e-6)
    share = np.array([0.0, 0.2, 0.5, 0.8, 1.0, 0.8, 0.5, 0.2])
    half = np.array([0.0, 0.75, 1.0, 0.6, 0.0, -0.6, -1.0, -0.75])
    scene.polygon(root + share[:, None] * axis + half[:, None] * width * across, colour, normal=normal)


def floor_lamp(scene: Diorama, rng: np.random.Generator, x: float, floor: float, z: float, colour: np.ndarray) -> Lamp:
    """A lamp with a lit shade; returns its light."""
    top = floor + rng.uniform(140, 172)
    scene.box([x - 1.2, floor, z - 1.2], [x + 1.2, top, z + 1.2], np.full(3, 0.06))
    radius, height = rng.uniform(14, 22), rng.uniform(22, 34)

    def shade(points: np.ndarray) -> np.ndarray:
        around = 1 - 0.5 * np.clip(np.abs(points[:, 0] - x) / radius, 0, 1) ** 2
        return 2.2 * colour * (around * (1.1 - 0.5 * np.abs(points[:, 1] - top) / height))[:, None]

    corners = [[x - radius, top - 0.5 * height, z], [x + radius, top - 0.5 * height, z], [x + 0.7 * radius, top + 0.5 * height, z]]
    scene.polygon([*corners, [x - 0.7 * radius, top + 0.5 * height, z]], shade, emission=True)
    return Lamp(np.array([x, top, z - 25.0]), colour, rng.uniform(0.7, 1.4), 45.0)


def sofa(scene: Diorama, rng: np.random.Generator, x0: float, x1: float, floor: float, z: float) -> None:
    """A sofa against the wall with cushions."""
    colour = textile(rng)
    scene.box([x0, floor, z - 85], [x1, floor + 45, z], colour)
    count = max(2, round((x1 - x0) / 75))
    edges = np.linspace(x0 + 14, x1 - 14, count + 1)
    for left, right in pairwise(edges):
        scene.box([left + 0.8, floor + 40, z - 32], [right - 0.8, floor + 84, z - 4], colour * rng.uniform(0.92, 1.05))
    for left in (x0, x1 - 16):
        scene.box([left, floor, z - 88], [left + 16, floor + 62, z], colour * 0.95)
    for _ in range(rng.integers(1, 4)):
        x = rng.uniform(x0 + 20, x1 - 60)
        scene.polygon(
            np.array([[x, floor + 46, z - 48], [x + 40, floor + 48, z - 46], [x + 38, floor + 84, z - 36], [x + 3, floor + 86, z - 38]]),
            np.clip(textile(rng) * 1.3, 0, 0.8),
        )


FLOOR = -125.0  # cm below the camera: a seated person
CEILING = 135.0


def paint_room(scene: Diorama, ambience: Ambience, rng: np.random.Generator, wall: float) -> np.ndarray:
    """A room whose back wall stands `wall` cm away: radiance (float32 h w 3)."""
    reach = 0.5 * wall / scene.focal * max(1.0, scene.width / scene.height)  # half of what is seen of the back wall
    side = max(reach * rng.uniform(0.75, 1.9), 110.0)
    _shell(scene, ambience, rng, wall, side)
    painter = {"office": _office, "kitchen": _kitchen}.get(ambience.place, _living)
    lamps = painter(scene, ambience, rng, wall, min(reach, side - 6))
    lamps.append(_side_light(ambience, side, wall))
    ambient = 0.22 * black_body(ambience.kelvin) ** 0.5
    return scene.shade(lamps, ambient, level=float(np.exp(rng.uniform(np.log(0.09), np.log(0.34)))))


def _side_light(ambience: Ambience, side: float, wall: float) -> Lamp:
    """The window or lamp that also lights the person: beside the camera, outside of the picture."""
    return Lamp(np.array([ambience.side * side * 0.9, 30.0, 0.35 * wall]), black_body(ambience.kelvin) ** 0.5, 1.6, 90.0)


def _shell(scene: Diorama, ambience: Ambience, rng: np.random.Generator, wall: float, side: float) -> None:
    """Walls, floor, ceiling and skirting, darker towards their corners."""
    back = ambience.wall
    sides = back if rng.random() < 0.6 else np.clip(0.75 * back + 0.2, 0, 0.8)
    brick = rng.random() < 0.08

    def corner(points: np.ndarray, colour: np.ndarray) -> np.ndarray:
        gaps = [side - np.abs(points[:, 0]), CEILING - points[:, 1], points[:, 1] - FLOOR, wall - points[:, 2]]
        shade = np.prod([1 - 0.33 * np.exp(-np.clip(gap, 0, None) / 26.0) * (gap > 0.5) for gap in gaps], axis=0)
        return colour * (shade * (1 + 0.03 * even_noise(points, 30.0)))[:, None]

    def bricks(points: np.ndarray) -> np.ndarray:
        row = np.floor(points[:, 1] / 8)
        across = points[:, 0] / 24 + 0.5 * (row % 2)
        mortar = (points[:, 1] / 8 % 1 < 0.13) | (across % 1 < 0.05)
        tone = 0.8 + 0.4 * (np.sin(12.9 * np.floor(across) + 78.2 * row) * 43758.5 % 1)
        return corner(points, np.where(mortar[:, None], 0.42, np.array([0.36, 0.15, 0.09]) * tone[:, None]))

    scene.polygon(rectangle(-side, side, FLOOR, CEILING, wall), bricks if brick else lambda points: corner(points, back))
    for x in (-side, side):
        scene.polygon([[x, FLOOR, 0], [x, FLOOR, wall], [x, CEILING, wall], [x, CEILING, 0]], lambda points: corner(points, sides))
    scene.polygon([[-side, CEILING, 0], [side, CEILING, 0], [side, CEILING, wall], [-side, CEILING, wall]], ambience.ceiling)
    boards = ambience.floor

    def planks(points: np.ndarray) -> np.ndarray:
        tone = 0.85 + 0.3 * (np.sin(91.7 * np.floor(points[:, 0] / 14)) * 4375.5 % 1)
        return corner(points, boards * tone[:, None])

    scene.polygon([[-side, FLOOR, 0], [side, FLOOR, 0], [side, FLOOR, wall], [-side, FLOOR, wall]], planks)
    scene.box([-side, FLOOR, wall - 1.5], [side, FLOOR + 9, wall], np.full(3, 0.66))


def _slots(rng: np.random.Generator, reach: float) -> tuple[float, float]:
    """Middles of the two places beside the person's head."""
    return -reach * rng.uniform(0.5, 0.8), reach * rng.uniform(0.5, 0.8)


def _living(scene: Diorama, ambience: Ambience, rng: np.random.Generator, wall: float, reach: float) -> list[Lamp]:
    """Sofa or sideboard below; shelves, pictures, plants, lamps and windows beside the head."""
    lamps = []
    spots = list(_slots(rng, reach))
    rng.shuffle(spots)
    if ambience.daylight and rng.random() < 0.6:
        lamps += _windows(scene, ambience, rng, np.sign(ambience.side) * reach * 0.75, wall)
        spots = [spot for spot in spots if spot * ambience.side < 0]
    for spot in spots:
        thing = rng.random()
        if thing < 0.34:
            half = rng.uniform(40, 75)
            bookshelf(scene, rng, spot - half, spot + half, FLOOR, rng.uniform(45, 105), wall)
        elif thing < 0.62:
            _gallery(scene, rng, spot, wall, reach)
        elif thing < 0.74:
            door(scene, rng, spot, FLOOR, wall)
        else:
            plant(scene, rng, spot, FLOOR + 40, wall - 40, rng.uniform(90, 150))
    if rng.random() < 0.55:
        middle = rng.uniform(-0.5, 0.5) * reach
        sofa(scene, rng, middle - 110, middle + 110, FLOOR + 12, wall - 2)
    if not ambience.daylight or rng.random() < 0.25:
        lamps.append(floor_lamp(scene, rng, float(rng.choice([-1, 1])) * reach * rng.uniform(0.55, 0.9), FLOOR, wall - 35, _warm(ambience)))
    if rng.random() < 0.4:
        plant(scene, rng, float(rng.choice([-1, 1])) * reach * rng.uniform(0.6, 0.9), FLOOR + 10, wall - 70, rng.uniform(70, 120))
    return lamps


def _warm(ambience: Ambience) -> np.ndarray:
    """The colour of a lamp as a camera balanced half-way shows it."""
    return black_body(min(ambience.kelvin, 3200.0)) ** 0.6


def _gallery(scene: Diorama, rng: np.random.Generator, x: float, wall: float, reach: float) -> None:
    """One to four pictures around a place."""
    count = int(rng.integers(1, 4))
    size = rng.uniform(0.3, 0.55) * reach if count == 1 else rng.uniform(0.22, 0.34) * reach
    for i in range(count):
        picture_frame(scene, rng, x + (i % 2) * size * 1.4, rng.uniform(5, 14) + (i // 2) * -size * 1.3 + 10, wall, size)


def _windows(scene: Diorama, ambience: Ambience, rng: np.random.Generator, x: float, wall: float) -> list[Lamp]:
    """A window on the back wall with curtains or none."""
    half = rng.uniform(40, 70)
    top, bottom = rng.uniform(70, 115), rng.uniform(-70, -25)
    lamp = window(scene, rng, x - half, x + half, bottom, top, wall, rng.uniform(1.0, 2.2))
    if rng.random() < 0.65:
        for left in (x - half - 32, x + half - 6):
            curtain(scene, rng, left, left + 38, FLOOR + 3, top + 14, wall)
    return [lamp]


def _office(scene: Diorama, ambience: Ambience, rng: np.random.Generator, wall: float, reach: float) -> list[Lamp]:
    """Glass, blinds, cupboards, a whiteboard, desks with screens, panels of light overhead."""
    left, right = _slots(rng, reach)
    lamps = []
    for z in np.arange(0.35, 1.0, 0.3) * wall:
        for x in (-0.5 * reach, 0.5 * reach):
            corners = [
                [x - 30, CEILING - 0.5, z - 30],
                [x + 30, CEILING - 0.5, z - 30],
                [x + 30, CEILING - 0.5, z + 30],
                [x - 30, CEILING - 0.5, z + 30],
            ]
            scene.polygon(corners, np.full(3, 2.4), emission=True)
            lamps.append(Lamp(np.array([x, CEILING - 25.0, z]), np.ones(3), 0.35, 60.0))
    if rng.random() < 0.55:
        half = rng.uniform(0.35, 0.6) * reach
        lamps.append(window(scene, rng, left - half, left + half, -35, rng.uniform(80, 115), wall, rng.uniform(0.9, 1.6)))
        if rng.random() < 0.5:
            _blinds(scene, left - half, left + half, -30, rng.uniform(50, 90), wall - 8)
    else:
        scene.box([left - 60, -20, wall - 3], [left + 60, 60, wall], np.full(3, 0.3))
        scene.polygon(rectangle(left - 57, left + 57, -17, 57, wall - 3.2), np.full(3, 0.78))
    if rng.random() < 0.5:
        bookshelf(scene, rng, right - 50, right + 50, FLOOR, rng.uniform(20, 90), wall)
    else:
        scene.box([right - 55, FLOOR, wall - 45], [right + 55, rng.uniform(-30, 40), wall], np.full(3, rng.uniform(0.15, 0.6)))
        plant(scene, rng, right + rng.uniform(-30, 30), -20, wall - 60, rng.uniform(60, 100))
    if rng.random() < 0.6:
        x = rng.uniform(-reach, reach)
        scene.box([x - 70, FLOOR + 70, wall - 120], [x + 70, FLOOR + 74, wall - 50], np.full(3, 0.55))
        scene.box([x - 26, FLOOR + 84, wall - 80], [x + 26, FLOOR + 114, wall - 77], np.full(3, 0.03))
    return lamps


def _blinds(scene: Diorama, x0: float, x1: float, y0: float, y1: float, z: float) -> None:
    """Slats 5 cm apart."""
    for y in np.arange(y0, y1, 5.0):
        scene.polygon(np.array([[x0, y, z], [x1, y, z], [x1, y + 2.6, z + 3], [x0, y + 2.6, z + 3]]), np.full(3, 0.7))


def _kitchen(scene: Diorama, ambience: Ambience, rng: np.random.Generator, wall: float, reach: float) -> list[Lamp]:
    """Worktop, tiles, cupboards with handles, a shelf with jars, a hood or a window."""
    colour, top = wood(rng), wood(rng) * 0.8
    tile, size = np.clip(ambience.wall * 1.15 + 0.08, 0, 0.8), rng.choice([7.5, 10.0, 15.0])
    width = size * rng.choice([1.0, 2.0])

    def tiles(points: np.ndarray) -> np.ndarray:
        row = np.floor(points[:, 1] / size)
        across = points[:, 0] / width + 0.5 * (row % 2) * (width > size)
        joint = (points[:, 1] / size % 1 < 0.06) | (across % 1 < 0.06 * size / width)
        tone = 0.93 + 0.12 * (np.sin(37.7 * np.floor(across) + 91.3 * row) * 4375.5 % 1)
        return np.where(joint[:, None], 0.3, tile * tone[:, None])

    scene.polygon(rectangle(-3 * reach, 3 * reach, FLOOR + 90, 22, wall - 0.5), tiles)
    scene.box([-3 * reach, FLOOR + 86, wall - 62], [3 * reach, FLOOR + 90, wall], top)
    lamps = []
    gap = np.sign(ambience.side) * 0.6 * reach
    if ambience.daylight:
        lamps.append(window(scene, rng, gap - 50, gap + 50, -18, 85, wall, rng.uniform(1.0, 2.0)))
    for x in np.arange(-3 * reach, 3 * reach, 52.0):
        scene.box([x + 0.6, FLOOR, wall - 60], [x + 51.4, FLOOR + 86, wall], colour)
        scene.box([x + 20, FLOOR + 78, wall - 63], [x + 32, FLOOR + 80, wall - 60], np.full(3, 0.45))
        if abs(x + 26 - gap) > 80:
            scene.box([x + 0.6, 22, wall - 36], [x + 51.4, 100, wall], colour)
            scene.box([x + 44, 26, wall - 38], [x + 46, 38, wall - 36], np.full(3, 0.45))
    for x in rng.uniform(-1.2 * reach, 1.2 * reach, 6):
        tall, half = rng.uniform(12, 30), rng.uniform(4, 8)
        scene.box([x - half, FLOOR + 90, wall - 30], [x + half, FLOOR + 90 + tall, wall - 30 + 2 * half], textile(rng))
    lamps.append(Lamp(np.array([0.0, CEILING - 40, 0.6 * wall]), black_body(ambience.kelvin) ** 0.5, 0.9, 60.0))
    return lamps


_FACADES = np.array(
    [[0.45, 0.38, 0.29], [0.34, 0.17, 0.11], [0.50, 0.48, 0.44], [0.28, 0.28, 0.29], [0.55, 0.47, 0.34], [0.20, 0.17, 0.15]]
)
_GROUND = -150.0  # cm below the camera: a standing person


def paint_park(ambience: Ambience, rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """Sky, far trees, bushes and grass, the nearer the more saturated; gaps and leaves that catch the sun: radiance (float32 h w 3)."""
    horizon = height * rng.uniform(0.45, 0.75)
    y = np.arange(height, dtype=np.float32)[:, None, None]
    sky = ambience.ceiling * (1.15 - 0.35 * (1 - y / height)) + np.zeros((height, width, 1), np.float32)
    depth = np.clip((y - horizon) / (height - horizon + 1), 0, 1)
    grass = ambience.floor * np.array([1.25, 1.15, 1.0]) * (0.75 + 0.8 * (1 - depth))
    picture = np.where(y > horizon, grass * (1 + 0.12 * _patches(rng, width, height, 24)), sky).astype(np.float32)
    sun = 1.0 if ambience.kelvin < 5800 else 0.35
    open_sky = rng.random() < 0.5
    for layer, haze in enumerate((0.55, 0.25, 0.0)):
        crown = (0.42 if open_sky else 0.95) * height * (0.55 + 0.2 * layer)
        _foliage(picture, rng, ambience, horizon + height * 0.03 * layer, crown, haze, sun)
    for _ in range(rng.integers(0, 4)):
        _trunk(picture, rng, horizon)
    return picture


def _patches(rng: np.random.Generator, width: int, height: int, cells: int) -> np.ndarray:
    """Soft noise (float32 h w 1)."""
    return cv2.resize(rng.standard_normal((cells, cells), np.float32), (width, height), interpolation=cv2.INTER_CUBIC)[..., None]


def _foliage(picture: np.ndarray, rng: np.random.Generator, ambience: Ambience, base: float, crown: float, haze: float, sun: float) -> None:
    """Clumps of leaves up to a ragged line `crown` pixels above `base`: dark below, lit on top and towards the sun."""
    height, width = picture.shape[:2]
    green = ambience.wall * rng.uniform(0.75, 1.3, 3)
    sky = ambience.ceiling * 0.6
    line = crown * np.clip(1 + 0.4 * np.interp(np.arange(width), np.linspace(0, width, 9), rng.normal(0, 1, 9)), 0.2, 2.0)
    count = 700
    x = rng.uniform(-0.05 * width, 1.05 * width, count)
    rise = rng.beta(1.3, 1.2, count)
    y = base - rise * line[np.clip(x.astype(int), 0, width - 1)]
    radius = height * rng.uniform(0.008, 0.035, count) * (1.4 - haze)
    lit = np.clip(0.35 + 0.65 * rise + rng.normal(0, 0.3, count), 0.1, 1.8) * (0.6 + sun * rng.random(count))
    for i in np.argsort(rise + rng.normal(0, 0.15, count)):
        colour = green * lit[i] * np.array([1 + 0.25 * rng.normal(), 1.0, 0.9])
        colour = np.clip(colour * (1 - haze) + sky * haze * 0.6, 0.004, 3)
        centre = (int(x[i] * 16), int(y[i] * 16))
        cv2.ellipse(picture, centre, (int(radius[i] * 16), int(radius[i] * 11)), rng.uniform(0, 180), 0, 360, colour.tolist(), -1, shift=4)
    sparks = int(rng.uniform(15, 70) * (0.3 + sun))
    for _ in range(sparks):
        i = rng.integers(count)
        bright = ambience.ceiling * rng.uniform(1.5, 9.0) * np.array([1.05, 1.0, 0.8])
        cv2.circle(picture, (int(x[i]), int(y[i] - 2)), int(rng.integers(0, 2)), bright.tolist(), -1)


def _trunk(picture: np.ndarray, rng: np.random.Generator, horizon: float) -> None:
    """The stem of a tree from the ground to above the picture."""
    height, width = picture.shape[:2]
    x, half = rng.uniform(0, width), width * rng.uniform(0.012, 0.04)
    foot = horizon + height * rng.uniform(0.02, 0.2)
    lean = rng.normal(0, 0.05) * width
    for share, tone in ((1.0, 0.5), (0.62, 0.8), (0.25, 1.1)):
        wide = half * share
        corners = np.array([[x - wide * 1.2, foot], [x + wide * 1.2, foot], [x + lean + wide, -2], [x + lean - wide, -2]])
        cv2.fillConvexPoly(picture, np.round(corners).astype(np.int32), (np.array([0.10, 0.075, 0.05]) * tone).tolist())


def paint_street(scene: Diorama, ambience: Ambience, rng: np.random.Generator) -> np.ndarray:
    """Facades along a street, or a night with lit windows and lamps: radiance (float32 h w 3)."""
    night = ambience.place == "night"
    far = rng.uniform(2500, 6000)
    scene.polygon(rectangle(-4e4, 4e4, -4e4, 4e4, 3.9e4), lambda points: _sky(points, ambience), emission=True)
    half = rng.uniform(320, 800)
    shift = rng.uniform(-0.5, 0.5) * half
    road = [[-9e3, _GROUND, 0], [9e3, _GROUND, 0], [9e3, _GROUND, 3.5e4], [-9e3, _GROUND, 3.5e4]]
    scene.polygon(road, lambda points: ambience.floor * (1 + 0.08 * even_noise(points, 60.0))[:, None])
    for side in (-1.0, 1.0):
        z = rng.uniform(100, 300)
        while z < far:
            length = rng.uniform(500, 1300)
            _facade(scene, rng, shift + side * half, z, z + length, rng.uniform(600, 1700), night)
            z += length
        scene.box([shift + side * (half - 160), _GROUND, 60], [shift + side * half, _GROUND + 10, far], ambience.floor * 1.4)
        for place in np.arange(rng.uniform(250, 500), min(far, 3200), rng.uniform(520, 800)):
            if rng.random() < 0.6:
                _car(scene, rng, shift + side * (half - 270), place)
    scene.box([-3e3, _GROUND, far], [3e3, rng.uniform(500, 1200), far + 50], _FACADES[rng.integers(len(_FACADES))] * 0.8)
    sun = Lamp(np.array([ambience.side * 9e3, 1.2e4, -2e3]), black_body(ambience.kelvin) ** 0.5, 1.2e4, 40.0)
    if not night:
        return scene.shade([sun], 0.8 * ambience.ceiling, level=float(rng.uniform(0.16, 0.34)))
    picture = scene.shade([], np.array([0.5, 0.45, 0.45]), level=float(rng.uniform(0.008, 0.03)))
    return _night_lights(picture, rng)


def _sky(points: np.ndarray, ambience: Ambience) -> np.ndarray:
    """Brighter and paler towards the horizon."""
    up = np.clip(points[:, 1] / 1.6e4, 0, 1)[:, None]
    pale = 0.55 * ambience.ceiling + 0.45 * ambience.ceiling.max()
    return (pale * 1.15 * (1 - up) + ambience.ceiling * up) * (1 + 0.05 * even_noise(points, 9e3)[:, None])


def _facade(scene: Diorama, rng: np.random.Generator, x: float, z0: float, z1: float, top: float, night: bool) -> None:
    """A house front along the street: plaster or brick, rows of windows, a shop window below."""
    colour = _FACADES[rng.integers(len(_FACADES))] * rng.uniform(0.75, 1.15)
    glass = np.array([0.06, 0.08, 0.10]) if rng.random() < 0.6 else np.array([0.30, 0.36, 0.42])
    bay, storey = rng.uniform(170, 300), rng.uniform(280, 340)
    shop = colour * 0.4 if rng.random() < 0.5 else rng.uniform(0.03, 0.3, 3)

    def front(points: np.ndarray) -> np.ndarray:
        along, up = (points[:, 2] - z0) / bay, (points[:, 1] - _GROUND) / storey
        across, level = np.abs(along % 1 - 0.5), up % 1
        pane = (across < 0.24) & (level > 0.22) & (level < 0.78) & (up > 1)
        trim = (across < 0.29) & (level > 0.17) & (level < 0.82) & (up > 1)
        below = np.where(((up < 0.8) & (across < 0.42))[:, None], glass * 0.7, shop)
        above = np.where(pane[:, None], glass, np.where(trim[:, None], colour * 1.25, colour))
        return np.where((up < 1)[:, None], below, above)

    scene.polygon([[x, _GROUND, z0], [x, _GROUND, z1], [x, top, z1], [x, top, z0]], front)
    scene.polygon([[x, _GROUND, z0], [3 * x, _GROUND, z0], [3 * x, top, z0], [x, top, z0]], colour * 0.9)
    if night:
        for along in np.arange(z0 + 0.5 * bay, z1, bay):
            for floor in range(int((top - _GROUND) / storey)):
                if rng.random() < 0.35:
                    low, glow = _GROUND + storey * (floor + 0.25), black_body(rng.uniform(2500, 5000)) * rng.uniform(0.2, 0.9)
                    z = [along - 0.22 * bay, along + 0.22 * bay]
                    near = x - np.sign(x) * 2
                    pane = [[near, low, z[0]], [near, low, z[1]], [near, low + 0.5 * storey, z[1]], [near, low + 0.5 * storey, z[0]]]
                    scene.polygon(pane, glow, emission=True)


def _car(scene: Diorama, rng: np.random.Generator, x: float, z: float) -> None:
    """A parked car: body, dark glass, roof."""
    paint = np.full(3, rng.choice([0.02, 0.12, 0.5, 0.65])) if rng.random() < 0.75 else rng.uniform(0.03, 0.35, 3)
    scene.box([x - 85, _GROUND + 28, z], [x + 85, _GROUND + 88, z + 430], paint)
    scene.box([x - 72, _GROUND + 88, z + 60], [x + 72, _GROUND + 136, z + 340], np.array([0.03, 0.04, 0.05]))
    scene.box([x - 68, _GROUND + 134, z + 90], [x + 68, _GROUND + 142, z + 310], paint)
    scene.box([x - 80, _GROUND, z + 20], [x + 80, _GROUND + 30, z + 400], np.full(3, 0.015))


def _night_lights(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Street lamps, signs, traffic lights and cars far away, as points far brighter than the rest."""
    height, width = picture.shape[:2]
    colours = np.array(
        [[1.0, 0.55, 0.2], [1.0, 0.62, 0.28], [1.0, 0.8, 0.55], [0.85, 0.92, 1.0], [1.0, 0.12, 0.06], [0.15, 0.9, 0.45], [0.3, 0.5, 1.0]]
    )
    weights = np.array([0.28, 0.22, 0.2, 0.12, 0.1, 0.04, 0.04])
    level = height * rng.uniform(0.4, 0.6)
    for _ in range(int(rng.uniform(35, 110))):
        colour = colours[rng.choice(len(colours), p=weights)]
        x, spread = rng.uniform(0, width), rng.choice([0.05, 0.2])
        y = level + rng.normal(0, spread) * height
        size = int(rng.random() < 0.3)
        bright = colour * float(np.exp(rng.normal(2.6, 0.9))) / (1 + 3 * size)
        cv2.circle(picture, (int(x), int(y)), size, np.clip(bright, 0, 60).tolist(), -1)
    return picture


_DRAWN = 256  # pixels: height at which the scene is drawn; being out of focus it needs no more
_BRIGHTEST = 6.0  # radiance that a sensor still tells apart


def background(seed: int, width: int, height: int) -> np.ndarray:
    """What is behind the person (float32 h w 3, linear RGB), to go with `lighting.light` and `camera.frame_camera` of the same seed."""
    ambience = draw_ambience(seed)
    rng = stream(seed, "background")
    drawn = min(_DRAWN, height)
    across = max(8, round(drawn * width / height))
    picture = _paint(seed, ambience, rng, across, drawn)
    sharp = rng.random() < 0.3  # a webcam or a telephone instead of a portrait lens
    share = rng.uniform(0.011, 0.017) if sharp else rng.uniform(0.018, 0.042)
    if ambience.place in ("park", "street", "night"):
        share = max(share, rng.uniform(0.02, 0.036))
    picture = defocus(np.minimum(picture, 40.0), max(share * drawn, 1.2))
    if (across, drawn) != (width, height):
        picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_CUBIC)
    grain = rng.standard_normal((height, width, 1), np.float32)
    return np.clip(picture * (1 + 0.012 * grain), 0.0, _BRIGHTEST).astype(np.float32)


def _paint(seed: int, ambience: Ambience, rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """The scene in focus (float32 h w 3)."""
    if ambience.place == "studio":
        return _backdrop(ambience, rng, width, height)
    if ambience.place == "park":
        return paint_park(ambience, rng, width, height)
    camera = frame_camera(seed, width / height)
    if ambience.place in ("street", "night"):
        return paint_street(Diorama(width, height, camera.focal, rng.normal(0, 0.22)), ambience, rng)
    scene = Diorama(width, height, camera.focal, rng.normal(0, 0.24))
    return paint_room(scene, ambience, rng, float(camera.eye[2]) + rng.uniform(110, 330))


def _backdrop(ambience: Ambience, rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """Seamless paper or painted canvas with a pool of light behind the person."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    x, y = (x - 0.5 * width) / height, (y - 0.5 * height) / height
    centre = np.array([ambience.side * rng.uniform(-0.35, 0.35), rng.uniform(-0.25, 0.3)])
    away = np.hypot((x - centre[0]) / rng.uniform(0.8, 1.4), y - centre[1])
    pool = 1 / (1 + (away / rng.uniform(0.35, 0.8)) ** 2)
    low = rng.uniform(0.12, 0.75)
    light = low + (1 - low) * pool + 0.12 * ambience.side * x
    level = float(np.exp(rng.uniform(np.log(0.03), np.log(0.6))))
    colour = ambience.wall / max(float(luminance(ambience.wall)), 0.02)
    picture = level * light[..., None] * colour
    if rng.random() < 0.45:  # painted canvas: cloudy strokes at several scales
        clouds = sum(
            cv2.resize(rng.standard_normal((cells, cells), np.float32), (width, height), interpolation=cv2.INTER_CUBIC) / cells**0.5
            for cells in (4, 8, 16, 32)
        )
        picture = picture * np.exp(0.28 * clouds)[..., None]
    return picture.astype(np.float32)
