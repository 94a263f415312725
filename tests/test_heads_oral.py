"""Ears, teeth, tongue and the sack of the mouth: they fit together at rest and in every pose."""

from dataclasses import replace

import numpy as np
import pytest

from preprocess.talking_heads.anatomy.dental_arch import BITE_SLOPE, crowns, draw_dentition
from preprocess.talking_heads.anatomy.ear import ear
from preprocess.talking_heads.anatomy.jaw import PIVOT, jaw_motion
from preprocess.talking_heads.anatomy.oral import LipOpening, Oral, OralFit, build_oral
from preprocess.talking_heads.anatomy.teeth import crown_points
from preprocess.talking_heads.traits import draw_traits

FRONT = np.array([0.0, -6.75, 9.75], np.float32)
SKIN = np.array([0.5, 0.3, 0.22])
SEEDS = (1, 5, 12)


def lips(width: float, height: float, jaw: float = 0.0) -> LipOpening:
    """Lips that meet at the average place, opened downwards by `height`, carried along by the jaw."""
    corner = np.array([0.5 * width, -6.6 - 0.2 * height, 8.9])
    lower = jaw_motion(np.array([0.0, -6.6, 10.2]), jaw)
    return LipOpening(corner * [-1, 1, 1], corner, np.array([0.0, -6.6, 10.2]), np.array([0.0, -6.6 - height, lower[2]]))


@pytest.fixture(scope="module")
def mouth() -> Oral:
    return build_oral(draw_traits(SEEDS[0]), OralFit(FRONT))


def test_jaw_motion_is_rigid_and_identity_at_zero() -> None:
    points = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32) * 5
    assert np.array_equal(jaw_motion(points, 0.0), points)
    moved = jaw_motion(points, 0.8)
    before = np.linalg.norm(points[:, None] - points[None], axis=-1)
    assert np.allclose(np.linalg.norm(moved[:, None] - moved[None], axis=-1), before, atol=1e-4)
    assert np.allclose(jaw_motion(points, 0.8, 0.5), 0.5 * (points + moved), atol=1e-4)
    incisor = np.array([0.0, -6.7, 9.5])
    assert incisor[1] - jaw_motion(incisor, 1.0)[1] > 1.7
    assert np.allclose(jaw_motion(np.array(PIVOT), 1.0)[:2], PIVOT[:2])


@pytest.mark.parametrize("seed", SEEDS)
def test_teeth_overlap_only_by_the_overbite(seed: int) -> None:
    dentition = draw_dentition(draw_traits(seed))
    upper, lower = crowns(dentition, lower=False), crowns(dentition, lower=True)
    for tooth in lower:
        points = crown_points(tooth)
        assert points[:, 1].max() + BITE_SLOPE * tooth.edge[2] < dentition.overbite + 0.1
        for other in upper:
            local = (points - other.edge) @ np.stack([other.along, other.root, other.out]).T
            within = (np.abs(local[:, 0]) < 0.4 * other.width) & (local[:, 1] > 0.05 * other.height) & (local[:, 1] < other.height)
            assert not (within & (local[:, 2] < -0.05) & (local[:, 2] > -other.edge_depth + 0.05)).any()


def test_straight_teeth_are_symmetric() -> None:
    dentition = replace(draw_dentition(draw_traits(SEEDS[0])), irregularity=0.0)
    for lower in (False, True):
        teeth = crowns(dentition, lower)
        for left, right in zip(teeth, teeth[::-1], strict=True):
            assert np.allclose(left.edge * [-1, 1, 1], right.edge, atol=1e-6)
            assert left.width == pytest.approx(right.width)
    crooked = crowns(replace(dentition, irregularity=1.0), lower=True)
    assert (
        max(
            abs(tooth.edge[1] - other.edge[1]) + abs(tooth.edge[2] - other.edge[2])
            for tooth, other in zip(crooked, crooked[::-1], strict=True)
        )
        > 0.01
    )


def test_nothing_comes_out_before_the_lips(mouth: Oral) -> None:
    for jaw in (0.0, 0.3, 1.0):
        for up, out in ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0)):
            vertices, _ = mouth.pose(jaw, up, out, lips(4.5, 2.5 * jaw, jaw))
            assert vertices[:, 2].max() < FRONT[2] + 0.35
            upper = vertices[: mouth.tongue_start][mouth.jaw_weight[: mouth.tongue_start] == 0]
            assert np.array_equal(upper, mouth.mesh.vertices[: len(upper)])


