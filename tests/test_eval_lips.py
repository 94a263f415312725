"""LMD and silence on mouths that are known; finders of points."""

from pathlib import Path

import numpy as np
import pytest
import torch
from media_fixtures import make_sound
from picture_fakes import case, chunk, in_two, measured
from refusals import refused
from skimage.data import astronaut
from torch import Tensor

from eval.metrics.lips import (
    LandmarkPoints,
    Lips,
    Lmd,
    MeshPoints,
    PointFinder,
    Silence,
    build_points,
    correlation,
    find_mesh,
    frame_levels,
    lip_shapes,
    opening_in_silence,
    partial_correlation,
    silent_and_spoken,
)
from latentsync.errors import InputError, WeightsError
from latentsync.faces.alignment import fit_similarity, warp_faces
from latentsync.faces.detector import Face
from latentsync.models.landmark_network import POINTS
from latentsync.third_party.face_mesh import load_face_mesh

SIDE = 32


class Written(PointFinder):
    """Reads points off pictures into which they are written: the first two pixels hold the corner of the mouth and its opening."""

    name = "what is written in the picture"

    def locate(self, faces: Tensor) -> Tensor:
        values = faces[:, 0, :3, 0].float() / 256  # k: x, opening, whether there is a mouth
        points = torch.zeros(len(faces), POINTS, 2)
        points[..., 0] = values[:, :1]
        points[:, 17:20, 1] = values[:, 1:2]
        points[values[:, 2] == 0] = torch.nan
        return points


def mouths(x: list[int], opening: list[int] | int = 0) -> Tensor:
    """Faces whose mouth lies at x / 256 and is open by opening / 256 of the face; none where x is negative."""
    found = torch.zeros(len(x), SIDE, SIDE, 3, dtype=torch.uint8)
    found[:, 0, 0], found[:, 0, 2] = torch.tensor(x).clamp(min=0)[:, None].to(torch.uint8), (torch.tensor(x) >= 0)[:, None].to(torch.uint8)
    found[:, 0, 1] = torch.as_tensor(opening).expand(len(x))[:, None].to(torch.uint8)
    return found


def test_lmd_of_a_known_shift() -> None:
    real = mouths([100] * 4)
    assert measured(Lmd(Written()), chunk(real, real)) == {"lmd_px": 0, "lmd_share": 0}
    shifted = mouths([108, 108, 100, 100])
    found = measured(Lmd(Written()), *in_two(lambda part, start: chunk(shifted[part], real[part], start=start), 4))
    assert found == {"lmd_px": pytest.approx(4), "lmd_share": pytest.approx(4 / 256)}
    opened = mouths([100] * 4, opening=64)  # three of 20 points move
    assert measured(Lmd(Written()), chunk(opened, real))["lmd_px"] == pytest.approx(64 * 3 / 20)


def test_lmd_counts_frames_with_a_mouth_in_both() -> None:
    generated, real = mouths([108, -1, 108, 200]), mouths([100, 100, 100, -1])
    assert measured(Lmd(Written()), chunk(generated, real))["lmd_px"] == pytest.approx(8)
    refused(InputError, "No frame shows a face", lambda: measured(Lmd(Written()), chunk(mouths([-1]), mouths([100]))))


