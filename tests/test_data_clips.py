"""Windows: in bounds, apart where they have to be, every one of them reached, the same for the same seed."""

from collections import Counter
from itertools import product

import numpy as np
import pytest

from latentsync.data.sampling import EPOCHS, choose_syncnet, choose_unet, generator


@pytest.mark.parametrize("frames", [12, 13, 20])
def test_references_never_touch_the_target_and_all_pairs_occur(frames):
    length, rng = 4, np.random.default_rng(0)
    counts = Counter(choose_unet(rng, frames, length) for _ in range(20_000))
    starts = range(frames - length + 1)
    assert set(counts) == {(start, other) for start, other in product(starts, starts) if abs(start - other) >= length}


def test_targets_are_uniform_and_references_uniform_beside_each():
    frames, length, draws = 14, 4, 66_000
    rng = np.random.default_rng(1)
    counts = Counter(choose_unet(rng, frames, length) for _ in range(draws))
    for start in range(frames - length + 1):
        beside = [count for (first, _), count in counts.items() if first == start]
        assert sum(beside) == pytest.approx(draws / 11, rel=0.08)
        assert max(beside) < 1.3 * min(beside)


@pytest.mark.parametrize("frames", [8, 9, 17])
def test_wrong_pictures_are_never_the_right_ones_and_all_pairs_occur(frames):
    length, draws, rng = 4, 20_000, np.random.default_rng(2)
    choices = [choose_syncnet(rng, frames, length) for _ in range(draws)]
    assert all((choice.sound == choice.pictures) == bool(choice.label) for choice in choices)
    assert {choice[:2] for choice in choices} == set(product(range(frames - length + 1), repeat=2))
    assert sum(choice.label for choice in choices) == pytest.approx(draws / 2, rel=0.05)
    sounds = Counter(choice.sound for choice in choices)
    assert min(sounds.values()) > 0.85 * draws / (frames - length + 1)


def test_chance_hangs_on_seed_position_and_purpose_alone():
    def draw(*key):
        return tuple(generator(*key).integers(1 << 30, size=4))

    assert draw(5, 9) == draw(5, 9)
    assert len({draw(5, 9), draw(5, 10), draw(6, 9), draw(9, 5), draw(5, 9, EPOCHS)}) == 5
