"""The gums: a scalloped band of pink around the necks of the teeth."""

import cv2
import numpy as np

from preprocess.talking_heads.anatomy.dental_arch import Crown, Dentition, arch_frames, crowns
from preprocess.talking_heads.solids import Material, Mesh, grid_faces
from preprocess.talking_heads.traits import Traits, stream

_COLUMNS = np.array([0.06, 0.35, 0.65, 0.94])  # of one tooth, in shares of its width
# Rows from the fold of the lip over the margin to the palate: cm above the margin, and cm out of the face of the tooth's neck
_SCALLOP = np.array([0.0, 0.45, 0.9, 1.0, 1.0, 1.0, 0.85, 0.2])  # how much of the margin's scallops a row follows
_HEIGHT = np.array([1.0, 0.55, 0.2, 0.03, 0.03, 0.05, 0.2, 0.75])
_OUT_OF_FACE = np.array([-0.22, 0.0, 0.05, 0.03, -0.10])  # the last three lie behind the tooth, see _BEHIND
_BEHIND = np.array([0.02, -0.07, -0.30])  # beyond the inner side of the neck


def gum_mesh(dentition: Dentition, traits: Traits, lower: bool) -> Mesh:
    """The gum of one jaw at rest, in arch space."""
    teeth = crowns(dentition, lower)
    points = np.concatenate([_band(crown, dentition, lower) for crown in teeth], 1)
    rows, columns = points.shape[:2]
    faces = grid_faces(rows, columns)
    uv = np.stack(np.broadcast_arrays(np.linspace(0, 1, columns)[None], np.linspace(0, 1, rows)[:, None]), -1).reshape(-1, 2)
    material = Material(paint_gum(dentition, traits, lower), roughness=0.22, specular=0.035, scatter=(0.35, 0.12, 0.08))
    return Mesh.of(points.reshape(-1, 3), faces[:, ::-1] if lower else faces, uv, material)


def _band(crown: Crown, dentition: Dentition, lower: bool) -> np.ndarray:
    """The gum (8 4 3) over one tooth: high at its middle, down between it and its neighbours."""
    curve, _, out = arch_frames(crown.start + _COLUMNS * (crown.end - crown.start), dentition, lower)
    between = np.abs(2 * _COLUMNS - 1) ** 2.2
    up = np.array([0.0, -1.0 if lower else 1.0, 0.0])
    neck = crown.edge + crown.root * crown.height
    back = np.sum((neck - curve) * out, 1) * (1 - 0.3 * between)  # the neck stands behind the curve of the edges by its lean
    margin = (neck[1] - curve[:, 1]) * up[1]
    papilla = 0.62 * crown.height * between * (0.75 if crown.place > 2 else 1.0)
    face = back[:, None] + _OUT_OF_FACE[None] - np.array([0.0, 0.02, 0.05, 0.10, 0.10]) * between[:, None]
    inner = back[:, None] - crown.depth + _BEHIND[None] + np.array([0.12, 0.06, 0.0]) * between[:, None]
    outward = np.concatenate([face, inner], 1)
    height = margin[:, None] - papilla[:, None] * _SCALLOP[None] + _HEIGHT[None]
    points = curve[:, None] + outward[..., None] * out[:, None] + height[..., None] * up
    return points.transpose(1, 0, 2)


def paint_gum(dentition: Dentition, traits: Traits, lower: bool) -> np.ndarray:
    """Albedo (float32 32 224 3): coral pink, redder in the fold of the lip, with brown patches where skin is dark; dim at the back."""
    rng = stream(dentition.seed, "gum lower" if lower else "gum upper")
    height, width = 32, 224
    coarse = cv2.resize(rng.normal(size=(5, 30)).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    fine = cv2.resize(rng.normal(size=(16, 112)).astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    pink = np.array([0.50, 0.205, 0.19]) * (1 + 0.06 * rng.normal())
    fold = np.clip(1 - np.linspace(0, 1, height) / 0.3, 0, 1)[:, None, None]
    albedo = pink * (1 + 0.07 * coarse + 0.05 * fine)[..., None] * (1 - fold * np.array([0.15, 0.45, 0.42]))
    brown = np.clip(traits.melanin * 1.5 - 0.55 + 0.25 * coarse, 0, 0.85)[..., None]
    albedo = albedo + brown * (np.array([0.13, 0.065, 0.055]) - albedo)
    place = np.abs(np.linspace(-7, 7, width))[None, :, None]
    return np.clip(albedo * np.interp(place, [0, 2.5, 6], [1.0, 0.85, 0.35]), 0.01, 0.8).astype(np.float32)
