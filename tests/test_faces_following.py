"""The analysis of synthetic pictures: following, losing, finding again, cuts, and how little it holds."""

import weakref

import cv2
import numpy as np
import pytest
from faces_fixtures import SquareDetector, draw

from latentsync.faces.detector import Face, shrink
from latentsync.faces.plan import find_faces, plan_spans
from latentsync.faces.tracking import shot_starts, with_cuts


def noise(seed: int) -> np.ndarray:
    """A textured picture; another seed is another scene."""
    rng = np.random.default_rng(seed)
    return np.kron(rng.integers(0, 256, (9, 16, 3)), np.ones((20, 20, 1))).astype(np.uint8)


def cuts_of(pictures: list[np.ndarray]) -> list[int]:
    answers = list(with_cuts(iter(pictures)))
    assert len(answers) == len(pictures) and all(a is b for (a, _), b in zip(answers, pictures, strict=True))
    return [index for index, (_, is_cut) in enumerate(answers) if is_cut]


def pan(count: int, seed: int = 0, step: int = 1) -> list[np.ndarray]:
    """A camera that moves over a scene."""
    scene = np.tile(noise(seed), (1, 2, 1))
    return [scene[:, step * k : step * k + 320] for k in range(count)]


BLACK, WHITE = (np.full((180, 320, 3), grey, np.uint8) for grey in (0, 255))
LIGHTS = (*[0] * 20, 220, 130, 60, 25, *[0] * 16)  # a flash that dies away


