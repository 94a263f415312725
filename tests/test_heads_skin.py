"""Painted skin and eyes: tones of real skin, features in their places, marks and lines that follow their causes."""

from dataclasses import replace

import numpy as np
import pytest

from preprocess.talking_heads.skin.blemishes import freckle_density, paint_blemishes
from preprocess.talking_heads.skin.complexion import Pigment, carotene, colour, skin_colour
from preprocess.talking_heads.skin.eyes import IRIS_RADIUS, eyeball, paint_eye
from preprocess.talking_heads.skin.lids import margin_distance
from preprocess.talking_heads.skin.makeup import choose_makeup
from preprocess.talking_heads.skin.paint import paint_skin
from preprocess.talking_heads.skin.wrinkles import wrinkle_strength, wrinkles
from preprocess.talking_heads.template import INNER_CANTHUS, MOUTH_CORNER, NOSTRIL, OUTER_CANTHUS, to_uv
from preprocess.talking_heads.traits import Traits, draw_traits

SIZE = 512
PLAIN = Traits(5, 30.0, 0.1, 0.2, 0.4, 0.0, np.full(3, 0.02, np.float32), 0.0)


def patch(texture: np.ndarray, s: float, t: float, radius: float = 0.12) -> np.ndarray:
    """Mean of a texture over a small square of the plane."""
    u, v = to_uv(np.float32(s), np.float32(t)) * len(texture)
    reach = max(1, round(radius * len(texture) / 32))
    return texture[int(v) - reach : int(v) + reach, int(u) - reach : int(u) + reach].mean((0, 1))


def test_skin_grows_darker_with_melanin_and_stays_skin() -> None:
    tones = np.array([skin_colour(replace(PLAIN, melanin=float(melanin))) for melanin in np.linspace(0, 1, 21)])
    assert (np.diff(tones, axis=0) < 0).all()
    assert (tones[:, 0] > tones[:, 1]).all() and (tones[:, 1] > tones[:, 2]).all()
    ratio = tones[:, 0] / tones[:, 1]
    assert ratio.min() > 1.25 and ratio.max() < 2.6  # measured skin: neither grey nor orange
    assert tones[0, 0] > 0.7 and 0.03 < tones[-1, 0] < 0.07


def test_blood_reddens_and_carotene_yellows() -> None:
    one = np.ones((1, 1), np.float32)
    pale, flushed = (colour(Pigment(0.1 * one, blood * one, 0 * one, 0 * one), 0.5)[0, 0] for blood in (0.6, 2.0))
    assert flushed[0] / flushed[1] > 1.08 * pale[0] / pale[1]
    rosy, golden = (colour(Pigment(0.1 * one, one, 0 * one, 0 * one), yellow)[0, 0] for yellow in (0.1, 1.6))
    assert golden[2] < 0.95 * rosy[2] and golden[0] == pytest.approx(rosy[0], rel=0.01)
    assert len({carotene(replace(PLAIN, seed=seed)) for seed in range(5)}) == 5


@pytest.mark.parametrize("seed", range(12))
def test_features_lie_at_their_places(seed: int) -> None:
    traits = draw_traits(seed)
    skin = paint_skin(traits, SIZE)
    assert skin.albedo.shape == (SIZE, SIZE, 3) and skin.albedo.dtype == np.float32
    assert skin.bump.shape == skin.gloss.shape == (SIZE, SIZE) and np.abs(skin.bump).max() < 0.3
    lip, cheek = patch(skin.albedo, 0.9, -7.05), patch(skin.albedo, 4.6, -5.2, 0.5)
    assert lip[0] / lip[1] > 1.12 * cheek[0] / cheek[1]  # lips are redder than skin on everybody
    assert patch(skin.gloss, 0, -7.1) > 1.3 * patch(skin.gloss, 4.6, -5.2, 0.5)
    for side in (-1, 1):
        assert patch(skin.albedo, side * NOSTRIL[0], NOSTRIL[1]).mean() < 0.5 * patch(skin.albedo, 0, -3.2).mean()
        assert patch(skin.albedo, side * 3.1, 0.6, 0.06).mean() < 0.85 * patch(skin.albedo, side * 3.1, 1.4).mean()  # the lash line
    inside = patch(skin.albedo, 0, MOUTH_CORNER[1], 0.05)
    assert inside.mean() < 1.05 * lip.mean()


def test_texture_is_smooth_at_its_rim() -> None:
    albedo = paint_skin(draw_traits(3), SIZE).albedo
    rim = np.concatenate([albedo[0], albedo[:, 0], albedo[:, -1]])
    assert (np.abs(np.diff(rim, axis=0)) < 0.03 * rim.mean()).all()  # the last texel is repeated beyond the plane


