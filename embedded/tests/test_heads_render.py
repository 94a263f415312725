"""Pictures of meshes and strands: coverage, depth, shading, shadows, occlusion and tone, each against what geometry says."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from embedded.talking_heads.render.picture import prepare, render, tone
from embedded.talking_heads.render.shadow import bake_occlusion
from embedded.talking_heads.render.vectors import vertex_normals, weld
from embedded.talking_heads.solids import Camera, Light, Material, Mesh, Strands, grid_faces, join

SIZE = 64
CAMERA = Camera(np.array([0, 0, 100], np.float32), 5.0)  # at z = 0 the picture is 20 cm high
CM = 100 / (5.0 * SIZE)  # width of a pixel at z = 0
BLACK = np.zeros((SIZE, SIZE, 3), np.float32)


def colour(*rgb: float, **traits: object) -> Material:
    return Material(np.array(rgb, np.float32).reshape(1, 1, 3), **{"specular": 0.0, "roughness": 1.0, **traits})


def even_light() -> Light:
    """The same light from everywhere: a white surface shows 1."""
    ambient = np.zeros((9, 3), np.float32)
    ambient[0] = 1 / 0.2820948
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
    return Mesh.of((centre + radius * outward).reshape(-1, 3), grid_faces(rows, columns), uv.reshape(-1, 2), material)


def picture(mesh: Mesh, light: Light, strands: Sequence[Strands] = ()) -> np.ndarray:
    return render(mesh, strands, light, CAMERA, BLACK, prepare(mesh))


def hairs(x: np.ndarray, z: float, radius: float) -> Strands:
    """Straight upright blue hairs at the given x."""
    points = np.stack(np.broadcast_arrays(x[:, None], np.linspace(-5, 5, 8)[None], z), -1).astype(np.float32)
    shades = np.tile(np.array([0, 0, 1], np.float32), (len(x), 1))
    return Strands(points, np.full(points.shape[:2], radius, np.float32), shades, np.zeros(len(x), np.int32), 0.0)


def test_a_triangle_covers_its_pixels_and_hides_its_back() -> None:
    points = np.array([[-7.3, -6.1, 0], [8.2, -2.4, 0], [1.1, 7.7, 0]])
    corners = CAMERA.project(points, SIZE, SIZE)[:, :2]
    x, y = np.meshgrid((np.arange(SIZE * 16) + 0.5) / 16, (np.arange(SIZE * 16) + 0.5) / 16)
    inside = np.ones_like(x, bool)
    for a, b in zip(corners, np.roll(corners, -1, 0), strict=True):
        inside &= (b[0] - a[0]) * (y - a[1]) - (b[1] - a[1]) * (x - a[0]) <= 0
    exact = inside.reshape(SIZE, 16, SIZE, 16).mean((1, 3))
    shown = picture(triangle(points, colour(1, 1, 1)), even_light())[..., 0]
    assert np.abs(shown[exact == 1] - 1).max() < 1e-3 and not shown[exact == 0].any()
    edge = (exact > 0) & (exact < 1)
    assert np.abs(shown - exact)[edge].mean() < 0.11 and abs((shown - exact)[edge].mean()) < 0.02
    assert picture(triangle(points[::-1], colour(1, 1, 1)), even_light()).max() == 0


def test_the_nearer_surface_is_seen() -> None:
    red, green = sheet(4, 1.0, colour(1, 0, 0)), sheet(6, -1.0, colour(0, 1, 0))
    for scene in (join([red, green]), join([green, red])):
        shown = picture(scene, even_light())
        assert shown[32, 32, 0] > 0.9 and shown[32, 32, 1] < 1e-6
        assert shown[32, 32 + int(5 / CM), 1] > 0.9 and shown[32, 32 + int(5 / CM), 0] < 1e-6


def test_textures_follow_perspective_and_fade_where_they_are_too_fine() -> None:
    ramp = np.repeat(np.linspace(0, 1, 257)[None, :, None], 3, 2).astype(np.float32)
    points = np.array([[-8, -8, 40], [8, -8, -60], [8, 8, -60], [-8, 8, 40]])
    uv = np.array([[0, 1], [1, 1], [1, 0], [0, 0]])
    mesh = Mesh.of(points, np.array([[0, 1, 2], [0, 2, 3]]), uv, Material(ramp, roughness=1.0, specular=0.0))
    shown = picture(mesh, even_light())[SIZE // 2, :, 0]
    for u in (0.25, 0.5, 0.75):
        column = CAMERA.project(points[0] * (1 - u) + points[1] * u, SIZE, SIZE)[0]
        assert abs(np.interp(column, np.arange(SIZE) + 0.5, shown) - u) < 0.03
    checks = (np.indices((512, 512)).sum(0) % 2).astype(np.float32)
    fine = picture(sheet(8, 0, Material(np.repeat(checks[..., None], 3, 2), roughness=1.0, specular=0.0)), even_light())[16:48, 16:48, 0]
    assert abs(fine.mean() - 0.5) < 0.02 and fine.std() < 0.02


def test_bumps_catch_the_light_on_the_side_that_faces_it() -> None:
    rows = np.broadcast_to(np.sin(np.linspace(0, 4 * np.pi, 256))[None], (256, 256)).astype(np.float32)
    shown = picture(sheet(8, 0, colour(0.5, 0.5, 0.5, bump=0.6 * rows)), key_light(1, 0, 1))[32, 10:54, 0]
    slope = np.interp((np.arange(10, 54) + 0.5 - 32) * CM, np.linspace(-8, 8, 256), np.cos(np.linspace(0, 4 * np.pi, 256)))
    assert np.corrcoef(shown, -slope)[0, 1] > 0.9


def test_a_sphere_is_lit_by_its_cosine_and_light_that_scatters_reddens_the_terminator() -> None:
    shown = picture(ball((0, 0, 0), 7, colour(0.5, 0.5, 0.5, scatter=(0.5, 0.2, 0.12))), key_light(1, 0, 0))[32]
    behind = 32 - int(1.2 / CM)
    assert shown[behind, 0] > 2 * shown[behind, 2] + 0.004
    assert abs(shown[32 + int(5 / CM), 0] / shown[32 + int(5 / CM), 2] - 1) < 0.05
    light = key_light(1, 1, 1.2, softness=0.05)
    shown = picture(ball((0, 0, 0), 7, colour(1, 1, 1)), light)[..., 0]
    x, y = np.meshgrid((np.arange(SIZE) + 0.5 - 32) * CM, (32 - np.arange(SIZE) - 0.5) * CM)
    normal = np.stack([x, y, np.sqrt(np.maximum(49 - x**2 - y**2, 0))], -1) / 7
    cosine, facing = normal @ light.key_direction, np.hypot(x, y) < 6.6
    lit = (np.hypot(x, y) < 5) & (cosine > 0.4)
    assert np.std(shown[lit] / cosine[lit]) < 0.05 and shown[facing & (cosine < -0.2)].max() < 1e-3


def test_a_shadow_falls_where_geometry_says_and_a_soft_light_blurs_it() -> None:
    mesh = join([sheet(9, 0, colour(1, 1, 1)), ball((0, 0, 4), 1.5, colour(0, 0, 0))])
    shown = picture(mesh, key_light(1, 0, 1))[..., 0]
    x, y = np.meshgrid((np.arange(SIZE) + 0.5 - 32) * CM, (32 - np.arange(SIZE) - 0.5) * CM)
    distance = np.hypot((x + 4) / 2**0.5, y)  # along the light the ball lies 4 cm before the sheet
    on_sheet = (np.maximum(abs(x), abs(y)) < 8) & (np.hypot(x, y) > 2.2)
    assert shown[on_sheet & (distance < 1.1)].max() < 0.1
    assert shown[on_sheet & (distance > 2.1)].min() > 0.68
    soft = picture(mesh, key_light(1, 0, 1, softness=0.25))[32, : 32 - int(2.5 / CM), 0]
    assert ((soft > 0.1) & (soft < 0.6)).sum() > ((shown[32] > 0.1) & (shown[32] < 0.6)).sum()


def test_an_open_plane_sees_everything_and_a_pit_little() -> None:
    plane = sheet(8, 0, colour(1, 1, 1), cells=24)
    assert bake_occlusion(plane).min() > 0.95
    x, y = plane.vertices[:, 0], plane.vertices[:, 1]
    pit = plane.vertices.copy()
    pit[:, 2] = -9 * (np.maximum(abs(x), abs(y)) < 1.5)
    share = bake_occlusion(replace(plane, vertices=pit))
    assert share[(abs(x) < 0.1) & (abs(y) < 0.1)].max() < 0.3
    assert share[np.maximum(abs(x), abs(y)) > 5].min() > 0.9


def test_strands_are_seen_before_a_surface_hidden_behind_it_and_faint_where_thin() -> None:
    mesh = sheet(8, 0, colour(1, 0, 0))
    before, behind = (picture(mesh, even_light(), [hairs(np.array([0.0]), z, 0.4)])[32, 32] for z in (2.0, -2.0))
    assert before[2] > 0.3 and before[0] < 1e-6 and behind[2] == 0 and behind[0] > 0.9
    dark, x = sheet(8, -5, colour(0, 0, 0)), np.linspace(-4, 4, 23)
    light = [picture(dark, even_light(), [hairs(x, 1.0, radius)])[24:40, :, 2].mean() for radius in (0.02, 0.04, 0.08)]
    assert light[1] / light[0] == pytest.approx(2, rel=0.1) and light[2] / light[1] == pytest.approx(2, rel=0.15)


def test_hair_casts_a_soft_shadow() -> None:
    strands = hairs(np.linspace(2, 6, 40), 4.0, 0.08)  # the light comes from the right: the shadow lies at x = -2 .. 2
    shown = picture(sheet(9, 0, colour(1, 1, 1)), key_light(1, 0, 1), [strands])[32, :, 0] / 0.707
    assert shown[32] < 0.4 and shown[32 - int(5 / CM)] > 0.95


def test_normals_are_smooth_across_a_seam_and_hard_at_a_crease() -> None:
    mesh = ball((0, 0, 0), 5, colour(1, 1, 1))
    assert np.abs(vertex_normals(mesh.vertices, mesh.faces, weld(mesh)) - mesh.vertices / 5).max() < 0.02
    floor, wall = [[0, 0, 0], [0, 0, 1], [1, 0, 0]], [[0, 0, 0], [0, 1, 0], [0, 0, 1]]
    corner = replace(join([triangle(points, colour(1, 1, 1)) for points in (floor, wall)]), face_material=np.zeros(2, np.int16))
    assert np.array_equal(weld(corner), np.arange(6))


def test_tone_is_srgb_below_a_shoulder_that_never_clips_hard() -> None:
    shown = tone(np.repeat(np.linspace(0, 5, 2001, dtype=np.float32)[None, :, None], 3, 2))[0, :, 0].astype(int)
    assert shown[0] == 0 and shown[-1] == 255 and (np.diff(shown) >= 0).all()
    assert abs(shown[80] - 124) <= 1  # 0.2 linear is 0.4845 in sRGB
    assert 200 < shown[400] < 250 and shown[800] > shown[400]
