"""What sits at the neckline: collars, lapels, ties, hoods, rolled necks and ribbed bands, as sheets over the surface of the bust."""

from dataclasses import dataclass

import numpy as np

from preprocess.talking_heads.scene.fabrics import front_uv
from preprocess.talking_heads.scene.torso import NECK_Z, Torso
from preprocess.talking_heads.solids import Material, Mesh, grid_faces, join


@dataclass(frozen=True)
class Shape:
    """A neckline as a tailor sees it from the front. Lengths in cm."""

    half_width: float  # from the middle to where it crosses the shoulder
    depth: float  # y of its deepest point in front
    back: float  # `down` behind the neck
    point: float = 2.0  # 1 a straight V, 2 a round scoop, more: squarer


@dataclass(frozen=True)
class Neckline:
    """The upper edge of a garment on one torso: `down` by angle."""

    table: np.ndarray  # float64 n, at angles 0 .. pi

    def down(self, angle: np.ndarray) -> np.ndarray:
        """`down` of the edge at angles (radians, any turn)."""
        turn = np.abs((np.asarray(angle) + np.pi) % (2 * np.pi) - np.pi)
        return np.interp(turn, np.linspace(0, np.pi, len(self.table)), self.table)


def fit_neckline(torso: Torso, shape: Shape) -> Neckline:
    """Where a neckline runs on a torso: the straight V or scoop of the front view, laid on the body."""
    angle = np.linspace(0, np.pi, 97)
    front = angle <= np.pi / 2
    down = np.linspace(0.02, 1.0, 90)
    points = torso.surface(angle[front, None], down)
    side = points[-1]
    top = float(np.interp(shape.half_width, np.maximum.accumulate(side[:, 0]), side[:, 1]))
    across = np.clip(points[..., 0] / shape.half_width, 0, 1)
    curve = shape.depth + (top - shape.depth) * (across if shape.point <= 1 else 1 - (1 - across**shape.point) ** (1 / shape.point))
    passed = np.where(across >= 1, 1.0, curve - points[..., 1])  # positive below and outside of the neckline
    first = np.clip(np.argmax(passed > 0, axis=1), 1, len(down) - 1)
    row = np.arange(len(first))
    before, after = passed[row, first - 1], passed[row, first]
    share = np.clip(-before / np.maximum(after - before, 1e-6), 0, 1)
    table = np.empty_like(angle)
    table[front] = np.where(passed.max(1) > 0, down[first - 1] + share * (down[1] - down[0]), 1.0)
    behind = angle[~front] / np.pi * 2 - 1
    table[~front] = table[front][-1] + (shape.back - table[front][-1]) * behind * behind * (3 - 2 * behind)
    return Neckline(np.convolve(np.pad(table, 2, mode="reflect"), [0.1, 0.2, 0.4, 0.2, 0.1], "valid"))


def sheet(points: np.ndarray, material: Material, uv: np.ndarray | None = None, closed: bool = False) -> Mesh:
    """A mesh of a grid of points (rows columns 3) seen from outside with rows running down; uv (rows columns 2), else from the front."""
    rows, columns = points.shape[:2]
    coordinates = front_uv(points) if uv is None else uv
    return Mesh.of(points.reshape(-1, 3), grid_faces(rows, columns, closed), coordinates.reshape(-1, 2), material)


def _outward(angle: np.ndarray) -> np.ndarray:
    return np.stack([np.sin(angle), np.zeros_like(angle), np.cos(angle)], -1)


def _once_around(columns: int) -> np.ndarray:
    """Angles from the back over the front to the back again, where the seam of a texture is out of sight."""
    return np.linspace(-np.pi, np.pi, columns)


def _own_uv(rows: int, columns: int, height: float) -> np.ndarray:
    """Texture coordinates (rows columns 2) of a sheet that has the texture to itself; `height` is its share of it."""
    v, u = np.meshgrid(np.linspace(0, height, rows), np.linspace(0, 1, columns), indexing="ij")
    return np.stack([u, v], -1).astype(np.float32)


