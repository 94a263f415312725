"""The two back ends: the offline one on a photo, the 68-point one with weights made up here."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from skimage.data import astronaut

from latentsync.errors import InputError, WeightsError
from latentsync.faces.alignment import anchors_from_landmarks, one_thread
from latentsync.faces.detector import (
    Face,
    FaceDetector,
    FaceFollower,
    MtcnnDetector,
    build_detector,
)
from latentsync.faces.plan import find_faces, plan_spans


@pytest.fixture(scope="module")
def detector() -> MtcnnDetector:
    return MtcnnDetector()


def test_pictures_without_faces(detector):
    assert detector.detect(np.zeros((90, 120, 3), np.uint8)) == [] and detector.detect(np.zeros((4, 4, 3), np.uint8)) == []
    assert detector.follow(np.zeros((90, 120, 3), np.uint8), []) == []
    assert isinstance(detector, FaceFollower)


def test_a_face_is_found_and_followed_through_a_moving_picture(detector):
    portrait = astronaut()[:300, 50:400]
    frames = [np.ascontiguousarray(portrait[2 * k : 2 * k + 260, 3 * k : 3 * k + 300]) for k in range(10)]
    [face] = detector.detect(frames[0])
    assert face.anchors[0, 0] < face.anchors[2, 0] < face.anchors[1, 0] and face.anchors[:2, 1].max() < face.anchors[2, 1]
    [span] = plan_spans(iter(frames), detector, 256, 25.0).spans
    assert (span.start, span.stop) == (0, 10)
    motion = np.diff(span.boxes, axis=0).mean(axis=0)
    assert np.allclose(motion, [-3, -2, -3, -2], atol=0.6)
    errors = []
    for frame in frames[1:]:
        [face], [reference] = detector.follow(frame, [face]), detector.detect(frame)
        errors.append(np.linalg.norm(face.anchors - reference.anchors, axis=1) / np.linalg.norm(np.diff(reference.anchors[:2], axis=0)))
    assert np.mean(errors) < 0.06 and np.max(errors) < 0.15, (np.mean(errors), np.max(errors))
    assert detector.follow(np.zeros_like(frame), [face]) == [None]


def test_landmarks_lie_where_they_should_and_go_with_the_face(detector):
    portrait = np.ascontiguousarray(astronaut()[:300, 50:400])
    [face] = detector.detect(portrait)
    left_eye, right_eye, mouth = (face.landmarks[part].mean(axis=0) for part in (slice(36, 42), slice(42, 48), slice(48, 68)))
    assert np.abs(np.stack([left_eye, right_eye, mouth]) - [[153, 101], [197, 103], [172, 145]]).max() < 4, (left_eye, right_eye, mouth)
    assert face.mesh.shape == (468, 2) and np.allclose(face.anchors, anchors_from_landmarks(face.landmarks), atol=1e-3)
    turned = face.turned(1, portrait.shape[1::-1]).turned(3, portrait.shape[:2]).scaled(2).scaled(0.5)
    for name in ("box", "anchors", "landmarks", "mesh"):
        assert np.allclose(getattr(turned, name), getattr(face, name), atol=1e-3), name
    [again] = detector.follow(portrait, [replace(face, landmarks=None, mesh=None)])  # from its box alone
    assert np.abs(again.landmarks - face.landmarks).max() < 3


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_face_on_its_side_is_found_where_it_is(detector, turns):
    portrait = np.ascontiguousarray(astronaut()[:300, 50:400])
    [reference] = plan_spans(iter([portrait] * 3), detector, 256, 25.0).spans
    size = portrait.shape[1::-1]
    turned = np.ascontiguousarray(np.rot90(portrait, turns))
    [span] = plan_spans(iter([turned] * 3), detector, 256, 25.0).spans
    mouth = Face(reference.boxes[0], 1.0, points_of(reference.matrices[0], [[105, 190], [60, 60], [150, 60]])).turned(turns, size).anchors
    found = points_of(span.matrices[0], [[105, 190], [60, 60], [150, 60]])
    assert np.abs(found - mouth).max() < 3  # pixels of a face of 100


def points_of(matrix: np.ndarray, crop: list[list[float]]) -> np.ndarray:
    """Points of the crop in the picture, float32 [n 2]."""
    return ((np.array(crop) - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T).astype(np.float32)


def test_a_head_that_rolls_over_is_followed(detector):
    portrait = np.ascontiguousarray(astronaut()[:260, 90:350])
    centre, reference, frames = (129.5, 110.0), detector.detect(portrait)[0].anchors, []
    rolls = np.arange(0, 181, 6)
    for roll in rolls:
        turn = cv2.getRotationMatrix2D(centre, -float(roll), 1)
        frames.append(cv2.warpAffine(portrait, turn, (260, 260), borderMode=cv2.BORDER_REPLICATE))
    for roll, (faces, _) in zip(rolls, find_faces(iter(frames), detector), strict=True):
        turn = cv2.getRotationMatrix2D(centre, -float(roll), 1)
        wanted = reference @ turn[:, :2].T + turn[:, 2]
        [face] = faces
        assert np.linalg.norm(face.anchors - wanted, axis=1).max() < 0.35 * np.linalg.norm(reference[1] - reference[0]), roll


def test_builder(tmp_path):
    nowhere = tmp_path / "none.pth"
    assert build_detector("auto", nowhere, nowhere).name == "mtcnn"
    with pytest.raises(InputError, match="no face detector 'haar': use one of auto, mtcnn, face-alignment"):
        build_detector("haar", nowhere, nowhere)
    with pytest.raises(WeightsError, match=r"none\.pth"):
        build_detector("face-alignment", nowhere, nowhere)


@pytest.fixture(scope="module")
def made_up_weights(tmp_path_factory) -> tuple[Path, Path]:
    """Files of the right names and shapes: a box network that is sure of nothing, random landmarks."""
    from face_alignment.detection.sfd.net_s3fd import s3fd
    from face_alignment.models import FAN

    folder = tmp_path_factory.mktemp("auxiliary")
    torch.manual_seed(0)
    torch.save({key: torch.zeros_like(value) for key, value in s3fd().state_dict().items()}, folder / "s3fd.pth")
    torch.save(FAN(4).state_dict(), folder / "fan.pth.tar")
    return folder / "s3fd.pth", folder / "fan.pth.tar"


def test_68_points_from_local_files(made_up_weights, monkeypatch):
    from face_alignment import utils

    for name in ("_get_preds_fromhm", "transform_np"):  # plain Python: compiling them takes longer than all other tests here
        monkeypatch.setattr(utils, name, getattr(utils, name).py_func)
    detector: FaceDetector = build_detector("auto", *made_up_weights)
    assert detector.name == "face-alignment" and detector.smoothing == "laplacian" and not isinstance(detector, FaceFollower)
    picture = np.random.default_rng(0).integers(0, 256, (64, 960, 3), dtype=np.uint8)
    assert detector.detect(picture[:, :64]) == []
    boxes = [np.array([20.0, 5.0, 50.0, 40.0, 0.9])]
    monkeypatch.setattr(detector._networks.face_detector, "detect_from_image", lambda small: boxes if small.shape[1] == 640 else [])
    monkeypatch.setattr(detector._networks, "flip_input", False)  # one pass is enough here
    with one_thread():
        [face] = detector.detect(picture)
    assert face.box.tolist() == [30, 7.5, 75, 60] and 0 <= face.score < 0.9  # random landmarks: not as sure as the box
    assert face.landmarks.shape == (68, 2) and np.allclose(face.anchors[2], face.landmarks[27:36].mean(axis=0))


def test_exchanged_files_are_refused(made_up_weights):
    boxes, landmarks = made_up_weights
    with pytest.raises(WeightsError, match=r"fan.pth.tar does not fit s3fd.*use the file of the face-alignment project"):
        build_detector("face-alignment", landmarks, boxes)