def test_tongue_reaches_its_targets(mouth: Oral) -> None:
    tip = mouth.cavity_start - 1
    opened = lips(4.8, 1.0, 0.3)
    rest, up, out = (mouth.pose(0.3, *channels, opened)[0][tip] for channels in ((0, 0), (1, 0), (0, 1)))
    assert up[1] > FRONT[1] + 0.4 and up[1] > rest[1] + 0.8
    assert out[2] > FRONT[2] and FRONT[1] - 1.2 < out[1] < FRONT[1]


def test_sack_closes_around_the_lips(mouth: Oral) -> None:
    """Lines of sight through the opening end inside: the first ring lies beyond the lips' edge, whatever they do."""
    for width, height, jaw in ((4.6, 0.5, 0.1), (6.2, 1.5, 0.3), (2.2, 1.0, 0.3), (4.6, 3.0, 0.9)):
        opened = lips(width, height, jaw)
        ring = mouth.pose(jaw, 0, 0, opened)[0][mouth.cavity_start :][:28]
        assert ring[:, 0].max() >= opened.right[0] and ring[:, 0].min() <= opened.left[0]
        assert ring[:, 1].max() >= opened.top[1] and ring[:, 1].min() <= opened.bottom[1]
        assert ring[:, 2].max() < 10.2


def test_rim_follows_a_given_loop(mouth: Oral) -> None:
    angle = 2 * np.pi * np.arange(84) / 84
    loop = np.stack([2.4 * np.cos(angle), -6.9 + 0.7 * np.sin(angle), 9.0 - 0.2 * np.cos(angle) ** 2], -1)
    ring = mouth.pose(0.2, 0, 0, replace(lips(4.6, 0.8, 0.2), loop=loop))[0][mouth.cavity_start :][:28]
    assert np.linalg.norm(ring - loop[::3], axis=1).max() < 0.1


def test_light_falls_off_as_the_mouth_closes(mouth: Oral) -> None:
    light = np.stack([mouth.pose(0.4, 0, 0, lips(4.5, height, 0.4))[1] for height in (0.0, 0.3, 0.8, 1.6)])
    assert (np.diff(light, axis=0) >= -1e-5).all()
    assert light[0].max() < 0.05 and light[-1].max() > 0.7
    assert light[:, mouth.cavity_start + 28 * 7 :].max() < 0.2  # the throat stays dark
    steps = [mouth.pose(0.4, 0, 0, lips(4.5, height, 0.4))[1] for height in np.linspace(0, 1, 41)]
    assert np.abs(np.diff(steps, axis=0)).max() < 0.25


def test_the_same_seed_gives_the_same_mouth_and_ear() -> None:
    traits = draw_traits(SEEDS[1])
    first, second = (build_oral(traits, OralFit(FRONT)) for _ in range(2))
    assert first.mesh.vertices.tobytes() == second.mesh.vertices.tobytes()
    assert all(a.albedo.tobytes() == b.albedo.tobytes() for a, b in zip(first.mesh.materials, second.mesh.materials, strict=True))
    assert ear(traits, SKIN).mesh.vertices.tobytes() == ear(traits, SKIN).mesh.vertices.tobytes()


@pytest.mark.parametrize("seed", range(8))
def test_ear_has_human_size_and_sinks_into_the_head(seed: int) -> None:
    shape = ear(draw_traits(seed), SKIN)
    height, depth = np.ptp(shape.mesh.vertices[:, 1]), np.ptp(shape.mesh.vertices[:, 2])
    assert 5.0 < height < 7.2 and 2.7 < depth < 4.2
    assert 1.0 < shape.mesh.vertices[:, 0].max() < 2.8
    last_ring = shape.mesh.vertices[-40:]
    assert (last_ring[:, 0] < -0.3).all()
    assert shape.lobe[1] < -1.5 and shape.top[1] > 1.5 and shape.lobe[0] > 0


def test_the_left_ear_mirrors_the_right() -> None:
    shape = ear(draw_traits(SEEDS[0]), SKIN)
    right = shape.placed(np.array([7.2, -1, 0]), np.array([1.0, 0, -0.2]), 1)
    left = shape.placed(np.array([-7.2, -1, 0]), np.array([-1.0, 0, -0.2]), -1)
    assert np.allclose(left.mesh.vertices * [-1, 1, 1], right.mesh.vertices, atol=1e-5)
    for mesh, side in ((right.mesh, 1), (left.mesh, -1)):  # faces look out of the head on both sides
        a, b, c = (mesh.vertices[mesh.faces[:, k]] for k in range(3))
        assert side * np.cross(b - a, c - a)[:, 0].sum() > 0
