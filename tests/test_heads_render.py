"""The renderer of talking heads: coverage, depth, shading, shadows, occlusion and strands, each against what geometry says."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from preprocess.talking_heads.render.normals import vertex_normals, weld
from preprocess.talking_heads.render.occlusion import bake_occlusion
from preprocess.talking_heads.render.picture import prepare, render
from preprocess.talking_heads.render.textures import pack
from preprocess.talking_heads.render.tone import tone
from preprocess.talking_heads.solids import Camera, Light, Material, Mesh, Strands, grid_faces, join

SIZE = 64
CAMERA = Camera(np.array([0, 0, 100], np.float32), 5.0)  # at z = 0 the picture is 20 cm high
CM = 100 / (5.0 * SIZE)  # width of a pixel at z = 0
BLACK = np.zeros((SIZE, SIZE, 3), np.float32)


def colour(*rgb: float, **traits: object) -> Material:
    return Material(np.array(rgb, np.float32).reshape(1, 1, 3), **{"specular": 0.0, "roughness": 1.0, **traits})


def even_light(level: float = 1.0) -> Light:
    """The same light from everywhere: a white surface shows `level`."""
    ambient = np.zeros((9, 3), np.float32)
    ambient[0] = level / 0.2820948
    return Light(np.array([0, 0, 1], np.float32), np.zeros(3, np.float32), 0.05, ambient)


def key_light(*direction: float, softness: float = 0.02) -> Light:
    towards = np.array(direction, np.float32) / np.linalg.norm(direction)
    return Light(towards.astype(np.float32), np.ones(3, np.float32), softness, np.zeros((9, 3), np.float32))


def triangle(points: Sequence, material: Material) -> Mesh:
    return Mesh.of(np.array(points), np.array([[0, 1, 2]]), np.array([[0, 0], [1, 0], [0, 1]]), material)


def sheet(half: float, z: float, material: Material, cells: int = 8) -> Mesh:
    """A square that faces the camera."""
    steps = np.linspace(-1, 1, cells + 1)
    x, y = np.meshgrid(steps, -steps)
    uv = np.stack([(x + 1) / 2, (1 - y) / 2], -1).reshape(-1, 2)
    vertices = np.stack([half * x, half * y, np.full_like(x, z)], -1).reshape(-1, 3)
    return Mesh.of(vertices, grid_faces(cells + 1, cells + 1), uv, material)


def ball(centre: tuple[float, float, float], radius: float, material: Material, rows: int = 48, columns: int = 96) -> Mesh:
    down, around = np.meshgrid(np.linspace(0, np.pi, rows), np.linspace(-np.pi, np.pi, columns), indexing="ij")
    outward = np.stack([np.sin(down) * np.sin(around), np.cos(down), np.sin(down) * np.cos(around)], -1)
    uv = np.stack([(around + np.pi) / (2 * np.pi), down / np.pi], -1)
    vertices = np.asarray(centre) + radius * outward
    return Mesh.of(vertices.reshape(-1, 3), grid_faces(rows, columns), uv.reshape(-1, 2), material)


def picture(mesh: Mesh, light: Light, strands: Sequence[Strands] = ()) -> np.ndarray:
    return render(mesh, strands, light, CAMERA, BLACK, SIZE, SIZE, prepare(mesh))


def hairs(x: np.ndarray, z: float, radius: float, rgb: tuple[float, float, float] = (0.0, 0.0, 1.0)) -> Strands:
    """Straight upright hairs at the given x."""
    y = np.linspace(-5, 5, 8)
    points = np.stack(np.broadcast_arrays(x[:, None], y[None], z), -1).astype(np.float32)
    return Strands(
        points,
        np.full(points.shape[:2], radius, np.float32),
        np.tile(np.array(rgb, np.float32), (len(x), 1)),
        np.zeros(len(x), np.int32),
        0.0,
    )


def on_ball(radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Normals (h w 3) of a ball around the origin at the pixels' centres, and the cosine (h w) to the viewer; -1 beside the ball."""
    at = (np.arange(SIZE) + 0.5 - SIZE / 2) / (CAMERA.focal * SIZE)
    x, y = np.meshgrid(at, -at)
    ray = np.stack([x, y, -np.ones_like(x)], -1)
    ray /= np.linalg.norm(ray, axis=-1, keepdims=True)
    along = -(ray @ CAMERA.eye)
    inside = along**2 - (CAMERA.eye @ CAMERA.eye - radius**2)
    normal = (CAMERA.eye + (along - np.sqrt(np.maximum(inside, 0)))[..., None] * ray) / radius
    return normal, np.where(inside > 0, -(normal * ray).sum(-1), -1.0)


