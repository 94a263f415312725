"""A person's traits (age, sex, colouring) from a seed, and the functions that shapes and masks are made of."""

import zlib
from dataclasses import dataclass

import numpy as np


def stream(seed: int, name: str) -> np.random.Generator:
    """An independent random stream for one purpose of one seed, the same whatever else is drawn."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


@dataclass(frozen=True)
class Traits:
    """A person in a few words."""

    seed: int
    age: float  # years, 16 .. 85
    femininity: float  # 0 (masculine) .. 1 (feminine): of shape, hair, beard and make-up
    melanin: float  # 0 (palest) .. 1 (darkest) skin
    redness: float  # 0 .. 1: blood in the skin
    fullness: float  # -1 (gaunt) .. 1 (heavy)
    hair_colour: np.ndarray  # float32 3, linear RGB, before greying
    grey: float  # 0 .. 1: share of grey hairs


def draw_traits(seed: int) -> Traits:
    """The traits of an identity; ages, tones and hair colours are spread evenly rather than as they occur, so that all are seen."""
    rng = stream(seed, "traits")
    age = float(rng.uniform(17, 60) if rng.random() < 0.75 else rng.uniform(55, 80))
    femininity = float(np.clip(rng.choice([0.12, 0.88]) + 0.1 * rng.normal(), 0, 1))
    melanin = float(rng.uniform(0, 0.92))
    grey = float(np.clip(rng.normal((age - 52) / 22, 0.25), 0, 1)) if age > 33 else 0.0
    return Traits(
        seed=seed,
        age=age,
        femininity=femininity,
        melanin=melanin,
        redness=float(rng.beta(2, 2.5)),
        fullness=float(np.clip(rng.normal(0.0, 0.45), -1, 1)),
        hair_colour=_hair_colour(rng, melanin),
        grey=grey,
    )


def _hair_colour(rng: np.random.Generator, melanin: float) -> np.ndarray:
    """Natural hair: a path from black through brown to blond by eumelanin, turned to red by pheomelanin; dark skin has dark hair."""
    lightest = float(np.clip(1.25 - 1.9 * melanin, 0.06, 1.0))
    lightness = lightest * float(rng.beta(1.3, 1.15))
    red = float(rng.random() < 0.12) * float(rng.uniform(0.4, 1.0)) * (lightness > 0.15)
    steps = np.array([[0.011, 0.008, 0.006], [0.035, 0.020, 0.012], [0.10, 0.055, 0.028], [0.27, 0.165, 0.080], [0.50, 0.37, 0.21]])
    place = lightness * (len(steps) - 1)
    low = min(int(place), len(steps) - 2)
    colour = steps[low] + (place - low) * (steps[low + 1] - steps[low])
    colour = colour * (1 + red * np.array([0.9, -0.12, -0.45]))
    return colour.astype(np.float32)


def smooth(low: float, high: float, x: np.ndarray) -> np.ndarray:
    """0 at `low` and before, 1 at `high` and beyond, smooth in between; falls where `low` > `high`."""
    u = np.clip((x - low) / (high - low), 0.0, 1.0)
    return u * u * (3 - 2 * u)


def bump(x: np.ndarray, width: float) -> np.ndarray:
    """A bell of height 1 around x = 0 that is 1/e high at `width`."""
    return np.exp(-((x / width) ** 2))


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors (... 3) scaled to length 1; zero stays zero."""
    return vectors / np.maximum(np.sqrt(np.einsum("...i,...i->...", vectors, vectors)), 1e-9)[..., None]
