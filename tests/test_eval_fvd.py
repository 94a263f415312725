"""FVD and FID: which frames are looked at, what the networks are given, sets of known distance, both commands."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from picture_fakes import FRAME, TinyArcFace, TinyI3d, TinyInception, case, chunk, random_pictures, write_script

from eval import eval_fid, eval_fvd
from eval.metrics.base import Chunk, SetMeasure
from eval.metrics.distribution import FIRST, SIDE, WINDOW, Fid, Fvd, face_box_picture, load_i3d, load_inception
from latentsync.errors import InputError, WeightsError


def grey(count: int, start: int = 0, seen: np.ndarray | None = None) -> Chunk:
    """Frames and faces as bright as their numbers."""
    seen = np.ones(count, bool) if seen is None else seen
    numbers = np.arange(start, start + count).astype(np.uint8)[:, None, None, None]
    frames, faces = np.tile(numbers, (1, *FRAME, 3)), np.tile(numbers[seen], (1, 64, 64, 3))
    return chunk(faces, faces, start=start, frames=frames, source_frames=frames, has_face=seen)


def features(measure: SetMeasure, *chunks: Chunk) -> np.ndarray:
    tally = measure.open(case())
    for part in chunks:
        tally.add(part)
    return tally.finish()


def test_one_window_a_video(tmp_path: Path) -> None:
    measure = Fvd(load_i3d(write_script(tmp_path / "i3d.pt", TinyI3d())))
    found = features(measure, grey(16), grey(16, 16), grey(16, 32))
    assert found.shape == (1, 6) and found.dtype == np.float64
    assert found[0, 0] * 255 == pytest.approx(np.mean(range(FIRST, FIRST + WINDOW)), rel=1e-4)
    assert len(features(measure, grey(FIRST + WINDOW - 1))) == 0  # too short
    gap = np.arange(40) != FIRST + 3
    assert len(features(measure, grey(40, seen=gap))) == 0
    assert measure.name == "fvd" and "frames 20 to 35" in measure.protocol


def test_all_windows_of_a_video() -> None:
    measure = Fvd(TinyI3d(), "all")
    found = features(measure, grey(16), grey(16, 16), grey(8, 32))
    assert (found[:, 0] * 255).tolist() == pytest.approx([7.5, 23.5], rel=1e-4)
    gap = np.arange(40) != 10
    assert (features(measure, grey(40, seen=gap))[:, 0] * 255).tolist() == pytest.approx([18.5], rel=1e-4)  # frames 11 to 26
    assert measure.name == measure.column.name == "fvd_all"


def test_a_tally_keeps_no_frames() -> None:
    tally = Fvd(TinyI3d(), "all").open(case())
    for start in range(0, 64, 16):
        tally.add(grey(16, start))
    held = sum(picture.nbytes for picture in tally._held) + sum(feature.nbytes for feature in tally._features)
    assert held < 1000 and tally.finish().shape == (4, 6)


def test_the_box_is_that_of_the_crop() -> None:
    frame = random_pictures(1, *FRAME)[0]
    matrix = torch.tensor([[1.0, 0.0, -50.0], [0.0, 1.0, -20.0]])
    picture = face_box_picture(frame, matrix, 64)
    assert picture.shape == (SIDE, SIDE, 3)
    shifted = frame.copy()
    shifted[:18] = shifted[93:] = shifted[:, :48] = shifted[:, 105:] = 0
    assert (face_box_picture(shifted, matrix, 64) == picture).all()  # nothing but the box counts
    assert face_box_picture(frame, matrix - torch.tensor([[0.0, 0, 900], [0, 0, 0]]), 64) is None


def test_sets_of_known_distance() -> None:
    rng = np.random.default_rng(0)
    videos = [rng.normal(size=(50, 6)) for _ in range(20)]
    for measure in (Fvd(TinyI3d()), Fid(TinyInception())):
        assert measure.compare(videos, videos) == pytest.approx(0, abs=1e-9)
        assert measure.compare([features + 2 for features in videos], videos) == pytest.approx(6 * 4)
        with pytest.raises(InputError, match="has no covariance"):
            measure.compare([videos[0][:1], np.zeros((0, 0))], videos)


def test_fid_looks_at_every_face(tmp_path: Path) -> None:
    network = load_inception(write_script(tmp_path / "inception.pt", TinyInception()))
    seen = np.arange(10) % 2 == 0
    assert features(Fid(network), grey(10, seen=seen))[:, 0].tolist() == [0, 2, 4, 6, 8]
    assert features(Fid(network, every=4), grey(10), grey(10, 10))[:, 0].tolist() == [0, 4, 8, 12, 16]
    assert len(features(Fid(network), grey(3, seen=np.zeros(3, bool)))) == 0


def test_another_network_is_refused(tmp_path: Path) -> None:
    other = write_script(tmp_path / "faces.pt", TinyArcFace())
    with pytest.raises(WeightsError, match="holds another network, one that knows no 're"):
        load_i3d(other)
    with pytest.raises(WeightsError, match="knows no 'return_features'"):
        load_inception(other)

    class Odd(torch.nn.Module):
        def forward(self, x: torch.Tensor, return_features: bool = False) -> torch.Tensor:
            return x.float()

    with pytest.raises(WeightsError, match="not one row for each"):
        features(Fid(Odd()), grey(2))


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Two folders of four "videos" whose chunks are made up: nothing is decoded, no face is looked for."""
    rng = np.random.default_rng(0)
    for side in ("real", "made"):
        for number in range(4):
            (tmp_path / side / f"clip {number}.mp4").parent.mkdir(exist_ok=True)
            (tmp_path / side / f"clip {number}.mp4").touch()

    def chunks(self: object, one: object) -> list[Chunk]:
        if one.video.stem.endswith("3"):
            raise InputError(f"{one.video} cannot be decoded: broken")
        start = grey(40)
        frames = start.frames + rng.integers(0, 60, (40, 1, 1, 3)).astype(np.uint8) + np.uint8(50 * (one.video.parent.name == "made"))
        return [replace(start, frames=frames, faces=torch.from_numpy(frames[:, :64, :64]))]

    monkeypatch.setattr("eval.measure.Looker.chunks", chunks)
    monkeypatch.setattr("latentsync.faces.detector.build_detector", lambda *_: type("Detector", (), {"name": "none"}))
    monkeypatch.setattr("eval.measure.Looker.__init__", lambda *_: None)
    return ["--real", str(tmp_path / "real"), "--made", str(tmp_path / "made"), "--output_dir", str(tmp_path / "out"), "--device", "cpu"]