def band(torso: Torso, neckline: Neckline, material: Material, distance: float, width: float) -> Mesh:
    """A ribbed band along a neckline: a rounded hem that lies on the skin at its inner edge, so that no gap shows."""
    angle = _once_around(73)
    edge = neckline.down(angle)
    rows = [(-0.9, 0.0), (-1.0, 0.7), (-0.6, 1.0), (0.0, 1.0), (0.35, 0.35)]
    points = [torso.surface(angle, edge + shift * width, distance * lift + 0.12 * (lift > 0)) for shift, lift in rows]
    return sheet(np.stack(points), material, _own_uv(len(rows), len(angle), 0.06))


def flaps(torso: Torso, neckline: Neckline, material: Material, distance: float, opening: float, size: float) -> Mesh:
    """A folded shirt collar: it stands on the neckline, folds over and falls on the shoulders to two tips.

    `opening` is the angle (radians) left free at the front, `size` the length of the tips in cm. A collar that is nearly closed gets
    the buttoned band below its tips.
    """
    turn = np.linspace(0, 1, 73)
    angle = opening + (2 * np.pi - 2 * opening) * turn
    side = np.minimum(turn, 1 - turn) * 2  # 0 at the tips, 1 at the back
    away = _outward(angle)
    start = neckline.down(angle)
    base = torso.surface(angle, start, distance)
    stand = (1.5 + 1.3 * side**0.7)[:, None]
    fold = base + stand * ([0, 0.92, 0] + 0.06 * away)
    spread = opening + 0.38
    edge_angle = spread + (2 * np.pi - 2 * spread) * turn
    tip = np.exp(-((side / 0.17) ** 2))
    throat = min(float(neckline.down(0.0)), float(neckline.down(np.pi / 2)) + 0.06)
    edge_down = (1 - tip) * (float(neckline.down(np.pi / 2)) + 0.035) + tip * (throat + 0.03 * size)
    edge = torso.surface(edge_angle, edge_down, distance + 0.45)
    lying = torso.surface(0.5 * (angle + edge_angle), 0.4 * start + 0.6 * edge_down, distance + 0.75)
    middle = 0.65 * lying + 0.35 * (0.4 * fold + 0.6 * edge)
    over = fold + 0.42 * away - [0, 0.12, 0]
    under = torso.surface(edge_angle, edge_down - 0.012, distance + 0.05)
    grid = np.stack(
        [base - 0.6 * away - [0, 0.9, 0], 0.5 * (base + fold) - 0.1 * away, fold, over, 0.5 * (over + middle), middle, edge, under]
    )
    collar = sheet(grid, material)
    return join([collar, _button_band(base[[0, -1]], material)]) if opening < 0.2 else collar


def _button_band(ends: np.ndarray, material: Material) -> Mesh:
    """The front of the band that a collar stands on, between its two ends (2 3)."""
    across = np.linspace(-0.6, 1.6, 9)[:, None]
    line = ends[1] + (ends[0] - ends[1]) * across - [0, 0, 0.12] - 0.5 * (across - 0.5) ** 2 * [0, 0, 1]
    return sheet(np.stack([line + np.array([0, 1.5, -0.35]), line + np.array([0, 0.7, 0.0]), line - np.array([0, 0.7, -0.25])]), material)


def lapels(torso: Torso, neckline: Neckline, material: Material, distance: float, width: float) -> Mesh:
    """The collar and lapels of a jacket along its V: widest above the chest, with a notch, narrow behind the neck."""
    knots = np.array([0.0, 0.08, 0.46, 0.465, 0.52, 0.525, 0.7, 1.0])
    widths = np.array([0.25, 0.55, 1.0, 0.98, 0.45, 0.72, 0.66, 0.5]) * width
    height = np.linspace(0, 1, 48)  # along the edge, by length
    fine = np.linspace(0, np.pi, 200)
    edge = torso.surface(fine, neckline.down(fine), distance)
    length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(edge, axis=0), axis=1))])
    share = np.unique(np.concatenate([height, knots]))
    angle = np.interp(share, length / length[-1], fine)
    wide = np.interp(share, knots, widths)
    down = neckline.down(angle)
    sideways = np.clip((0.64 - share) / 0.14, 0, 1)  # lapels lie sideways on the chest, the collar falls down around the neck
    meshes = []
    for turn in (1.0, -1.0):

        def lay(part: float, lift: float, turn: float = turn) -> np.ndarray:
            return torso.surface(
                turn * (angle + part * sideways * wide / 11.5), down + part * (0.012 - 0.004 * sideways) * wide, distance + lift
            )

        rows = np.stack([lay(0.0, 0.1), lay(0.06, 0.6), lay(0.4, 0.75), lay(0.97, 0.5), lay(1.0, 0.0)])
        meshes.append(sheet(rows if turn > 0 else rows[:, ::-1], material))
    return join(meshes)