def test_movement_of_lips_beside_the_source() -> None:
    opening = np.array([10, 40, 20, 60, 30, 80, 10, 50, 20, 70, 30, 60])
    talking, half = mouths([100] * 12, opening.tolist()), mouths([100] * 12, (opening // 2).tolist())
    parts = in_two(lambda part, start: chunk(half[part], talking[part], start=start), 12)
    found = measured(Lips(Written()), *parts)
    assert found == {
        "lips_opening_r": pytest.approx(1),
        "lips_width_r": None,
        "lips_range": pytest.approx(0.5),
        "lips_jitter": pytest.approx(0.5),
    }
    assert measured(Lips(Written()), *parts, of=case("cross"))["lips_opening_r"] is None
    assert set(measured(Lips(Written()), chunk(half[:5], talking[:5])).values()) == {None}
    assert set(measured(Lips(Written()), chunk(half, mouths([100] * 12, 7))).values()) == {None}


def test_correlations_of_known_tracks() -> None:
    one, other = np.sin(np.arange(40.0)), np.cos(np.arange(40.0))
    gap = np.where(np.arange(40) == 7, np.nan, one)
    assert correlation(gap, 3 - 2 * one) == pytest.approx(-1) and correlation(one[:5], one[:5]) is None
    assert correlation(one, np.ones(40)) is None
    mixed = one + other
    assert partial_correlation(mixed, one, other) == pytest.approx(1, abs=0.01)
    assert partial_correlation(one, other, other) is None


def levels(*parts: tuple[int, float]) -> np.ndarray:
    return np.concatenate([np.full(count, level) for count, level in parts])


def test_silence_is_the_inside_of_pauses() -> None:
    silent, spoken = silent_and_spoken(levels((10, 0.2), (10, 0.001), (10, 0.2), (5, 0.03)))
    assert np.flatnonzero(silent).tolist() == [13, 14, 15, 16]
    assert np.flatnonzero(spoken).tolist() == [*range(10), *range(20, 30)]
    silent, spoken = silent_and_spoken(levels((20, 0.0005)))  # nothing but noise
    assert silent.all() and not spoken.any()
    assert [len(found) for found in silent_and_spoken(np.zeros(0))] == [0, 0]


def test_a_mouth_that_closes_and_a_frozen_one() -> None:
    sound = levels((20, 0.2), (20, 0.0), (20, 0.2))
    numbers = list(range(60))
    talks = [0.1] * 20 + [0.01] * 20 + [0.1] * 20
    assert opening_in_silence(numbers, talks, sound) == pytest.approx(0.1)
    assert opening_in_silence(numbers, [0.07] * 60, sound) == pytest.approx(1)
    assert opening_in_silence(numbers, [0.0] * 60, sound) is None  # never open
    assert opening_in_silence(numbers, talks, levels((60, 0.2))) is None  # no pause
    assert opening_in_silence(numbers[40:], talks[40:], sound) is None  # no face in the pause
    assert opening_in_silence(numbers, talks, sound[:30]) == pytest.approx(0.1)  # a sound that ends early
    assert opening_in_silence([*numbers, 60, 61], [*talks, 9, 9], sound) == pytest.approx(0.1)  # frames behind its end do not count


def test_silence_of_a_file(tmp_path: Path) -> None:
    sound = make_sound(tmp_path / "pause.wav", sound="aevalsrc='if(between(t,0.8,1.6),0,0.5*sin(2000*t))':s=16000:d=2.4")
    assert np.flatnonzero(frame_levels(sound) < 0.01).tolist() == list(range(20, 40))
    opening = [80] * 20 + [8] * 20 + [80] * 20
    talking, frozen = mouths([100] * 60, torch.tensor(opening)), mouths([100] * 60, 80)
    of = case("cross", audio=str(sound))
    parts = in_two(lambda part, start: chunk(talking[part], talking[part], start=start), 60)
    assert measured(Silence(Written()), *parts, of=of) == {"silence_open": pytest.approx(0.1)}
    assert measured(Silence(Written()), chunk(frozen, talking), of=of) == {"silence_open": pytest.approx(1)}
    refused(InputError, "gone", lambda: measured(Silence(Written()), chunk(frozen, frozen), of=case(audio=str(tmp_path / "gone.wav"))))


def test_landmarks_are_shares_of_the_face() -> None:
    class Centre:
        """Puts all landmarks where the brightest pixel is, none at the edge; a smaller face has none."""

        def detect(self, picture: np.ndarray) -> list[Face]:
            y, x = np.unravel_index(picture[..., 0].argmax(), picture.shape[:2])
            points = np.tile([float(x), float(y)], (68, 1))
            small, large = (np.array([0.0, 0, side, side]) for side in (9, 99))
            return [Face(small, 1.0, points[:3]), *([Face(large, 1.0, points[:3], points)] if x > 0 else [])]

    faces = torch.zeros(2, 64, 64, 3, dtype=torch.uint8)
    faces[0, 38:42, 30:34] = 255
    points = LandmarkPoints(Centre()).find(faces)
    assert points.shape == (2, POINTS, 2) and points[1].isnan().all()
    assert points[0, 0].tolist() == pytest.approx([0.5, 0.62], abs=0.05)


def portrait() -> Tensor:
    """A portrait (NASA, public domain) with a smile, aligned: uint8 1 256 256 3."""
    brows, nose = ((198, 96), (252, 100)), (226, 122)  # where they are in the picture
    matrix = fit_similarity(torch.tensor([[*brows, nose]], dtype=torch.float32), 256)[0]
    return warp_faces([astronaut()], matrix, 256)


def test_face_mesh_finds_the_mouth_of_a_portrait() -> None:
    network, face = load_face_mesh(), portrait()
    noise = torch.randint(0, 255, face.shape, generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    points = MeshPoints(network).find(torch.cat([face, noise]))
    assert points.shape == (2, POINTS, 2) and points[1].isnan().all()
    seen = {0: (68, 135), 3: (125, 135), 6: (187, 137), 9: (125, 166), 14: (126, 140), 18: (126, 155)}  # looked at in the picture
    assert (points[0, list(seen)] * 256).numpy() == pytest.approx(np.array(list(seen.values())), abs=3)
    shapes = lip_shapes(find_mesh(network, face))
    assert [float(part[0]) for part in shapes] == [pytest.approx(0.12, abs=0.02), pytest.approx(0.72, abs=0.03), pytest.approx(0, abs=3)]
    assert MeshPoints(network).locate(noise[:0]).shape == (0, POINTS, 2)


def test_the_best_finder_that_is_there(tmp_path: Path) -> None:
    assert isinstance(build_points(tmp_path), MeshPoints)
    refused(WeightsError, "gone", build_points, tmp_path, tmp_path / "gone.pt")
    for name in ("s3fd-619a316812.pth", "2DFAN4-11f355bf06.pth.tar"):
        (tmp_path / "auxiliary").mkdir(exist_ok=True)
        (tmp_path / "auxiliary" / name).write_bytes(b"no network")
    refused(WeightsError, "is not a checkpoint", build_points, tmp_path)
