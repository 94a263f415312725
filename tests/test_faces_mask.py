"""The fixed masks against the published pictures, and frames as pixels."""

import pytest
import torch
import torch.nn.functional as F
from golden_recipe import load_case

from latentsync.errors import ConfigError
from latentsync.faces.mask import HIDDEN, fixed_mask, latent_mask, masked_pixels, to_pixels

SIDECAR, GOLDEN = load_case("mask")


def grey(mask: torch.Tensor) -> torch.Tensor:
    return (mask * 255).round().to(torch.uint8)


@pytest.mark.parametrize("name", HIDDEN)
def test_latent_masks_are_those_of_the_published_pictures(name):
    assert torch.equal(grey(latent_mask(fixed_mask(256, name))), GOLDEN[f"{name}_latent32_from256"])
    assert torch.equal(grey(latent_mask(fixed_mask(512, name))), GOLDEN[f"{name}_latent64_from512"])


def test_resized_mask_keeps_the_published_edges():
    large = grey(fixed_mask(512))
    assert torch.equal(large[300], GOLDEN["mask_512_row_300_u8"])
    assert torch.equal(large[:, 20], GOLDEN["mask_512_col_20_u8"])
    assert torch.equal(grey(fixed_mask(64)), GOLDEN["mask_64_u8"])


@pytest.mark.parametrize("name", HIDDEN)
def test_hidden_area_and_box(name):
    hidden = fixed_mask(256, name) == 0
    rows, columns = hidden.any(dim=1).nonzero().flatten(), hidden.any(dim=0).nonzero().flatten()
    assert hidden.float().mean().item() == pytest.approx(SIDECAR["facts"]["hidden_area_fraction"][name], abs=1e-12)
    box = [columns[0].item(), rows[0].item(), columns[-1].item(), rows[-1].item()]
    assert box == SIDECAR["facts"]["bbox_hidden_x0_y0_x1_y1_inclusive"][name]


def test_unknown_mask_names_the_known_ones():
    with pytest.raises(ConfigError, match=r"data.mask is 'round'.*mask, mask2, mask3, mask4"):
        fixed_mask(256, "round")


def test_pixels_and_masked_pixels():
    sidecar, golden = load_case("image_preproc")
    frames = golden["input_u8_hwc"].movedim(-1, -3).float()
    small = F.interpolate(frames, (32, 32), mode="bicubic", antialias=True).clamp(0, 255).round().to(torch.uint8)
    pixels = to_pixels(small.movedim(-3, -1))
    atol = sidecar["tolerance"]["atol"]
    assert torch.allclose(pixels, golden["pixel_values_v16_bicubic"], atol=atol)
    masked = masked_pixels(
        golden["pixel_values_v16_bicubic"], golden["mask_1ch"][0, 0] if golden["mask_1ch"].ndim == 4 else golden["mask_1ch"][0]
    )
    assert torch.allclose(masked, golden["masked_pixel_values_v16"], atol=1e-6)


def test_pixels_span_minus_one_to_one():
    faces = torch.tensor([0, 255], dtype=torch.uint8).view(1, 2, 1, 1).expand(1, 2, 1, 3)
    pixels = to_pixels(faces)
    assert pixels.shape == (1, 3, 2, 1)
    assert pixels[0, :, 0].eq(-1).all() and pixels[0, :, 1].eq(1).all()
