"""The outer ear: rim, fold, bowl, tragus and lobe as one grid mesh.

Ear space: cm, origin at the ear canal, x away from the head, y up, z forwards. It is drawn as the ear on the right of the picture; the
other one is its mirror image. In the side view a runs backwards and b upwards, before the ear is turned out and leans back.
"""

import cv2
import numpy as np
from scipy.interpolate import CubicSpline

from embedded.talking_heads.solids import Material, Mesh, grid_faces
from embedded.talking_heads.traits import Traits, bump, smooth, stream

COLUMNS, FRONT_ROWS, TEXTURE = 36, 12, 64  # vertices around the ear, rows from the bowl to the rim, texels a side
SINK = 0.5  # cm that the edge lies under the skin of the head
_CENTRE = np.array([0.62, -0.1])  # of the bowl: rows run from here outwards
_CORNER, _EXTENT = np.array([-1.1, -3.9]), np.array([4.4, 7.6])  # a, b covered by the texture
# Outline: a, b, and whether it stands off the head (1) or is grown to the cheek (0)
_OUTLINE = np.array(
    [(-0.62, 0.70, 0.0), (-0.64, 1.25, 0.6), (-0.50, 1.90, 1.0), (-0.10, 2.55, 1.0), (0.50, 2.98, 1.0), (1.15, 3.05, 1.0),
     (1.78, 2.78, 1.0), (2.25, 2.20, 1.0), (2.48, 1.45, 1.0), (2.50, 0.65, 1.0), (2.36, -0.15, 1.0), (2.08, -0.90, 1.0),
     (1.70, -1.60, 1.0), (1.32, -2.25, 1.0), (0.88, -2.78, 1.0), (0.34, -2.96, 1.0), (-0.10, -2.70, 0.8), (-0.40, -2.20, 0.25),
     (-0.62, -1.50, 0.0), (-0.78, -0.80, 0.0), (-0.78, -0.05, 0.0)]
)  # fmt: skip


def ear(traits: Traits, skin_colour: np.ndarray, canal: np.ndarray, outward: np.ndarray, side: int) -> tuple[Mesh, np.ndarray]:
    """A person's ear on the head, and the point (float32 3) in the fold above it where the temple of glasses rests.

    skin_colour: 3, linear RGB. canal: 3, cm, head space. outward: 3, away from the head there, taken level. side: 1 for the ear on the
    right of the picture, -1 for the left one.
    """
    rng = stream(traits.seed, "ear")
    old = float(np.clip((traits.age - 20) / 60, 0, 1))
    size = (1.03 - 0.07 * traits.femininity + 0.07 * old) * (1 + 0.03 * rng.normal())
    turned_out, leaning, lobe = np.clip(
        rng.normal([0.40, 0.27, 0.9 + 0.25 * old], [0.09, 0.05, 0.12]), [0.26, 0.15, 0.65], [0.61, 0.4, 1.4]
    )
    flat, x = _surface(turned_out, lobe, float(rng.uniform(0.25, 0.43)))
    y, z = size * flat[..., 1], 0.06 * x - 0.94 * size * flat[..., 0] * np.cos(0.5 * turned_out)
    y, z = y * np.cos(leaning) + z * np.sin(leaning), z * np.cos(leaning) - y * np.sin(leaning)
    turn = np.arctan2(-float(outward[2]), abs(float(outward[0])))
    rotation = np.array([[np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)]])
    points = canal + (np.stack([x, y, z], -1).reshape(-1, 3) @ rotation.T) * [side, 1, 1]
    faces = grid_faces(len(flat), COLUMNS, closed=True)
    uv = (flat.reshape(-1, 2) - _CORNER) / _EXTENT * [1, -1] + [0, 1]
    material = Material(_paint(traits, skin_colour, rng), roughness=0.5, specular=0.028, scatter=(0.6, 0.25, 0.15))
    mesh = Mesh.of(points, faces[:, ::-1] if side > 0 else faces, np.clip(uv, 0, 1), material)
    top = points[FRONT_ROWS * COLUMNS + int(np.argmax(flat[FRONT_ROWS - 1, :, 1]))]
    return mesh, np.array([canal[0] + 0.12 * side, top[1] - 0.25, top[2]], np.float32)


