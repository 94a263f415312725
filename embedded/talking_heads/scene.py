"""What is around a person: surroundings and the side their light comes from, light, blurred background, and the camera.

Exposure: a white Lambert surface that faces the key light sends out key_colour plus the ambient light of its direction; both are scaled
so that this sum and the one of a surface that faces the camera lie near 1, which shows skin well exposed without further gain.
"""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from embedded.talking_heads.solids import Camera, Light
from embedded.talking_heads.traits import stream

HEAD_HEIGHT = 24.0  # cm, from the chin to the top of the hair
HEAD_MIDDLE = np.array([0.0, 0.2, 4.0])  # cm, the middle of the visible head
_FOCAL_LIMITS = (28 / 24, 85 / 24)  # picture heights: 28 and 85 mm in front of a sensor 24 mm high
_DIRECTIONS = 1024  # in which the surroundings are sampled
_DRAWN = 160  # pixels: height at which backgrounds are drawn; being out of focus they need no more
_BRIGHTEST = 6.0  # radiance that a sensor still tells apart
_PLACES = {"room": 0.5, "studio": 0.2, "outdoors": 0.22, "night": 0.08}  # and how often each comes
# Paints of walls and things, linear RGB: whites and greys first, then muted colours
_PAINTS = np.array(
    [[0.72, 0.70, 0.66], [0.66, 0.62, 0.54], [0.55, 0.54, 0.52], [0.70, 0.66, 0.58], [0.33, 0.34, 0.35], [0.60, 0.50, 0.38],
     [0.34, 0.40, 0.36], [0.30, 0.37, 0.45], [0.52, 0.40, 0.33], [0.16, 0.19, 0.22], [0.42, 0.24, 0.17], [0.22, 0.28, 0.20],
     [0.20, 0.11, 0.055], [0.06, 0.10, 0.18], [0.03, 0.03, 0.035], [0.28, 0.07, 0.05]], np.float32,
)  # fmt: skip
_LAMPS = np.array([[1.0, 0.55, 0.2], [1.0, 0.8, 0.55], [0.85, 0.92, 1.0], [1.0, 0.12, 0.06], [0.15, 0.9, 0.45], [0.3, 0.5, 1.0]])


@dataclass(frozen=True)
class Surroundings:
    """A place in a few numbers. Colours are linear RGB, float32 3."""

    place: str  # one of _PLACES
    wall: np.ndarray  # what stands around the person: paint, paper backdrop, leaves, house fronts
    ceiling: np.ndarray  # what is overhead: ceiling or sky
    floor: np.ndarray
    side: float  # -1 (picture left) .. 1 (right): where the window, lamp or sun stands
    daylight: bool  # daylight enters; otherwise lamps shine
    kelvin: float  # colour temperature of the main light, 2700 .. 7500


def draw_surroundings(seed: int) -> Surroundings:
    """The place of a scene; its light and background follow from it."""
    rng = stream(seed, "surroundings")
    place = str(rng.choice(list(_PLACES), p=list(_PLACES.values())))
    side = float(rng.choice([-1.0, 1.0]) * rng.uniform(0.35, 1.0))
    daylight = place == "outdoors" or (place == "room" and rng.random() < 0.65)
    wall = _PAINTS[int(12 * rng.beta(0.9, 1.5))] * rng.uniform(0.85, 1.15, 3)
    ceiling, floor = np.array([0.75, 0.74, 0.72]), np.array([0.28, 0.2, 0.13]) * rng.uniform(0.6, 1.4)
    kelvin = rng.uniform(5000, 7000) if daylight else rng.uniform(2700, 4200)
    if place == "studio":
        ceiling, kelvin = 0.4 * ceiling, rng.uniform(4600, 6200)
    elif place == "night":
        wall, ceiling, floor = np.array([0.05, 0.045, 0.05]), np.array([0.012, 0.016, 0.03]), np.array([0.05, 0.045, 0.04])
    elif place == "outdoors":
        overcast, green = rng.random() < 0.5, rng.random() < 0.6
        ceiling = np.array([0.72, 0.77, 0.84]) if overcast else np.array([0.33, 0.52, 0.86]) * rng.uniform(0.8, 1.2)
        wall = np.array([0.09, 0.15, 0.05] if green else [0.35, 0.31, 0.28]) * rng.uniform(0.75, 1.3, 3)
        floor = np.array([0.12, 0.17, 0.06] if green else [0.22, 0.21, 0.21])
        kelvin = rng.uniform(5800, 7200) if overcast else rng.uniform(4200, 5800)
    wall, ceiling, floor = (np.clip(colour, 0.005, 0.95).astype(np.float32) for colour in (wall, ceiling, floor))
    return Surroundings(place, wall, ceiling, floor, side, daylight, float(kelvin))


