"""Frechet distances of known Gaussians; which frames FVD and FID take; both commands; intervals of known values, tables."""

import json
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from golden_recipe import load_case
from picture_fakes import FRAME, TinyArcFace, TinyI3d, TinyInception, chunk, random_pictures, rows_of, write_script
from refusals import refused

from eval.estimates import bootstrap, mean, ratio, share
from eval.eval_fvd import main
from eval.metrics.base import Chunk
from eval.metrics.distribution import (
    FIRST,
    SIDE,
    WINDOW,
    Fid,
    Fvd,
    Gaussian,
    distance_estimate,
    face_box_picture,
    frechet_distance,
    gaussian_of,
    load_i3d,
    load_inception,
    merged,
    set_distance,
)
from latentsync.errors import InputError, WeightsError


def grey(count: int, start: int = 0, seen: np.ndarray | None = None) -> Chunk:
    """Frames and faces as bright as their numbers."""
    seen = np.ones(count, bool) if seen is None else seen
    numbers = np.arange(start, start + count).astype(np.uint8)[:, None, None, None]
    frames, faces = np.tile(numbers, (1, *FRAME, 3)), np.tile(numbers[seen], (1, 64, 64, 3))
    return chunk(faces, faces, start=start, frames=frames, source_frames=frames, has_face=seen)


def test_one_window_a_video(tmp_path: Path) -> None:
    metric = Fvd(load_i3d(write_script(tmp_path / "i3d.pt", TinyI3d())))
    found = rows_of(metric, grey(16), grey(16, 16), grey(16, 32))
    assert found.shape == (1, 6) and found.dtype == np.float64
    assert found[0, 0] * 255 == pytest.approx(np.mean(range(FIRST, FIRST + WINDOW)), rel=1e-4)
    assert len(rows_of(metric, grey(FIRST + WINDOW - 1))) == 0  # too short
    gap = np.arange(40) != FIRST + 3
    assert len(rows_of(metric, grey(40, seen=gap))) == 0
    assert metric.name == "fvd" and "frames 20 to 35" in metric.protocol


def test_all_windows_of_a_video() -> None:
    metric = Fvd(TinyI3d(), "all")
    found = rows_of(metric, grey(16), grey(16, 16), grey(8, 32))
    assert (found[:, 0] * 255).tolist() == pytest.approx([7.5, 23.5], rel=1e-4)
    gap = np.arange(40) != 10
    assert (rows_of(metric, grey(40, seen=gap))[:, 0] * 255).tolist() == pytest.approx([18.5], rel=1e-4)  # frames 11 to 26
    assert metric.name == metric.columns[0].name == "fvd_all"


def test_the_box_is_that_of_the_crop() -> None:
    frame = random_pictures(1, *FRAME)[0]
    matrix = torch.tensor([[1.0, 0.0, -50.0], [0.0, 1.0, -20.0]])
    picture = face_box_picture(frame, matrix, 64)
    assert picture.shape == (SIDE, SIDE, 3)
    shifted = frame.copy()
    shifted[:18] = shifted[93:] = shifted[:, :48] = shifted[:, 105:] = 0
    assert (face_box_picture(shifted, matrix, 64) == picture).all()  # nothing but the box counts
    assert face_box_picture(frame, matrix - torch.tensor([[0.0, 0, 900], [0, 0, 0]]), 64) is None


def test_fid_measures_every_face(tmp_path: Path) -> None:
    network = load_inception(write_script(tmp_path / "inception.pt", TinyInception()))
    seen = np.arange(10) % 2 == 0
    assert rows_of(Fid(network), grey(10, seen=seen))[:, 0].tolist() == [0, 2, 4, 6, 8]
    assert len(rows_of(Fid(network), grey(3, seen=np.zeros(3, bool)))) == 0


