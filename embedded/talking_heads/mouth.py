"""The inside of the mouth: teeth, gums, tongue and the cavity behind the lips, posed by jaw, tongue and lips.

Arch space: cm, origin at the edge of the upper central incisors, between them; x to the right of the picture, y up, z to the viewer.
Crown sizes: averages of Wheeler's Dental Anatomy (labial height, mesiodistal and labiolingual width).
"""

from dataclasses import dataclass

import cv2
import numpy as np

from embedded.talking_heads.expression import jaw_motion
from embedded.talking_heads.solids import Material, Mesh, grid_faces, join
from embedded.talking_heads.traits import Traits, smooth, stream

TEETH = 7  # of one half of one jaw: central and lateral incisor, canine, two premolars, two molars
# Sizes of crowns in cm, upper and lower jaw: widths, heights, depths at the neck
_WIDTHS = np.array([(0.86, 0.67, 0.77, 0.70, 0.67, 1.02, 0.92), (0.53, 0.57, 0.67, 0.69, 0.70, 1.05, 1.00)])
_HEIGHTS = np.array([(1.00, 0.88, 0.98, 0.84, 0.76, 0.72, 0.66), (0.88, 0.90, 1.00, 0.84, 0.78, 0.72, 0.66)])
_DEPTHS = np.array([(0.68, 0.60, 0.78, 0.88, 0.88, 1.05, 1.05), (0.58, 0.62, 0.74, 0.76, 0.80, 1.00, 1.00)])
_UPPER_EDGE = np.array([0.0, 0.06, -0.02, 0.05, 0.06, 0.06, 0.06])  # how far the edge stays behind the line of the bite
_LOWER_EDGE = np.array([1.0, 0.93, 0.85, 0.15, 0.0, 0.0, 0.0])  # share of the overbite by which the edge rises over that line
_EDGE_DEPTH = np.array([0.17, 0.16, 0.22, 0.50, 0.54, 0.74, 0.74])  # thickness at the edge, or between the cusps
_TIP = np.array([0.02, 0.05, 0.20, 0.12, 0.08, 0.04, 0.04])  # how far the middle of the edge stands out before its ends
_LEAN = np.array([0.14, 0.12, 0.04, 0.0, -0.04, -0.08, -0.1])  # radians that the edge leans outwards
_BITE_SLOPE = 0.10  # the line of the bite rises towards the back
_CURVE_POWER = 2.8
_OVERJET = 0.36  # upper incisor edges stand this far in front of the lower ones

# Rings of a crown from under the gum to the edge; the last two close it
CROWN_RING = 10  # vertices around a crown
_LEVEL = np.array([-0.18, 0.06, 0.32, 0.62, 0.86, 0.97, 1.0, 0.985])  # 0 at the gum, 1 at the edge
_CROWN_WIDTH = np.array([0.72, 0.84, 0.95, 1.0, 0.98, 0.91, 0.76, 0.0])  # share of the full width
_CROWN_FACE = np.array([-0.03, 0.04, 0.085, 0.075, 0.035, 0.0, -0.04, -0.06])  # cm: outer face before the edge
_THICK = np.array([0.95, 1.0, 0.90, 0.54, 0.18, 0.0, -0.35, -1.0])  # 1: depth at the neck, 0: of the edge, -1: closed
_SLOT_WIDTH, _SLOT_HEIGHT = 16, 32  # texels of one tooth

# Rows of the gum from the fold of the lip over the margin to the palate: cm above the margin, and cm out of the face of the tooth's neck
_GUM_COLUMNS = np.array([0.06, 0.35, 0.65, 0.94])  # of one tooth, in shares of its width
_SCALLOP = np.array([0.0, 0.45, 0.9, 1.0, 1.0, 1.0, 0.85, 0.2])  # how much of the margin's scallops a row follows
_GUM_HEIGHT = np.array([1.0, 0.55, 0.2, 0.03, 0.03, 0.05, 0.2, 0.75])
_OUT_OF_FACE = np.array([-0.22, 0.0, 0.05, 0.03, -0.10])  # the last three lie behind the tooth
_BEHIND = np.array([0.02, -0.07, -0.30])  # beyond the inner side of the neck


