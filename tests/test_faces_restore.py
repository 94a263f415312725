"""Pasting faces back: against the reference pictures, and what must not change."""

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from faces_fixtures import reference_frame
from golden_recipe import load_case

from latentsync.faces import compositing as pasting
from latentsync.faces.alignment import bounding_box, warp_faces
from latentsync.faces.compositing import inside_picture, restore_faces
from latentsync.faces.mask import fixed_mask, to_pixels

SIDECAR, GOLDEN = load_case("affine_v16")


def restore(frame: np.ndarray, face: torch.Tensor, matrix: torch.Tensor) -> np.ndarray:
    """A new frame with one face pasted where `matrix` took it from."""
    return restore_faces([frame], face[None], matrix[None])[0]


def flipped_face(k: int, matrices: torch.Tensor, resolution: int) -> torch.Tensor:
    """The reference's stand-in for a generated face: the aligned one with its channels reversed."""
    return to_pixels(warp_faces([reference_frame(k)], matrices[k : k + 1], resolution))[0].flip(0)


def assert_close(ours: np.ndarray, theirs: torch.Tensor) -> None:
    distance = np.abs(ours.astype(int) - theirs.numpy().astype(int))
    assert distance.max() <= 2 and distance.mean() < 0.015  # rounding: up to 2 and 0.005; a face moved by 0.01 pixels: 0.02


@pytest.mark.parametrize(
    ("k", "resolution", "rows", "key"),
    [
        (0, 256, slice(0, 300), "restored_frame0_flip"),
        (4, 256, slice(100, 200), "restored_frame4_flip_rows100_200"),
        (0, 512, slice(100, 160), "restored512_frame0_flip_rows100_160"),
    ],
)
def test_restored_frames(k, resolution, rows, key):
    matrices = GOLDEN["affine_matrices" if resolution == 256 else "affine_matrices_512"]
    restored = restore(reference_frame(k), flipped_face(k, matrices, resolution), matrices[k])
    assert restored.shape == (300, 400, 3) and restored.dtype == np.uint8
    assert_close(restored[rows], GOLDEN[key])


def cover_of(matrix: torch.Tensor, picture: tuple[int, int], box: tuple[int, int, int, int]) -> torch.Tensor:
    x, y = pasting.face_coordinates(matrix, (210, 280), picture, box, torch.device("cpu"))
    return pasting.axis_coverage(x, 210) * pasting.axis_coverage(y, 280)


def test_masks_of_the_edge():
    eroded, soft = pasting.edge_masks(cover_of(GOLDEN["affine_matrices"][0], (400, 300), (0, 0, 400, 300)))
    assert eroded.sum().item() == pytest.approx(SIDECAR["config"]["area_frame0"], rel=1e-5)
    assert torch.allclose(eroded[150], GOLDEN["eroded_mask_frame0_row150"], atol=1e-4)
    assert torch.allclose(soft[150], GOLDEN["soft_mask_frame0_row150"], atol=1e-4)
    assert torch.allclose(soft[:, 200], GOLDEN["soft_mask_frame0_col200"], atol=1e-4)
    eroded, soft = pasting.edge_masks(F.pad(torch.ones(15, 15), (5, 5, 5, 5)))
    assert eroded.sum() == 14 * 14 and torch.equal(eroded, soft), "tiny faces have no soft edge"


@pytest.mark.parametrize("edge", [1, 4, 9])
def test_erosion_and_blur_off_the_cpu_equal_opencv(edge):
    cover = cover_of(GOLDEN["affine_matrices"][4], (400, 300), (90, 50, 300, 290))
    assert torch.equal(pasting.erode_pooled(cover, 2 * edge), pasting.erode_opencv(cover, 2 * edge))
    assert torch.allclose(pasting.blur_shifts(cover, edge), pasting.blur_opencv(cover, edge), atol=1e-5)
    masks = torch.rand(3, 5, 40, generator=torch.Generator().manual_seed(0))  # several, and narrower than the kernel
    assert torch.allclose(pasting.blur_shifts(masks, edge), torch.stack([pasting.blur_opencv(mask, edge) for mask in masks]), atol=1e-5)


@pytest.mark.parametrize("shift", [(-60.0, -40.0), (120.0, 60.0), (-420.0, -250.0), (60.0, -330.0)])
def test_box_gives_the_numbers_of_the_whole_frame(shift, monkeypatch):
    frame, matrix = reference_frame(1), torch.tensor([[1.1, 0.1, shift[0]], [-0.1, 1.1, shift[1]]])
    face = torch.rand(3, 256, 256, generator=torch.Generator().manual_seed(0)) * 2 - 1
    boxed = restore(frame, face, matrix)
    assert bounding_box(matrix, (210, 280), (400, 300)) != (0, 0, 400, 300)
    monkeypatch.setattr(pasting, "bounding_box", lambda *_: (0, 0, 400, 300))
    assert np.abs(boxed.astype(int) - restore(frame, face, matrix)).max() <= 1