def exact_coverage(corners: np.ndarray) -> np.ndarray:
    """Share of each pixel inside a triangle (3 2, pixels), from a grid of 16 x 16 points a pixel."""
    at = (np.arange(SIZE * 16) + 0.5) / 16
    x, y = np.meshgrid(at, at)
    inside = np.ones_like(x, bool)
    for a, b in zip(corners, np.roll(corners, -1, 0), strict=True):
        inside &= (b[0] - a[0]) * (y - a[1]) - (b[1] - a[1]) * (x - a[0]) <= 0
    return inside.reshape(SIZE, 16, SIZE, 16).mean((1, 3))


@pytest.mark.parametrize("shift", [0.0, 0.3, 0.55, 0.8])
def test_upright_and_level_edges_are_smooth(shift: float):
    far = 20.0
    for points in ([[shift * CM, -far, 0], [far, 0, 0], [shift * CM, far, 0]], [[-far, shift * CM, 0], [far, shift * CM, 0], [0, far, 0]]):
        shown = picture(triangle(points, colour(1, 1, 1)), even_light())[8:56, 8:56, 0]
        exact = exact_coverage(CAMERA.project(np.array(points), SIZE, SIZE)[:, :2])[8:56, 8:56]
        assert np.abs(shown - exact).max() < 0.13


@pytest.mark.parametrize("seed", range(4))
def test_a_triangle_covers_its_pixels(seed: int):
    points = np.random.default_rng(seed).uniform(-9, 9, (3, 3)) * [1, 1, 0]
    if np.cross(points[1] - points[0], points[2] - points[0])[2] < 0:
        points = points[::-1]
    shown = picture(triangle(points, colour(1, 1, 1)), even_light())[..., 0]
    exact = exact_coverage(CAMERA.project(points, SIZE, SIZE)[:, :2])
    assert np.abs(shown[exact == 1] - 1).max() < 1e-3
    assert not shown[exact == 0].any()
    edge = (exact > 0) & (exact < 1)
    assert np.abs(shown - exact)[edge].mean() < 0.11
    assert abs((shown - exact)[edge].mean()) < 0.02


def test_back_faces_are_hidden_unless_two_sided():
    points = [[-5, -5, 0], [5, -5, 0], [0, 5, 0]]
    assert picture(triangle(points, colour(1, 1, 1)), even_light()).max() > 0.5
    assert picture(triangle(points[::-1], colour(1, 1, 1)), even_light()).max() == 0
    assert picture(triangle(points[::-1], colour(1, 1, 1, two_sided=True)), even_light()).max() > 0.5


def test_the_nearer_surface_is_seen():
    red, green = sheet(4, 1.0, colour(1, 0, 0)), sheet(6, -1.0, colour(0, 1, 0))
    for scene in (join([red, green]), join([green, red])):
        shown = picture(scene, even_light())
        assert shown[32, 32, 0] > 0.9 and shown[32, 32, 1] < 1e-6
        assert shown[32, 32 + int(5 / CM), 1] > 0.9 and shown[32, 32 + int(5 / CM), 0] < 1e-6


