"""Steps 5 and 6: who is in the picture and how large, and faces aligned as in inference; faces are bright squares here."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from faces_fixtures import draw, square_face
from steps_fixtures import BLOCK, clip, encode, levels, sound_numbers

from latentsync.faces.alignment import warp_faces
from latentsync.faces.detector import Face
from latentsync.faces.plan import plan_spans
from latentsync.media.audio import read_audio
from latentsync.media.video_reader import VideoReader
from preprocess.clip_writer import HEAD_KEYS, open_recording
from preprocess.step import Kept, Rejected
from preprocess.steps.affine import Affine
from preprocess.steps.resolution import HighResolution, open_high_resolution


@dataclass
class BrightDetector:
    """Finds bright squares, also those that an encoder has touched."""

    name: str = "bright"
    weights: str = ""
    smoothing: str = "none"
    long_side: int | None = None

    def detect(self, picture: np.ndarray) -> list[Face]:
        count, _, boxes, _ = cv2.connectedComponentsWithStats((picture[..., 1] > 200).astype(np.uint8))
        return [square_face(float(box[0]), float(box[1]), float(box[2])) for box in boxes[1:count] if box[2] > 5]


def film(path: Path, faces: list[list[tuple[int, int]]], side: int = 60) -> Path:
    """A clip with white squares at these places of each frame, and sound that counts."""
    return encode(path, [draw(places, side) for places in faces], levels(range(len(faces))))


def checked(path: Path, resolution: int = 50) -> Kept | Rejected:
    (outcome,) = HighResolution(BrightDetector(), resolution)(clip(path), path.parent / "high_resolution")
    return outcome


ONE, TWO = [(40, 50)], [(40, 50), (200, 50)]


def test_one_large_face_is_kept_as_it_is(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4", [ONE] * 40)
    outcome = checked(path)
    assert isinstance(outcome, Kept) and outcome.path.samefile(path) and outcome.path == tmp_path / "high_resolution" / "a.mp4"
    assert outcome.facts["face_size"] == pytest.approx(60, abs=2) and outcome.facts["most_faces"] == 1


@pytest.mark.parametrize(
    ("faces", "side", "reason", "words"),
    [
        ([[]] * 40, 60, "no face", "8 of 8 analysed frames of a.mp4 show no face"),
        ([ONE] * 30 + [[]] * 10, 60, "no face", "2 of 8 analysed frames"),
        ([TWO] * 10 + [ONE] * 30, 60, "several people", "2 of 8 analysed frames of a.mp4 show more than one face, at most 2"),
        ([ONE] * 40, 36, "face smaller than 50 px", "the smallest has 3"),
    ],
)
def test_others_are_rejected_with_numbers(tmp_path: Path, faces: list, side: int, reason: str, words: str) -> None:
    outcome = checked(film(tmp_path / "a.mp4", faces, side))
    assert isinstance(outcome, Rejected) and outcome.reason == reason and words in outcome.why
    assert not (tmp_path / "high_resolution").exists()


def test_a_single_bad_frame_of_many_is_forgiven(tmp_path: Path) -> None:
    assert isinstance(checked(film(tmp_path / "a.mp4", [ONE] * 105 + [[]] * 4 + [ONE] * 6)), Kept)


def test_the_real_detector_sees_no_face_in_a_pattern(tmp_path: Path) -> None:
    worker = open_high_resolution({"detector": "mtcnn", "resolution": 128}, tmp_path / "none", "cpu")
    (outcome,) = worker(clip(film(tmp_path / "a.mp4", [ONE] * 6)), tmp_path / "out")
    assert isinstance(outcome, Rejected) and outcome.reason == "no face"


def test_faces_are_aligned_as_in_inference(tmp_path: Path) -> None:
    path = film(tmp_path / "talk.mp4", [[(40 + k, 50 + k // 2)] for k in range(40)])
    (outcome,) = Affine(BrightDetector(), 64, 1.0, "cpu")(clip(path), tmp_path / "affine")
    assert isinstance(outcome, Kept) and outcome.path == tmp_path / "affine" / "talk.mp4" and outcome.facts["frames"] == 40
    frames = list(VideoReader(path).frames())
    span = plan_spans(frames, BrightDetector(), 64, 25).spans[0]
    wanted = warp_faces(frames, torch.from_numpy(span.matrices), 64).numpy().astype(float)
    made = np.stack(list(VideoReader(outcome.path).frames())).astype(float)
    assert made.shape == wanted.shape == (40, 64, 64, 3) and np.abs(made - wanted).mean() < 2
    assert np.array_equal(read_audio(outcome.path), read_audio(path)) and len(read_audio(path)) == 40 * BLOCK
    assert set(range(HEAD_KEYS)) <= open_recording(outcome.path).keys


def test_a_gap_cuts_and_short_stretches_are_dropped(tmp_path: Path) -> None:
    path = film(tmp_path / "talk.mp4", [ONE] * 30 + [[]] * 15 + [ONE] * 10 + [[]] * 12 + [ONE] * 28)
    outcome = Affine(BrightDetector(), 64, 1.0, "cpu")(clip(path, start=4.0), tmp_path / "affine")
    pieces = [kept for kept in outcome if isinstance(kept, Kept)]
    assert [kept.path.name for kept in pieces] == ["talk_000.mp4", "talk_001.mp4"]
    assert [sound_numbers(kept.path) for kept in pieces] == [list(range(30)), list(range(67, 95))]
    assert [kept.facts["start"] for kept in pieces] == [4.0, 4.0 + 67 / 25]
    why = "37 of 95 frames of talk.mp4 are in no stretch of 1 s with one face (no face in 30-45, no face in 55-67)"
    assert outcome[2:] == [Rejected("face not followed", why, {"frames": 37, "duration": 37 / 25})]


def test_a_face_that_is_never_followed_long_enough_is_rejected(tmp_path: Path) -> None:
    path = film(tmp_path / "talk.mp4", [ONE] * 20 + [[]] * 10)
    (outcome,) = Affine(BrightDetector(), 64, 1.0, "cpu")(clip(path), tmp_path / "affine")
    assert isinstance(outcome, Rejected) and outcome.reason == "face not followed"
    assert outcome.why == "talk.mp4 shows one face for at most 20 of 30 frames in a row (no face in 20-30)"
