"""The crowns of the teeth: their shape and their colour."""

import numpy as np

from preprocess.talking_heads.anatomy.dental_arch import TEETH, Crown, Dentition, crowns
from preprocess.talking_heads.solids import Material, Mesh, grid_faces
from preprocess.talking_heads.traits import stream

RING = 10  # vertices around a crown
SLOT_WIDTH, SLOT_HEIGHT = 16, 32  # texels of one tooth
GOLD = (0.62, 0.40, 0.12)  # linear RGB

# Rings of a crown from under the gum to the edge; the last two close it
_LEVEL = np.array([-0.18, 0.06, 0.32, 0.62, 0.86, 0.97, 1.0, 0.985])  # 0 at the gum, 1 at the edge
_WIDTH = np.array([0.72, 0.84, 0.95, 1.0, 0.98, 0.91, 0.76, 0.0])  # share of the full width
_FACE = np.array([-0.03, 0.04, 0.085, 0.075, 0.035, 0.0, -0.04, -0.06])  # cm: outer face before the edge
_THICK = np.array([0.95, 1.0, 0.90, 0.54, 0.18, 0.0, -0.35, -1.0])  # 1: depth at the neck, 0: of the edge, -1: closed


def crown_points(crown: Crown) -> np.ndarray:
    """Vertices (rings * 10, 3) of one crown in arch space, ring by ring from under the gum, each from the right over the outer face."""
    angle = 2 * np.pi * np.arange(RING) / RING
    side = np.sign(np.cos(angle)) * np.abs(np.cos(angle)) ** 0.75
    front = np.sign(np.sin(angle)) * np.abs(np.sin(angle)) ** 0.75
    thickness = np.where(
        _THICK >= 0,
        crown.edge_depth + np.clip(_THICK, 0, 1) * (crown.depth - crown.edge_depth),
        crown.edge_depth * (1 + np.clip(_THICK, -1, 0)),
    )
    middle = _FACE - 0.5 * thickness
    width = 0.5 * crown.width * _WIDTH[:, None] * side[None]
    # cusps and the point of a canine: the ends of the edge stay behind its middle, and so does the groove of a chewing surface
    behind = crown.tip * np.abs(side)[None] ** 1.5 + 0.04 * np.abs(side)[None] ** 6
    level = np.clip(_LEVEL, 0, None)[:, None] ** 3
    rise = crown.height * (1 - _LEVEL)[:, None] + level * behind + (0.25 * crown.edge_depth - 0.04) * (_WIDTH == 0)[:, None]
    outward = middle[:, None] + 0.5 * thickness[:, None] * front[None]
    points = crown.edge + width[..., None] * crown.along + outward[..., None] * crown.out + rise[..., None] * crown.root
    return points.reshape(-1, 3)


def teeth_mesh(dentition: Dentition, lower: bool) -> Mesh:
    """All crowns of one jaw at rest in arch space."""
    standing = [(i, crown) for i, crown in enumerate(crowns(dentition, lower)) if lower or i != dentition.missing]
    rings = len(_LEVEL)
    faces = grid_faces(rings, RING, closed=True)
    faces = faces if lower else faces[:, ::-1]
    side = np.cos(2 * np.pi * np.arange(RING) / RING)
    u = np.broadcast_to(0.5 + 0.47 * side, (rings, RING))
    v = np.broadcast_to(np.clip(_LEVEL, 0.02, 0.98)[:, None], (rings, RING))
    vertices = np.concatenate([crown_points(crown) for _, crown in standing])
    uv = np.concatenate([np.stack([(i + u) / (2 * TEETH), v], -1).reshape(-1, 2) for i, _ in standing])
    numbered = np.concatenate([faces + k * rings * RING for k in range(len(standing))])
    return Mesh.of(
        vertices, numbered, uv, Material(paint_teeth(dentition, lower), roughness=0.15, specular=0.04, scatter=(0.12, 0.10, 0.08))
    )


def paint_teeth(dentition: Dentition, lower: bool) -> np.ndarray:
    """Albedo (float32 32 x 14*16 x 3): ivory, yellower at the neck, bluish at the edge, dark where crowns meet, dim at the back."""
    rng = stream(dentition.seed, "teeth colour lower" if lower else "teeth colour upper")
    white, stained = np.array([0.80, 0.77, 0.69]), np.array([0.68, 0.60, 0.44])
    base = white + dentition.stain * (stained - white)
    base = base * rng.uniform(0.94, 1.03)
    place = np.abs(np.arange(2 * TEETH) - (TEETH - 0.5)) - 0.5
    tint = np.array([1.0, 1.0, 0.99, 0.99, 0.98, 0.96, 0.96])[place.astype(int)][:, None] ** np.array([0.5, 1.5, 4.0])
    tint = np.where(place[:, None] == 2, tint * [0.98, 0.95, 0.88], tint) * (1 + 0.02 * rng.normal(size=(2 * TEETH, 1)))
    dim = np.interp(place, [0, 2, 3, 6], [1.0, 0.95, 0.85, 0.5])[:, None] ** np.array([0.8, 1.1, 1.3])
    level = ((np.arange(SLOT_HEIGHT) + 0.5) / SLOT_HEIGHT)[:, None]
    neck, edge = np.clip(1 - level / 0.45, 0, 1) ** 1.5, np.clip((level - 0.72) / 0.28, 0, 1) ** 1.5
    grade = 1 - neck * np.array([0.12, 0.20, 0.34]) - edge * np.array([0.20, 0.15, 0.07]) * (1 - 0.6 * dentition.wear)
    across = np.abs((np.arange(SLOT_WIDTH) + 0.5) / SLOT_WIDTH * 2 - 1)
    seam = 1 - np.clip((across - 0.62) / 0.38, 0, 1)[:, None] ** 2 * np.array([0.50, 0.58, 0.64])
    albedo = (base * tint * dim)[None, :, None] * grade[:, None, None] * seam[None, None]
    if not lower and dentition.gold >= 0:
        albedo[:, dentition.gold] = np.array(GOLD) * dim[dentition.gold] * seam
    streak = 1 + 0.025 * rng.normal(size=(1, 2 * TEETH, SLOT_WIDTH, 1))
    return np.clip(albedo * streak, 0, 0.85).reshape(SLOT_HEIGHT, -1, 3).astype(np.float32)
