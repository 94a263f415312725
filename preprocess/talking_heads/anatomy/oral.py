"""The inside of the mouth: teeth, gums, tongue and the dark sack behind the lips, posed by jaw, tongue and lips."""

from dataclasses import dataclass

import numpy as np

from preprocess.talking_heads.anatomy.dental_arch import draw_dentition
from preprocess.talking_heads.anatomy.gums import gum_mesh
from preprocess.talking_heads.anatomy.jaw import jaw_motion
from preprocess.talking_heads.anatomy.teeth import teeth_mesh
from preprocess.talking_heads.anatomy.tongue import TIP_OUT_FORWARD, TIP_REST, TIP_UP, tongue, tongue_shift
from preprocess.talking_heads.solids import Material, Mesh, grid_faces, join
from preprocess.talking_heads.traits import Traits

LIP_CORNER_HALF_WIDTH = 2.55  # cm, of the average mouth that the sack is drawn for
DARKEST = 0.03  # light that reaches the inside of a closed mouth through cheeks and lips
CAVITY_RING = 28

# Rings of the sack from the lips to the throat, arch space; the first one is laid to the wet lips in every frame
_RING_Z = np.array([0.10, 0.10, -0.35, -1.2, -2.6, -4.2, -6.0, -7.4, -8.4])  # at the middle
_RING_BEND = np.array([0.22, 0.22, 0.22, 0.20, 0.13, 0.07, 0.03, 0.0, 0.0])  # z falls by this times x^2
_RING_HALF_WIDTH = np.array([2.5, 2.75, 3.0, 3.2, 3.3, 3.1, 2.5, 1.6, 0.0])
_RING_TOP = np.array([0.15, 1.0, 1.6, 1.9, 2.2, 2.4, 2.1, 1.5, -0.4])
_RING_BOTTOM = np.array([0.15, -0.9, -1.4, -1.75, -1.9, -2.0, -2.0, -1.8, -0.4])
_RING_FOLLOWS_JAW = np.array([1.0, 1.0, 1.0, 1.0, 0.95, 0.85, 0.6, 0.3, 0.15])
_RING_FOLLOWS_CORNERS = np.array([0.0, 1.0, 0.65, 0.25, 0.0, 0.0, 0.0, 0.0, 0.0])
_BEYOND_CORNER = 0.2  # cm that the second ring lies outside and behind the first at the corners of the mouth
_NARROWED = 0.9  # cm that its sides may come inwards with pursed lips
_OVERLAP = 0.05  # cm that the first ring lies outside the rim of the wet lip
_WET_DEPTH, _WET_RISE = 0.8, 0.35  # cm that this rim lies behind and beyond the line where the lips meet, if it is not given


@dataclass(frozen=True)
class OralFit:
    """Where the inside of the mouth sits in a head."""

    front: np.ndarray  # float32 3, cm, head space: edge of the upper central incisors, between them (average: 0, -6.75, 9.75)
    lip_corner_half_width: float = LIP_CORNER_HALF_WIDTH
    scale: float = 1.0  # size of arches, tongue and sack


@dataclass(frozen=True)
class LipOpening:
    """Points (float32 3, cm, head space) of the line where the lips meet, as posed: its corners, and the middles of upper and lower lip.

    `left` is on the left of the picture. Closed lips have top and bottom at the same place. `loop` (float32 n 3) is the rim of
    the wet lip inside the mouth, where its surface ends, evenly from the right corner over the top; without it an ellipse stands for it.
    """

    left: np.ndarray
    right: np.ndarray
    top: np.ndarray
    bottom: np.ndarray
    loop: np.ndarray | None = None


