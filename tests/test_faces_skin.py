"""Skin of aligned faces: a tint goes and what the mouth does stays; background beside the face is told from it."""

import cv2
import numpy as np
import pytest
import torch

from latentsync.faces.compositing import LARGEST, FaceMatte, match_skin, skin_weights
from latentsync.faces.mask import fixed_mask, lip_box

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


def test_weights_of_each_face_leave_out_what_is_not_pasted():
    """Fill from outside the picture under the face tints nothing above it."""
    source = RAMP.expand(2, 3, SIZE, SIZE).clone()
    keep = KEEP.repeat(2, 1, 1)
    source[1, :, 96:] = 0.0  # mid grey
    generated = RAMP.expand(2, 3, SIZE, SIZE) - 0.1
    keep[1, 94:] = 1
    matched = match_skin(generated, source, skin_weights(keep))
    assert torch.allclose(matched[1, :, 80:94], matched[0, :, 80:94], atol=0.01)
    assert (match_skin(generated, source, skin_weights(KEEP))[1] - matched[1])[:, 80:94].abs().max() > 0.03


SKIN, DARK_SKIN, BLUE, SHIRT = (205, 150, 125), (95, 60, 45), (40, 110, 170), (40, 40, 45)
Y, X = np.mgrid[0:SIZE, 0:SIZE] * (256 / SIZE)
FACE = ((X - 128) / 95) ** 2 + ((Y - 110) / 125) ** 2 < 1  # ends at x = 33 and 223 at half height


def drawn(skin=SKIN, background=BLUE, frames: int = 1) -> torch.Tensor:
    """Aligned faces (f, R, R, 3): an oval with a dark mouth, stubble and nostrils before a background, and a shirt below."""
    picture = np.where(FACE[..., None], skin, np.where((Y > 225)[..., None], SHIRT, background))
    picture[(np.abs(X - 128) < 30) & (np.abs(Y - 190) < 12)] = (60, 15, 20)
    picture[(np.abs(X - 128) < 14) & (np.abs(Y - 150) < 4)] = (40, 25, 20)
    stubble = FACE & (Y > 170) & ((X.astype(int) // 4 + Y.astype(int) // 4) % 3 == 0)
    picture[stubble] = picture[stubble] * 0.6
    noise = np.random.default_rng(0).normal(0, 3, (frames, SIZE, SIZE, 3))
    return torch.from_numpy((picture + noise).clip(0, 255).astype(np.uint8))


def matte_of(faces: torch.Tensor, inside: torch.Tensor | None = None) -> torch.Tensor:
    return FaceMatte(SIZE)(faces, torch.ones(faces.shape[:3]) if inside is None else inside, 0)


SIDES = torch.from_numpy((Y > 100) & (Y < 220))
BESIDE = torch.from_numpy(cv2.erode((~FACE).astype(np.uint8), np.ones((15, 15))) == 1) & SIDES & (KEEP == 0)
WITHIN = torch.from_numpy(cv2.erode(FACE.astype(np.uint8), np.ones((11, 11))) == 1) & SIDES


@pytest.mark.parametrize(
    ("skin", "background"), [(SKIN, BLUE), (SKIN, (25, 20, 20)), (SKIN, (250, 250, 250)), (DARK_SKIN, (215, 215, 210))]
)
def test_the_matte_ends_where_skin_ends(skin, background):
    (matte,) = matte_of(drawn(skin, background))
    assert matte.shape == (SIZE, SIZE) and BESIDE.sum() > 100
    assert matte[BESIDE].max() == 0, "what is beside the face keeps its pixels"
    assert matte[WITHIN].min() == 1, "mouth, stubble and nostrils belong to the face"


def test_an_ear_ring_is_not_face():
    faces = drawn(background=(195, 145, 120))  # skin-coloured, so that nothing else tells
    assert (matte_of(faces)[0][KEEP == 0] == 1).all()
    ring = (X < 34) & (np.abs(Y - 165) < 26)
    faces[:, torch.from_numpy(ring)] = torch.tensor([20, 90, 60], dtype=torch.uint8)
    matte = matte_of(faces)[0]
    assert matte[torch.from_numpy((X < 26) & (np.abs(Y - 165) < 16))].max() < 0.5
    assert matte[torch.from_numpy((np.abs(X - 128) < 80) & (Y < 200))].min() == 1


@pytest.mark.parametrize("background", [(198, 146, 122), (150, 105, 85)])
def test_all_counts_as_face_where_colours_do_not_tell(background):
    assert (matte_of(drawn(background=background))[0][(KEEP == 0) & SIDES] == 1).all()


def test_nothing_is_known_outside_the_picture():
    faces, inside = drawn(), torch.ones(1, SIZE, SIZE)
    inside[:, :, :40] = 0
    faces[:, :, :40] = 127
    (matte,) = matte_of(faces, inside)
    assert (matte[:, :60][KEEP[:, :60] == 0] == 1).all() and matte[BESIDE & torch.from_numpy(X > 128)].max() == 0
    assert (matte_of(faces, torch.zeros(1, SIZE, SIZE))[0][KEEP == 0] == 1).all()


def test_the_matte_is_steady_along_time_and_clips_go_on_from_each_other():
    calm, other = drawn(frames=16), drawn(background=(198, 146, 122))
    whole, parts = FaceMatte(SIZE), FaceMatte(SIZE)
    inside = torch.ones(16, SIZE, SIZE)
    mattes = whole(calm, inside, 0)
    assert (mattes[1:] - mattes[:-1]).abs().max() < 0.1, "noise does not make it flicker"
    cut = torch.cat([parts(calm[:9], inside[:9], 0), parts(calm[9:], inside[9:], 0)])
    assert torch.allclose(cut, mattes, atol=0.1)
    (held,) = parts(other, inside[:1], 0)
    assert held[BESIDE].float().mean() < 0.5, "one frame changes little"
    (fresh,) = parts(other, inside[:1], 1)
    assert (fresh[(KEEP == 0) & SIDES] == 1).all(), "another span starts anew"
