"""Measures of mouths on displacements that are known; intervals of values that are known; the table."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from training_fixtures import write_vgg16

from embedded.evaluate import (
    PERCENT,
    Aim,
    PairMeasures,
    SilenceMeasures,
    SyncMeasures,
    TableRow,
    Trio,
    VideoMeasures,
    make_rows,
    to_markdown,
)
from eval.metrics.base import bootstrap, mean, ratio, share
from eval.metrics.image import (
    MOST_PSNR,
    appearance_distance,
    landmark_distance,
    landmark_jitter,
    make_appearance,
    mouth_box,
    opening_follows,
    pixel_difference,
    pixel_jitter,
    read_mouths,
    speech_range,
)
from eval.metrics.sync import PairTally, SyncReading
from latentsync.models.landmark_network import POINTS, LandmarkNetwork, LandmarkNetworkConfig

SIDE = 64


def points(frames: int = 10, seed: int = 0) -> Tensor:
    return torch.rand(frames, POINTS, 2, generator=torch.Generator().manual_seed(seed))


def faces(frames: int = 5, seed: int = 0) -> Tensor:
    return torch.randint(0, 200, (frames, SIDE, SIDE, 3), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)


def reader() -> LandmarkNetwork:
    torch.manual_seed(0)
    return LandmarkNetwork(LandmarkNetworkConfig([8, 8, 16, 16], 4, 16), mean=points(1)[0]).eval()


def test_landmark_distance() -> None:
    assert landmark_distance(points(), points()) == 0
    assert landmark_distance(points() + torch.tensor([0.03, -0.04]), points()) == pytest.approx(0.05, rel=1e-4)
    half = points()
    half[:5] += torch.tensor([0.0, 0.1])
    assert landmark_distance(half, points()) == pytest.approx(0.05, rel=1e-4)


def test_steady_movement_is_no_jitter() -> None:
    still = points(1).expand(10, -1, -1)
    moving = still + 0.01 * torch.arange(10)[:, None, None]
    trembling = moving + 0.002 * torch.tensor([1.0, -1.0] * 5)[:, None, None] * torch.tensor([1.0, 0.0])
    assert landmark_jitter(moving) == pytest.approx(0, abs=1e-6)
    assert landmark_jitter(trembling) == pytest.approx(0.008, rel=1e-3)  # second differences of +a, -a, +a are 4 a
    assert landmark_jitter(still[:2]) == 0


def test_the_box_holds_the_mouth() -> None:
    assert mouth_box(256) == (slice(128, 218), slice(39, 218))
    assert mouth_box(128) == (slice(64, 109), slice(19, 109))


def test_pixels_count_inside_the_box_alone() -> None:
    rows, columns = mouth_box(SIDE)
    real, other = faces(), faces()
    outside = torch.ones(SIDE, SIDE, dtype=torch.bool)
    outside[rows, columns] = False
    other[:, outside] = 255
    assert pixel_difference(other, real) == (0, MOST_PSNR)
    assert pixel_jitter(other) == pytest.approx(pixel_jitter(real))
    other[:, rows, columns] += 20
    found = pixel_difference(other, real)
    assert found.l1 == pytest.approx(20)
    assert found.psnr == pytest.approx(10 * np.log10(255**2 / 400))


def test_pixel_jitter() -> None:
    fading = torch.stack([torch.full((SIDE, SIDE, 3), 50 + 3 * k, dtype=torch.uint8) for k in range(6)])
    blinking = torch.stack([torch.full((SIDE, SIDE, 3), 50 + 10 * (k % 2), dtype=torch.uint8) for k in range(6)])
    assert pixel_jitter(fading) == 0
    assert pixel_jitter(blinking) == 20


def test_mouths_are_read_in_parts() -> None:
    read = read_mouths(reader(), faces(37))
    assert torch.allclose(read.points, points(1).expand(37, -1, -1))  # a fresh reader tells the mean mouth
    assert read.gap.shape == read.width.shape == (37,)


def test_the_opening_follows_the_truth() -> None:
    truth = torch.rand(20, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert opening_follows((0.02 + 0.1 * truth).float(), truth) == pytest.approx(1, abs=1e-5)
    assert opening_follows(-truth, truth) == pytest.approx(-1)
    assert opening_follows(truth, torch.zeros(20)) is None


def test_silence_is_a_share_of_the_speech_range() -> None:
    found = speech_range(np.linspace(0.01, 0.11, 1001), np.array([0.015, 0.025]))
    assert found is not None
    assert (found.closed, found.high - found.low) == (pytest.approx(0.02), pytest.approx(0.09))
    assert found.share(np.array([0.02, 0.029])) == pytest.approx([0, 0.1])
    assert speech_range(np.linspace(0, 1, 9), np.array([])) is None
    assert speech_range(np.ones(9), np.array([0.1])) is None


def test_appearance_of_the_reader_stands_in() -> None:
    appearance = make_appearance(reader(), None)
    assert "standing in for LPIPS" in appearance.name
    real, other = faces(20), faces(20, seed=1)
    assert appearance_distance(appearance, real, real) == 0
    far = appearance_distance(appearance, other, real)
    assert far > 0.01
    mixed = torch.cat([other[:5], real[5:]])
    near = appearance_distance(appearance, mixed, real)
    assert near == pytest.approx(appearance_distance(appearance, other[:5], real[:5]) / 4, rel=1e-3)  # a mean over frames


def test_lpips_is_used_where_its_weights_are(tmp_path: Path) -> None:
    write_vgg16(tmp_path / "vgg16.pth")
    appearance = make_appearance(reader(), tmp_path / "vgg16.pth")
    assert appearance.name.startswith("LPIPS")
    assert appearance_distance(appearance, faces(2), faces(2)) == 0


def test_intervals() -> None:
    found = share([True] * 8 + [False] * 2)
    assert found is not None
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


def test_aims() -> None:
    assert Aim(">=", 0.9).met(mean([0.9])) and not Aim(">=", 0.9).met(mean([0.8]))
    assert Aim("<=", 0.9).met(mean([0.9])) and not Aim("<", 0.9).met(mean([0.9]))
    assert Aim("about", 0.5).met(share([True, False] * 9)) and not Aim("about", 0.5).met(share([True] * 18))
    assert Aim("<", 0.9).met(None) is None and Aim("about", 0.5).met(mean([0.5])) is None


def test_the_table() -> None:
    rows = [
        TableRow("first", share([True] * 20), share([True] * 10 + [False] * 10), aim=Aim(">=", 0.95), control=Aim("<", 0.2), unit=PERCENT),
        TableRow("second", mean([1.5]), None, mean([1.25]), Aim("<=", 1.2)),
        TableRow("third", None, aim=Aim("<=", 1.2)),
    ]
    lines = to_markdown(rows, ["a note"]).splitlines()
    assert lines[2] == "| first | >= 95 % | 100 % (83.9 % to 100 %) | yes | 50 % (29.9 % to 70.1 %); must be < 20 %: **no** | - | 20 |"
    assert lines[3] == "| second | <= 1.2 | 1.5 | **no** | - | 1.25 | 1 |"
    assert lines[4] == "| third | <= 1.2 | - | - | - | - | - |"
    assert lines[-1] == "a note"
    assert (rows[0].met, rows[0].control_met) == (True, False)


def video(old: int, new: int, confidence: float, judged: bool, lmd: float) -> VideoMeasures:
    """A video whose offsets, confidence and distances are known; lips open from 0.01 to 0.05."""
    sync = SyncMeasures(SyncReading(old, 0.3, (0.0,)), SyncReading(new, confidence, (0.0,)))
    opening = np.linspace(0.01, 0.05, 101).tolist()
    return VideoMeasures(sync, sync if judged else None, opening, 1 - lmd, lmd, 2 * lmd, 3.0, 30.0, 0.001 + lmd / 100, 1.0)


def pairs(judged: bool) -> list[PairMeasures]:
    """Four clips, one of which is generated a frame late."""
    found = []
    for number in range(4):
        videos = Trio(video(5, int(number == 0), 0.36, judged, 0.02), video(0, 7, 0.08, judged, 0.1), video(5, 0, 0.4, judged, 0.0))
        tally = PairTally(40, 38, 20)
        found.append(PairMeasures(f"{number}", 101, 1.0, tally, tally if judged else None, [0.01], 0.1, 0.005, videos))
    return found


def test_rows_say_what_was_measured() -> None:
    silence = [SilenceMeasures("0", [0.01, 0.0136], [0.03, 0.03])]
    rows = {row.name: row for row in make_rows(pairs(True), silence, "features")}
    values = {
        name: [None if part is None else round(part.value, 4) for part in (row.measured, row.source, row.true)]
        for name, row in rows.items()
    }
    assert values["accuracy of the SyncNet on renders of unseen people and voices"] == [0.95, None, None]
    assert values["... of the SyncNet with shuffled labels (control)"] == [0.5, None, None]
    assert values["SyncNet of the training: offset 0 to the old sound"] == [0, 1, 0]
    assert values["SyncNet of the training: offset 0 to the new sound"] == [0.75, 0, 1]
    assert values["lip opening against the truth, Pearson r within a clip"] == [0.98, 0.9, 1]
    assert values["judge: offset 0"] == [0.75, 0, 1]
    assert values["judge: offset of one frame at most"] == [1, 0, 1]
    assert values["judge: confidence, share of the true render's"] == [0.9, 0.2, None]
    assert values["LMD of the mouth, share of the source's"] == [0.2, None, 0]
    assert values["features: share of the source's"] == [0.2, None, 0]
    assert values["jitter of the mouth's landmarks, share of the true render's"] == [1.2, 2, None]
    silent = [values[name] for name in values if name.startswith("silence")]
    assert silent == [[pytest.approx(0.05), pytest.approx(0.5556, abs=1e-3), None]]  # of a range of 0.036 above 0.01
    assert [row.met for row in rows.values() if row.name.startswith("judge: offset")] == [False, True]
    assert rows["judge: confidence, share of the true render's"].control_met is True


def test_rows_without_a_judge_and_without_silence_stay_empty() -> None:
    rows = make_rows(pairs(False), [], "features")
    empty = [row.name for row in rows if row.measured is None]
    assert len(empty) == 7 and all("judge" in name or "silence" in name for name in empty)
