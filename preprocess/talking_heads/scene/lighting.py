"""The light on a person: a key light that fits the place, and the surroundings as nine harmonics.

Exposure: a white Lambert surface that faces the key light sends out key_colour plus the ambient light of its direction; both are scaled
so that this sum and the one of a surface that faces the camera lie near 1, which shows skin well exposed without further gain.
"""

from collections.abc import Callable

import numpy as np

from preprocess.talking_heads.scene.ambience import Ambience, black_body, draw_ambience, luminance
from preprocess.talking_heads.solids import Light
from preprocess.talking_heads.traits import stream

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