def black_body(kelvin: float) -> np.ndarray:
    """Linear RGB (float32 3, luminance 1) of a black body, white at 6000 K: Planck's law at 610, 550 and 465 nm."""
    wavelength = np.array([610e-9, 550e-9, 465e-9])
    rgb = np.expm1(0.014388 / (wavelength * 6000.0)) / np.expm1(0.014388 / (wavelength * kelvin))
    return (rgb / luminance(rgb)).astype(np.float32)


def luminance(rgb: np.ndarray) -> np.ndarray:
    """Relative luminance of linear RGB (... 3), Rec. 709."""
    return rgb @ np.array([0.2126, 0.7152, 0.0722], np.float32)


def harmonics(direction: np.ndarray) -> np.ndarray:
    """The nine orthonormal real spherical harmonics (... 9) of unit directions (... 3), in the order of `Light.ambient`."""
    x, y, z = np.moveaxis(np.asarray(direction, np.float32), -1, 0)
    basis = (1 + 0 * x, y, z, x, x * y, y * z, 3 * z * z - 1, x * z, x * x - y * y)
    scale = np.array([0.282095, 0.488603, 0.488603, 0.488603, 1.092548, 1.092548, 0.315392, 1.092548, 0.546274], np.float32)
    return np.stack(basis, -1) * scale


