"""Pictures of nothing: drawn by chance alone, covered everywhere, with the spectrum of photographs."""

from itertools import pairwise

import numpy as np
import pytest

from embedded.autoencoder import LARGEST_SHARE, LEAST_RADIUS, _radii, dead_leaves

SIDE = 96


def picture(seed: int, side: int = SIDE) -> np.ndarray:
    return dead_leaves(np.random.default_rng(seed), side)


def test_the_same_chance_draws_the_same_picture() -> None:
    assert np.array_equal(picture(3), picture(3))
    assert not np.array_equal(picture(3), picture(4))


@pytest.mark.parametrize("side", [32, 96])
def test_pictures_are_colourful_and_of_the_size_asked_for(side: int) -> None:
    pictures = np.stack([picture(seed, side) for seed in range(8)])
    assert pictures.shape == (8, side, side, 3) and pictures.dtype == np.uint8
    assert pictures.std((1, 2, 3)).min() > 5  # none is empty
    assert np.abs(np.diff(pictures.astype(float), axis=-1)).mean() > 3  # not grey


def test_small_shapes_are_many_and_large_ones_few() -> None:
    radii = np.concatenate([_radii(np.random.default_rng(seed), SIDE) for seed in range(40)])
    assert radii.min() >= LEAST_RADIUS[0] and radii.max() <= LARGEST_SHARE * SIDE
    assert np.median(radii) < 0.25 * LARGEST_SHARE * SIDE < radii.max()


def test_the_spectrum_falls_like_that_of_photographs() -> None:
    """Amplitudes fall about as one over frequency: clearly faster than noise, more slowly than a blur."""
    grey = np.stack([picture(seed).mean(-1) for seed in range(24)])
    grey = (grey - grey.mean((1, 2), keepdims=True)) * np.outer(np.hanning(SIDE), np.hanning(SIDE))
    power = (np.abs(np.fft.fft2(grey)) ** 2).mean(0)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(SIDE), np.fft.fftfreq(SIDE)))
    rings = np.geomspace(0.03, 0.4, 8)
    means = [power[(low <= frequency) & (frequency < high)].mean() for low, high in pairwise(rings)]
    slope = np.polyfit(np.log(np.sqrt(rings[:-1] * rings[1:])), np.log(means) / 2, 1)[0]
    assert -2 < slope < -0.7, slope
