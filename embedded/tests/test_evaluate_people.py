"""Figures of real people from faces and landmarks that are known."""

import numpy as np
import pytest
import torch
from torch import Tensor

from embedded.evaluate_people import TURNED, FaceTracks, PeopleMeter, make_rows, write_sheet
from latentsync.errors import InputError
from latentsync.faces.mask import fixed_mask

FRAMES = 40
T = np.arange(FRAMES)
NEW, OLD = 0.1 + 0.05 * np.sin(T), 0.1 + 0.05 * np.cos(T)  # openings in eye distances


def mesh(opening: np.ndarray, yaw: float = 0.0) -> Tensor:
    """Landmarks k 468 3 with eyes 100 pixels apart, lips that open so far, a mouth half as wide, a head turned by degrees."""
    points = torch.zeros(len(opening), 468, 3)
    points[:, 61], points[:, 291] = torch.tensor([80.0, 180.0, 0]), torch.tensor([130.0, 180.0, 0])
    points[:, 33], points[:, 263] = torch.tensor([55.0, 80.0, 0]), torch.tensor([155.0, 80.0, 0])
    points[:, [61, 40, 37, 0, 267, 270, 291], 1] = 175
    points[:, [321, 314, 17, 84, 91], 1] = 195
    points[:, [40, 37, 0, 267, 270, 321, 314, 17, 84, 91], 0] = torch.tensor([88.0, 97, 105, 113, 122, 122, 113, 105, 97, 88])
    points[:, [82, 13, 312], 1] = 180
    points[:, [87, 14, 317], 1] = 180 + 100 * torch.from_numpy(opening).float()[:, None]
    depth = float(np.tan(np.radians(yaw)))
    for left, right in ((33, 263), (61, 291)):
        points[:, right, 2] = depth * (points[:, right, 0] - points[:, left, 0])
    return points


def faces(lowest: int, highest: int) -> Tensor:
    """Stripes of two grey levels, uint8 40 256 256 3."""
    stripes = torch.where(torch.arange(256) // 2 % 2 == 0, lowest, highest).to(torch.uint8)
    return stripes[None, :, None, None].expand(FRAMES, 256, 256, 3).contiguous()


def tracks(opening: np.ndarray, seen: Tensor, yaw: float = 0.0) -> FaceTracks:
    return FaceTracks(T, seen, faces(100, 120), mesh(opening, yaw), mesh(OLD, yaw))


@pytest.fixture(scope="module")
def meter() -> PeopleMeter:
    return PeopleMeter(None, None, fixed_mask(256))


def test_a_result_that_follows_the_new_words_alone(meter: PeopleMeter, tmp_path) -> None:
    own = FaceTracks(T, faces(0, 9), faces(0, 9), mesh(NEW), mesh(NEW))
    result = tracks(0.05 + NEW / 2, faces(105, 115), yaw=20)
    found = meter.measure("a", result, own, result)
    assert found.frames == FRAMES and found.turned == FRAMES
    assert (found.lips["generated"].opening_r, found.lips["own"].opening_r) == (pytest.approx(1), pytest.approx(1))
    assert found.old_r == pytest.approx(found.old_control, abs=1e-4) and found.old_control == found.lips["source"].opening_r
    assert found.lips["generated"].width_r is None  # it does not change
    assert found.lips["generated"].range / found.lips["own"].range == pytest.approx(0.5, rel=0.01)
    assert found.lips["generated"].jitter / found.lips["own"].jitter == pytest.approx(0.5, rel=0.01)
    assert found.sharpness == {"mouth": pytest.approx(0.25, rel=0.1), "lips": pytest.approx(0.25, rel=0.1)}
    assert found.errors == {"pasted": pytest.approx(5), "kept": pytest.approx(5)}
    rows = {row.name: row for row in make_rows([found, found])}
    turned = next(row for name, row in rows.items() if f"{TURNED[0]:.0f} to" in name)
    assert turned.measured.value == pytest.approx(5) and next(iter(rows.values())).met
    write_sheet(result, own, tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").stat().st_size > 1000


def test_a_result_that_reads_the_old_words(meter: PeopleMeter) -> None:
    own = FaceTracks(T, faces(0, 9), faces(0, 9), mesh(NEW), mesh(NEW))
    found = meter.measure("a", tracks(NEW / 2 + OLD / 2, faces(100, 120)), own, own)
    assert found.old_partial == pytest.approx(1, abs=0.01) and found.old_r - found.old_control > 0.5
    assert found.still_r == pytest.approx(found.old_control, abs=1e-4)  # over a still picture it would follow the new words alone
    assert found.errors["pasted"] == 0 and found.turned == 0
    unseen = FaceTracks(T, faces(0, 9), faces(0, 9), torch.full((FRAMES, 468, 3), torch.nan), mesh(NEW))
    with pytest.raises(InputError, match="fewer than 10 frames"):
        meter.measure("a", unseen, own, own)
