"""Broad colours of generated faces: a tint goes, what the mouth does stays."""

import pytest
import torch

from latentsync.faces.mask import fixed_mask, lip_box
from latentsync.faces.skin import LARGEST, match_skin, skin_weights

SIZE = 128
KEEP = fixed_mask(SIZE)
RAMP = torch.linspace(-0.4, 0.4, SIZE).expand(3, SIZE, SIZE)
TINT = torch.tensor([0.05, -0.02, -0.2])[:, None, None]


def test_a_tint_is_taken_out_of_lips_too_and_shapes_stay():
    """A yellowish copy whose mouth is open, where that of the source is shut."""
    mouth = torch.zeros(SIZE, SIZE)
    mouth[88:104, 52:76] = -0.5
    source = RAMP.expand(2, 3, 3, SIZE, SIZE)  # two clips of three frames
    matched = match_skin((source + TINT + mouth).clone(), source, skin_weights(KEEP))
    generated = KEEP == 0
    assert matched.shape == source.shape
    assert (matched - source - mouth)[..., generated].abs().max() < 0.02


def test_the_lips_of_the_source_do_not_show_through():
    source = torch.zeros(1, 3, SIZE, SIZE)
    talking = torch.where(lip_box(SIZE).bool(), -0.8, source)
    assert torch.equal(match_skin(source, talking, skin_weights(KEEP)), source)


def test_what_is_no_tint_is_not_followed():
    source = torch.full((1, 3, SIZE, SIZE), 0.9)
    matched = match_skin(source - 1.5, source, skin_weights(KEEP))
    assert (matched - (source - 1.5))[..., KEEP == 0].max().item() == pytest.approx(LARGEST, abs=0.01)