def test_same_person_same_bytes_and_others_differ() -> None:
    first, again, other = (paint_skin(replace(PLAIN, seed=seed), 256) for seed in (1, 1, 2))
    for name in ("albedo", "bump", "gloss", "detail"):
        assert getattr(first, name).tobytes() == getattr(again, name).tobytes()
        assert getattr(first, name).tobytes() != getattr(other, name).tobytes()


def test_faces_are_not_symmetric() -> None:
    albedo = paint_skin(PLAIN, 256).albedo
    assert np.abs(albedo - albedo[:, ::-1]).mean() > 0.01 * albedo.mean()


def test_wrinkles_grow_with_age() -> None:
    ages = [replace(PLAIN, age=age) for age in (20.0, 45.0, 75.0)]
    assert wrinkle_strength(ages[0]) == 0 < wrinkle_strength(ages[1]) < wrinkle_strength(ages[2]) <= 1
    young, middle, old = (float(np.abs(wrinkles(traits, SIZE)).sum()) for traits in ages)
    assert 0 < young < 0.7 * middle and middle < 0.7 * old


def test_freckles_follow_their_density() -> None:
    people = [replace(PLAIN, seed=seed, melanin=0.05) for seed in range(40)]
    density = [freckle_density(traits) for traits in people]
    assert min(density) == 0 and max(density) > 0.3
    assert freckle_density(replace(people[int(np.argmax(density))], melanin=0.8)) == 0

    def marks(traits: Traits) -> float:
        pigment = Pigment(*(np.zeros((SIZE, SIZE), np.float32) for _ in range(4)))
        paint_blemishes(traits, pigment, np.zeros((SIZE, SIZE), np.float32))
        cheeks = pigment.melanin[230:340, 180:332]
        return float(np.minimum(cheeks, 0.3).sum())

    assert marks(people[int(np.argmax(density))]) > 3 * marks(people[int(np.argmin(density))])


def test_only_feminine_people_wear_makeup() -> None:
    man = [choose_makeup(replace(PLAIN, seed=seed)) for seed in range(20)]
    woman = [choose_makeup(replace(PLAIN, seed=seed, femininity=0.9)) for seed in range(20)]
    assert all(makeup.lipstick == makeup.liner == makeup.blush == 0 for makeup in man)
    assert 5 < sum(makeup.lipstick > 0.05 for makeup in woman) < 20


def test_lid_margin_runs_through_the_corners() -> None:
    corners = np.array([INNER_CANTHUS, OUTER_CANTHUS])
    distance, _ = margin_distance(corners[:, 0], corners[:, 1])
    assert np.abs(distance).max() < 1e-6
    middle, upper = margin_distance(np.array([3.1, 3.1, 3.1]), np.array([0.0, 1.0, -1.0]))
    assert middle[0] < -0.3 and middle[1] > 0.3 and middle[2] > 0.3 and upper[1] == 1 and upper[2] == 0


def test_eyeball_is_a_closed_front_with_a_bulging_cornea() -> None:
    mesh = eyeball(draw_traits(2))
    distance = np.linalg.norm(mesh.vertices, axis=1)
    assert distance.max() == pytest.approx(1.3, abs=0.02) and distance.min() > 1.199
    assert mesh.vertices[distance.argmax(), 2] == distance.max()
    a, b, c = (mesh.vertices[mesh.faces[:, k]] for k in range(3))
    assert ((np.cross(b - a, c - a) * (a + b + c)).sum(1) > 0).all()  # all faces look outwards
    assert 300 < len(mesh.faces) < 850 and mesh.uv.min() >= 0 and mesh.uv.max() <= 1


@pytest.mark.parametrize("seed", range(6))
def test_eye_is_dark_in_the_middle_and_pale_outside(seed: int) -> None:
    mesh = eyeball(draw_traits(seed))
    albedo = paint_eye(draw_traits(seed))
    texel = np.minimum((mesh.uv * len(albedo)).astype(int), len(albedo) - 1)
    colours, across = albedo[texel[:, 1], texel[:, 0]], np.hypot(*mesh.vertices[:, :2].T)
    front = mesh.vertices[:, 2] > 0.7
    pupil, white = colours[front & (across < 0.11)], colours[front & (across > 1.1 * IRIS_RADIUS)]
    assert pupil.max() < 0.02 and white.min() > 0.2 and white.mean() < 0.65
    iris = colours[front & (across > 0.35) & (across < 0.5)].mean()
    assert pupil.mean() < iris < 0.8 * white.mean()
