"""The background of a scene: a room, an office, a studio or the open air, out of focus as a portrait lens shows it."""

import cv2
import numpy as np

from preprocess.talking_heads.scene.ambience import Ambience, draw_ambience, luminance
from preprocess.talking_heads.scene.camera import frame_camera
from preprocess.talking_heads.scene.diorama import Diorama, defocus
from preprocess.talking_heads.scene.interiors import paint_room
from preprocess.talking_heads.scene.open_air import paint_park, paint_street
from preprocess.talking_heads.traits import stream

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
