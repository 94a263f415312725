"""x"""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from embedded.talking_heads.solids import Camera, Light
from embedded.talking_heads.traits import stream

PLACES = ("living", "office", "kitchen", "studio", "park", "street", "night")
_SHARES = (0.27, 0.18, 0.08, 0.17, 0.13, 0.09, 0.08)

# Paints of walls, linear RGB: whites and greys first, then the muted colours that people live with
_PAINTS = np.array(
    [
        [0.72, 0.70, 0.66],
        [0.66, 0.62, 0.54],
        [0.55, 0.54, 0.52],
        [0.70, 0.66, 0.58],
        [0.33, 0.34, 0.35],
        [0.60, 0.50, 0.38],
        [0.34, 0.40, 0.36],
        [0.30, 0.37, 0.45],
        [0.52, 0.40, 0.33],
        [0.16, 0.19, 0.22],
        [0.42, 0.24, 0.17],
        [0.22, 0.28, 0.20],
    ],
    np.float32,
)
_FLOORS = np.array([[0.28, 0.17, 0.09], [0.16, 0.09, 0.05], [0.42, 0.31, 0.20], [0.25, 0.24, 0.23], [0.36, 0.33, 0.30]], np.float32)


@dataclass(frozen=True)
class Ambience:
    """A place in a few numbers. Colours are linear RGB."""

    place: str  # one of PLACES
    wall: np.ndarray  # float32 3, what stands around the person: paint, paper backdrop, leaves, facades
    ceiling: np.ndarray  # float32 3, what is overhead: ceiling or sky
    floor: np.ndarray  # float32 3, what is underfoot
    side: float  # -1 (picture left) .. 1 (right): where the window, lamp or sun stands
    daylight: bool  # daylight enters; otherwise lamps shine
    kelvin: float  # colour temperature of the main light, 2700 .. 7500


def draw_ambience(seed: int) -> Ambience:
    """The place of a scene."""
    rng = stream(seed, "ambience")
    place = str(rng.choice(PLACES, p=_SHARES))
    side = float(rng.choice([-1.0, 1.0]) * rng.uniform(0.35, 1.0))
    daylight = place in ("park", "street") or (place in ("living", "office", "kitchen") and rng.random() < 0.65)
    if place in ("park", "street", "night"):
        wall, ceiling, floor, kelvin = _open_air(rng, place)
    else:
        wall = _PAINTS[int(len(_PAINTS) * rng.beta(0.9, 1.5))] * rng.uniform(0.85, 1.15, 3)
        ceiling = np.array([0.75, 0.74, 0.72]) * rng.uniform(0.85, 1.05)
        floor = _FLOORS[rng.integers(len(_FLOORS))] * rng.uniform(0.7, 1.2)
        kelvin = rng.uniform(5000, 7000) if daylight else rng.uniform(2700, 4200)
        if place == "studio":
            kelvin = rng.uniform(4600, 6200)
            ceiling = ceiling * 0.4
    return Ambience(place, _colour(wall), _colour(ceiling), _colour(floor), side, daylight, float(kelvin))