def test_pixels_out_of_reach_stay_and_the_input_is_not_touched():
    frame, matrix = reference_frame(2), GOLDEN["affine_matrices"][2]
    before, (x0, y0, x1, y1) = frame.copy(), bounding_box(matrix, (210, 280), (400, 300))
    restored = restore(frame, torch.ones(3, 256, 256), matrix)
    outside = np.ones((300, 400), bool)
    outside[y0:y1, x0:x1] = False
    assert (frame == before).all() and (restored[outside] == frame[outside]).all()
    assert (restored != frame).any() and restored[150, 200].tolist() == [255, 255, 255]
    beside = torch.tensor([[1.0, 0.0, 5000.0], [0.0, 1.0, 0.0]])
    assert (restore(frame, torch.zeros(3, 256, 256), beside) == frame).all()


def test_the_unchanged_face_changes_little():
    y, x = np.mgrid[0:300, 0:400]
    waves = 128 + 60 * np.sin(x / 17.0) + 50 * np.cos(y / 23.0)
    frame = np.repeat(waves[..., None], 3, axis=-1).astype(np.uint8)
    matrix = GOLDEN["affine_matrices"][0]
    restored = restore(frame, to_pixels(warp_faces([frame], matrix[None], 256))[0], matrix)
    distance = np.abs(restored.astype(int) - frame)
    assert distance.max() <= 4 and distance.mean() < 0.6


def test_only_the_masked_part_is_pasted_when_asked():
    frame, matrix, keep = reference_frame(0), GOLDEN["affine_matrices"][:1], fixed_mask(256)
    face = torch.ones(1, 3, 256, 256)
    whole, part = (restore_faces([frame], face, matrix, masks)[0].astype(int) for masks in (None, keep[None]))
    x, y = pasting.face_coordinates(matrix[0], (210, 280), (400, 300), (0, 0, 400, 300), torch.device("cpu"))
    kept = F.grid_sample(keep[None, None], torch.stack([x, y], dim=-1)[None], align_corners=True)[0, 0].numpy()  # 0 beside the face
    hidden = (kept < 0.01) & (whole.min(-1) > 250)
    far, inner = (cv2.erode(region.astype(np.uint8), np.ones((25, 25))) == 1 for region in (kept > 0.99, hidden))
    assert far.sum() > 500 and inner.sum() > 500, (far.sum(), inner.sum())
    assert (part[far] == frame[far]).all() and (whole[far] != frame[far]).any()
    assert np.abs(part[inner] - whole[inner]).max() <= 1
    steps = np.abs(np.diff(part[:, 200, 0]))
    assert steps.max() < np.abs(255 - frame[:, 200, 0].astype(int)).max() / 2, "a soft edge"


@pytest.mark.parametrize(
    ("shift", "angle"), [((0, 150), 0), ((0, -160), 0), ((-130, 0), 0), ((130, 0), 0), ((120, 140), 0), ((90, 60), 30), ((-100, -80), -40)]
)
def test_nothing_is_pasted_from_outside_the_picture(shift, angle):
    """Faces over each edge, over corners and turned: what is generated there is white, as the published fill tends to make it."""
    frame = np.full((300, 400, 3), 60, np.uint8)
    centre = np.array([200 + shift[0], 150 + shift[1]], dtype=np.float64)
    turn = cv2.getRotationMatrix2D(centre.tolist(), angle, 1.0)
    turn[:, 2] += [105, 140] - centre
    matrices = torch.from_numpy(turn).float()[None]
    from_picture = warp_faces([np.full((300, 400, 3), 255, np.uint8)], matrices, 256).float().mean(-1)  # 127 outside
    inside = inside_picture(matrices, (400, 300), 256)
    assert (inside[from_picture < 240] == 0).all() and 0.1 < inside.mean() < 0.9
    (restored,) = restore_faces([frame], torch.ones(1, 3, 256, 256), matrices, 1 - inside)
    border = np.ones((300, 400), bool)
    border[1:-1, 1:-1] = False
    assert restored[border].min() >= 59 and restored[border].max() <= 61
    assert (restored == 255).all(-1).sum() > 4000
    assert (inside_picture(GOLDEN["affine_matrices"][:3], (400, 600), 256) == 1).all()  # faces inside lose nothing
