"""Living rooms, offices and kitchens behind a person."""

import numpy as np

from preprocess.talking_heads.scene import furniture
from preprocess.talking_heads.scene.ambience import Ambience, black_body
from preprocess.talking_heads.scene.diorama import Diorama, Lamp, even_noise
from preprocess.talking_heads.scene.furniture import rectangle

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
            furniture.bookshelf(scene, rng, spot - half, spot + half, FLOOR, rng.uniform(45, 105), wall)
        elif thing < 0.62:
            _gallery(scene, rng, spot, wall, reach)
        elif thing < 0.74:
            furniture.door(scene, rng, spot, FLOOR, wall)
        else:
            furniture.plant(scene, rng, spot, FLOOR + 40, wall - 40, rng.uniform(90, 150))
    if rng.random() < 0.55:
        middle = rng.uniform(-0.5, 0.5) * reach
        furniture.sofa(scene, rng, middle - 110, middle + 110, FLOOR + 12, wall - 2)
    if not ambience.daylight or rng.random() < 0.25:
        lamps.append(
            furniture.floor_lamp(scene, rng, float(rng.choice([-1, 1])) * reach * rng.uniform(0.55, 0.9), FLOOR, wall - 35, _warm(ambience))
        )
    if rng.random() < 0.4:
        furniture.plant(scene, rng, float(rng.choice([-1, 1])) * reach * rng.uniform(0.6, 0.9), FLOOR + 10, wall - 70, rng.uniform(70, 120))
    return lamps


def _warm(ambience: Ambience) -> np.ndarray:
    """The colour of a lamp as a camera balanced half-way shows it."""
    return black_body(min(ambience.kelvin, 3200.0)) ** 0.6


def _gallery(scene: Diorama, rng: np.random.Generator, x: float, wall: float, reach: float) -> None:
    """One to four pictures around a place."""
    count = int(rng.integers(1, 4))
    size = rng.uniform(0.3, 0.55) * reach if count == 1 else rng.uniform(0.22, 0.34) * reach
    for i in range(count):
        furniture.picture_frame(scene, rng, x + (i % 2) * size * 1.4, rng.uniform(5, 14) + (i // 2) * -size * 1.3 + 10, wall, size)


def _windows(scene: Diorama, ambience: Ambience, rng: np.random.Generator, x: float, wall: float) -> list[Lamp]:
    """A window on the back wall with curtains or none."""
    half = rng.uniform(40, 70)
    top, bottom = rng.uniform(70, 115), rng.uniform(-70, -25)
    lamp = furniture.window(scene, rng, x - half, x + half, bottom, top, wall, rng.uniform(1.0, 2.2))
    if rng.random() < 0.65:
        for left in (x - half - 32, x + half - 6):
            furniture.curtain(scene, rng, left, left + 38, FLOOR + 3, top + 14, wall)
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
        lamps.append(furniture.window(scene, rng, left - half, left + half, -35, rng.uniform(80, 115), wall, rng.uniform(0.9, 1.6)))
        if rng.random() < 0.5:
            _blinds(scene, left - half, left + half, -30, rng.uniform(50, 90), wall - 8)
    else:
        scene.box([left - 60, -20, wall - 3], [left + 60, 60, wall], np.full(3, 0.3))
        scene.polygon(rectangle(left - 57, left + 57, -17, 57, wall - 3.2), np.full(3, 0.78))
    if rng.random() < 0.5:
        furniture.bookshelf(scene, rng, right - 50, right + 50, FLOOR, rng.uniform(20, 90), wall)
    else:
        scene.box([right - 55, FLOOR, wall - 45], [right + 55, rng.uniform(-30, 40), wall], np.full(3, rng.uniform(0.15, 0.6)))
        furniture.plant(scene, rng, right + rng.uniform(-30, 30), -20, wall - 60, rng.uniform(60, 100))
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
    colour, top = furniture.wood(rng), furniture.wood(rng) * 0.8
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
        lamps.append(furniture.window(scene, rng, gap - 50, gap + 50, -18, 85, wall, rng.uniform(1.0, 2.0)))
    for x in np.arange(-3 * reach, 3 * reach, 52.0):
        scene.box([x + 0.6, FLOOR, wall - 60], [x + 51.4, FLOOR + 86, wall], colour)
        scene.box([x + 20, FLOOR + 78, wall - 63], [x + 32, FLOOR + 80, wall - 60], np.full(3, 0.45))
        if abs(x + 26 - gap) > 80:
            scene.box([x + 0.6, 22, wall - 36], [x + 51.4, 100, wall], colour)
            scene.box([x + 44, 26, wall - 38], [x + 46, 38, wall - 36], np.full(3, 0.45))
    for x in rng.uniform(-1.2 * reach, 1.2 * reach, 6):
        tall, half = rng.uniform(12, 30), rng.uniform(4, 8)
        scene.box([x - half, FLOOR + 90, wall - 30], [x + half, FLOOR + 90 + tall, wall - 30 + 2 * half], furniture.textile(rng))
    lamps.append(Lamp(np.array([0.0, CEILING - 40, 0.6 * wall]), black_body(ambience.kelvin) ** 0.5, 0.9, 60.0))
    return lamps
