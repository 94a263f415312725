"""Where a person sits: the kind of place, its colours and the side its light comes from. The background and the light follow it."""

from dataclasses import dataclass

import numpy as np

from preprocess.talking_heads.traits import stream

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