def _open_air(rng: np.random.Generator, place: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Colours around, overhead and underfoot, and the temperature of the light, out of doors."""
    overcast = rng.random() < 0.5
    if place == "night":
        return np.array([0.05, 0.045, 0.05]), np.array([0.012, 0.016, 0.03]), np.array([0.05, 0.045, 0.04]), rng.uniform(2800, 4200)
    sky = np.array([0.72, 0.77, 0.84]) if overcast else np.array([0.33, 0.52, 0.86]) * rng.uniform(0.8, 1.2)
    kelvin = rng.uniform(5800, 7200) if overcast else rng.uniform(4200, 5800)
    if place == "park":
        return np.array([0.09, 0.15, 0.05]) * rng.uniform(0.8, 1.5, 3), sky, np.array([0.12, 0.17, 0.06]), kelvin
    return np.array([0.35, 0.31, 0.28]) * rng.uniform(0.7, 1.2, 3), sky, np.array([0.22, 0.21, 0.21]), kelvin


def _colour(rgb: np.ndarray) -> np.ndarray:
    return np.clip(rgb, 0.005, 0.95).astype(np.float32)


def black_body(kelvin: float) -> np.ndarray:
    """Linear RGB (float32 3, luminance 1) of a black body, white at 6000 K: Planck's law at 610, 550 and 465 nm."""
    wavelength = np.array([610e-9, 550e-9, 465e-9])

    def planck(temperature: float) -> np.ndarray:
        return 1.0 / np.expm1(0.014388 / (wavelength * temperature))

    rgb = planck(kelvin) / planck(6000.0)
    return (rgb / luminance(rgb)).astype(np.float32)


def luminance(rgb: np.ndarray) -> np.ndarray:
    """Relative luminance of linear RGB (... 3), Rec. 709."""
    return rgb @ np.array([0.2126, 0.7152, 0.0722], np.float32)


Environment = Callable[[np.ndarray], np.ndarray]  # unit directions (n 3) -> radiance (n 3)

_DIRECTIONS = 1024
_CAMERA = np.array([0.0, 0.0, 1.0], np.float32)


def harmonics(direction: np.ndarray) -> np.ndarray:
    """The nine orthonormal real spherical harmonics (... 9) of unit directions (... 3), in the order of `Light.ambient`."""
    x, y, z = np.moveaxis(np.asarray(direction, np.float32), -1, 0)
    one = np.ones_like(x)
    return np.stack(
        [
            0.282095 * one,
            0.488603 * y,
            0.488603 * z,
            0.488603 * x,
            1.092548 * x * y,
            1.092548 * y * z,
            0.315392 * (3 * z * z - 1),
            1.092548 * x * z,
            0.546274 * (x * x - y * y),
        ],
        -1,
    )


def irradiance(environment: Environment) -> np.ndarray:
    """Radiance from all around -> nine coefficients (float32 9 3) of irradiance / pi (Ramamoorthi and Hanrahan 2001, eq. 7 and 8)."""
    index = np.arange(_DIRECTIONS) + 0.5
    height = 1 - 2 * index / _DIRECTIONS
    angle = np.pi * (1 + 5**0.5) * index  # a Fibonacci spiral covers the sphere evenly
    flat = np.sqrt(1 - height * height)
    directions = np.stack([flat * np.cos(angle), height, flat * np.sin(angle)], -1).astype(np.float32)
    radiance = harmonics(directions).T @ environment(directions) * (4 * np.pi / _DIRECTIONS)
    cosine_lobe = np.repeat([1.0, 2 / 3, 1 / 4], [1, 3, 5])[:, None]  # of the clamped cosine by order, over pi
    return (radiance * cosine_lobe).astype(np.float32)


def surroundings(ambience: Ambience, glow: float) -> Environment:
    """Radiance around a person: floor, walls and ceiling in their colours, and `glow` times a broad window on the lit side."""
    window = np.array([ambience.side, 0.25, 0.35])
    window = (window / np.linalg.norm(window)).astype(np.float32)
    tint = black_body(6800.0 if ambience.daylight else ambience.kelvin)

    def radiance(direction: np.ndarray) -> np.ndarray:
        up = direction[:, 1:2]
        overhead = np.clip((up - 0.2) / 0.5, 0, 1)
        underfoot = np.clip((-up - 0.2) / 0.5, 0, 1)
        around = ambience.wall * (1 - overhead - underfoot) + ambience.ceiling * overhead + ambience.floor * underfoot
        patch = np.clip((direction @ window - 0.6) / 0.25, 0, 1)[:, None]
        return around + glow * patch * tint

    return radiance


def _direction(azimuth: float, elevation: float) -> np.ndarray:
    """Unit vector (float32 3) at degrees from the camera's axis: azimuth to the right, elevation up."""
    a, e = np.radians([azimuth, elevation])
    return np.array([np.sin(a) * np.cos(e), np.sin(e), np.cos(a) * np.cos(e)], np.float32)


def _key(rng: np.random.Generator, ambience: Ambience) -> tuple[np.ndarray, float, float]:
    """Direction, softness, and the key light's share of the light on a surface that faces it."""
    turn = np.sign(ambience.side)
    if ambience.place == "office" and rng.random() < 0.6:  # panels overhead: flat
        return _direction(rng.normal(0, 18), rng.uniform(42, 55)), rng.uniform(0.2, 0.3), rng.uniform(0.3, 0.45)
    if ambience.place in ("park", "street"):
        sunny = ambience.kelvin < 5800
        softness = rng.uniform(0.02, 0.06) if sunny else rng.uniform(0.25, 0.3)
        share = rng.uniform(0.55, 0.72) if sunny else rng.uniform(0.25, 0.42)
        return _direction(turn * rng.uniform(15, 65), rng.uniform(28, 52)), softness, share
    azimuth = turn * np.clip(rng.normal(36, 17), 4, 70)
    softness = rng.uniform(0.12, 0.3) if ambience.daylight or ambience.place == "studio" else rng.uniform(0.06, 0.18)
    low_key = rng.random() < (0.5 if ambience.place == "night" else 0.15)
    share = rng.uniform(0.76, 0.86) if low_key else rng.uniform(0.45, 0.72)
    return _direction(azimuth, rng.uniform(8, 42)), softness, share


def _fill(rng: np.random.Generator, ambience: Ambience, colour: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Direction and colour of the light without a shadow: a weak one from the other front side, or a rim from behind."""
    turn = -np.sign(ambience.side)
    if ambience.place in ("studio", "night") and rng.random() < 0.55:
        tint = black_body(rng.uniform(2700, 7500)) if ambience.place == "night" else colour
        return _direction(turn * rng.uniform(115, 150), rng.uniform(10, 35)), rng.uniform(0.3, 0.9) * tint
    return _direction(turn * rng.uniform(15, 60), rng.uniform(-10, 25)), rng.uniform(0.0, 0.16) * colour


def light(seed: int) -> Light:
    """The light of a scene, to go with `room.background` of the same seed."""
    ambience = draw_ambience(seed)
    rng = stream(seed, "light")
    direction, softness, share = _key(rng, ambience)
    balance = rng.uniform(0.25, 0.55)  # what the camera's white balance leaves of the colour of the light
    colour = black_body(ambience.kelvin) ** balance
    ambient = irradiance(surroundings(ambience, glow=rng.uniform(0.3, 1.2)))
    ambient = ambient * (ambient[0].mean() / np.maximum(ambient[0], 1e-4)) ** (0.5 * (1 - balance))
    level = luminance(harmonics(direction) @ ambient)
    key_colour = colour / luminance(colour)
    ambient = ambient * ((1 - share) / max(float(level), 1e-4))
    fill_direction, fill_colour = _fill(rng, ambience, key_colour)
    lit = 1.0 + float(luminance(fill_colour)) * max(float(fill_direction @ direction), 0.0)
    facing = share * float(direction[2]) + luminance(harmonics(_CAMERA) @ ambient)
    facing = facing + float(luminance(fill_colour)) * max(float(fill_direction[2]), 0.0)
    gain = 2.0 * float(np.exp(rng.normal(0.02, 0.1))) / (lit + float(facing))
    gain = min(gain, 1.35)
    return Light(
        key_direction=direction,
        key_colour=(gain * share * key_colour).astype(np.float32),
        softness=float(softness),
        ambient=(gain * ambient).astype(np.float32),
        fill_direction=fill_direction,
        fill_colour=(gain * fill_colour).astype(np.float32),
    )


HEAD_HEIGHT = 24.0  # cm, from the chin to the top of the hair
HEAD_MIDDLE = np.array([0.0, 0.2, 4.0])  # cm, the middle of the visible head
_FOCAL_LIMITS = (28 / 24, 85 / 24)  # picture heights: 28 and 85 mm in front of a sensor 24 mm high


def frame_camera(seed: int, aspect: float = 1.0) -> Camera:
    """Where the camera of a clip stands: 55-160 cm away, the head 0.35-0.75 of the picture high, a little off the middle.

    `aspect` is width / height of the picture; the head stays inside it.
    """
    rng = stream(seed, "framing")
    share = float(np.clip(rng.normal(0.58, 0.09), 0.35, 0.75)) * min(1.0, aspect / 0.75)
    wanted = float(np.exp(rng.uniform(np.log(55), np.log(160))))
    focal = float(np.clip(share * wanted / HEAD_HEIGHT, *_FOCAL_LIMITS))
    distance = float(np.clip(focal * HEAD_HEIGHT / share, 55, 160))
    focal = share * distance / HEAD_HEIGHT
    picture = HEAD_HEIGHT / share  # cm, height of the picture at the head
    room_x = max(0.5 * (picture * aspect - 20.0) - 1.5, 0.0)
    room_y = max(0.5 * (picture - HEAD_HEIGHT) - 1.5, 0.0)
    across = float(np.clip(rng.normal(0, 0.07) * picture, -room_x, room_x))
    above = float(np.clip((rng.normal(0.02, 0.04)) * picture, -room_y, room_y))  # heads sit above the middle of portraits
    eye = HEAD_MIDDLE + np.array([-across, -above, distance])
    return Camera(eye.astype(np.float32), focal)


@dataclass(frozen=True)
class CameraLook:
    """What a camera does to all frames of a clip."""

    gain: np.ndarray  # float32 3: exposure and white balance error, factors on linear RGB
    vignette: float  # light lost in the corners, 0 .. 0.4
    blur: float  # sigma of the lens in picture heights
    sharpen: float  # weight of the halo, 0 .. 1
    noise: float  # standard deviation of luma noise of a mid grey, in steps of 255
    chroma_noise: float  # the same of the two colour differences
    saturation: float
    quality: int  # of the JPEG-like compression, 55 .. 95; 100 leaves it out


def draw_look(seed: int) -> CameraLook:
    """The look of a clip's camera: mostly a decent one, sometimes a poor webcam."""
    rng = stream(seed, "camera look")
    poor = rng.random() < 0.3
    noise = rng.gamma(2.0, 0.8) * (2.0 if poor else 0.7)
    warm = rng.normal(0, 0.035)
    gain = np.exp(rng.normal(0, 0.09)) * np.exp([warm, rng.normal(0, 0.012), -warm])
    return CameraLook(
        gain=gain.astype(np.float32),
        vignette=float(rng.beta(1.2, 4) * 0.45),
        blur=float(rng.uniform(0.0, 0.0042) if poor else rng.uniform(0.0, 0.0022)),
        sharpen=float(rng.beta(1.1, 2.5)),
        noise=float(min(noise, 6.0)),
        chroma_noise=float(min(noise, 6.0) * rng.uniform(0.3, 0.9)),
        saturation=float(np.clip(rng.normal(1.0, 0.09), 0.75, 1.25)),
        quality=int(rng.integers(55, 80) if poor else rng.integers(75, 96)) if rng.random() < 0.7 else 100,
    )


def expose(look: CameraLook, linear: np.ndarray) -> np.ndarray:
    """Linear RGB (float32 h w 3) before tone mapping -> the same with exposure, white balance and vignette."""
    height, width = linear.shape[:2]
    y = (np.arange(height, dtype=np.float32) + 0.5) / height * 2 - 1
    x = (np.arange(width, dtype=np.float32) + 0.5) / width * 2 - 1
    fall = 1 - look.vignette * (0.5 * (x[None] ** 2 + y[:, None] ** 2)) ** 1.5
    return linear * (fall[..., None] * look.gain)


def apply(look: CameraLook, frame: np.ndarray, index: int, seed: int) -> np.ndarray:
    """A finished frame (uint8 h w 3 RGB), the `index`-th of a clip -> the same with lens blur, noise, sharpening and compression."""
    picture = frame.astype(np.float32)
    sigma = look.blur * frame.shape[0]
    if sigma > 0.2:
        picture = cv2.GaussianBlur(picture, (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101)
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)[..., None]
    if look.saturation != 1.0:
        picture = grey + look.saturation * (picture - grey)
    picture += _noise(look, grey, np.random.default_rng([seed, index, 0x5E45]))
    if look.sharpen > 0.05:
        soft = cv2.GaussianBlur(picture, (0, 0), max(0.9, 0.004 * frame.shape[0]), borderType=cv2.BORDER_REFLECT_101)
        picture = picture + 0.8 * look.sharpen * (picture - soft)
    result = np.clip(picture + 0.5, 0, 255).astype(np.uint8)
    return result if look.quality >= 100 else _compress(result, look.quality)


def _noise(look: CameraLook, grey: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Noise (float32 h w 3) of a picture's brightness (h w 1): strongest in the shadows of the tone curve; colour noise is coarser."""
    height, width = grey.shape[:2]
    fine = rng.standard_normal((height, width), np.float32)[..., None]
    coarse = rng.standard_normal(((height + 1) // 2, (width + 1) // 2, 2), np.float32)
    coarse = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
    strength = 0.6 + 0.8 * np.exp(-grey / 90.0) - 0.25 * np.clip((grey - 160.0) / 95.0, 0, 1)
    blue, red = 1.5 * look.chroma_noise * coarse[..., :1], 1.5 * look.chroma_noise * coarse[..., 1:]
    luma = look.noise * fine
    return strength * np.concatenate([luma + red, luma - 0.3 * red - 0.3 * blue, luma + blue], -1)


def _compress(frame: np.ndarray, quality: int) -> np.ndarray:
    """A frame after one trip through JPEG."""
    packed = cv2.imencode(".jpg", frame[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.ascontiguousarray(cv2.imdecode(packed, cv2.IMREAD_COLOR)[..., ::-1])
