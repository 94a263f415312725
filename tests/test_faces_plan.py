"""Tracks, spans, reasons and the choice of a person, from detections that are given."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from faces_fixtures import square_face
from refusals import refused

from latentsync.errors import InputError
from latentsync.faces.alignment import AlignmentSmoother, LandmarkSmoother, anchors_from_landmarks
from latentsync.faces.detector import Face, is_plausible, is_profile, is_upright, overlap
from latentsync.faces.plan import DAMAGED, NO_FACE, TOO_SHORT, TOO_SMALL, FacePlan, FaceRequest, PlanBuilder, name_damage
from latentsync.faces.selection import FaceChoice
from latentsync.faces.tracking import smooth_window
from latentsync.faces.visibility import COVERED, TURNED, face_colours


def plan_of(frames: list[list[Face]], cuts: tuple[int, ...] = (), choice: str = "largest", smoothing: str = "none") -> FacePlan:
    builder = PlanBuilder(256, 25.0, [[FaceRequest(FaceChoice.parse(choice))]], smoothing)
    for index, faces in enumerate(frames):
        builder.add(faces, index in cuts)
    [plan] = builder.finish()
    owners = [(span.start, span.stop) for span in plan.spans] + [(run.start, run.stop) for run in plan.skipped]
    assert sorted(frame for start, stop in owners for frame in range(start, stop)) == list(range(len(frames)))
    return plan


def spans(plan: FacePlan) -> list[tuple[int, int]]:
    return [(span.start, span.stop) for span in plan.spans]


def skipped(plan: FacePlan) -> list[tuple[int, int, str]]:
    return [(run.start, run.stop, run.reason) for run in plan.skipped]


A, B, BIG = square_face(20, 50), square_face(200, 50), square_face(180, 20, 110)


SMALL = square_face(200, 100, 20)
FLAT = Face(np.array([0, 0, 90, 40], np.float32), 1.0, A.anchors)
BREATHING = [[square_face(20, 50, 60 + 8 * (k % 2)), square_face(200, 50, 63)] for k in range(20)]
OTHER = "face of another person"


@pytest.mark.parametrize(
    ("frames", "cuts", "choice", "expected", "left"),
    [
        ([[A]] * 20, (), "largest", [(0, 20)], []),
        ([], (), "largest", [], []),
        ([[A]] * 5 + [[]] * 9 + [[square_face(38, 50)]] * 5, (), "largest", [(0, 5), (14, 19)], [(5, 14, NO_FACE)]),
        ([[A]] * 5 + [[]] * 4 + [[A]] * 5, (7,), "largest", [(0, 5), (9, 14)], [(5, 9, NO_FACE)]),  # no gap is bridged over a cut
        ([[]] * 5 + [[A]] * 2 + [[]] * 5, (), "largest", [], [(0, 5, NO_FACE), (5, 7, TOO_SHORT), (7, 12, NO_FACE)]),
        ([[A]] * 2, (), "largest", [(0, 2)], []),  # the whole shot is that short
        ([[SMALL]] * 6, (), "largest", [], [(0, 6, TOO_SMALL)]),
        ([[FLAT]] * 6, (), "largest", [], [(0, 6, NO_FACE)]),
        ([[B, A]] * 9, (), "2", [], [(0, 9, "no face number 2 in this shot")]),
        ([[A, B]] * 10 + [[B]] * 10, (), "left", [(0, 10)], [(10, 20, OTHER)]),
        ([[A, BIG]] * 10 + [[BIG]] * 10 + [[A, BIG]] * 10, (), "left", [(0, 10), (20, 30)], [(10, 20, OTHER)]),  # the same who comes back
        ([[A, B]] * 20, (10,), "230,80@0.1", [(0, 10)], [(10, 20, "no face was named in this shot")]),
    ],
)
def test_spans_and_reasons(frames, cuts, choice, expected, left):
    plan = plan_of(frames, cuts, choice)
    assert (spans(plan), skipped(plan), plan.num_frames) == (expected, left, len(frames))
    for span in plan.spans:
        assert span.matrices.shape == (span.stop - span.start, 2, 3) and span.matrices.dtype == np.float32
        assert span.boxes.shape == (span.stop - span.start, 4)


@pytest.mark.parametrize(
    ("frames", "cuts", "choice", "left"),
    [
        (BREATHING, (), "largest", [20]),  # a person, who does not flip
        ([[A, BIG] if 8 <= k < 12 else [A] for k in range(20)], (), "largest", [20]),  # a passer-by is not taken
        ([[B, A, BIG] if k % 2 else [A, B] for k in range(10)], (), "left", [20]),
        ([[B, A]] * 9, (), "right", [200]),
        ([[B, A]] * 9, (), "1", [200]),
        ([[A, B]] * 20, (10,), "230,80@0.1; 50,80@0.5", [200, 20]),
    ],
)
def test_whose_face_is_taken(frames, cuts, choice, left):
    plan = plan_of(frames, cuts, choice)
    assert [round(float(span.boxes[:, 0].mean())) for span in plan.spans] == left and plan.skipped == ()


def test_frames_without_a_face_in_a_damaged_run_say_so():
    plan = plan_of([[A]] * 5 + [[]] * 20 + [[A]] * 5 + [[]] * 10)
    assert skipped(name_damage(plan, [])) == [(5, 25, NO_FACE), (30, 40, NO_FACE)]
    assert skipped(name_damage(plan, [(0, 8), (10, 12), (24, 50)])) == [
        (5, 8, DAMAGED), (8, 10, NO_FACE), (10, 12, DAMAGED), (12, 24, NO_FACE), (24, 25, DAMAGED), (30, 40, DAMAGED),
    ]  # fmt: skip
    assert spans(name_damage(plan, [(0, 40)])) == spans(plan)


def test_short_gaps_are_bridged():
    plan = plan_of([[A]] * 5 + [[]] * 8 + [[square_face(38, 50)]] * 5)
    assert spans(plan) == [(0, 18)]
    assert np.allclose(plan.spans[0].boxes[4:14, 0], np.linspace(20, 38, 10))


def test_cuts_end_everything_and_reset_the_smoothing():
    wandering = [square_face(20 + 2 * k, 50) for k in range(12)]
    plan = plan_of([[face] for face in wandering], cuts=(0, 6))
    assert spans(plan) == [(0, 6), (6, 12)] and [span.shot for span in plan.spans] == [0, 1] and plan.num_shots == 2
    fresh = plan_of([[face] for face in wandering[6:]])
    assert np.array_equal(plan.spans[1].matrices, fresh.spans[0].matrices)


def test_choices_that_name_no_face_are_refused():
    refused(InputError, r"no face at 140,80@0\.1", plan_of, [[A, B]] * 10, choice="140,80@0.1")
    refused(InputError, r"9 seconds is after the last frame in use, at 0\.40 seconds", plan_of, [[A, B]] * 10, choice="50,80@9")

    refused(InputError, r"2 people are chosen in the scene from 0\.0 to 0\.4 s", plan_of, [[A, B]] * 10, choice="50,80@0.1;200,80@0.3")

    for text in ("", "|", "50,80@1||", "middle", "-1", "1.5", "10,20", "10@3", "1,2@3;", "1,2@x"):
        refused(InputError, "does not say which face", FaceChoice.parse, text)


def test_places_where_somebody_was_seen_count_only_where_there_is_a_face_in_use():
    plan = plan_of([[A, B]] * 10, choice="140,80@0.1|200,80@0.2|200,80@9|")
    assert plan.spans[0].boxes[0, 0] == B.box[0]
    assert not plan_of([[A, B]] * 10, choice="200,80@9|").spans


def test_window_smoothing_renormalises_at_the_ends():
    line = np.arange(7, dtype=np.float32)[:, None, None] * np.ones((7, 3, 2), np.float32)
    smooth = smooth_window(line)
    assert np.allclose(smooth[2:5], line[2:5]) and np.allclose(smooth[0], (3 * 0 + 2 * 1 + 1 * 2) / 6)
    assert np.allclose(smooth_window(line[:1]), line[:1]) and np.allclose(smooth_window(line[:2]), [[[0.4]], [[0.6]]])
    spike = np.zeros((9, 3, 2), np.float32)
    spike[4] = 9
    assert np.allclose(smooth_window(spike)[:, 0, 0], [0, 0, 1, 2, 3, 2, 1, 0, 0])


def test_smoothing_of_a_plan_follows_the_detector():
    shaky = [[square_face(20 + 3 * (k % 2), 50)] for k in range(12)]
    raw, calm = plan_of(shaky).spans[0], plan_of(shaky, smoothing="laplacian-window").spans[0]
    assert np.ptp(calm.matrices[2:-2, 0, 2]) < 0.5 * np.ptp(raw.matrices[2:-2, 0, 2])


def test_68_points_are_smoothed_in_their_track():
    rng = np.random.default_rng(0)
    points = rng.normal(0, 1, (6, 68, 2)) + np.linspace([0, 0], [400, 400], 68)
    faces = [Face(A.box, 1.0, anchors_from_landmarks(p), p) for p in points]
    smooth, plan = LandmarkSmoother(), plan_of([[face] for face in faces], smoothing="laplacian")
    anchors = np.stack([anchors_from_landmarks(smooth(p)) for p in points])
    assert np.array_equal(plan.spans[0].matrices, AlignmentSmoother(256)(torch.from_numpy(anchors)).numpy())


def test_overlap_and_plausible():
    assert overlap(A.box, A.box) == pytest.approx(1) and overlap(A.box, B.box) == 0
    assert overlap(np.array([0, 0, 2, 2.0]), np.array([1, 0, 3, 2.0])) == pytest.approx(1 / 3)
    assert is_plausible(A) and not is_plausible(Face(A.box, 1.0, np.full((3, 2), 7.0, np.float32)))
    assert not is_plausible(Face(A.box, 1.0, np.full((3, 2), np.nan, np.float32)))


def test_scaled_faces_keep_pixel_centres():
    face = Face(np.array([0, 0, 2, 4], np.float32), 1.0, np.array([[0, 0], [1, 0], [0.5, 1]], np.float32), np.zeros((68, 2)))
    doubled = face.scaled(2)
    assert (
        doubled.box.tolist() == [0, 0, 4, 8] and doubled.anchors[0].tolist() == [0.5, 0.5] and doubled.landmarks[0].tolist() == [0.5, 0.5]
    )


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_turned_faces_lie_where_the_pixels_are(turns):
    picture = np.zeros((5, 8, 3), np.uint8)
    picture[1, 6] = 255
    face = Face(np.array([6, 1, 7, 2], np.float32), 1.0, np.array([[6, 1]] * 3, np.float32), np.array([[6.0, 1.0]] * 68))
    turned = face.turned(turns, (8, 5))
    ((y, x),) = np.argwhere(np.rot90(picture, turns)[..., 0])
    assert turned.box.tolist() == [x, y, x + 1, y + 1] and turned.anchors[0].tolist() == [x, y] == turned.landmarks[0].tolist()
    size = (8, 5) if turns % 2 == 0 else (5, 8)
    assert np.array_equal(turned.turned(4 - turns, size).box, face.box)


def test_upright_faces_by_their_points():
    lying = Face(A.box, 1.0, A.box[:2] + np.array([[42, 18], [42, 48], [24, 33]], np.float32))
    profile = Face(A.box, 1.0, A.box[:2] + np.array([[20, 18], [32, 18], [14, 36]], np.float32))
    assert is_upright(A) and not is_upright(lying) and lying.roll == 90 and not is_upright(profile) and is_profile(profile)


def test_a_hidden_mouth_is_left_as_it_is() -> None:
    rng = np.random.default_rng(0)
    skin = np.full((60, 37, 3), (170, 130, 110)) + rng.normal(0, 4, (60, 37, 3))
    skin[::4, 15:19] -= 60  # the mouth opens
    skin *= np.linspace(0.6, 1.1, 60)[:, None, None]  # the light grows
    other = skin.copy()
    other[20:45, 1:] = (20, 20, 25)

    def coloured(face: Face, cells: np.ndarray) -> list[Face]:
        return [replace(face, colours=colours) for colours in cells.astype(np.uint8)]

    profile = replace(A, anchors=A.box[:2] + np.array([[20, 18], [32, 18], [14, 36]], np.float32))
    turned = [profile if 20 <= k < 45 else A for k in range(60)]
    unsure = [replace(A, score=0.9 if 20 <= k < 45 else 0.999) for k in range(60)]
    for faces, reason in ((coloured(A, other), COVERED), (unsure, COVERED), (turned, TURNED)):
        plan = plan_of([[face] for face in faces])
        assert (spans(plan), skipped(plan)) == ([(0, 18), (47, 60)], [(18, 47, reason)])
        assert [span.shares.round(2).tolist() for span in plan.spans] == [[1] * 15 + [0.75, 0.5, 0.25], [0.25, 0.5, 0.75] + [1] * 10]
        assert all(len(span.matrices) == len(span.boxes) == len(span.shares) for span in plan.spans)
    doubtful = [replace(A, score=0.4 if 20 <= k < 45 else 0.9) for k in range(60)]  # as of a detector that is never sure
    for faces in (coloured(A, skin), coloured(A, other * 0.05), doubtful, [A] * 20 + [profile] * 2 + [A] * 38):
        assert skipped(plan_of([[face] for face in faces])) == []
    others = [[A, face] for face in coloured(B, other)]
    assert skipped(plan_of(others, choice="left")) == []


def test_what_is_seen_only_for_a_moment_between_hidden_runs_stays_hidden_and_a_lost_face_fades() -> None:
    unsure = replace(A, score=0.3)
    assert skipped(plan_of([[A]] * 30 + [[unsure]] * 5 + [[A]] * 7 + [[unsure]] * 5 + [[A]] * 30)) == [(28, 49, COVERED)]
    lost = plan_of([[A]] * 9 + [[unsure]] + [[]] * 12 + [[A]] * 20)
    assert skipped(lost) == [(7, 10, COVERED), (10, 22, NO_FACE)]
    assert [span.shares.round(2).tolist() for span in lost.spans] == [[1] * 4 + [0.75, 0.5, 0.25], [0.25, 0.5, 0.75] + [1] * 17]
    whole = plan_of([[A]] * 10, cuts=(0, 5))
    assert all((span.shares == 1).all() for span in whole.spans)


def test_colours_of_a_face_come_from_where_it_lies():
    picture = np.full((200, 200, 3), (170, 130, 110), np.uint8)
    anchors = np.array([[75, 60], [125, 60], [100, 85]], np.float32)
    assert np.abs(face_colours(picture, anchors).astype(int) - (170, 130, 110)).max() <= 1
    picture[108:] = 0  # below the nose
    assert face_colours(picture, anchors)[0].min() >= 108 and face_colours(picture, anchors)[13:].max() == 0