def test_the_command_of_fvd(folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = write_script(tmp_path / "i3d.pt", TinyI3d())
    assert eval_fvd.main([*folders, "--i3d", str(script), "--windows", "all"]) == 0
    table, result = capsys.readouterr().out, json.loads((tmp_path / "out/fvd_all.json").read_text())
    assert result["sets"]["made"]["videos"] == 3 and result["sets"]["real"]["features"] == 6 and not result["full_rank"]
    assert list(result["sets"]["made"]["failed"].values()) == [f"{tmp_path / 'made/clip 3.mp4'} cannot be decoded: broken"]
    assert result["interval"][0] <= result["value"] <= result["interval"][1] and list(result["weights"]) == ["i3d.pt"]
    assert result["value"] > result["real_halves"] and "ground truth" in table and "Left out (2)" in table
    assert (tmp_path / "out/fvd_all.png").stat().st_size > 1000 and (tmp_path / "out/fvd_all.md").read_text() == table


def test_the_published_names_and_the_table_alone(folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script, before = write_script(tmp_path / "i3d.pt", TinyI3d()), sorted(tmp_path.iterdir())
    places = ["--real_videos_dir", folders[1], "--fake_videos_dir", folders[3]]
    assert eval_fvd.main([*places, "--device", "cpu", "--i3d", str(script), "--windows", "all"]) == 0
    assert "ground truth" in capsys.readouterr().out and sorted(tmp_path.iterdir()) == sorted({*before, script})


def test_the_command_of_fid(folders: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    script = write_script(tmp_path / "inception.pt", TinyInception())
    assert eval_fid.main([*folders, "--inception", str(script), "--every", "5"]) == 0
    result = json.loads((tmp_path / "out/fid.json").read_text())
    assert result["sets"]["real"]["features"] == 3 * 8 and result["full_rank"] and result["value"] > 3 * 40**2
    assert eval_fid.main([*folders, "--inception", str(script), "--every", "0"]) == 2
    assert eval_fid.main([*folders, "--inception", str(tmp_path / "gone.pt")]) == 2
    assert eval_fid.main([*folders, "--inception", str(script), "--made", str(tmp_path / "out")]) == 2
    assert "--every is 0" in caplog.text and "gone.pt does not exist" in caplog.text and "holds no video" in caplog.text
