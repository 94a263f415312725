"""Things that stand and hang in rooms, built of polygons in a `Diorama`. Walls are planes z = constant, seen from smaller z."""

from itertools import pairwise

import numpy as np

from preprocess.talking_heads.scene.diorama import Diorama, Lamp, even_noise

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