def _surface(turned_out: float, lobe: float, fold: float) -> tuple[np.ndarray, np.ndarray]:
    """Places a, b (rows COLUMNS 2) in the flat ear and heights x above the skin (rows COLUMNS): bowl, rim, back."""
    knots = _OUTLINE.copy()
    knots[:, 1] -= np.clip(-1.5 - knots[:, 1], 0, None) * (lobe - 1)
    around = np.concatenate([knots, knots[:1]])
    length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(around[:, :2], axis=0), axis=1))])
    outline = CubicSpline(length, around, bc_type="periodic")(np.arange(COLUMNS) / COLUMNS * length[-1])
    free = np.clip(outline[:, 2], 0, 1)
    outwards = outline[:, :2] - _CENTRE
    share = np.concatenate([np.linspace(0, 0.96, FRONT_ROWS), [1.0, 1.0, 0.96, 0.75, 0.42]])[:, None]  # of the way to the outline
    flat = _CENTRE + share[..., None] * outwards
    a, b = flat[..., 0], flat[..., 1]
    x = (a + 0.6) * np.tan(turned_out) * (1 - 0.25 * np.clip((-0.8 - b) / 1.6, 0, 1)) + 0.08  # a sheet hinged at the cheek
    rolled = smooth(-2.2, -1.0, b)  # the rim and the fold before it run out towards the lobe
    x = x + rolled * (
        0.22 * bump(share - 0.93, 0.09) + fold * bump(share - 0.6, 0.13) * smooth(-0.2, 0.8, a) - 0.12 * bump(share - 0.78, 0.08)
    )
    bowl = smooth(0.55, 0.4, share) * smooth(-1.5, -1.1, b)
    x = x + bowl * (np.minimum(0.30, x) - x)
    x = x + 0.42 * bump(a + 0.42, 0.25) * bump(b + 0.32, 0.42) + 0.12 * bump(a - 0.42, 0.6) * bump(b + 2.2, 0.55)  # tragus and lobe
    back = np.concatenate([np.zeros(FRONT_ROWS), [0.0, 0.15, 0.35, 0.6, 1.0]])[:, None]
    x = x + back * (-SINK - x)
    attached = (1 - free) * smooth(0.7, 1.0, np.maximum(share, (back > 0) * 1.0))
    return flat, x + attached * (-0.08 - 0.42 * back - x)


def _paint(traits: Traits, skin_colour: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Albedo (float32 TEXTURE TEXTURE 3) over a, b: skin, redder outside, darker in the bowl, almost black in the canal."""
    middle = (np.arange(TEXTURE) + 0.5) / TEXTURE
    a, b = np.meshgrid(_CORNER[0] + _EXTENT[0] * middle, _CORNER[1] + _EXTENT[1] * (1 - middle))
    outer = np.clip(np.hypot((a - _CENTRE[0]) / 1.9, (b - _CENTRE[1]) / 2.9), 0, 1.2)
    mottle = 5 * cv2.GaussianBlur(rng.normal(size=(TEXTURE, TEXTURE)), (0, 0), 2.0)
    blood = (0.35 + 0.5 * traits.redness) * (1 - 0.6 * traits.melanin) * np.clip(0.3 + 0.6 * outer**2 + 0.08 * mottle, 0, 1.4)
    albedo = skin_colour * (1 - blood[..., None] * np.array([0.02, 0.30, 0.28])) * (1 + 0.03 * mottle[..., None])
    shade = (1 - 0.35 * smooth(0.6, 0.3, outer)) * (1 - 0.85 * bump(a + 0.12, 0.22) * bump(b + 0.15, 0.3))
    return np.clip(albedo * shade[..., None] ** np.array([0.7, 1.1, 1.2]), 0.002, 0.9).astype(np.float32)
