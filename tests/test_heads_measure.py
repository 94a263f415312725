"""Measuring talking heads: correlations at a lag, distances between people, and a tracker that finds a mouth it was not told about."""

import json
import logging
from pathlib import Path

import cv2
import numpy as np
import pytest

from preprocess.talking_heads.anatomy.expression import Mouth
from preprocess.talking_heads.head import Pose
from preprocess.talking_heads.measure.__main__ import LAGS, correlations, main, summary
from preprocess.talking_heads.measure.diversity import align, diversity, face_colours, neutral_landmarks
from preprocess.talking_heads.measure.faces import FaceWatcher, Sighting, track_mouth
from preprocess.talking_heads.measure.speed import Job
from preprocess.talking_heads.studio import Studio
from preprocess.talking_heads.traits import draw_traits


def test_the_lag_of_a_late_series_is_positive() -> None:
    known = np.random.default_rng(0).normal(size=60)
    late = np.roll(known, 2)
    found = correlations(late, known)
    assert LAGS[int(np.argmax(found))] == 2 and found[LAGS.index(2)] == pytest.approx(1.0)
    assert correlations(np.zeros(60), known) == [0.0] * len(LAGS)


def test_the_summary_weighs_frames_and_names_the_worst_clip() -> None:
    good, bad = [0.0, 0.1, 0.2, 0.9, 0.2, 0.1, 0.0], [0.0, 0.1, 0.2, 0.3, 0.6, 0.1, 0.0]
    clips = [
        {"clip": "a.mp4", "frames": 30, "found": 1.0, "score": 1.0, "opening": good, "width": good, "sync": good},
        {"clip": "b.mp4", "frames": 10, "found": 0.0, "score": 0.0, "opening": bad, "width": good, "sync": good},
    ]
    found = summary(clips)
    assert found["found"] == 0.75 and found["score"] == 1.0
    assert found["opening"]["least_clip"] == "b.mp4" and found["opening"]["mean"] == pytest.approx(0.6)
    assert found["opening"]["best_lag"] == 0


def test_alignment_forgets_place_size_and_turn_only() -> None:
    face, wider = neutral_landmarks(3), neutral_landmarks(3) * [1.1, 1.0]
    angle = 0.3
    turned = 1.7 * face @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]) + [5, -2]
    one, same, other = align(np.stack([face, turned, wider]))
    assert np.abs(one - same).max() < 1e-6 < 0.5 < np.abs(one - other).max()


def test_people_differ_and_the_closest_pair_is_named() -> None:
    found = diversity([1, 2, 3, 1])
    assert all(spread.least == pytest.approx(0.0, abs=1e-9) and spread.closest == (1, 1) for spread in found.values())
    assert found["shape"].mean > 0.5 and found["colour"].mean > 1.0


def test_colours_are_those_of_the_person() -> None:
    dark, light = (sorted(range(40), key=lambda identity: draw_traits(identity).melanin)[at] for at in (-1, 0))
    assert face_colours(dark)[0, 0] < face_colours(light)[0, 0] - 20


def drawn_mouth(opening: float, half: float) -> np.ndarray:
    """A face's lower half with speckled skin and a dark mouth of a size in pixels (uint8 120 120 3)."""
    skin = cv2.GaussianBlur(np.random.default_rng(1).normal(0, 1, (120, 120)).astype(np.float32), (0, 0), 1.5)
    row, column = np.mgrid[:120, :120].astype(np.float32) - 60.0
    column = np.where(np.abs(column) < half, column * 20 / half, column - np.sign(column) * (half - 20))  # the corners carry the skin
    carried = cv2.remap(skin, (column + 60).astype(np.float32), row + 60, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    picture = 150 + 60 * carried[..., None] + np.array([20, 0, -20])
    picture[(column / 17) ** 2 + (row / max(opening, 0.1)) ** 2 < 1] = 25
    return picture.clip(0, 255).astype(np.uint8)


def test_the_tracker_follows_a_drawn_mouth() -> None:
    opening = np.array([0, 0, 0, 2, 5, 7, 4, 1, 0, 3, 6, 2], float)
    half = np.array([20, 20, 20, 19, 18, 20, 22, 23, 21, 19, 20, 22], float)
    frames = [drawn_mouth(*size) for size in zip(opening, half, strict=True)]
    points = np.array([[40, 12], [80, 12], [60, 36], [40, 60], [80, 60]], float)
    found = track_mouth(frames, Sighting(np.ones(len(frames), np.float32), np.repeat(points[None], len(frames), 0)))
    assert np.corrcoef(found.opening, opening)[0, 1] > 0.9
    assert np.corrcoef(found.width, half)[0, 1] > 0.9


def test_a_rendered_face_is_found_where_it_is() -> None:
    studio = Studio(11, 4, 128, 128)
    frames = [studio.frame(Pose(mouth=Mouth(jaw=jaw)), index) for index, jaw in enumerate((0.0, 0.4))]
    blank = np.zeros((128, 128, 3), np.uint8)
    sighting = FaceWatcher().watch([frames[0].picture, blank, frames[1].picture])
    assert sighting.score[1] == 0 and (sighting.score[[0, 2]] > 0.95).all()
    apart = np.linalg.norm(frames[0].landmarks[54] - frames[0].landmarks[48])
    for points, frame in zip(sighting.points[::2], frames, strict=True):
        assert np.linalg.norm(points[3:] - frame.landmarks[[48, 54]], axis=1).max() < 0.35 * apart
    assert np.allclose(sighting.points[1], sighting.points[::2].mean(0))


def test_speed_is_measured() -> None:
    build, rate = Job(64, (11,), 2).run()
    assert 0 < build < 60 and rate > 0


def test_the_command_writes_what_it_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path), "--parts", "diversity", "--people", "3"]) == 0
    found = json.loads((tmp_path / "measured.json").read_text(encoding="utf-8"))
    assert list(found) == ["diversity"] and f"{found['diversity']['shape']['mean']:.2f}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "named"), [([], "holds no clip"), (["--people", "1"], "two people"), (["--frames", "0"], "one frame")]
)
def test_what_cannot_be_measured_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture, arguments: list[str], named: str) -> None:
    with caplog.at_level(logging.ERROR):
        assert main([str(tmp_path), *arguments]) == 2
        assert main([str(tmp_path / "nowhere")]) == 2
    assert named in caplog.text and "nowhere is no folder" in caplog.text