def irradiance(environment: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Radiance by direction (n 3 -> n 3) -> nine coefficients (float32 9 3) of irradiance / pi (Ramamoorthi & Hanrahan 2001, eq. 7)."""
    index = np.arange(_DIRECTIONS) + 0.5
    height = 1 - 2 * index / _DIRECTIONS
    angle = np.pi * (1 + 5**0.5) * index  # a Fibonacci spiral covers the sphere evenly
    flat = np.sqrt(1 - height * height)
    directions = np.stack([flat * np.cos(angle), height, flat * np.sin(angle)], -1).astype(np.float32)
    radiance = harmonics(directions).T @ environment(directions) * (4 * np.pi / _DIRECTIONS)
    cosine_lobe = np.repeat([1.0, 2 / 3, 1 / 4], [1, 3, 5])[:, None]  # of the clamped cosine by order, over pi
    return (radiance * cosine_lobe).astype(np.float32)


def _radiance(around: Surroundings, glow: float) -> Callable[[np.ndarray], np.ndarray]:
    """Radiance around a person: floor, walls and ceiling in their colours, and `glow` times a broad window on the lit side."""
    window = np.array([around.side, 0.25, 0.35])
    window = (window / np.linalg.norm(window)).astype(np.float32)
    tint = black_body(6800.0 if around.daylight else around.kelvin)

    def radiance(direction: np.ndarray) -> np.ndarray:
        up = direction[:, 1:2]
        overhead, underfoot = np.clip((up - 0.2) / 0.5, 0, 1), np.clip((-up - 0.2) / 0.5, 0, 1)
        seen = around.wall * (1 - overhead - underfoot) + around.ceiling * overhead + around.floor * underfoot
        return seen + glow * np.clip((direction @ window - 0.6) / 0.25, 0, 1)[:, None] * tint

    return radiance


def _direction(azimuth: float, elevation: float) -> np.ndarray:
    """Unit vector (float32 3) at degrees from the camera's axis: azimuth to the right, elevation up."""
    a, e = np.radians([azimuth, elevation])
    return np.array([np.sin(a) * np.cos(e), np.sin(e), np.cos(a) * np.cos(e)], np.float32)


def _key(rng: np.random.Generator, around: Surroundings) -> tuple[np.ndarray, float, float]:
    """Direction, softness, and the key light's share of the light on a surface that faces it."""
    turn = np.sign(around.side)
    if around.place == "room" and rng.random() < 0.2:  # panels overhead: flat
        return _direction(rng.normal(0, 18), rng.uniform(42, 55)), rng.uniform(0.2, 0.3), rng.uniform(0.3, 0.45)
    if around.place == "outdoors":
        sunny = around.kelvin < 5800
        softness = rng.uniform(0.02, 0.06) if sunny else rng.uniform(0.25, 0.3)
        share = rng.uniform(0.55, 0.72) if sunny else rng.uniform(0.25, 0.42)
        return _direction(turn * rng.uniform(15, 65), rng.uniform(28, 52)), softness, share
    softness = rng.uniform(0.12, 0.3) if around.daylight or around.place == "studio" else rng.uniform(0.06, 0.18)
    low_key = rng.random() < (0.5 if around.place == "night" else 0.15)
    share = rng.uniform(0.76, 0.86) if low_key else rng.uniform(0.45, 0.72)
    return _direction(turn * np.clip(rng.normal(36, 17), 4, 70), rng.uniform(8, 42)), softness, share


def light(seed: int) -> Light:
    """The light of a scene, to go with the `background` of the same seed."""
    around, rng = draw_surroundings(seed), stream(seed, "light")
    direction, softness, share = _key(rng, around)
    balance = rng.uniform(0.25, 0.55)  # what the camera's white balance leaves of the colour of the light
    colour = black_body(around.kelvin) ** balance
    key_colour = colour / luminance(colour)
    ambient = irradiance(_radiance(around, glow=rng.uniform(0.3, 1.2)))
    ambient = ambient * (ambient[0].mean() / np.maximum(ambient[0], 1e-4)) ** (0.5 * (1 - balance))
    ambient = ambient * ((1 - share) / max(float(luminance(harmonics(direction) @ ambient)), 1e-4))
    fill_turn = -np.sign(around.side)
    if around.place in ("studio", "night") and rng.random() < 0.55:  # a rim from behind
        fill, fill_colour = _direction(fill_turn * rng.uniform(115, 150), rng.uniform(10, 35)), rng.uniform(0.3, 0.9) * key_colour
    else:
        fill, fill_colour = _direction(fill_turn * rng.uniform(15, 60), rng.uniform(-10, 25)), rng.uniform(0.0, 0.16) * key_colour
    filled = float(luminance(fill_colour))
    lit = 1.0 + filled * max(float(fill @ direction), 0.0)
    facing = share * float(direction[2]) + float(luminance(harmonics(np.array([0, 0, 1])) @ ambient)) + filled * max(float(fill[2]), 0.0)
    gain = min(2.0 * float(np.exp(rng.normal(0.02, 0.1))) / (lit + facing), 1.35)
    colours = (gain * share * key_colour, gain * ambient, gain * fill_colour)
    key, soft, second = (value.astype(np.float32) for value in colours)
    return Light(direction, key, float(softness), soft, fill, second)


def background(seed: int, width: int, height: int) -> np.ndarray:
    """What is behind the person, out of focus (float32 h w 3, linear RGB), to go with the `light` of the same seed."""
    around, rng = draw_surroundings(seed), stream(seed, "background")
    rows = min(_DRAWN, height)
    columns = max(8, round(rows * width / height))
    painters = {"room": _paint_room, "studio": _paint_studio, "outdoors": _paint_outdoors, "night": _paint_night}
    picture = painters[around.place](around, rng, columns, rows).astype(np.float32)
    radius = max(float(rng.uniform(0.011, 0.017) if rng.random() < 0.3 else rng.uniform(0.018, 0.042)) * rows, 1.2)
    reach = np.arange(-int(radius + 2), int(radius + 3), dtype=np.float32)
    disc = np.clip(radius + 0.5 - np.hypot(reach[:, None], reach[None]), 0, 1)
    picture = cv2.filter2D(np.minimum(picture, 40.0), -1, disc / disc.sum(), borderType=cv2.BORDER_REFLECT_101)
    picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(picture * (1 + 0.012 * rng.standard_normal((height, width, 1), np.float32)), 0.0, _BRIGHTEST).astype(np.float32)


def _clouds(rng: np.random.Generator, columns: int, rows: int, cells: tuple[int, ...]) -> np.ndarray:
    """Soft noise (float32 h w 1) of about unit spread with features of several sizes."""
    layers = [
        cv2.resize(rng.standard_normal((count, count), np.float32), (columns, rows), interpolation=cv2.INTER_CUBIC) for count in cells
    ]
    return np.mean(layers, 0)[..., None]


def _paint_room(around: Surroundings, rng: np.random.Generator, columns: int, rows: int) -> np.ndarray:
    """A wall, darker to its corners, with furniture, pictures and shelves as boxes, and a window or a lamp on the lit side."""
    y, x = np.mgrid[0:rows, 0:columns].astype(np.float32) / rows
    span = columns / rows
    corner = np.exp(-(((x / span - rng.uniform(0, 1)) / 0.06) ** 2))  # of the room
    falloff = 1 + 0.5 * around.side * (x / span - 0.5) - 0.25 * corner
    picture = around.wall * falloff[..., None] * (1 + 0.04 * _clouds(rng, columns, rows, (4, 12)))
    picture[y > rng.uniform(0.75, 1.1)] = around.floor
    for _ in range(int(rng.integers(2, 12))):
        half = np.array([rng.uniform(0.03, 0.2), rng.uniform(0.03, 0.3)])
        middle = np.array([rng.uniform(0, span), rng.uniform(0.1, 1.1)])
        colour = _PAINTS[rng.integers(len(_PAINTS))] * rng.uniform(0.5, 1.2)
        low, high = ((middle + sign * half) * rows for sign in (-1, 1))
        cv2.rectangle(picture, low.astype(int).tolist(), high.astype(int).tolist(), colour.tolist(), -1)
        if rng.random() < 0.3:  # a row of things on it
            for left in np.arange(low[0], high[0], rows * rng.uniform(0.015, 0.05)):
                thing = _PAINTS[rng.integers(len(_PAINTS))] * rng.uniform(0.5, 1.3, 3)
                top = low[1] + 0.4 * rng.random() * (high[1] - low[1])
                cv2.rectangle(picture, (int(left), int(top)), (int(left + 0.03 * rows), int(high[1])), thing.tolist(), -1)
    lit = span * (0.5 + 0.4 * around.side) + rng.normal(0, 0.08)
    if around.daylight and rng.random() < 0.55:
        pane = (np.abs(x - lit) < rng.uniform(0.1, 0.25)) & (np.abs(y - rng.uniform(0.2, 0.45)) < rng.uniform(0.2, 0.4))
        view = np.array([0.8, 0.9, 1.05]) * rng.uniform(1.0, 2.2) * (1 + 0.3 * _clouds(rng, columns, rows, (6, 20)) * (y > 0.4)[..., None])
        picture = np.where((pane & (np.abs((x - lit) % 0.16 - 0.08) < 0.07))[..., None], view, picture)
    elif not around.daylight and rng.random() < 0.5:
        cv2.circle(picture, (int(lit * rows), int(rng.uniform(0.2, 0.6) * rows)), int(0.07 * rows), (2.2 * black_body(3000)).tolist(), -1)
    level = float(np.exp(rng.uniform(np.log(0.09), np.log(0.34))))
    return picture * level / max(float(luminance(np.minimum(picture, 1.0)).mean()), 1e-3)


def _paint_studio(around: Surroundings, rng: np.random.Generator, columns: int, rows: int) -> np.ndarray:
    """Seamless paper or a painted canvas with a pool of light behind the person."""
    y, x = np.mgrid[0:rows, 0:columns].astype(np.float32) / rows
    x = x - 0.5 * columns / rows
    away = np.hypot((x - around.side * rng.uniform(-0.35, 0.35)) / rng.uniform(0.8, 1.4), y - rng.uniform(0.25, 0.8))
    low = rng.uniform(0.12, 0.75)
    pool = low + (1 - low) / (1 + (away / rng.uniform(0.35, 0.8)) ** 2) + 0.12 * around.side * x
    level = float(np.exp(rng.uniform(np.log(0.03), np.log(0.6))))
    picture = level * pool[..., None] * around.wall / max(float(luminance(around.wall)), 0.02)
    return picture * np.exp(0.5 * _clouds(rng, columns, rows, (4, 8, 16, 32))) if rng.random() < 0.45 else picture


def _paint_outdoors(around: Surroundings, rng: np.random.Generator, columns: int, rows: int) -> np.ndarray:
    """Sky above a ragged line of trees or houses, ground below."""
    y = np.arange(rows, dtype=np.float32)[:, None, None] / rows
    picture = around.ceiling * (1.1 - 0.3 * y) + np.zeros((rows, columns, 1))
    for depth in (0.5, 0.2, 0.0):  # far and hazy first
        ragged = rng.uniform(0.05, 0.5) + 0.12 * _clouds(rng, columns, 1, (4, 9, 25))
        leaves = around.wall * rng.uniform(0.5, 0.9) * rng.uniform(0.85, 1.15, 3) * np.exp(0.8 * _clouds(rng, columns, rows, (6, 20, 50)))
        picture = np.where(y > ragged, leaves * (1 - depth) + 0.6 * around.ceiling * depth, picture)
    return np.where(y > rng.uniform(0.6, 1.0), around.floor * (1 + 0.2 * _clouds(rng, columns, rows, (10, 40))), picture)


def _paint_night(around: Surroundings, rng: np.random.Generator, columns: int, rows: int) -> np.ndarray:
    """Darkness with street lamps, signs and windows far away, as points far brighter than the rest."""
    picture = around.wall * rng.uniform(0.2, 0.8) * np.exp(0.5 * _clouds(rng, columns, rows, (6, 16)))
    for _ in range(int(rng.uniform(25, 80))):
        colour = _LAMPS[rng.choice(len(_LAMPS), p=[0.4, 0.25, 0.15, 0.1, 0.05, 0.05])] * np.exp(rng.normal(1.6, 0.8))
        place = int(rng.uniform(0, columns)), int((0.45 + rng.normal(0, 0.18)) * rows)
        cv2.circle(picture, place, int(rng.random() < 0.3), colour.tolist(), -1)
    return picture


def frame_camera(seed: int) -> Camera:
    """The camera of a square picture: 55-160 cm away, the head inside it, 0.35-0.75 of it high, a little off the middle."""
    rng = stream(seed, "framing")
    share = float(np.clip(rng.normal(0.58, 0.09), 0.35, 0.75))
    wanted = float(np.exp(rng.uniform(np.log(55), np.log(160))))
    focal = float(np.clip(share * wanted / HEAD_HEIGHT, *_FOCAL_LIMITS))
    distance = float(np.clip(focal * HEAD_HEIGHT / share, 55, 160))
    picture = HEAD_HEIGHT / share  # cm, height of the picture at the head
    room = np.maximum(0.5 * (picture - np.array([20.0, HEAD_HEIGHT])) - 1.5, 0.0)
    shift = np.clip(rng.normal([0.0, 0.02], [0.07, 0.04]) * picture, -room, room)  # heads sit above the middle of portraits
    return Camera((HEAD_MIDDLE + np.array([-shift[0], -shift[1], distance])).astype(np.float32), share * distance / HEAD_HEIGHT)


@dataclass(frozen=True)
class CameraEffects:
    """What lens, sensor and compression do to all frames of a clip."""

    gain: np.ndarray  # float32 3: exposure and white balance error, factors on linear RGB
    vignette: float  # light lost in the corners, 0 .. 0.4
    blur: float  # sigma of the lens in picture heights
    sharpen: float  # weight of the halo, 0 .. 1
    noise: float  # standard deviation of luma noise of a mid grey, in steps of 255
    chroma_noise: float  # the same of the two colour differences
    saturation: float
    quality: int  # of the JPEG-like compression, 55 .. 95; 100 leaves it out


def draw_effects(seed: int) -> CameraEffects:
    """The effects of a clip's camera: mostly a decent one, sometimes a poor webcam."""
    rng = stream(seed, "camera look")
    poor = rng.random() < 0.3
    noise = float(min(rng.gamma(2.0, 0.8) * (2.0 if poor else 0.7), 6.0))
    warm = rng.normal(0, 0.035)
    return CameraEffects(
        gain=(np.exp(rng.normal(0, 0.09)) * np.exp([warm, rng.normal(0, 0.012), -warm])).astype(np.float32),
        vignette=float(rng.beta(1.2, 4) * 0.45),
        blur=float(rng.uniform(0.0, 0.0042 if poor else 0.0022)),
        sharpen=float(rng.beta(1.1, 2.5)),
        noise=noise,
        chroma_noise=noise * float(rng.uniform(0.3, 0.9)),
        saturation=float(np.clip(rng.normal(1.0, 0.09), 0.75, 1.25)),
        quality=int(rng.integers(55, 80) if poor else rng.integers(75, 96)) if rng.random() < 0.7 else 100,
    )


def expose(effects: CameraEffects, linear: np.ndarray) -> np.ndarray:
    """Linear RGB (float32 h w 3) before tone mapping -> the same with exposure, white balance and vignette."""
    y, x = ((np.arange(size, dtype=np.float32) + 0.5) / size * 2 - 1 for size in linear.shape[:2])
    falloff = 1 - effects.vignette * (0.5 * (x[None] ** 2 + y[:, None] ** 2)) ** 1.5
    return linear * (falloff[..., None] * effects.gain)


def apply_effects(effects: CameraEffects, frame: np.ndarray, index: int, seed: int) -> np.ndarray:
    """A finished frame (uint8 h w 3 RGB), the `index`-th of a clip -> the same with lens blur, noise, sharpening and compression."""
    picture = frame.astype(np.float32)
    sigma = effects.blur * frame.shape[0]
    if sigma > 0.2:
        picture = cv2.GaussianBlur(picture, (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101)
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)[..., None]
    picture = grey + effects.saturation * (picture - grey) + _noise(effects, grey, np.random.default_rng([seed, index, 0x5E45]))
    if effects.sharpen > 0.05:
        soft = cv2.GaussianBlur(picture, (0, 0), max(0.9, 0.004 * frame.shape[0]), borderType=cv2.BORDER_REFLECT_101)
        picture = picture + 0.8 * effects.sharpen * (picture - soft)
    result = np.clip(picture + 0.5, 0, 255).astype(np.uint8)
    if effects.quality >= 100:
        return result
    packed = cv2.imencode(".jpg", result[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, effects.quality])[1]
    return np.ascontiguousarray(cv2.imdecode(packed, cv2.IMREAD_COLOR)[..., ::-1])


def _noise(effects: CameraEffects, grey: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Noise (float32 h w 3) of a picture's brightness (h w 1): strongest in the shadows of the tone curve; colour noise is coarser."""
    height, width = grey.shape[:2]
    luma = effects.noise * rng.standard_normal((height, width, 1), np.float32)
    coarse = rng.standard_normal(((height + 1) // 2, (width + 1) // 2, 2), np.float32)
    coarse = 1.5 * effects.chroma_noise * cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
    blue, red = coarse[..., :1], coarse[..., 1:]
    strength = 0.6 + 0.8 * np.exp(-grey / 90.0) - 0.25 * np.clip((grey - 160.0) / 95.0, 0, 1)
    return strength * np.concatenate([luma + red, luma - 0.3 * red - 0.3 * blue, luma + blue], -1)