@pytest.mark.parametrize(
    ("pictures", "cuts"),
    [
        ([], []),
        ([noise(0)], []),
        ([noise(0)] * 12 + [noise(1)] * 9 + [noise(2)] * 12, [12, 21]),
        ([BLACK] * 9 + [WHITE], [9]),  # in the last frame
        (pan(30, step=3), []),
        ([(noise(0) * (1 - 0.02 * k)).astype(np.uint8) for k in range(30)], []),
        ([*pan(20), *[noise(1)] * 3, *pan(20)], [20, 23]),
        ([*[noise(0) // 4] * 20, noise(1) // 2 + 128, *[noise(0) // 4] * 20], [20, 21]),  # brighter, and another picture
        ([np.minimum(picture.astype(int) + light, 255).astype(np.uint8) for picture, light in zip(pan(40), LIGHTS, strict=True)], []),
    ],
)
def test_cuts_are_found_where_they_are(pictures, cuts):
    assert cuts_of(pictures) == cuts


@pytest.mark.parametrize("length", [1, 3])
@pytest.mark.parametrize("light", [(0, 255), (1.2, 90), (0, 0), (0.4, 0)])
def test_a_flash_and_a_dark_frame_are_no_cuts(length, light):
    pictures = pan(40)
    for k in range(20, 20 + length):
        pictures[k] = np.clip(pictures[k] * light[0] + light[1], 0, 255).astype(np.uint8)
    assert cuts_of(pictures) == [] and shot_starts(iter(pictures)) == [0]
    assert cuts_of([*pan(20), WHITE, *pan(20, seed=1)])[-1] == 21  # a flash at a cut hides none


@pytest.mark.parametrize("length", [12, 25, 50])
def test_a_dissolve_begins_a_shot_in_its_middle(length):
    old, new = noise(0).astype(float), noise(1).astype(float)
    shares = np.concatenate([np.zeros(30), (np.arange(length) + 1) / (length + 1), np.ones(30)])
    zero, middle = shot_starts((old * (1 - share) + new * share).astype(np.uint8) for share in shares)
    assert zero == 0 and abs(middle - 30 - length / 2) <= 8


def test_motion_zoom_and_light_are_no_dissolves():
    assert shot_starts(pan(90)) == [0] and shot_starts(pan(90, step=3)) == [0]
    scene = np.kron(noise(0), np.ones((2, 2, 1), np.uint8))
    zoom = [scene[k : 360 - k, 2 * k : 640 - 2 * k] for k in range(80)]
    assert shot_starts(cv2.resize(picture, (160, 90), interpolation=cv2.INTER_AREA) for picture in zoom) == [0]
    light = 1 + 0.5 * np.sin(np.arange(90) / 9)
    assert shot_starts((noise(0) * 0.6 * share).astype(np.uint8) for share in light) == [0]
    assert shot_starts(iter([])) == []


def test_a_dissolve_between_two_faces_ends_a_span():
    rng = np.random.default_rng(3)
    grounds = [np.kron(rng.integers(0, 200, (10, 16, 1)), np.ones((20, 20, 3))) for _ in range(2)]
    for ground in grounds:
        ground[60:120, 100:160] = 255  # both faces in one place
    shares = np.concatenate([np.zeros(30), np.arange(1, 26) / 26, np.ones(30)])
    frames = [(grounds[0] * (1 - share) + grounds[1] * share).round().astype(np.uint8) for share in shares]
    plan = plan_spans(iter(frames), SquareDetector(), 256, 25.0)
    assert plan.num_shots == 2 and len(plan.spans) == 2 and abs(plan.spans[0].stop - 42) <= 6


class CapDetector:
    """Finds white squares with a black cap, in one call a picture. Its points are right where the cap is above, and too close elsewhere."""

    name, weights, smoothing, long_side = "caps", "", "none", None

    def __init__(self) -> None:
        self.detections = 0

    def detect(self, picture: np.ndarray) -> list[Face]:
        self.detections += 1
        faces = []
        for rows, columns in [(ys, xs) for ys, xs in [np.nonzero((picture == 255).all(axis=-1))] if len(ys)]:
            x, y, right, low = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
            is_right = (picture[y - 12 : y, x:right] == 0).all()
            spread = 15.0 if is_right else 6.0
            middle = (x + right) / 2
            anchors = np.array([[middle - spread, y + 15], [middle + spread, y + 15], [middle, y + 35]], np.float32)
            faces.append(Face(np.array([x, y, right, low], np.float32), 1.0 if is_right else 0.98, anchors))
        return faces


def capped(x: int, y: int, turns: int) -> np.ndarray:
    picture = draw([(x, y)])
    picture[y - 12 : y, x : x + 60] = 0
    return np.ascontiguousarray(np.rot90(picture, turns))


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_turned_faces_are_found_by_a_detector_that_cannot_follow(turns):
    detector = CapDetector()
    sightings = list(find_faces([capped(40 + 2 * k, 60, turns) for k in range(20)], detector))
    assert detector.detections == 4 + 19 and all(len(faces) == 1 for faces, _ in sightings)
    face = sightings[5][0][0]
    upright = face.turned(4 - turns, (320, 200) if turns == 2 else (200, 320))
    assert face.turns == 4 - turns and upright.box.tolist() == [50, 60, 110, 120]
    assert np.allclose(upright.anchors, [[65, 75], [95, 75], [80, 95]], atol=1.01)


def test_pictures_without_faces_are_seldom_searched_in_other_turns():
    detector = CapDetector()
    assert not any(faces for faces, _ in find_faces([noise(0) // 2] * 96, detector)) and detector.detections == 96 + 3 * 3
    detector = SquareDetector(stride=8)
    assert not any(faces for faces, _ in find_faces([noise(0) // 2] * 96, detector)) and detector.detections == 12 + 3 * 3


def test_faces_are_followed_between_full_detections():
    places = [(20 + 4 * k, 60) for k in range(21)]
    detector = SquareDetector(stride=5)
    sightings = list(find_faces((draw([place]) for place in places), detector))
    assert [face.box[0] for faces, _ in sightings for face in faces] == [x for x, _ in places]
    assert detector.detections == 5 + 2 * 3  # frames 0, 5, 10, 15, 20; in frames 0 and 20 in the turned pictures, too


@pytest.mark.parametrize(
    "frames",
    [
        [[(20, 60)] + ([(200, 60)] if k >= 7 else []) for k in range(13)],  # a new face is followed back to where it came in
        [[(20, 60)]] * 7 + [[]] * 9 + [[(200, 60)]] * 6,
        [[(20, 60)]] * 7 + [[(200, 60)]] * 7,
    ],
)
def test_faces_begin_and_end_where_they_do(frames):
    sightings = find_faces(map(draw, frames), SquareDetector(stride=5))
    assert [sorted(face.box[0] for face in faces) for faces, _ in sightings] == [[x for x, _ in places] for places in frames]


def test_nothing_is_followed_across_a_cut():
    before, after = draw([(20, 60)], ground=30), draw([(24, 60)], ground=150)
    detector = SquareDetector(stride=50)
    sightings = list(find_faces([before] * 9 + [after] * 9, detector))
    assert [index for index, (_, is_cut) in enumerate(sightings) if is_cut] == [9]
    assert detector.detections == 2 * 4 and [faces[0].box[0] for faces, _ in sightings] == [20] * 9 + [24] * 9
    large = np.kron(draw([(40, 60)]), np.ones((2, 2, 1), np.uint8))
    [(faces, _)] = find_faces([large], SquareDetector(long_side=320))
    assert faces[0].box.tolist() == [80, 120, 200, 240]  # in pixels of the frame


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
    assert most <= 8 + 9


@pytest.mark.parametrize(
    ("size", "side", "expected"), [((1280, 720), 640, (640, 360)), ((270, 480), 640, (270, 480)), ((2000, 3), 640, (640, 1))]
)
def test_shrinking(size, side, expected):
    picture = shrink(np.zeros((size[1], size[0], 3), np.uint8), side)
    assert picture.shape[1::-1] == expected
