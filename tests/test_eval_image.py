"""SSIM, PSNR, LPIPS, jitter, seam, identity and hyperIQA on differences that are known."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from picture_fakes import SIDE, TinyArcFace, case, chunk, crop_corners, in_two, measured, random_pictures, write_script
from refusals import refused

from benchmarks.overfit import write_random_vgg16
from eval.measure import MetricRun
from eval.metrics.image import (
    FACE_SIDE,
    MOST_PSNR,
    Identity,
    Jitter,
    Lpips,
    Psnr,
    Ssim,
    identity_face,
    load_identity,
    luma,
    mouth_box,
    ssim_map,
)
from eval.metrics.seam import CODEC_NOISE, MARGIN, Seam, outside_crop
from latentsync.errors import InputError
from latentsync.faces.mask import fixed_mask
from latentsync.losses.lpips import load_lpips

ROWS, COLUMNS = mouth_box(SIDE)


def faces(count: int = 6, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(random_pictures(count, SIDE, SIDE, seed=seed))


def test_the_same_video_is_perfect() -> None:
    same = chunk(faces(), faces())
    assert measured(Ssim(), same) == {"ssim_face": pytest.approx(1), "ssim_mouth": pytest.approx(1)}
    assert measured(Psnr(), same) == {"psnr_face": MOST_PSNR, "psnr_mouth": MOST_PSNR}
    assert measured(Jitter(), same) == {"jitter": 1}
    assert measured(Seam(), same) == {"seam_outside": 0, "seam_changed": 0, "seam_kept": 0}
    assert measured(Identity(TinyArcFace(), "tiny"), same) == {"identity": pytest.approx(1)}


def test_ssim_of_known_pictures() -> None:
    noise = np.random.default_rng(7).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    one, two = (luma(torch.from_numpy(picture)) for picture in (noise, cv2.GaussianBlur(noise, (5, 5), 1.0)))
    found = ssim_map(one, two)
    assert found.shape == (54, 54) and found.mean() == pytest.approx(0.287643, abs=1e-4)  # by equation 13, written out
    assert found[10, 20] == pytest.approx(0.294238, abs=1e-4)
    flat = np.full((20, 20), 100.0)
    assert ssim_map(flat, flat + 50) == pytest.approx((2 * 100 * 150 + 6.5025) / (100**2 + 150**2 + 6.5025))  # brightness alone
    refused(InputError, "windows of 11 pixels", lambda: ssim_map(flat[:8], flat[:8]))


def test_ssim_of_the_mouth_is_of_the_mouth() -> None:
    mouth, brow = faces(), faces()
    mouth[:, ROWS, COLUMNS] = 128
    brow[:, :20] = 128
    worse, better = measured(Ssim(), chunk(mouth, faces())), measured(Ssim(), chunk(brow, faces()))
    assert worse["ssim_mouth"] < 0.5 < worse["ssim_face"] < 1
    assert better["ssim_mouth"] == pytest.approx(1) and better["ssim_face"] < 1


def test_psnr_of_a_known_error() -> None:
    real = faces()
    brighter = real.clone()
    brighter[:, ROWS, COLUMNS] += 20
    share = (ROWS.stop - ROWS.start) * (COLUMNS.stop - COLUMNS.start) / SIDE**2
    parts = in_two(lambda part, start: chunk(brighter[part], real[part], start=start), 6)
    found = measured(Psnr(), *parts)
    assert found["psnr_mouth"] == pytest.approx(10 * np.log10(255**2 / 400))
    assert found["psnr_face"] == pytest.approx(10 * np.log10(255**2 / (400 * share)))


def test_lpips(tmp_path: Path) -> None:
    write_random_vgg16(tmp_path / "vgg16.pth")
    measure = Lpips(load_lpips(tmp_path / "vgg16.pth"))
    real = torch.from_numpy(random_pictures(1, 32, 32))
    upper, lower = real.clone(), real.clone()
    upper[:, :16] = 0
    lower[:, 16:] = 0
    assert measured(measure, chunk(upper, real)) == {"lpips": pytest.approx(0, abs=1e-7)}  # the lower half alone is looked at
    assert measured(measure, chunk(lower, real))["lpips"] > 1e-3


def test_lpips_is_a_mean_over_frames() -> None:
    measure = Lpips(lambda seen, real: (seen - real).abs().mean())
    brighter = faces()
    brighter[:3] += 51
    parts = chunk(brighter[:1], faces()[:1]), chunk(brighter[1:], faces()[1:], start=1)
    assert measured(measure, *parts)["lpips"] == pytest.approx(0.2, rel=1e-4)  # half of the frames, 51 / 127.5 each
    source = faces(2)
    assert measured(measure, chunk(source, source)) == {"lpips": 0}


def test_reconstructions_alone() -> None:
    for metric in (Ssim(), Psnr(), Lpips(lambda seen, real: 1 / 0)):
        run = MetricRun(metric, case("cross"))
        run.add(chunk(faces(), faces(seed=1)))
        assert run.finish() == {column.name: None for column in metric.columns}


def test_jitter() -> None:
    steps = torch.arange(8)[:, None, None, None]
    moving = (60 + 5 * (steps % 3) * torch.ones(1, SIDE, SIDE, 3)).to(torch.uint8)
    frozen = moving[:1].expand(8, -1, -1, -1)
    twice = ((moving.int() - 60) * 2 + 60).to(torch.uint8)
    assert measured(Jitter(), chunk(frozen, moving))["jitter"] == 0  # a frozen mouth is far from 1
    assert measured(Jitter(), chunk(twice, moving))["jitter"] == pytest.approx(2)
    parts = in_two(lambda part, start: chunk(twice[part], moving[part], start=start), 8)
    assert measured(Jitter(), *parts)["jitter"] == pytest.approx(2)
    assert measured(Jitter(), chunk(moving, frozen))["jitter"] is None
    refused(InputError, "three successive frames", lambda: measured(Jitter(), chunk(moving[:2], moving[:2])))


def test_jitter_leaps_over_no_gap() -> None:
    values = torch.tensor([10, 10, 10, 200, 200, 200], dtype=torch.uint8)[:, None, None, None].expand(6, SIDE, SIDE, 3)
    trembling = values.clone()
    trembling[1] += 6
    seen = np.array([True] * 3 + [False] + [True] * 3)  # the leap happens where no face is seen
    assert measured(Jitter(), chunk(trembling, values, has_face=seen))["jitter"] is None
    assert measured(Jitter(), chunk(values, values, has_face=seen))["jitter"] == 1


def test_seam_counts_outside_the_crop() -> None:
    source = random_pictures(3, 120, 160)
    x0, y0, x1, y1 = crop_corners()
    inside, outside = source.copy(), source.copy()
    inside[:, y0:y1, x0:x1] = 0
    assert measured(Seam(), chunk(faces(3), faces(3), frames=inside, source_frames=source))["seam_outside"] == 0
    outside[:, : y0 - MARGIN - 2] += CODEC_NOISE + 10
    found = measured(Seam(), chunk(faces(3), faces(3), frames=outside, source_frames=source))
    share = (y0 - MARGIN - 2) * 160 / outside_crop((120, 160), chunk(faces(1), faces(1)).matrices[0], SIDE).sum()
    assert found["seam_changed"] == pytest.approx(share)
    assert found["seam_outside"] == pytest.approx(share * (CODEC_NOISE + 10))
    noise = source + np.uint8(CODEC_NOISE)
    assert measured(Seam(), chunk(faces(3), faces(3), frames=noise, source_frames=source))["seam_changed"] == 0


def test_seam_without_a_face_is_the_whole_frame() -> None:
    source = random_pictures(2, 120, 160)
    found = measured(Seam(), chunk(faces(0), faces(0), frames=source + np.uint8(7), source_frames=source, has_face=np.zeros(2, bool)))
    assert found == {"seam_outside": pytest.approx(7), "seam_changed": 0, "seam_kept": None}
    x0, y0, x1, y1 = crop_corners()
    face = source[:1, : y1 - y0, : x1 - x0]
    filled = replace(chunk(faces(1), faces(1), frames=face, source_frames=face), matrices=torch.eye(2, 3)[None])
    assert measured(Seam(), filled) == {"seam_outside": None, "seam_changed": None, "seam_kept": 0}


def test_seam_of_the_kept_part_of_the_face() -> None:
    generated, kept = faces(2), faces(2)
    generated[:, fixed_mask(SIDE) < 1] = 0
    kept[:, fixed_mask(SIDE) == 1] += 9
    assert measured(Seam(), chunk(generated, faces(2)))["seam_kept"] == 0
    assert measured(Seam(), chunk(kept, faces(2)))["seam_kept"] == pytest.approx(9)


def test_identity(tmp_path: Path) -> None:
    network = load_identity(write_script(tmp_path / "faces.pt", TinyArcFace()))
    source, other = np.full((2, 120, 160, 3), 60, np.uint8), np.full((2, 120, 160, 3), 60, np.uint8)
    source[:, :, 80:], other[:, :, :80] = 220, 220  # left and right changed
    measure = Identity(network, "faces.pt")
    assert "faces.pt" in measure.protocol
    assert measured(measure, chunk(faces(2), faces(2), frames=other, source_frames=source))["identity"] < 0.5
    half = source.copy()
    half[1] = other[1]
    found = measured(measure, chunk(faces(2), faces(2), frames=half, source_frames=source))["identity"]
    assert 0 < found < 0.9
    refused(InputError, "No frame shows a face", lambda: measured(measure, chunk(faces(0), faces(0), has_face=np.zeros(2, bool))))


def test_faces_for_identity_are_upright_and_whole() -> None:
    x0, y0, x1, _ = crop_corners()
    frame = np.zeros((120, 160, 3), np.uint8)
    eye = round(x0 + 0.30 * (x1 - x0)), round(y0 + 0.265 * 70)
    frame[eye[1], eye[0]] = 255
    found = identity_face(frame, chunk(faces(1), faces(1)).matrices[0], SIDE).numpy()[..., 0]
    assert found.shape == (FACE_SIDE, FACE_SIDE)
    y, x = np.unravel_index(found.argmax(), found.shape)
    assert abs(x - 38.3) < 3 and abs(y - 51.7) < 3  # the left eye of ArcFace's template
