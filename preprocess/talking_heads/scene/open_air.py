"""Parks, streets and nights behind a person."""

import cv2
import numpy as np

from preprocess.talking_heads.scene.ambience import Ambience, black_body
from preprocess.talking_heads.scene.diorama import Diorama, Lamp, even_noise
from preprocess.talking_heads.scene.furniture import rectangle

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
