"""Similarity transforms, crops and landmark smoothing against the reference numbers."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from faces_fixtures import reference_frame
from golden_recipe import load_case

from latentsync.faces.alignment import (
    AlignmentSmoother,
    LandmarkSmoother,
    bounding_box,
    face_size,
    fit_similarity,
    resize_fixed_point,
    resize_lanczos4,
    sampling_matrix,
    template,
    warp_crop,
    warp_faces,
)

SIDECAR, GOLDEN = load_case("affine_v16")
MATRIX_TOLERANCE = SIDECAR["tolerance"]["matrices"]


def difference(ours: torch.Tensor, theirs: torch.Tensor) -> tuple[int, float]:
    distance = (ours.int() - theirs.int()).abs()
    return distance.max().item(), distance.float().mean().item()


@pytest.mark.parametrize(("resolution", "key"), [(256, "affine_matrices"), (512, "affine_matrices_512")])
def test_smoothed_matrices(resolution, key):
    smoother = AlignmentSmoother(resolution)
    matrices = torch.cat([smoother(GOLDEN["landmarks3"][:2]), smoother(GOLDEN["landmarks3"][2:])])  # goes on where it stopped
    assert torch.allclose(matrices, GOLDEN[key], rtol=0, atol=MATRIX_TOLERANCE)


def test_template_single_fits_and_mirrored_landmarks():
    assert face_size(256) == (210, 280) and face_size(512) == (420, 560)
    assert torch.allclose(template(256), torch.tensor(SIDECAR["config"]["face_template"]))
    matrices, _ = fit_similarity(torch.stack([GOLDEN["landmarks3"][0], GOLDEN["mirrored_landmarks"]]), 256)
    assert torch.allclose(matrices[0], GOLDEN["affine_matrix_frame0_smooth_false"], atol=MATRIX_TOLERANCE)
    assert torch.allclose(matrices[1], GOLDEN["mirrored_matrix_smooth_false"], atol=MATRIX_TOLERANCE)


@pytest.mark.parametrize("k", [0, 4])
def test_aligned_faces(k):
    crop = warp_crop(reference_frame(k), GOLDEN["affine_matrices"][k], (210, 280), "cpu")
    largest, mean = difference(crop, GOLDEN[f"aligned_face_frame{k}"])
    assert largest <= 1 and mean < 0.03  # samples are truncated, so rounding moves 1 % of them by a grey level; 0.005 pixels give 0.058


def test_square_face_and_large_crop():
    face = warp_faces([reference_frame(0)], GOLDEN["affine_matrices"][:1], 256)
    assert face.shape == (1, 256, 256, 3) and face.dtype == torch.uint8
    assert difference(face[0], GOLDEN["aligned_face_frame0_256_lanczos"])[0] <= 2
    crop = warp_crop(reference_frame(0), GOLDEN["affine_matrices_512"][0], (420, 560), "cpu")
    assert difference(crop[200:260], GOLDEN["aligned_face_512_frame0_rows200_260"])[0] <= 1
    beside = torch.tensor([[1.0, 0.0, 5000.0], [0.0, 1.0, 0.0]])
    assert bounding_box(beside, (210, 280), (400, 300)) is None
    assert warp_crop(reference_frame(0), beside, (210, 280), "cpu").eq(127).all()


@pytest.mark.parametrize("shift", [(-500.0, -200.0), (-40.0, -20.0), (-1300.0, -600.0), (90.0, 120.0)])
def test_region_of_interest_gives_the_numbers_of_the_whole_frame(shift):
    frame = np.random.default_rng(0).integers(0, 256, (540, 960, 3), dtype=np.uint8)
    frame[:, 400:] = 200
    matrix = torch.tensor([[0.9, 0.06, shift[0]], [-0.06, 0.9, shift[1]]])
    theta = sampling_matrix(matrix, (960, 540), (210, 280))
    grid = F.affine_grid(theta[None], [1, 1, 280, 210], align_corners=True)
    layers = torch.cat([torch.from_numpy(frame).permute(2, 0, 1), torch.ones(1, 540, 960)])[None]
    sample = F.grid_sample(layers, grid, align_corners=True)[0]
    whole = (sample[:3] + 127 * (1 - sample[3:])).clamp(0, 255).to(torch.uint8).permute(1, 2, 0)
    largest, mean = difference(warp_crop(frame, matrix, (210, 280), "cpu"), whole)
    assert largest <= 1 and mean < 1e-3


@pytest.mark.parametrize("resolution", [64, 256, 512])
def test_lanczos_off_the_cpu_equals_opencv(resolution):
    crop = torch.randint(0, 256, (280, 210, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    largest, mean = difference(resize_fixed_point(crop, resolution), resize_lanczos4(crop, resolution))
    assert largest <= 1 and mean < 0.01


def test_landmark_smoothing():
    sidecar, golden = load_case("landmark_smoothing")
    smooth = LandmarkSmoother()
    ours = np.stack([smooth(points) for points in golden["lap_in"].numpy()])
    assert np.allclose(ours, golden["lap_out"].numpy(), rtol=0, atol=sidecar["tolerance"]["lap"])
