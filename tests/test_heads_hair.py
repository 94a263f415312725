"""Hair of the talking heads: where it roots, what it stays clear of, and how it follows the person's traits."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from scipy.spatial import cKDTree

from preprocess.talking_heads.anatomy.face import Skin
from preprocess.talking_heads.anatomy.identity import draw_face
from preprocess.talking_heads.hair.beards import draw_beard
from preprocess.talking_heads.hair.facial_hair import eyebrows
from preprocess.talking_heads.hair.grow import grow_hair, scalp_colour, scalp_hair, scalp_shade
from preprocess.talking_heads.hair.growth import trim
from preprocess.talking_heads.hair.regions import lip_distance
from preprocess.talking_heads.hair.roots import RestSkin, strew
from preprocess.talking_heads.hair.styles import draw_style
from preprocess.talking_heads.render.normals import vertex_normals
from preprocess.talking_heads.solids import Strands
from preprocess.talking_heads.template import (
    BROW,
    EYE_BOTTOM,
    EYE_TOP,
    INNER_CANTHUS,
    LIP_BOTTOM,
    MOUTH_CORNER,
    OUTER_CANTHUS,
    SUBNASALE,
    plane,
)
from preprocess.talking_heads.traits import Traits, draw_traits

STYLES = (
    "afro", "bald", "balding", "bob", "buzz", "crew", "curly", "fringe", "long", "messy", "pixie", "side part", "swept back", "tied",
)  # fmt: skip


@dataclass(frozen=True)
class Person:
    traits: Traits
    skin: RestSkin
    strands: list[Strands]
    scalp: Strands | None


def rest_skin(traits: Traits) -> RestSkin:
    face = Skin(draw_face(traits))
    vertices, faces = face.vertices.astype(np.float32), face.sheet.faces
    return RestSkin(face.sheet.st.astype(np.float32), vertices, vertex_normals(vertices, faces), faces)


def first_with(style: str) -> Traits:
    return next(traits for traits in map(draw_traits, range(1000)) if draw_style(traits).name == style)


@pytest.fixture(scope="module")
def people() -> dict[str, Person]:
    """One person of each hairstyle."""
    found = {}
    for style in STYLES:
        traits = first_with(style)
        skin = rest_skin(traits)
        strands = list(grow_hair(traits, skin).values())
        found[style] = Person(traits, skin, strands, None if style == "bald" else strands[0])
    return found


@pytest.fixture(scope="module")
def bearded() -> tuple[RestSkin, Strands]:
    traits = next(traits for traits in map(draw_traits, range(1000)) if (beard := draw_beard(traits)) and beard.chin > 2)
    skin = rest_skin(traits)
    return skin, grow_hair(traits, skin)["beard"]


def with_middles(points: np.ndarray) -> np.ndarray:
    """Points (n 3) along strands (s k 3), with those half way between the given ones."""
    return np.concatenate([points, (points[:, 1:] + points[:, :-1]) / 2], 1).reshape(-1, 3)


def height_over(skin: RestSkin, points: np.ndarray) -> np.ndarray:
    """Height (n) of points (n 3) over the nearest triangles, the highest of a few: inside the head all are negative.

    Triangles are found by six points on each; lips and slivers are left out.
    """
    corners = skin.vertices[skin.faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    size = np.linalg.norm(normals, axis=1)
    longest = np.linalg.norm(corners - np.roll(corners, 1, 1), axis=-1).max(1)
    whole = (size > 0.1 * longest**2) & (lip_distance(*skin.st[skin.faces].mean(1).T) > 0)
    normals = normals[whole] / size[whole, None]
    weights = np.array([[4, 1, 1], [1, 4, 1], [1, 1, 4], [1, 2.5, 2.5], [2.5, 1, 2.5], [2.5, 2.5, 1]]) / 6
    on_face = np.einsum("pk,fkd->fpd", weights, corners[whole])
    near = cKDTree(on_face.reshape(-1, 3)).query(points, k=6)[1] // len(weights)
    return ((points[:, None] - on_face[near, 0]) * normals[near]).sum(-1).max(1)


@pytest.mark.parametrize("style", STYLES)
def test_no_hair_runs_inside_the_head(people, style):
    person = people[style]
    for strands in person.strands:
        assert height_over(person.skin, strands.points[::4].reshape(-1, 3)).min() > -0.15


@pytest.mark.parametrize("style", [style for style in STYLES if style != "bald"])
def test_scalp_hair_leaves_eyes_and_mouth_free(people, style):
    skin, points = people[style].skin, with_middles(people[style].scalp.points)
    before = points[points[:, 2] > 4]
    for side in (-1, 1):
        low, high = skin.near(side * EYE_BOTTOM[0], EYE_BOTTOM[1])[1], skin.near(side * EYE_TOP[0], EYE_TOP[1])[1]
        inner, outer = skin.near(side * INNER_CANTHUS[0], INNER_CANTHUS[1])[0], skin.near(side * OUTER_CANTHUS[0], OUTER_CANTHUS[1])[0]
        across, along = before[:, 0] * side, before[:, 1]
        assert not ((across > inner * side) & (across < outer * side) & (along > low - 0.2) & (along < high + 0.2)).any()
    corner, top, bottom = skin.near(*MOUTH_CORNER), skin.near(*SUBNASALE), skin.near(*LIP_BOTTOM)
    assert not ((np.abs(before[:, 0]) < corner[0] + 0.5) & (before[:, 1] < top[1]) & (before[:, 1] > bottom[1] - 0.5)).any()


@pytest.mark.parametrize("style", STYLES)
def test_brows_lie_in_their_band_on_the_skin(people, style):
    skin, brows = people[style].skin, eyebrows(people[style].traits, people[style].skin)
    st = skin.st[brows.root]
    middle = np.interp(np.abs(st[:, 0]), *np.array(BROW).T)
    assert np.abs(st[:, 1] - middle).max() < 1.3
    assert np.abs(st[:, 0]).min() > 0.7 and np.abs(st[:, 0]).max() < 6.2
    assert cKDTree(skin.vertices).query(brows.points.reshape(-1, 3))[0].max() < 0.6
    assert np.sign(st[:, 0]).sum() < 0.2 * len(brows)


def test_beard_stays_off_the_lips(bearded):
    skin, beard = bearded
    _, near = cKDTree(skin.vertices).query(beard.points[:, 0])
    assert lip_distance(*skin.st[near].T).min() > 0.0
    close = cKDTree(skin.vertices[lip_distance(*skin.st.T) < -0.05]).query(beard.points.reshape(-1, 3))[0]
    assert close.min() > 0.1
    assert beard.points[..., 1].min() < skin.near(0.0, -11.3)[1] - 0.5  # a long one hangs below the chin


def test_strands_are_whole_and_within_the_budget(people):
    for person in people.values():
        assert sum(len(strands) for strands in person.strands) <= 9000
        assert sum(strands.points.shape[0] * strands.points.shape[1] for strands in person.strands) <= 90_000
        for strands in person.strands:
            assert np.isfinite(strands.points).all() and (strands.radius > 0).all() and (strands.radius < 0.15).all()
            assert strands.points.dtype == strands.radius.dtype == strands.colour.dtype == np.float32
            assert strands.root.dtype == np.int32 and strands.root.max() < len(person.skin.vertices)
            assert strands.occlusion is None or (strands.occlusion.min() >= 0 and strands.occlusion.max() <= 1)


def test_each_strand_starts_near_the_vertex_that_carries_it(people):
    for person in people.values():
        for strands in person.strands:
            if strands is not person.scalp:  # tails and buns start at the tie
                assert np.linalg.norm(strands.points[:, 0] - person.skin.vertices[strands.root], axis=1).max() < 1.0


def test_same_person_same_bytes(people):
    person = people["messy"]
    again = grow_hair(person.traits, person.skin).values()
    for first, second in zip(person.strands, again, strict=True):
        assert first.points.tobytes() == second.points.tobytes() and first.colour.tobytes() == second.colour.tobytes()


def test_colour_follows_the_traits(people):
    person = people["crew"]
    dark = replace(person.traits, hair_colour=np.array([0.02, 0.012, 0.008], np.float32), grey=0.0)
    blond = replace(dark, hair_colour=np.array([0.45, 0.33, 0.18], np.float32))
    shades = [scalp_hair(traits, person.skin).colour.mean() for traits in (dark, replace(dark, grey=0.4), replace(dark, grey=1.0), blond)]
    assert shades[0] < shades[1] < shades[2]
    assert shades[3] > 8 * shades[0]
    for traits in (dark, replace(dark, grey=1.0), blond):
        np.testing.assert_allclose(scalp_colour(traits), scalp_hair(traits, person.skin).colour.mean(0), rtol=0.25)


def test_shade_lies_under_the_hair_only(people):
    s, t = plane(128)
    middle_face = (np.abs(s) < 1.0) & (t < 0) & (t > -4)
    top = (np.abs(s) < 3) & (t > 10) & (t < 13)
    for style in ("crew", "long", "bald"):
        shade = scalp_shade(people[style].traits, 128)
        assert shade.shape == (128, 128) and shade.dtype == np.float32 and shade.min() >= 0 and shade.max() <= 1
        assert shade[middle_face].max() == 0
        assert (shade[top].min() > 0.6) == (style != "bald")
        assert np.abs(np.diff(shade[t[:, 0] > 5.5], axis=0)).max() < 0.45  # soft at the hairline


def test_only_masculine_faces_grow_beards():
    kinds = [(traits.femininity, draw_beard(traits)) for traits in map(draw_traits, range(200))]
    assert all(beard is None for femininity, beard in kinds if femininity > 0.5)
    assert 0.2 < np.mean([beard is not None for femininity, beard in kinds if femininity < 0.4]) < 0.8


def test_roots_fill_a_region_narrower_than_the_triangles():
    grid = np.stack(np.meshgrid(np.arange(11.0), np.arange(11.0)), -1).reshape(-1, 2).astype(np.float32)
    corner = (np.arange(10)[:, None] * 11 + np.arange(10)).reshape(-1, 1, 1)
    faces = (corner + np.array([[0, 1, 12], [0, 12, 11]])).reshape(-1, 3).astype(np.int32)
    up = np.broadcast_to(np.array([0, 0, 1], np.float32), (121, 3))
    sheet = RestSkin(grid, np.column_stack([2 * grid, np.zeros(121)]).astype(np.float32), up, faces)
    roots = strew(sheet, lambda s, t: (np.abs(s - 5.0) < 0.2).astype(float), 300, np.random.default_rng(1))
    assert 100 < len(roots) <= 300
    assert np.abs(roots.st[:, 0] - 5).max() < 0.2 and np.abs(roots.points[:, 0] - 10).max() < 0.4
    assert np.histogram(roots.st[:, 1], bins=5, range=(0, 10))[0].min() > 0.1 * len(roots)
    np.testing.assert_allclose(roots.along_s, np.broadcast_to([1, 0, 0], (len(roots), 3)), atol=1e-6)
    np.testing.assert_allclose(roots.along_t, np.broadcast_to([0, 1, 0], (len(roots), 3)), atol=1e-6)


def test_trim_ends_a_strand_on_the_border():
    strand = np.zeros((2, 6, 3), np.float32)
    strand[:, :, 1] = -np.arange(6.0)
    room = np.stack([strand[0, :, 1] + 2.5, np.ones(6)])
    cut, left = trim(strand, room)
    np.testing.assert_allclose(cut[0, -1], [0, -2.5, 0], atol=1e-6)
    np.testing.assert_allclose(left, [0.5, 1.0], atol=1e-6)
    np.testing.assert_array_equal(cut[1], strand[1])