def test_another_network_is_refused(tmp_path: Path) -> None:
    other = write_script(tmp_path / "faces.pt", TinyArcFace())
    refused(WeightsError, "holds another network, one that knows no 're", load_i3d, other)
    refused(WeightsError, "knows no 'return_features'", load_inception, other)

    class Odd(torch.nn.Module):
        def forward(self, x: torch.Tensor, return_features: bool = False) -> torch.Tensor:
            return x.float()

    refused(WeightsError, "not one row for each", lambda: rows_of(Fid(Odd()), grey(2)))


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Two folders of four "videos" whose chunks are made up: nothing is decoded, no face is looked for."""
    rng = np.random.default_rng(0)
    for side in ("real", "generated"):
        for number in range(4):
            (tmp_path / side / f"clip {number}.mp4").parent.mkdir(exist_ok=True)
            (tmp_path / side / f"clip {number}.mp4").touch()

    def chunks(self: object, one: object) -> list[Chunk]:
        if one.video.stem.endswith("3"):
            raise InputError(f"{one.video} cannot be decoded: broken")
        start = grey(40)
        frames = start.frames + rng.integers(0, 60, (40, 1, 1, 3)).astype(np.uint8) + np.uint8(50 * (one.video.parent.name == "generated"))
        return [replace(start, frames=frames, faces=torch.from_numpy(frames[:, :64, :64]))]

    monkeypatch.setattr("eval.measure.FaceClips.chunks", chunks)
    monkeypatch.setattr("latentsync.faces.detector.build_detector", lambda *_: type("Detector", (), {"name": "none"}))
    monkeypatch.setattr("eval.measure.FaceClips.__init__", lambda *_: None)
    sides = [f"--{side}_videos_dir={tmp_path / name}" for side, name in (("real", "real"), ("fake", "generated"))]
    return [*sides, f"--output_dir={tmp_path / 'out'}", "--device=cpu"]


def test_the_command_of_fvd(folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = write_script(tmp_path / "i3d.pt", TinyI3d())
    assert main("fvd", [*folders, "--i3d", str(script), "--windows", "all"]) == 0
    table, result = capsys.readouterr().out, json.loads((tmp_path / "out/fvd_all.json").read_text())
    assert result["sets"]["generated"]["videos"] == 3 and result["sets"]["real"]["features"] == 6 and not result["full_rank"]
    assert list(result["sets"]["generated"]["failed"].values()) == [f"{tmp_path / 'generated/clip 3.mp4'} cannot be decoded: broken"]
    assert result["interval"][0] <= result["value"] <= result["interval"][1] and list(result["weights"]) == ["i3d.pt"]
    assert result["value"] > result["real_halves"] and "reference" in table and "Left out (2)" in table
    assert (tmp_path / "out/fvd_all.png").stat().st_size > 1000 and (tmp_path / "out/fvd_all.md").read_text() == table


def test_the_command_of_fid(folders: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    script = write_script(tmp_path / "inception.pt", TinyInception())
    assert main("fid", [*folders, "--inception", str(script)]) == 0
    result = json.loads((tmp_path / "out/fid.json").read_text())
    assert result["sets"]["real"]["features"] == 3 * 40 and result["full_rank"] and result["value"] > 3 * 40**2
    assert main("fid", [*folders, "--inception", str(tmp_path / "gone.pt")]) == 2
    assert main("fid", [*folders, "--inception", str(script), "--made", str(tmp_path / "out")]) == 2
    assert "gone.pt does not exist" in caplog.text and "holds no video" in caplog.text


def exact(mean: list[float], covariance: np.ndarray) -> Gaussian:
    """A Gaussian that is known, as if very many features had been seen."""
    return Gaussian(1001, np.array(mean, float), 1000 * np.asarray(covariance, float))


def test_reference_numbers() -> None:
    details, tensors = load_case("eval_fvd")
    first, second = tensors["feats_a"].numpy(), tensors["feats_b"].numpy()
    pieces = gaussian_of([first[:1], first[1:10], first[10:10], first[10:]])
    np.testing.assert_allclose(pieces.mean, tensors["mu_a"].numpy(), rtol=1e-12)
    np.testing.assert_allclose(pieces.covariance, tensors["sigma_a"].numpy(), rtol=1e-9, atol=1e-12)
    rtol = details["tolerance"]["rtol"]
    assert set_distance([first], [second]) == pytest.approx(float(tensors["fvd"]), rel=rtol)
    assert set_distance([first[:5]], [second[:6]]) == pytest.approx(float(tensors["fvd_rank_deficient_a5_b6"]), rel=1e-2)


def test_known_distances() -> None:
    one = np.eye(3)
    assert frechet_distance(exact([0, 0, 0], one), exact([0, 3, 4], one)) == pytest.approx(25)  # means alone
    assert frechet_distance(exact([0, 0, 0], one), exact([0, 0, 0], 9 * one)) == pytest.approx(3 * (3 - 1) ** 2)  # widths alone
    turned = np.array([[2.0, 1.0], [1.0, 2.0]])  # eigenvalues 1 and 3
    away = (np.sqrt(3) - 1) ** 2
    assert frechet_distance(exact([0, 0], turned), exact([0, 0], np.eye(2))) == pytest.approx(away)
    assert frechet_distance(exact([0, 0], turned), exact([0, 0], turned)) == pytest.approx(0, abs=1e-12)
    flat = np.diag([4.0, 0.0])  # no inverse
    assert frechet_distance(exact([0, 0], flat), exact([0, 0], np.diag([0.0, 1.0]))) == pytest.approx(5)


def test_pieces_are_the_whole() -> None:
    features = np.random.default_rng(0).normal(1e3, 1, (101, 5))  # far from 0, where sums of squares would lose digits
    parts = merged([gaussian_of([features[:7]]), gaussian_of([*np.split(features[7:], [1, 30]), features[:0]])])
    np.testing.assert_allclose(parts.covariance, np.cov(features.T), rtol=1e-9)
    assert frechet_distance(gaussian_of([features]), parts) == pytest.approx(0, abs=1e-9)


def test_too_few_features(caplog: pytest.LogCaptureFixture) -> None:
    features = np.random.default_rng(0).normal(size=(9, 4))
    refused(InputError, "A set of 1 features has no covariance", lambda: set_distance([features[:1]], [features]))
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        set_distance([features], [features])
        assert not caplog.records
        set_distance([features[:4]], [features])
    assert "Sets of 4 and 9 features of 4 numbers" in caplog.text


def test_the_interval_holds_the_known_distance() -> None:
    rng, hits = np.random.default_rng(1), 0
    for _ in range(20):
        generated, real = ([rng.normal(mean, 1, (10, 2)) for _ in range(20)] for mean in (0.5, 0))
        found = distance_estimate(generated, real)
        assert found.low < found.value < found.high and found.count == 20
        hits += found.low <= 0.5 <= found.high  # two means half a unit apart in either direction
    assert hits >= 16
    assert distance_estimate(generated[:1], real)[1:] == (None, None, 1)
    assert distance_estimate([*generated, np.zeros((0, 0))], real).count == 20


def test_intervals() -> None:
    found = share([True] * 8 + [False] * 2)
    assert found == (0.8, pytest.approx(0.4902, abs=1e-4), pytest.approx(0.9433, abs=1e-4), 10)  # Wilson 1927
    assert share([True] * 10) == (1, pytest.approx(0.7225, abs=1e-4), 1, 10)
    values = np.random.default_rng(1).normal(5, 1, 100)
    low, high = mean(values.tolist())[1:3]
    assert low == pytest.approx(values.mean() - 0.196, abs=0.05)
    assert high == pytest.approx(values.mean() + 0.196, abs=0.05)


def test_ratios_are_of_means_and_paired() -> None:
    assert ratio([1.0, 3.0], [2.0, 2.0])[0] == 1
    below = np.arange(1.0, 30.0)
    assert ratio((below / 4).tolist(), below.tolist()) == (0.25, pytest.approx(0.25), pytest.approx(0.25), 29)
    assert mean([1.0, None, 2.0])[0] == 1.5


def test_what_was_not_measured_has_no_value() -> None:
    assert share([]) is None and mean([]) is None and mean([None]) is None
    assert ratio([1.0], [0.0]) is None
    assert mean([2.0]) == (2.0, None, None, 1)
    assert bootstrap(lambda chosen: float("nan"), 3) is None
