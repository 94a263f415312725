"""Rendered people: lips meet and part as labels say, teeth and tongue stay inside, hair stays off eyes and mouth, landmarks fit."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial import cKDTree

from embedded.talking_heads.clothes import bust, glasses, wears_glasses
from embedded.talking_heads.ear import ear
from embedded.talking_heads.expression import MouthShape, jaw_motion
from embedded.talking_heads.face import MOUTH_LEFT, MOUTH_RIGHT, red_height
from embedded.talking_heads.facial_hair import draw_beard, lip_distance
from embedded.talking_heads.hair import draw_style
from embedded.talking_heads.motion import Pose, motion, poses, rotation
from embedded.talking_heads.person import Head
from embedded.talking_heads.render.picture import prepare, render
from embedded.talking_heads.scene import apply_effects, background, draw_effects, expose, frame_camera, harmonics, irradiance, light
from embedded.talking_heads.skin import skin_colour
from embedded.talking_heads.solids import Light, Material
from embedded.talking_heads.speech.phones import Phone
from embedded.talking_heads.speech.visemes import draw_style as draw_mouth_style
from embedded.talking_heads.speech.visemes import mouth_channels
from embedded.talking_heads.template import INNER_CANTHUS, MOUTH_CORNER, OUTER_CANTHUS, plane
from embedded.talking_heads.traits import draw_traits
from latentsync.constants import VIDEO_FPS

PEOPLE = (11, 23, 58)


@pytest.fixture(scope="module")
def heads() -> dict[int, Head]:
    return {identity: Head(draw_traits(identity), texture_size=64) for identity in PEOPLE}


def spoken(*symbols: str, length: float = 0.12) -> tuple[Phone, ...]:
    return tuple(Phone(symbol, index * length, (index + 1) * length) for index, symbol in enumerate(("sil", *symbols, "sil")))


@pytest.mark.parametrize("identity", PEOPLE)
def test_lips_meet_in_the_skin_and_vowels_part_them(heads: dict[int, Head], identity: int) -> None:
    phones = spoken("aa", "p", "aa", "b", "ae", "m", "ow", "m", "iy", "b", "uw", "p", "ah", "sil", "sil")
    mouth = mouth_channels(phones, int(phones[-1].end * VIDEO_FPS), draw_mouth_style(identity))
    for smile in (0.0, 0.3):
        shapes = [replace(pose.mouth, smile=smile) for pose in poses(mouth, motion(identity, len(mouth)))]
        gaps = [heads[identity].pose(Pose(mouth=shape)).lip_gap for shape in shapes]
        for phone in phones:
            middle = min(int((phone.start + phone.end) / 2 * VIDEO_FPS), len(gaps) - 1)
            if phone.symbol in ("p", "b", "m"):
                assert gaps[middle] <= 0.02, phone
            if phone.symbol in ("aa", "ae"):
                assert gaps[middle] > 0.25, phone
        assert gaps[0] <= 0.02 and gaps[-1] <= 0.02


def test_landmarks_lie_on_the_corners_of_the_painted_mouth(heads: dict[int, Head]) -> None:
    size, dark = 512, np.zeros((512, 512, 3), np.float32)
    even = np.concatenate([np.full((1, 3), 3.5), np.zeros((8, 3))]).astype(np.float32)
    lamp = Light(np.array([0, 0, 1], np.float32), np.zeros(3, np.float32), 0.1, even)
    s, t = plane(1024)
    red = (np.abs(s) <= MOUTH_CORNER[0]) & (np.abs(t - MOUTH_CORNER[1]) <= red_height(s, t > MOUTH_CORNER[1]))
    lips = Material((red[..., None] * np.array([0, 1, 0])).astype(np.float32), specular=0.0)
    shapes = (
        Pose(),
        Pose(mouth=MouthShape(jaw=0.8, lower_lip=0.3), turn=(0.2, 0.05, 0.05), translation=(0.5, 0.2, 0.0)),
        Pose(mouth=MouthShape(jaw=0.2, pucker=0.9, funnel=0.4), turn=(0.05, 0.1, -0.06)),
    )
    for identity, head in heads.items():
        black = Material(np.zeros((1, 1, 3), np.float32), specular=0.0)
        mesh = replace(head.mesh, materials=(lips, *(black for _ in head.mesh.materials[1:])))
        camera, prepared = frame_camera(identity), prepare(mesh)
        for pose in shapes:
            posed = head.pose(pose)
            moved = replace(mesh, vertices=posed.vertices, occlusion=np.ones_like(posed.occlusion))
            _, columns = np.nonzero(render(moved, [], lamp, camera, dark, prepared)[..., 1] > 0.25)
            landmarks = camera.project(posed.landmarks, size, size)[:, :2]
            assert abs(landmarks[MOUTH_LEFT, 0] - columns.min()) <= 4, (identity, pose)
            assert abs(landmarks[MOUTH_RIGHT, 0] - columns.max() - 1) <= 4, (identity, pose)


def test_the_jaw_is_rigid_and_carries_the_lower_teeth_alone(heads: dict[int, Head]) -> None:
    points = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32) * 5
    moved = jaw_motion(points, 0.8)
    before = np.linalg.norm(points[:, None] - points[None], axis=-1)
    assert np.array_equal(jaw_motion(points, 0.0), points)
    assert np.allclose(np.linalg.norm(moved[:, None] - moved[None], axis=-1), before, atol=1e-4)
    for head in heads.values():
        oral, lips = head._oral, head._lip_opening(head.face.vertices.astype(np.float32))
        for jaw, up, out in ((0.0, 0.0, 0.0), (0.3, 1.0, 0.0), (0.3, 0.0, 1.0), (1.0, 0.0, 0.0)):
            vertices, shade = oral.pose(jaw, up, out, lips)
            teeth = slice(0, oral.tongue_start)
            fixed = oral.jaw_weight[teeth] == 0
            assert np.array_equal(vertices[teeth][fixed], oral.mesh.vertices[teeth][fixed])
            assert vertices[..., 2].max() < oral.fit.front[2] + 0.4  # nothing comes out before the lips
            assert shade.max() < 0.1  # closed lips keep the light out
        tip = oral.cavity_start - 1
        rest, up, out = (oral.pose(0.3, *channels, lips)[0][tip] for channels in ((0, 0), (1, 0), (0, 1)))
        assert up[1] > rest[1] + 0.8 and out[2] > oral.fit.front[2]


def test_an_open_mouth_shows_light_teeth_before_a_dark_cavity(heads: dict[int, Head]) -> None:
    head = heads[PEOPLE[0]]
    skins = {jaw: head.expression.skin_at(MouthShape(jaw=jaw)).astype(np.float32) for jaw in (0.0, 0.3, 0.7)}
    light_inside = [head._oral.pose(jaw, 0, 0, head._lip_opening(skin))[1] for jaw, skin in skins.items()]
    front = head._oral.openness > 0.9
    assert light_inside[0].max() < 0.1 < light_inside[1][front].mean() < light_inside[2][front].mean()
    assert light_inside[2][head._oral.cavity_start + 28 * 7 :].max() < 0.2  # the throat stays dark


def test_other_words_change_the_mouth_alone(heads: dict[int, Head]) -> None:
    head = heads[PEOPLE[1]]
    one, other = (head.pose(Pose(mouth=MouthShape(**channels))).landmarks for channels in ({"jaw": 0.6}, {"pucker": 0.9}))
    assert np.abs(one[36:48] - other[36:48]).max() < 0.01 and np.abs(one[48:] - other[48:]).max() > 0.3


def test_lids_close_over_the_eye(heads: dict[int, Head]) -> None:
    for head in heads.values():
        opened, shut = (head.pose(Pose(blink=(blink, blink))).landmarks for blink in (0.0, 1.0))
        for upper, lower in ((37, 41), (38, 40), (43, 47), (44, 46)):
            assert opened[upper, 1] - opened[lower, 1] > 0.4 and shut[upper, 1] - shut[lower, 1] < 0.2


@pytest.mark.parametrize("style", ["bald", "bob", "long", "messy", "curly", "afro"])
def test_hair_leaves_eyes_and_mouth_free(style: str) -> None:
    traits = next(traits for traits in map(draw_traits, range(1000)) if draw_style(traits).name == style)
    head = Head(traits, texture_size=64)
    face, kinds = head.face, head._strands
    assert ("scalp" in kinds) == (style != "bald") and {"brows", "lashes"} <= set(kinds)
    for strands in kinds.values():
        assert np.isfinite(strands.points).all() and (strands.radius > 0).all() and (strands.radius < 0.15).all()
        assert strands.root.max() < len(face.vertices) and strands.points.dtype == strands.colour.dtype == np.float32
    if style != "bald":
        points = kinds["scalp"].points.reshape(-1, 3)
        x, y = np.abs(points[points[:, 2] > 4, 0]), points[points[:, 2] > 4, 1]
        inner, outer = (face.vertices[face.nearest(*corner)] for corner in (INNER_CANTHUS, OUTER_CANTHUS))
        corner, foot = face.vertices[face.nearest(*MOUTH_CORNER)], face.vertices[face.nearest(0.0, -8.0)]
        assert not ((x > inner[0]) & (x < outer[0]) & (np.abs(y - inner[1]) < 0.6)).any()
        assert not ((x < corner[0]) & (y < corner[1] + 1.0) & (y > foot[1])).any()


def test_beards_grow_on_masculine_faces_and_stay_off_the_lips() -> None:
    found = [(traits.femininity, draw_beard(traits)) for traits in map(draw_traits, range(200))]
    assert all(beard is None for femininity, beard in found if femininity > 0.5)
    assert 0.2 < np.mean([beard is not None for femininity, beard in found if femininity < 0.4]) < 0.8
    traits = next(traits for traits in map(draw_traits, range(1000)) if (beard := draw_beard(traits)) and beard.chin > 2)
    head = Head(traits, texture_size=64)
    st, beard = head.face.sheet.st, head._strands["beard"]
    lips = head.face.vertices[lip_distance(*st.T) < -0.05]
    assert cKDTree(lips).query(beard.points.reshape(-1, 3))[0].min() > 0.08
    assert beard.points[..., 1].min() < head.face.vertices[head.face.nearest(0.0, -11.3), 1] - 0.5  # a long one hangs below the chin


def test_skin_tones_and_hair_colours_spread() -> None:
    people = [draw_traits(seed) for seed in range(60)]
    colours = np.array([skin_colour(person) for person in people])
    tones = colours @ [0.2126, 0.7152, 0.0722]
    assert tones.min() < 0.08 and tones.max() > 0.4 and np.std([person.hair_colour[0] for person in people]) > 0.05
    assert (colours[:, 0] > colours[:, 2]).all()


def test_ears_clothes_and_glasses_fit() -> None:
    for seed in range(6):
        traits = draw_traits(seed)
        mesh, top = ear(traits, np.array([0.5, 0.3, 0.22]), np.array([7.2, -1.0, 0.0]), np.array([1.0, 0.0, -0.12]), 1)
        size = np.ptp(mesh.vertices, axis=0)
        assert 4.8 < size[1] < 7.4 and 2.3 < size[2] < 4.4 and mesh.vertices[:, 0].min() < 6.9 and top[1] > 0.5
        left, _ = ear(traits, np.array([0.5, 0.3, 0.22]), np.array([-7.2, -1.0, 0.0]), np.array([-1.0, 0.0, -0.12]), -1)
        assert np.allclose(left.vertices * [-1, 1, 1], mesh.vertices, atol=1e-4)
        worn = bust(traits, 5.5, np.array([0.5, 0.33, 0.25], np.float32))
        assert np.isfinite(worn.vertices).all() and worn.vertices[:, 1].min() < -44 and np.ptp(worn.vertices[:, 0]) > 30
        pupils, ears = ((np.array([-x, y, z]), np.array([x, y, z])) for x, y, z in ((3.15, 0.0, 8.6), (7.2, 0.8, -0.3)))
        frame = glasses(seed, pupils, np.array([0.0, -0.5, 9.6]), ears, 14.4, 2.2)
        assert 9.5 < frame.vertices[:, 2].max() < 11.5 and abs(frame.vertices[:, 0].min() + frame.vertices[:, 0].max()) < 0.2
        assert min(np.linalg.norm(frame.vertices - place, axis=1).min() for place in ears) < 0.6
    assert 0.12 < np.mean([wears_glasses(draw_traits(seed)) for seed in range(300)]) < 0.35


def test_motion_is_smooth_human_and_begins_alike_in_a_longer_clip() -> None:
    rates = []
    for seed in range(10):
        moved = motion(seed, 60 * VIDEO_FPS)
        assert np.abs(np.diff(moved.turn, axis=0)).max() < np.radians(1.6) and np.abs(moved.turn).max() <= 0.6
        assert np.abs(np.diff(moved.translation, axis=0)).max() < 0.2 and np.abs(moved.gaze).max() <= 0.5
        rates.append(((moved.blink[1:, 0] >= 1) & (moved.blink[:-1, 0] < 1)).sum())
        short = motion(seed, 100)
        assert all(np.array_equal(value, getattr(moved, name)[:100]) for name, value in vars(short).items())
    assert 12 <= np.mean(rates) <= 25
    nose, crown = np.array([0.0, 0.0, 10.0]), np.array([0.0, 10.0, 0.0])
    assert (rotation(0.3, 0, 0) @ nose)[0] > 0 and (rotation(0, 0.3, 0) @ nose)[1] > 0 and (rotation(0, 0, 0.3) @ crown)[0] < 0


def test_light_background_and_camera_expose_a_person_well() -> None:
    coefficients = irradiance(lambda direction: np.tile(np.array([0.7, 0.4, 0.2], np.float32), (len(direction), 1)))
    assert np.allclose(harmonics(np.array([0.6, 0.8, 0.0])) @ coefficients, [0.7, 0.4, 0.2], atol=2e-3)
    levels = []
    outline = np.array([[0, -11.3, 8.8], [0, 12.3, -1], [-7.5, 0, 0], [7.5, 0, 0]], np.float32)
    for seed in range(40):
        lamp = light(seed)
        assert 0.7 < (harmonics(lamp.key_direction) @ lamp.ambient + lamp.key_colour).mean() < 1.5 and lamp.key_direction[2] > 0
        behind = background(seed, 64, 48)
        assert behind.shape == (48, 64, 3) and np.isfinite(behind).all() and behind.min() >= 0 and behind.max() <= 6
        levels.append(behind.mean())
        place = frame_camera(seed).project(outline, 256, 256)[:, :2]
        assert place.min() > 0 and place.max() < 256 and 0.3 < np.ptp(place[:, 1]) / 256 < 0.8
    assert np.std(levels) > 0.03
    picture = np.clip(np.add.outer(np.linspace(40, 200, 64), np.zeros((64, 3))), 0, 255).astype(np.uint8)
    for seed in range(8):
        effects = draw_effects(seed)
        assert abs(float(apply_effects(effects, picture, 3, seed).mean()) - float(picture.mean())) < 3.0
        assert 0.65 < expose(effects, picture / np.float32(255)).mean() / (picture.mean() / 255) < 1.45
        assert np.array_equal(apply_effects(effects, picture, 1, seed), apply_effects(effects, picture, 1, seed))