@dataclass(frozen=True)
class Oral:
    """The inside of one person's mouth. `mesh` is at rest: jaw closed, lips closed; vertices keep their order in every pose."""

    mesh: Mesh
    fit: OralFit
    jaw_weight: np.ndarray  # float32 v, how far a vertex follows the jaw
    openness: np.ndarray  # float32 v, how much of the light that comes in between the lips a vertex gets, by its depth at rest
    tongue_start: int  # vertices from here to cavity_start are the tongue
    cavity_start: int  # from here on the sack, ring by ring
    tongue_along: np.ndarray  # float32, of the tongue's vertices: 0 root .. 1 tip

    def pose(self, jaw: float, tongue_up: float, tongue_out: float, lips: LipOpening) -> tuple[np.ndarray, np.ndarray]:
        """Vertices (float32 v 3) and occlusion (float32 v, 0..1) for channels in 0..1 and lips as posed.

        The upper teeth stay, the lower ones follow the jaw, and the sack spans from the lips to the throat.
        """
        points = jaw_motion(self.mesh.vertices, jaw, self.jaw_weight)
        tongue_part = slice(self.tongue_start, self.cavity_start)
        points[tongue_part] = self._bend_tongue(points[tongue_part], jaw, tongue_up, tongue_out)
        self._lay_to_lips(points[self.cavity_start :].reshape(-1, CAVITY_RING, 3), lips)
        reach = _light_through(points, lips)
        return points, (DARKEST + (1 - DARKEST) * self.openness * reach).astype(np.float32)

    def _bend_tongue(self, points: np.ndarray, jaw: float, tongue_up: float, tongue_out: float) -> np.ndarray:
        front, scale = self.fit.front, self.fit.scale
        tip = jaw_motion(front + scale * np.asarray(TIP_REST), jaw)
        lower_edge = jaw_motion(front + scale * np.array([0.0, 0.2, -0.4]), jaw)
        between = 0.5 * (front[1] + min(float(lower_edge[1]), float(front[1])))
        out_target = np.array([front[0], between, front[2] + scale * TIP_OUT_FORWARD])
        return tongue_shift(points, self.tongue_along, tip, front + scale * np.asarray(TIP_UP), out_target, tongue_up, tongue_out)

    def _lay_to_lips(self, sack: np.ndarray, lips: LipOpening) -> None:
        """Lays the first ring of the sack (rings ring 3, in place) to the wet lip's rim; the next ones are drawn along with the corners."""
        angle = 2 * np.pi * np.arange(CAVITY_RING) / CAVITY_RING
        sack[0] = _edge(lips, angle)
        for sign, at in ((1, 0), (-1, CAVITY_RING // 2)):
            out, _, forward = sack[0, at] - sack[1, at]
            share = np.clip(sign * np.cos(angle), 0, 1).astype(np.float32) ** 2
            follow = _RING_FOLLOWS_CORNERS[:, None].astype(np.float32) * share
            sack[..., 0] += sign * max(float(sign * out) + _BEYOND_CORNER, -_NARROWED) * follow
            sack[..., 2] += min(float(forward) - _BEYOND_CORNER, 0.0) * follow


def _edge(lips: LipOpening, angle: np.ndarray) -> np.ndarray:
    """Points (n 3) just outside the lips' wet rim at `angle` (n) around the opening."""
    loop = lips.loop
    if loop is None:
        top, side = np.sin(angle)[:, None], np.cos(angle)[:, None]
        middle = 0.5 * (lips.left + lips.right)
        loop = middle + 0.5 * (lips.right - lips.left) * side + np.where(top > 0, lips.top - middle, middle - lips.bottom) * top
        loop = loop + [0.0, _WET_RISE, 0.0] * top - [0.0, 0.0, _WET_DEPTH]
    else:
        at = angle / (2 * np.pi) * len(loop)
        whole = np.concatenate([loop, loop[:1]])
        loop = np.stack([np.interp(at, np.arange(len(whole)), whole[:, axis]) for axis in range(3)], -1)
    outside = _OVERLAP * np.stack([np.cos(angle), np.sin(angle), np.zeros_like(angle)], -1)
    return (loop + outside).astype(np.float32)


def build_oral(traits: Traits, fit: OralFit) -> Oral:
    """The mouth's inside of a person, fitted into the head."""
    dentition = draw_dentition(traits)
    tongue_at_rest = tongue(traits)
    cavity, cavity_weight = _cavity(fit)
    fixed = [teeth_mesh(dentition, lower=False), gum_mesh(dentition, traits, lower=False)]
    carried = [teeth_mesh(dentition, lower=True), gum_mesh(dentition, traits, lower=True)]
    parts = [*fixed, *carried, tongue_at_rest.mesh, cavity]
    joined = join(parts)
    sizes = [len(part.vertices) for part in parts]
    weight = np.concatenate([np.zeros(sum(sizes[:2])), np.ones(sum(sizes[2:4])), tongue_at_rest.jaw_weight, cavity_weight]).astype(
        np.float32
    )
    openness = np.concatenate([_openness(part.vertices) for part in parts]).astype(np.float32)
    vertices = (np.asarray(fit.front, np.float32) + np.float32(fit.scale) * joined.vertices).astype(np.float32)
    mesh = Mesh(vertices, joined.faces, joined.uv, joined.materials, joined.face_material, np.full(len(vertices), DARKEST, np.float32))
    return Oral(mesh, fit, weight, openness, sum(sizes[:4]), sum(sizes[:5]), tongue_at_rest.along)


def _openness(points: np.ndarray) -> np.ndarray:
    """Share of the lips' light (v) by depth in arch space: what stands further back lies behind neighbours, tongue and cheeks."""
    depth = np.clip(-points[:, 2], 0, None)
    return np.interp(depth, [0.0, 1.0, 2.5, 5.0, 8.0], [1.0, 0.95, 0.7, 0.32, 0.10])


def _cavity(fit: OralFit) -> tuple[Mesh, np.ndarray]:
    """The sack (arch space, seen from inside) and how far its vertices follow the jaw."""
    angle = 2 * np.pi * np.arange(CAVITY_RING) / CAVITY_RING
    boxy = np.interp(np.arange(len(_RING_Z)), [0, 4], [1.0, 0.8])[:, None]
    side = np.sign(np.cos(angle)) * np.abs(np.cos(angle)) ** boxy
    top = np.sign(np.sin(angle)) * np.abs(np.sin(angle)) ** boxy
    wider = fit.lip_corner_half_width / LIP_CORNER_HALF_WIDTH / fit.scale
    x = _RING_HALF_WIDTH[:, None] * side * wider
    y = np.where(top > 0, _RING_TOP[:, None] * top, -_RING_BOTTOM[:, None] * top)
    y[-1] = _RING_TOP[-1]
    z = _RING_Z[:, None] - _RING_BEND[:, None] * (x / wider) ** 2
    z[:2] -= 0.25 * np.clip(-top[:2], 0, 1)  # lower teeth and the fold under the lip lie further back
    uv = np.stack(np.broadcast_arrays(np.linspace(0, 1, CAVITY_RING)[None], np.linspace(0, 1, len(_RING_Z))[:, None]), -1).reshape(-1, 2)
    flesh, throat = np.array([0.30, 0.075, 0.065]), np.array([0.03, 0.007, 0.006])
    fade = np.interp(np.arange(16), [0, 5, 13], [0, 0.5, 1.0])[:, None, None]
    material = Material((flesh + fade * (throat - flesh)).astype(np.float32), roughness=0.55, specular=0.012, scatter=(0.3, 0.08, 0.06))
    faces = grid_faces(len(_RING_Z), CAVITY_RING, closed=True)[:, ::-1]
    weight = _RING_FOLLOWS_JAW[:, None] * 0.5 * (1 - np.sin(angle)[None])
    return Mesh.of(np.stack([x, y, z], -1).reshape(-1, 3), faces, uv, material), weight.ravel()


def _light_through(points: np.ndarray, lips: LipOpening) -> np.ndarray:
    """Share of the light (v) that comes in between the lips to points behind them, for surfaces that face the opening.

    The product of the form factors of two crossed strips stands for that of the opening.
    """
    depth = np.clip(np.float32(0.5 * (lips.top[2] + lips.bottom[2])) - points[:, 2], 0.3, None)
    square = depth * depth

    def strip(low: float, high: float, at: np.ndarray) -> np.ndarray:
        below, above = at - np.float32(low), np.float32(max(high, low)) - at
        return 0.5 * (above / np.sqrt(above * above + square) + below / np.sqrt(below * below + square))

    across = strip(float(lips.left[0]), float(lips.right[0]), points[:, 0])
    upright = strip(float(lips.bottom[1]), float(lips.top[1]), points[:, 1])
    through = across * upright
    return np.float32(1.3) * through / (through + np.float32(0.3))  # walls inside pass light on, so that it falls off more slowly