@dataclass(frozen=True)
class Dentition:
    """What tells one person's teeth from another's."""

    seed: int
    size: float  # factor on all lengths, about 0.94 .. 1.06
    half_width: float  # cm between the middle and the outer face of the molars, at size 1
    overbite: float  # cm that the upper incisors cover of the lower ones
    irregularity: float  # 0 (straight) .. 1 (crooked)
    wear: float  # 0 .. 1: worn edges
    stain: float  # 0 (bleached) .. 1 (yellow-brown)


def draw_dentition(traits: Traits) -> Dentition:
    """Teeth of a person: whiter and straighter for most young, worn and stained with age."""
    rng = stream(traits.seed, "dentition")
    age = float(np.clip((traits.age - 18) / 55, 0, 1))
    return Dentition(
        seed=traits.seed,
        size=float(np.clip(1.01 - 0.03 * traits.femininity + 0.025 * rng.normal(), 0.93, 1.07)),
        half_width=float(np.clip(2.85 + 0.1 * rng.normal(), 2.6, 3.1)),
        overbite=float(np.clip(0.2 + 0.05 * rng.normal(), 0.1, 0.3)),
        irregularity=float(rng.beta(1.3, 2.6)),
        wear=float(np.clip(0.15 + 0.6 * age + 0.15 * rng.normal(), 0, 1)),
        stain=float(np.clip(0.12 + 0.5 * age + 0.2 * rng.normal(), 0, 1)),
    )


@dataclass(frozen=True)
class Crowns:
    """The 14 crowns of one jaw in arch space, from the left of the picture to the right."""

    place: np.ndarray  # int n, 0 central incisor .. 6 second molar
    edge: np.ndarray  # float n 3, cm: middle of the outer face at the edge
    along: np.ndarray  # float n 3, unit: along the arch, to the right of the picture
    out: np.ndarray  # float n 3, unit: out of the mouth
    root: np.ndarray  # float n 3, unit: from the edge to the neck
    width: np.ndarray  # float n
    height: np.ndarray  # float n, from the edge to the gum
    depth: np.ndarray  # float n, labiolingual, at the neck
    centre: np.ndarray  # float n, where the tooth's middle lies along the arch, from the middle of the jaw


