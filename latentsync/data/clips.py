"""Which frames of a clip a sample looks at: pure functions of a seeded generator."""

from typing import NamedTuple

import numpy as np

SAMPLES, EPOCHS = 0, 1  # what chance is drawn for: streams of different purposes never coincide
UNET_LENGTHS, SYNCNET_LENGTHS = 3, 2  # a clip is at least so many windows long


class UNetChoice(NamedTuple):
    """First frames of two windows that do not overlap."""

    start: int  # the target, and its sound
    reference: int


class SyncNetChoice(NamedTuple):
    """First frames of the sound and of the pictures beside it."""

    sound: int
    pictures: int
    label: int  # 1 where both are the same


def generator(seed: int, position: int, purpose: int = SAMPLES) -> np.random.Generator:
    """All chance of the sample at one position (or of one epoch's order), whoever draws it."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(purpose, position)))


def choose_unet(rng: np.random.Generator, frames: int, length: int) -> UNetChoice:
    """A target anywhere in the clip and, as its reference, any window of the clip that shares no frame with it.

    Both have `length` frames. Given the target all references are equally likely, as if drawn again until one fits (LatentSync,
    arXiv 2412.09262). Raises ValueError where the clip is shorter than UNET_LENGTHS windows.
    """
    _check(frames, length, UNET_LENGTHS)
    start = int(rng.integers(frames - length + 1))
    before = max(0, start - length + 1)  # references that end before the target begins
    after = max(0, frames - 2 * length - start + 1)
    place = int(rng.integers(before + after))
    return UNetChoice(start, place if place < before else start + length + place - before)


def choose_syncnet(rng: np.random.Generator, frames: int, length: int) -> SyncNetChoice:
    """Sound anywhere in the clip; with equal odds the pictures of the same moment or of any other one, which may overlap it.

    Raises ValueError where the clip is shorter than SYNCNET_LENGTHS windows.
    """
    _check(frames, length, SYNCNET_LENGTHS)
    sound = int(rng.integers(frames - length + 1))
    other = int(rng.integers(frames - length))
    other += other >= sound
    label = int(rng.integers(2))
    return SyncNetChoice(sound, sound if label else other, label)


def _check(frames: int, length: int, lengths: int) -> None:
    if frames < lengths * length:
        raise ValueError(f"a clip of {frames} frames is shorter than {lengths} windows of {length}")
