"""The look pass over synthetic pictures: following, losing, finding again, cuts, and how little it holds."""

import weakref

import numpy as np
import pytest
from faces_fixtures import SquareDetector, draw

from latentsync.faces.detector import shrink
from latentsync.faces.plan import look, plan_spans
from latentsync.faces.tracking import with_cuts


def noise(seed: int) -> np.ndarray:
    """A textured picture; another seed is another scene."""
    rng = np.random.default_rng(seed)
    return np.kron(rng.integers(0, 256, (9, 16, 3)), np.ones((20, 20, 1))).astype(np.uint8)


def cuts_of(pictures: list[np.ndarray]) -> list[int]:
    answers = list(with_cuts(iter(pictures)))
    assert len(answers) == len(pictures) and all(a is b for (a, _), b in zip(answers, pictures, strict=True))
    return [index for index, (_, is_cut) in enumerate(answers) if is_cut]


def test_cuts_are_found_where_they_are():
    assert cuts_of([noise(0)] * 12 + [noise(1)] * 9 + [noise(2)] * 12) == [12, 21]


def test_motion_fades_and_short_videos_have_no_cuts():
    scene = np.tile(noise(0), (1, 2, 1))
    assert cuts_of([scene[:, 3 * k : 3 * k + 320] for k in range(30)]) == []
    assert cuts_of([(noise(0) * (1 - 0.02 * k)).astype(np.uint8) for k in range(30)]) == []
    assert cuts_of([noise(0)]) == [] and cuts_of([]) == []


def test_a_hard_cut_in_the_last_frame_counts():
    assert cuts_of([np.zeros((90, 160, 3), np.uint8)] * 9 + [np.full((90, 160, 3), 255, np.uint8)]) == [9]


def test_faces_are_followed_between_full_detections():
    places = [(20 + 4 * k, 60) for k in range(21)]
    detector = SquareDetector(stride=5)
    sightings = list(look((draw([place]) for place in places), detector))
    assert [face.box[0] for faces, _ in sightings for face in faces] == [x for x, _ in places]
    assert detector.detections == 5  # frames 0, 5, 10, 15, 20


def test_a_new_face_is_followed_back_to_where_it_came_in():
    frames = [[(20, 60)] + ([(200, 60)] if k >= 7 else []) for k in range(13)]
    sightings = list(look(map(draw, frames), SquareDetector(stride=5)))
    assert [len(faces) for faces, _ in sightings] == [1] * 7 + [2] * 6


def test_a_lost_face_ends_at_once_and_a_jump_is_found_at_once():
    frames = [[(20, 60)]] * 7 + [[]] * 9 + [[(200, 60)]] * 6
    sightings = list(look(map(draw, frames), SquareDetector(stride=5)))
    assert [len(faces) for faces, _ in sightings] == [1] * 7 + [0] * 9 + [1] * 6
    jump = [[(20, 60)]] * 7 + [[(200, 60)]] * 7
    sightings = list(look(map(draw, jump), SquareDetector(stride=5)))
    assert [faces[0].box[0] for faces, _ in sightings] == [20] * 7 + [200] * 7


def test_nothing_is_followed_across_a_cut():
    before, after = draw([(20, 60)], ground=30), draw([(24, 60)], ground=150)
    detector = SquareDetector(stride=50)
    sightings = list(look([before] * 9 + [after] * 9, detector))
    assert [index for index, (_, is_cut) in enumerate(sightings) if is_cut] == [9]
    assert detector.detections == 2 and [faces[0].box[0] for faces, _ in sightings] == [20] * 9 + [24] * 9


def test_faces_come_in_pixels_of_the_frame():
    detector = SquareDetector(long_side=320)
    large = np.kron(draw([(40, 60)]), np.ones((2, 2, 1), np.uint8))
    [(faces, _)] = list(look([large], detector))
    assert faces[0].box.tolist() == [80, 120, 200, 240]


def test_a_plan_from_pictures_reports_progress():
    seen: list[int] = []
    frames = [draw([(20, 60)])] * 10 + [draw([])] * 12
    plan = plan_spans(iter(frames), SquareDetector(), 256, 25.0, progress=seen.append)
    assert [(span.start, span.stop) for span in plan.spans] == [(0, 10)] and plan.skipped[0].reason == "no face"
    assert seen == list(range(1, 23))


def test_only_a_few_pictures_are_held():
    alive, most = 0, 0

    def gone() -> None:
        nonlocal alive
        alive -= 1

    def frames():
        nonlocal alive, most
        for _ in range(60):
            picture = draw([(20, 60)])
            weakref.finalize(picture, gone)
            alive += 1
            most = max(most, alive)
            yield picture
            del picture

    plan_spans(frames(), SquareDetector(stride=8), 256, 25.0)
    assert most <= 8 + 5


@pytest.mark.parametrize(
    ("size", "side", "expected"), [((1280, 720), 640, (640, 360)), ((270, 480), 640, (270, 480)), ((2000, 3), 640, (640, 1))]
)
def test_shrinking(size, side, expected):
    picture = shrink(np.zeros((size[1], size[0], 3), np.uint8), side)
    assert picture.shape[1::-1] == expected