def test_textures_follow_perspective():
    ramp = np.repeat(np.linspace(0, 1, 257)[None, :, None], 3, 2).astype(np.float32)
    points = np.array([[-8, -8, 40], [8, -8, -60], [8, 8, -60], [-8, 8, 40]])
    uv = np.array([[0, 1], [1, 1], [1, 0], [0, 0]])
    mesh = Mesh.of(points, np.array([[0, 1, 2], [0, 2, 3]]), uv, Material(ramp, roughness=1.0, specular=0.0))
    shown = picture(mesh, even_light())[SIZE // 2, :, 0]
    for u in (0.25, 0.5, 0.75):
        place = points[0] * (1 - u) + points[1] * u
        column = CAMERA.project(place, SIZE, SIZE)[0]
        near = np.interp(column, np.arange(SIZE) + 0.5, shown)
        assert abs(near - u) < 0.03


def test_textures_are_averaged_where_they_are_too_fine():
    checks = (np.indices((512, 512)).sum(0) % 2).astype(np.float32)
    mesh = sheet(8, 0, Material(np.repeat(checks[..., None], 3, 2), roughness=1.0, specular=0.0))
    inner = picture(mesh, even_light())[16:48, 16:48, 0]
    assert abs(inner.mean() - 0.5) < 0.02 and inner.std() < 0.02
    assert pack(mesh.materials).texel_levels.shape[1] == 10


def test_bumps_catch_the_light_on_the_side_that_faces_it():
    rows = np.broadcast_to(np.sin(np.linspace(0, 4 * np.pi, 256))[None], (256, 256)).astype(np.float32)
    mesh = sheet(8, 0, colour(0.5, 0.5, 0.5, bump=0.6 * rows))
    shown = picture(mesh, key_light(1, 0, 1))[32, 10:54, 0]
    slope = np.cos(np.linspace(0, 4 * np.pi, 256))
    seen = np.interp((np.arange(10, 54) + 0.5 - 32) * CM, np.linspace(-8, 8, 256), slope)
    assert np.corrcoef(shown, -seen)[0, 1] > 0.9


def test_a_sphere_is_shaded_symmetrically():
    skin = colour(0.6, 0.4, 0.3, specular=0.04, roughness=0.4, scatter=(0.5, 0.2, 0.1))
    mesh = ball((0, 0, 0), 7, skin)
    shown = picture(mesh, key_light(0, 0, 1, softness=0.1))
    # the diagonals of the facets and the grid of samples are not symmetric: the rim is left out
    inner = on_ball(7)[1] > 0.5
    assert shown[inner].min() > 0.1
    assert np.abs(shown - shown[:, ::-1])[inner].max() < 0.015
    assert np.abs(shown - shown[::-1])[inner].max() < 0.015


def test_light_that_scatters_reddens_the_terminator():
    mesh = ball((0, 0, 0), 7, colour(0.5, 0.5, 0.5, scatter=(0.5, 0.2, 0.12)))
    shown = picture(mesh, key_light(1, 0, 0))[32]
    behind = 32 - int(1.2 / CM)
    assert shown[behind, 0] > 2 * shown[behind, 2] + 0.004
    assert abs(shown[32 + int(5 / CM), 0] / shown[32 + int(5 / CM), 2] - 1) < 0.05


def test_the_lit_side_has_no_acne():
    mesh = ball((0, 0, 0), 7, colour(1, 1, 1))
    light = key_light(1, 1, 1.2, softness=0.05)
    shown = picture(mesh, light)[..., 0]
    normal, facing = on_ball(7)
    cosine = normal @ light.key_direction
    lit = (cosine > 0.2) & (facing > 0.35)
    assert lit.sum() > 500
    assert np.std(shown[lit] / cosine[lit]) < 0.02
    assert shown[(cosine < -0.3) & (facing > 0.3)].max() < 1e-3


def test_a_shadow_falls_where_geometry_says():
    mesh = join([sheet(9, 0, colour(1, 1, 1)), ball((0, 0, 4), 1.5, colour(0, 0, 0))])
    shown = picture(mesh, key_light(1, 0, 1))[..., 0]
    x, y = np.meshgrid((np.arange(SIZE) + 0.5 - 32) * CM, (32 - np.arange(SIZE) - 0.5) * CM)
    # along the light the ball lies 4 cm before the sheet: its shadow is an ellipse around x = -4
    distance = np.hypot((x + 4) / 2**0.5, y)
    on_sheet = (np.maximum(abs(x), abs(y)) < 8) & (np.hypot(x, y) > 2.2)
    assert shown[on_sheet & (distance < 1.1)].max() < 0.1
    assert shown[on_sheet & (distance > 2.1)].min() > 0.68


def test_a_soft_light_has_a_wide_penumbra():
    mesh = join([sheet(9, 0, colour(1, 1, 1)), ball((0, 0, 5), 2.5, colour(0, 0, 0))])
    widths = []
    for softness in (0.01, 0.25):
        line = picture(mesh, key_light(1, 0, 1, softness=softness))[32, : 32 - int(3 / CM), 0] / 0.707
        widths.append(((line > 0.1) & (line < 0.9)).sum())
    assert widths[1] >= widths[0] + 4


def test_an_open_plane_sees_everything_and_a_pit_little():
    plane = sheet(8, 0, colour(1, 1, 1), cells=24)
    assert bake_occlusion(plane).min() > 0.98
    x, y = plane.vertices[:, 0], plane.vertices[:, 1]
    pit = plane.vertices.copy()
    pit[:, 2] = -9 * (np.maximum(abs(x), abs(y)) < 1.5)
    share = bake_occlusion(replace(plane, vertices=pit))
    assert share[(abs(x) < 0.1) & (abs(y) < 0.1)].max() < 0.3
    assert share[np.maximum(abs(x), abs(y)) > 5].min() > 0.95


def test_a_bulging_surface_sees_everything():
    assert bake_occlusion(ball((0, 0, 0), 5, colour(1, 1, 1))).min() > 0.95


def test_strands_are_seen_before_a_surface_and_hidden_behind_it():
    mesh = sheet(8, 0, colour(1, 0, 0))
    before = picture(mesh, even_light(), [hairs(np.array([0.0]), 2.0, 0.4)])
    behind = picture(mesh, even_light(), [hairs(np.array([0.0]), -2.0, 0.4)])
    assert before[32, 32, 2] > 0.3 and before[32, 32, 0] < 1e-6
    assert behind[32, 32, 2] == 0 and behind[32, 32, 0] > 0.9


def test_thin_strands_are_faint_in_proportion():
    mesh = sheet(8, -5, colour(0, 0, 0))
    x = np.linspace(-4, 4, 23)
    light = [picture(mesh, even_light(), [hairs(x, 1.0, radius)])[24:40, :, 2].mean() for radius in (0.02, 0.04, 0.08)]
    assert light[1] / light[0] == pytest.approx(2, rel=0.1)
    assert light[2] / light[1] == pytest.approx(2, rel=0.15)


def test_hair_casts_a_soft_shadow():
    mesh = sheet(9, 0, colour(1, 1, 1))
    strands = hairs(np.linspace(2, 6, 40), 4.0, 0.08)  # the light comes from the right: the shadow lies at x = -2 .. 2
    shown = picture(mesh, key_light(1, 0, 1), [strands])[32, :, 0] / 0.707
    assert shown[32] < 0.4
    assert shown[32 - int(5 / CM)] > 0.95


def test_normals_are_smooth_across_a_seam_and_hard_at_a_crease():
    mesh = ball((0, 0, 0), 5, colour(1, 1, 1))
    normals = vertex_normals(mesh.vertices, mesh.faces, weld(mesh))
    assert np.abs(normals - mesh.vertices / 5).max() < 0.02
    floor = np.array([[0, 0, 0], [0, 0, 1], [1, 0, 0]])
    wall = np.array([[0, 0, 0], [0, 1, 0], [0, 0, 1]])
    corner = join([triangle(points, colour(1, 1, 1)) for points in (floor, wall)])
    corner = replace(corner, face_material=np.zeros(2, np.int16))
    assert np.array_equal(weld(corner), np.arange(6))


def test_the_same_scene_gives_the_same_bytes():
    rng = np.random.default_rng(1)
    material = Material(rng.random((64, 64, 3), np.float32), bump=0.05 * rng.random((64, 64), np.float32))
    mesh, strands = ball((0, 0, 0), 6, material), hairs(np.linspace(-3, 3, 50), 6.5, 0.05)
    first, second = (picture(mesh, key_light(1, 1, 1), [strands]) for _ in range(2))
    assert first.tobytes() == second.tobytes()
    assert first.dtype == np.float32 and first.shape == (SIZE, SIZE, 3) and np.isfinite(first).all()


def test_tone_is_srgb_below_a_shoulder_that_never_clips_hard():
    ramp = np.repeat(np.linspace(0, 5, 2001, dtype=np.float32)[None, :, None], 3, 2)
    shown = tone(ramp, exposure=1.0, white=4.0)[0, :, 0].astype(int)
    assert shown.dtype == int and shown[0] == 0 and shown[-1] == 255
    assert (np.diff(shown) >= 0).all()
    assert abs(shown[80] - 124) <= 1  # 0.2 linear is 0.4845 in sRGB
    assert 200 < shown[400] < 250  # full white paper is bright, and brighter things differ from it
    assert shown[800] > shown[400]
    assert np.array_equal(tone(ramp, exposure=2.0)[0, :1000], tone(ramp)[0, :2000:2])