def arch_frames(position: np.ndarray, dentition: Dentition, lower: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points, directions along and out of the arch (each n 3) at arc lengths `position` (n, signed from the middle).

    The outline is z = -depth |x / half width|^p: flat at the incisors, straight at the molars.
    """
    half_width = (dentition.half_width - (0.22 if lower else 0.0)) * dentition.size
    depth = 4.5 * dentition.size
    x = np.linspace(0, 1.25 * half_width, 400)
    z = -depth * (x / half_width) ** _CURVE_POWER
    length = np.concatenate([[0], np.cumsum(np.hypot(np.diff(x), np.diff(z)))])
    at = np.interp(np.abs(position), length, x)
    slope = -depth * _CURVE_POWER / half_width * (at / half_width) ** (_CURVE_POWER - 1) * np.sign(position)
    forward = -depth * (at / half_width) ** _CURVE_POWER
    points = np.stack([np.sign(position) * at, -_BITE_SLOPE * forward, forward - (_OVERJET if lower else 0.0)], -1)
    along = np.stack([np.ones_like(slope), np.zeros_like(slope), slope], -1)
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    return points, along, np.stack([-along[:, 2], np.zeros_like(slope), along[:, 0]], -1)


def crowns(dentition: Dentition, lower: bool) -> Crowns:
    """The crowns of one jaw at rest, each turned, tipped, moved in or out and lengthened as far as the teeth are irregular."""
    rng = stream(dentition.seed, "crowns lower" if lower else "crowns upper")
    jaw, size, up = int(lower), dentition.size, np.array([0.0, -1.0 if lower else 1.0, 0.0])
    place = np.concatenate([np.arange(TEETH)[::-1], np.arange(TEETH)])
    widths = _WIDTHS[jaw] * size
    centre = np.repeat([-1, 1], TEETH) * (np.cumsum(widths) - 0.5 * widths)[place]
    point, along, out = arch_frames(centre, dentition, lower)
    loose = np.array([1.0, 1.2, 1.0, 0.6, 0.5, 0.4, 0.4])[place] * (1.2 if lower else 0.8) * dentition.irregularity
    turn, tip, lean, inwards, longer = (rng.normal(size=(2 * TEETH, 5)) * loose[:, None] * [0.14, 0.05, 0.04, 0.035, 0.03]).T[..., None]
    along, out = along * np.cos(turn) + out * np.sin(turn), out * np.cos(turn) - along * np.sin(turn)
    tip = tip + (_LEAN[place] * (0.6 if lower else 1.0))[:, None]
    root = (up * np.cos(tip) - out * np.sin(tip)) * np.cos(lean) + along * np.sin(lean)
    if lower:
        edge = point + np.array([0.0, 1.0, 0.0]) * (dentition.overbite * _LOWER_EDGE[place] - 0.03 * (place > 2))[:, None]
        height, inwards = _HEIGHTS[1][place] * size, np.minimum(inwards, 0.0)
    else:
        worn = 0.06 * dentition.wear
        edge = point + up * ((_UPPER_EDGE[place] * size + worn * (place % 2 == 0) * (place < 3))[:, None] + longer)
        height, inwards = (_HEIGHTS[0] - _UPPER_EDGE - worn)[place] * size, np.maximum(inwards, -0.01)
    root = root / np.linalg.norm(root, axis=1, keepdims=True)
    return Crowns(place, edge + out * inwards, along, out, root, widths[place], height, _DEPTHS[jaw][place] * size, centre)


def crown_points(teeth: Crowns, dentition: Dentition) -> np.ndarray:
    """Vertices (n rings 10 3) of crowns in arch space, ring by ring from under the gum, each from the right over the outer face."""
    angle = 2 * np.pi * np.arange(CROWN_RING) / CROWN_RING
    side, front = (np.sign(value) * np.abs(value) ** 0.75 for value in (np.cos(angle), np.sin(angle)))
    edge_depth, tip = (table[teeth.place][:, None] * dentition.size for table in (_EDGE_DEPTH, _TIP * (1 - 0.6 * dentition.wear)))
    neck = edge_depth + np.clip(_THICK, 0, 1) * (teeth.depth[:, None] - edge_depth)
    thickness = np.where(_THICK >= 0, neck, edge_depth * (1 + np.clip(_THICK, -1, 0)))  # n r
    width = 0.985 * 0.5 * teeth.width[:, None, None] * _CROWN_WIDTH[:, None] * side
    # cusps and the point of a canine: the ends of the edge stay behind its middle, and so does the groove of a chewing surface
    behind = tip[..., None] * np.abs(side) ** 1.5 + 0.04 * np.abs(side) ** 6
    rise = teeth.height[:, None, None] * (1 - _LEVEL)[:, None] + np.clip(_LEVEL, 0, None)[:, None] ** 3 * behind
    rise = rise + (0.25 * edge_depth - 0.04)[..., None] * (_CROWN_WIDTH == 0)[:, None]
    outward = (_CROWN_FACE - 0.5 * thickness)[..., None] + 0.5 * thickness[..., None] * front
    axes = (axis[:, None, None] for axis in (teeth.along, teeth.out, teeth.root))
    return teeth.edge[:, None, None] + sum(amount[..., None] * axis for amount, axis in zip((width, outward, rise), axes, strict=True))


def teeth_mesh(dentition: Dentition, lower: bool) -> Mesh:
    """All crowns of one jaw at rest in arch space."""
    points = crown_points(crowns(dentition, lower), dentition)
    count, rings = points.shape[:2]
    faces = grid_faces(rings, CROWN_RING, closed=True)
    faces = faces if lower else faces[:, ::-1]
    u = (np.arange(count)[:, None, None] + 0.5 + 0.47 * np.cos(2 * np.pi * np.arange(CROWN_RING) / CROWN_RING)) / count
    uv = np.stack(np.broadcast_arrays(u, np.clip(_LEVEL, 0.02, 0.98)[:, None]), -1).reshape(-1, 2)
    numbered = np.concatenate([faces + k * rings * CROWN_RING for k in range(count)])
    material = Material(_paint_teeth(dentition, lower), roughness=0.15, specular=0.04, scatter=(0.12, 0.10, 0.08))
    return Mesh.of(points.reshape(-1, 3), numbered, uv, material)


def _paint_teeth(dentition: Dentition, lower: bool) -> np.ndarray:
    """Albedo (float32 32 x 14*16 x 3): ivory, yellower at the neck, bluish at the edge, dark where crowns meet, dim at the back."""
    rng = stream(dentition.seed, "teeth colour lower" if lower else "teeth colour upper")
    white, stained = np.array([0.80, 0.77, 0.69]), np.array([0.68, 0.60, 0.44])
    base = (white + dentition.stain * (stained - white)) * rng.uniform(0.94, 1.03)
    place = np.abs(np.arange(2 * TEETH) - (TEETH - 0.5)) - 0.5
    tint = np.array([1.0, 1.0, 0.98, 0.99, 0.98, 0.96, 0.96])[place.astype(int)][:, None] ** np.array([0.5, 1.5, 4.0])
    tint = tint * (1 + 0.02 * rng.normal(size=(2 * TEETH, 1)))
    dim = np.interp(place, [0, 2, 3, 6], [1.0, 0.95, 0.85, 0.5])[:, None] ** np.array([0.8, 1.1, 1.3])
    level = ((np.arange(_SLOT_HEIGHT) + 0.5) / _SLOT_HEIGHT)[:, None]
    neck, edge = np.clip(1 - level / 0.45, 0, 1) ** 1.5, np.clip((level - 0.72) / 0.28, 0, 1) ** 1.5
    grade = 1 - neck * np.array([0.12, 0.20, 0.34]) - edge * np.array([0.20, 0.15, 0.07]) * (1 - 0.6 * dentition.wear)
    across = np.abs((np.arange(_SLOT_WIDTH) + 0.5) / _SLOT_WIDTH * 2 - 1)
    seam = 1 - np.clip((across - 0.62) / 0.38, 0, 1)[:, None] ** 2 * np.array([0.50, 0.58, 0.64])
    albedo = (base * tint * dim)[None, :, None] * grade[:, None, None] * seam[None, None]
    streak = 1 + 0.025 * rng.normal(size=(1, 2 * TEETH, _SLOT_WIDTH, 1))
    return np.clip(albedo * streak, 0, 0.85).reshape(_SLOT_HEIGHT, -1, 3).astype(np.float32)


def gum_mesh(dentition: Dentition, traits: Traits, lower: bool) -> Mesh:
    """The gum of one jaw at rest, in arch space: a band that is high at the middle of each tooth, down between it and its neighbours."""
    teeth = crowns(dentition, lower)
    count, up = len(teeth.place), np.array([0.0, -1.0 if lower else 1.0, 0.0])
    position = teeth.centre[:, None] + (_GUM_COLUMNS - 0.5) * teeth.width[:, None]  # n 4
    curve, _, out = (rows.reshape(count, 4, 3) for rows in arch_frames(position.ravel(), dentition, lower))
    between = np.abs(2 * _GUM_COLUMNS - 1) ** 2.2
    neck = (teeth.edge + teeth.root * teeth.height[:, None])[:, None]  # n 1 3
    back = np.sum((neck - curve) * out, -1) * (1 - 0.3 * between)  # the neck stands behind the curve of the edges by its lean
    papilla = 0.62 * teeth.height[:, None] * between * np.where(teeth.place > 2, 0.75, 1.0)[:, None]
    face = back[..., None] + _OUT_OF_FACE - np.array([0.0, 0.02, 0.05, 0.10, 0.10]) * between[:, None]
    inner = back[..., None] - teeth.depth[:, None, None] + _BEHIND + np.array([0.12, 0.06, 0.0]) * between[:, None]
    outward = np.concatenate([face, inner], -1)  # n 4 rows
    height = ((neck[..., 1] - curve[..., 1]) * up[1])[..., None] - papilla[..., None] * _SCALLOP + _GUM_HEIGHT
    points = curve[:, :, None] + outward[..., None] * out[:, :, None] + height[..., None] * up
    points = points.reshape(4 * count, -1, 3).transpose(1, 0, 2)
    rows, columns = points.shape[:2]
    faces = grid_faces(rows, columns)
    uv = np.stack(np.broadcast_arrays(np.linspace(0, 1, columns)[None], np.linspace(0, 1, rows)[:, None]), -1).reshape(-1, 2)
    material = Material(_paint_gum(dentition, traits, lower), roughness=0.22, specular=0.035, scatter=(0.35, 0.12, 0.08))
    return Mesh.of(points.reshape(-1, 3), faces[:, ::-1] if lower else faces, uv, material)


def _paint_gum(dentition: Dentition, traits: Traits, lower: bool) -> np.ndarray:
    """Albedo (float32 32 224 3): coral pink, redder in the fold of the lip, with brown patches where skin is dark; dim at the back."""
    rng = stream(dentition.seed, "gum lower" if lower else "gum upper")
    height, width = 32, 224
    coarse = cv2.resize(rng.normal(size=(5, 30)).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    pink = np.array([0.50, 0.205, 0.19]) * (1 + 0.06 * rng.normal())
    fold = np.clip(1 - np.linspace(0, 1, height) / 0.3, 0, 1)[:, None, None]
    albedo = pink * (1 + 0.08 * coarse)[..., None] * (1 - fold * np.array([0.15, 0.45, 0.42]))
    brown = np.clip(traits.melanin * 1.5 - 0.55 + 0.25 * coarse, 0, 0.85)[..., None]
    albedo = albedo + brown * (np.array([0.13, 0.065, 0.055]) - albedo)
    place = np.abs(np.linspace(-7, 7, width))[None, :, None]
    return np.clip(albedo * np.interp(place, [0, 2.5, 6], [1.0, 0.85, 0.35]), 0.01, 0.8).astype(np.float32)


TONGUE_ROWS, TONGUE_RING = 14, 14
TIP_REST = (0.0, -0.22, -1.2)  # cm, arch space
TIP_UP = (0.0, 0.62, -1.3)  # touches the ridge behind the upper incisors
TIP_OUT_FORWARD = 0.12  # cm that the tip stands before the upper incisors' edge when it is out
# Outline along the middle, from the root to the tip: place along z, height of the back of the tongue, half width, thickness
_STATIONS = np.array([0.0, 0.2, 0.4, 0.6, 0.75, 0.87, 0.95, 1.0])
_TONGUE_BACK = np.array([-2.4, -0.7, 0.4, 0.5, 0.32, 0.12, -0.05, -0.22])
_TONGUE_HALF_WIDTH = np.array([1.5, 1.75, 1.8, 1.62, 1.34, 0.98, 0.58, 0.02])
_THICKNESS = np.array([1.6, 1.8, 1.7, 1.35, 0.95, 0.62, 0.36, 0.02])
_ROOT_Z = -7.4


def tongue(traits: Traits) -> tuple[Mesh, np.ndarray, np.ndarray]:
    """A tongue at rest behind the lower incisors, a little humped and grooved, in arch space; how far along it each vertex lies (float32 v,
    0 root .. 1 tip), and how far it follows the jaw (float32 v)."""
    rng = stream(traits.seed, "tongue")
    along = 1 - (1 - np.arange(TONGUE_ROWS) / (TONGUE_ROWS - 1)) ** 1.7
    back, half_width, thickness = (np.interp(along, _STATIONS, column) for column in (_TONGUE_BACK, _TONGUE_HALF_WIDTH, _THICKNESS))
    angle = 2 * np.pi * np.arange(TONGUE_RING) / TONGUE_RING
    side, top = np.cos(angle), np.sin(angle)
    groove = (
        rng.uniform(0.06, 0.16)
        * np.exp(-((side / 0.28) ** 2))
        * np.clip(top, 0, 1)
        * np.interp(along, [0.2, 0.5, 0.9, 1.0], [0.2, 1.0, 0.6, 0.0])[:, None]
    )
    rounded = np.sign(top) * np.abs(top) ** np.where(top > 0, 0.8, 1.0)
    y = back[:, None] + 0.5 * thickness[:, None] * (rounded - 1) - groove
    x = half_width[:, None] * np.sign(side) * np.abs(side) ** 0.85 * rng.uniform(0.95, 1.04)
    z = np.broadcast_to(_ROOT_Z + (TIP_REST[2] - _ROOT_Z) * along[:, None], y.shape)
    vertices = np.stack([x, y, z], -1).reshape(-1, 3)
    uv = np.stack(np.broadcast_arrays(0.5 + 0.48 * side, 1 - along[:, None]), -1).reshape(-1, 2)
    bump = 0.012 * cv2.GaussianBlur(rng.normal(size=(64, 48)).astype(np.float32), (0, 0), 0.9)
    material = Material(_paint_tongue(traits), roughness=0.28, specular=0.035, scatter=(0.4, 0.14, 0.1), bump=bump)
    mesh = Mesh.of(vertices, grid_faces(TONGUE_ROWS, TONGUE_RING, closed=True)[:, ::-1], uv, material)
    carried = np.interp(along, [0.0, 0.5, 1.0], [0.35, 0.95, 1.0]).astype(np.float32)
    return mesh, np.repeat(along, TONGUE_RING).astype(np.float32), np.repeat(carried, TONGUE_RING)


def _paint_tongue(traits: Traits) -> np.ndarray:
    """Albedo (float32 64 48 3): dull pink with a paler coat in the middle, redder rims, dark at the root."""
    rng = stream(traits.seed, "tongue colour")
    across = np.abs(np.linspace(-1, 1, 48))[None, :, None]
    from_tip = np.linspace(0, 1, 64)[:, None, None]
    pink, coat = np.array([0.50, 0.19, 0.175]), np.array([0.54, 0.31, 0.28])
    share = rng.uniform(0.15, 0.6) * np.clip(1.1 - 1.5 * across, 0, 1) * np.clip(from_tip * 3.0, 0, 1)
    speckle = cv2.GaussianBlur(rng.normal(size=(64, 48)).astype(np.float32), (0, 0), 0.8)[..., None]
    albedo = (pink + share * (coat - pink)) * (1 + 0.10 * speckle) * np.interp(from_tip, [0, 0.3, 0.9], [1.0, 0.85, 0.25])
    albedo = albedo * (1 - 0.3 * np.exp(-((across / 0.06) ** 2)))
    return np.clip(albedo * (1 - 0.2 * traits.melanin), 0.005, 0.8).astype(np.float32)


LIP_CORNER_HALF_WIDTH = 2.55  # cm, of the average mouth that the cavity is drawn for
DARKEST = 0.03  # light that reaches the inside of a closed mouth through cheeks and lips
CAVITY_RING = 28

# Rings of the cavity from the lips to the throat, arch space; the first one is laid to the wet lips in every frame
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


@dataclass(frozen=True)
class OralFit:
    """Where the inside of the mouth sits in a head."""

    front: np.ndarray  # float32 3, cm, head space: edge of the upper central incisors, between them (average: 0, -6.75, 9.75)
    lip_corner_half_width: float = LIP_CORNER_HALF_WIDTH
    scale: float = 1.0  # size of arches, tongue and cavity


@dataclass(frozen=True)
class LipOpening:
    """Points (float32 3, cm, head space) of the line where the lips meet, as posed: its corners, and the middles of upper and lower lip.

    `left` is on the left of the picture. Closed lips have top and bottom at the same place. `loop` (float32 n 3) is the rim of the wet lip
    inside the mouth, where its surface ends, evenly from the right corner over the top.
    """

    left: np.ndarray
    right: np.ndarray
    top: np.ndarray
    bottom: np.ndarray
    loop: np.ndarray


@dataclass(frozen=True)
class Oral:
    """The inside of one person's mouth. `mesh` is at rest: jaw closed, lips closed; vertices keep their order in every pose."""

    mesh: Mesh
    fit: OralFit
    jaw_weight: np.ndarray  # float32 v, how far a vertex follows the jaw
    openness: np.ndarray  # float32 v, how much of the light that comes in between the lips a vertex gets, by its depth at rest
    tongue_start: int  # vertices from here to cavity_start are the tongue
    cavity_start: int  # from here on the cavity, ring by ring
    tongue_along: np.ndarray  # float32, of the tongue's vertices: 0 root .. 1 tip

    def pose(self, jaw: float, tongue_up: float, tongue_out: float, lips: LipOpening) -> tuple[np.ndarray, np.ndarray]:
        """Vertices (float32 v 3) and occlusion (float32 v, 0..1) for channels in 0..1 and lips as posed.

        The upper teeth stay, the lower ones follow the jaw, and the cavity spans from the lips to the throat.
        """
        points = jaw_motion(self.mesh.vertices, jaw, self.jaw_weight)
        tongue_part = slice(self.tongue_start, self.cavity_start)
        points[tongue_part] = self._bend_tongue(points[tongue_part], jaw, tongue_up, tongue_out)
        self._lay_to_lips(points[self.cavity_start :].reshape(-1, CAVITY_RING, 3), lips)
        reach = _light_through(points, lips)
        return points, (DARKEST + (1 - DARKEST) * self.openness * reach).astype(np.float32)

    def _bend_tongue(self, points: np.ndarray, jaw: float, tongue_up: float, tongue_out: float) -> np.ndarray:
        """Points (v 3) of the tongue where the jaw left it, bent so that the tip nears its targets; coming out it is flattened."""
        front, scale = self.fit.front, self.fit.scale
        tip = jaw_motion(front + scale * np.asarray(TIP_REST), jaw)
        lower_edge = jaw_motion(front + scale * np.array([0.0, 0.2, -0.4]), jaw)
        between = 0.5 * (front[1] + min(float(lower_edge[1]), float(front[1])))
        out_target = np.array([front[0], between, front[2] + scale * TIP_OUT_FORWARD])
        up_target = front + scale * np.asarray(TIP_UP)
        shift = (tongue_up * (up_target - tip) + tongue_out * (out_target - tip)) / max(tongue_up + tongue_out, 1.0)
        near = smooth(0.25, 1.0, self.tongue_along)
        bent = points + near[:, None] * shift
        bent[:, 1] -= 0.55 * tongue_out * np.clip((self.tongue_along - 0.7) / 0.3, 0, 1) * (bent[:, 1] - tip[1] - near * shift[1])
        return bent.astype(np.float32)

    def _lay_to_lips(self, cavity: np.ndarray, lips: LipOpening) -> None:
        """Lays the first ring of the cavity (rings ring 3, in place) to the wet lip's rim; the corners draw the next ones along."""
        angle = 2 * np.pi * np.arange(CAVITY_RING) / CAVITY_RING
        cavity[0] = _edge(lips, angle)
        for sign, at in ((1, 0), (-1, CAVITY_RING // 2)):
            out, _, forward = cavity[0, at] - cavity[1, at]
            share = np.clip(sign * np.cos(angle), 0, 1).astype(np.float32) ** 2
            follow = _RING_FOLLOWS_CORNERS[:, None].astype(np.float32) * share
            cavity[..., 0] += sign * max(float(sign * out) + _BEYOND_CORNER, -_NARROWED) * follow
            cavity[..., 2] += min(float(forward) - _BEYOND_CORNER, 0.0) * follow


def _edge(lips: LipOpening, angle: np.ndarray) -> np.ndarray:
    """Points (n 3) just outside the lips' wet rim at `angle` (n) around the opening."""
    whole = np.concatenate([lips.loop, lips.loop[:1]])
    at = angle / (2 * np.pi) * len(lips.loop)
    rim = np.stack([np.interp(at, np.arange(len(whole)), whole[:, axis]) for axis in range(3)], -1)
    return (rim + _OVERLAP * np.stack([np.cos(angle), np.sin(angle), np.zeros_like(angle)], -1)).astype(np.float32)


def build_oral(traits: Traits, fit: OralFit) -> Oral:
    """The mouth's inside of a person, fitted into the head."""
    dentition = draw_dentition(traits)
    tongue_mesh, tongue_along, tongue_weight = tongue(traits)
    cavity, cavity_weight = _cavity(fit)
    fixed = [teeth_mesh(dentition, lower=False), gum_mesh(dentition, traits, lower=False)]
    carried = [teeth_mesh(dentition, lower=True), gum_mesh(dentition, traits, lower=True)]
    parts = [*fixed, *carried, tongue_mesh, cavity]
    joined = join(parts)
    sizes = [len(part.vertices) for part in parts]
    weight = np.concatenate([np.zeros(sum(sizes[:2])), np.ones(sum(sizes[2:4])), tongue_weight, cavity_weight]).astype(np.float32)
    depth = np.clip(-joined.vertices[:, 2], 0, None)  # what stands further back lies behind neighbours, tongue and cheeks
    openness = np.interp(depth, [0.0, 1.0, 2.5, 5.0, 8.0], [1.0, 0.95, 0.7, 0.32, 0.10]).astype(np.float32)
    vertices = (np.asarray(fit.front, np.float32) + np.float32(fit.scale) * joined.vertices).astype(np.float32)
    mesh = Mesh(vertices, joined.faces, joined.uv, joined.materials, joined.face_material, np.full(len(vertices), DARKEST, np.float32))
    return Oral(mesh, fit, weight, openness, sum(sizes[:4]), sum(sizes[:5]), tongue_along)


def _cavity(fit: OralFit) -> tuple[Mesh, np.ndarray]:
    """The cavity (arch space, seen from inside) and how far its vertices follow the jaw."""
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