def tie(torso: Torso, material: Material, distance: float, start: float) -> Mesh:
    """A tie from `down` = start: a knot, then a blade that widens downwards."""
    down = np.concatenate([np.linspace(start - 0.02, start + 0.07, 6), np.linspace(start + 0.085, 0.99, 12)])
    half = np.concatenate([[1.55, 1.75, 1.7, 1.55, 1.3, 1.05], np.linspace(1.2, 4.2, 12)])
    lift = np.concatenate([[0.5, 1.0, 1.15, 1.1, 0.95, 0.5], np.full(12, 0.45)])
    across = np.linspace(-1, 1, 7)
    angle = half[:, None] * across / 7.5
    bulge = lift[:, None] * (1 - 0.75 * across**4)
    points = torso.surface(angle, down[:, None], distance + bulge)
    points[..., 0] = half[:, None] * across
    return sheet(points, material, np.stack([0.5 + points[..., 0] / 9, -points[..., 1] / 60], -1))


def rolled_neck(torso: Torso, neckline: Neckline, material: Material, neck_radius: float, height: float) -> Mesh:
    """A turtleneck: up the neck to `height` (cm, about -14), folded over and down again."""
    angle = _once_around(65)
    centre = np.array([0.0, 0.0, NECK_Z])
    base = torso.surface(angle, neckline.down(angle) + 0.03, 0.45)
    tilt = 0.5 * np.cos(angle)  # lower in front

    def ring(radius: float, level: float) -> np.ndarray:
        circle = centre + (neck_radius + radius) * _outward(angle)
        circle[:, 1] = level - tilt
        return circle

    rows = [ring(0.02, height - 0.6), ring(0.15, height), ring(0.5, height + 0.12), ring(0.85, height - 0.3), ring(1.0, height - 1.6)]
    rows += [0.55 * ring(1.0, height - 2.4) + 0.45 * base, 0.3 * ring(1.0, height - 3.4) + 0.7 * base, base]
    points = np.stack(rows)
    return sheet(points, material, _own_uv(len(rows), len(angle), 0.1))


def hood(torso: Torso, neckline: Neckline, material: Material) -> Mesh:
    """A hood that lies back: a soft roll around the neck, thick behind, thin where it meets at the throat."""
    angle = _once_around(65)
    back = 0.5 - 0.5 * np.cos(angle)
    base = torso.surface(angle, neckline.down(angle) + 0.02, 0.3)
    thick = 0.7 + 1.7 * back**0.9 + 0.2 * np.sin(5 * angle + 1.0) * back
    away = _outward(angle)
    turns = np.linspace(np.pi * 1.1, -0.35 * np.pi, 9)
    centre = base + thick[:, None] * (0.55 * away + [0, 0.2, 0])
    rows = [centre + thick[:, None] * (1.25 * np.cos(t) * away + 0.95 * np.sin(t) * np.array([0, 1.0, 0])) for t in turns]
    return sheet(np.stack(rows), material, _own_uv(len(rows), len(angle), 0.12))


def cords(torso: Torso, material: Material, start: float, length: float) -> Mesh:
    """The two cords of a hood: they hang from `down` = start."""
    meshes = []
    for side in (-1.0, 1.0):
        down = np.linspace(start, start + length, 10)
        middle = torso.surface(side * 0.42 * (1 - 0.25 * np.linspace(0, 1, 10)), down, 1.0)
        turn = np.linspace(0, 2 * np.pi, 6, endpoint=False)
        ring = 0.24 * np.stack([np.cos(turn), np.zeros(6), -np.sin(turn)], -1)
        meshes.append(sheet(middle[:, None] + ring, material, _own_uv(10, 6, 1.0), closed=True))
    return join(meshes)
