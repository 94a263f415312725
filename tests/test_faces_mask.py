"""The fixed masks against the published pictures, and frames as pixels."""

import cv2
import numpy as np
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
def test_masks_are_those_of_the_published_pictures(name):
    assert torch.equal(grey(latent_mask(fixed_mask(256, name))), GOLDEN[f"{name}_latent32_from256"])
    assert torch.equal(grey(latent_mask(fixed_mask(512, name))), GOLDEN[f"{name}_latent64_from512"])
    large = grey(fixed_mask(512))
    assert torch.equal(large[300], GOLDEN["mask_512_row_300_u8"])
    assert torch.equal(large[:, 20], GOLDEN["mask_512_col_20_u8"])
    assert torch.equal(grey(fixed_mask(64)), GOLDEN["mask_64_u8"])
    hidden = fixed_mask(256, name) == 0
    rows, columns = hidden.any(dim=1).nonzero().flatten(), hidden.any(dim=0).nonzero().flatten()
    assert hidden.float().mean().item() == pytest.approx(SIDECAR["facts"]["hidden_area_fraction"][name], abs=1e-12)
    box = [columns[0].item(), rows[0].item(), columns[-1].item(), rows[-1].item()]
    assert box == SIDECAR["facts"]["bbox_hidden_x0_y0_x1_y1_inclusive"][name]


def test_a_picture_as_mask_has_white_for_what_is_kept(tmp_path, caplog):
    keep = (fixed_mask(256) * 255).numpy().astype(np.uint8)
    cv2.imwrite(str(tmp_path / "grey.png"), keep)
    cv2.imwrite(str(tmp_path / "rgb.png"), np.repeat(keep[..., None], 3, axis=2))
    cv2.imwrite(str(tmp_path / "deep.png"), keep.astype(np.uint16) * 257)
    cv2.imwrite(str(tmp_path / "clear.png"), np.dstack([np.full((256, 256, 3), 255, np.uint8), keep]))
    for name in ("grey", "rgb", "deep", "clear"):
        for resolution in (64, 256, 512):
            assert torch.equal(fixed_mask(resolution, str(tmp_path / f"{name}.png")), fixed_mask(resolution)), name
    assert not caplog.records
    cv2.imwrite(str(tmp_path / "small.jpg"), cv2.resize(keep, (100, 100)))
    assert (fixed_mask(256, str(tmp_path / "small.jpg")) - fixed_mask(256)).abs().mean() < 0.02
    cv2.imwrite(str(tmp_path / "inverted.png"), 255 - keep)
    fixed_mask(256, str(tmp_path / "inverted.png"))
    assert "is it inverted?" in caplog.text


def test_a_picture_that_is_no_mask_is_refused(tmp_path):
    def refusal(name):
        with pytest.raises(ConfigError) as caught:
            fixed_mask(256, str(tmp_path / name))
        assert str(tmp_path / name) in str(caught.value) and str(caught.value).endswith(".")
        return str(caught.value)

    for name, grey in (("white.png", 255), ("black.png", 0)):
        cv2.imwrite(str(tmp_path / name), np.full((40, 40), grey, np.uint8))
    dot = np.full((256, 256), 255, np.uint8)
    dot[130:134, 130:134] = 0  # between the cells that the denoiser sees
    cv2.imwrite(str(tmp_path / "dot.png"), dot)
    (tmp_path / "text.png").write_bytes(b"no picture")
    (tmp_path / "empty.png").touch()
    assert "hides nothing" in refusal("white.png") and "hides nothing" in refusal("dot.png")
    assert "hides the whole face" in refusal("black.png")
    assert "no picture" in refusal("text.png") and "no picture" in refusal("empty.png")
    assert "cannot be read" in refusal("missing.png")
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
