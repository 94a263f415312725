"""The tongue: its shape at rest and how its tip rises to the ridge behind the teeth or comes out between them."""

from dataclasses import dataclass

import cv2
import numpy as np

from preprocess.talking_heads.solids import Material, Mesh, grid_faces
from preprocess.talking_heads.traits import Traits, stream

ROWS, RING = 14, 14
TIP_REST = (0.0, -0.22, -1.2)  # cm, arch space
TIP_UP = (0.0, 0.62, -1.3)  # touches the ridge behind the upper incisors
TIP_OUT_FORWARD = 0.12  # cm that the tip stands before the upper incisors' edge when it is out
# Outline along the middle, from the root to the tip: place along z, height of the back of the tongue, half width, thickness
_STATIONS = np.array([0.0, 0.2, 0.4, 0.6, 0.75, 0.87, 0.95, 1.0])
_BACK = np.array([-2.4, -0.7, 0.4, 0.5, 0.32, 0.12, -0.05, -0.22])
_HALF_WIDTH = np.array([1.5, 1.75, 1.8, 1.62, 1.34, 0.98, 0.58, 0.02])
_THICKNESS = np.array([1.6, 1.8, 1.7, 1.35, 0.95, 0.62, 0.36, 0.02])
_ROOT_Z = -7.4


@dataclass(frozen=True)
class Tongue:
    """The tongue at rest in arch space and what each vertex takes part in."""

    mesh: Mesh
    along: np.ndarray  # float32 v, 0 at the root, 1 at the tip
    jaw_weight: np.ndarray  # float32 v, how far it follows the jaw


def tongue(traits: Traits) -> Tongue:
    """A tongue behind the lower incisors, a little humped and grooved."""
    rng = stream(traits.seed, "tongue")
    along = 1 - (1 - np.arange(ROWS) / (ROWS - 1)) ** 1.7
    back, half_width, thickness = (np.interp(along, _STATIONS, column) for column in (_BACK, _HALF_WIDTH, _THICKNESS))
    angle = 2 * np.pi * np.arange(RING) / RING
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
    material = Material(_paint(traits), roughness=0.28, specular=0.035, scatter=(0.4, 0.14, 0.1), bump=bump)
    mesh = Mesh.of(vertices, grid_faces(ROWS, RING, closed=True)[:, ::-1], uv, material)
    carried = np.interp(along, [0.0, 0.5, 1.0], [0.35, 0.95, 1.0]).astype(np.float32)
    return Tongue(mesh, np.repeat(along, RING).astype(np.float32), np.repeat(carried, RING))


def tongue_shift(
    points: np.ndarray,
    along: np.ndarray,
    tip: np.ndarray,
    up_target: np.ndarray,
    out_target: np.ndarray,
    tongue_up: float,
    tongue_out: float,
) -> np.ndarray:
    """Points (v 3) of a tongue whose `tip` (3) lies where the jaw left it, bent so that the tip nears its targets; channels in 0..1.

    All points share one frame of reference. The part near the tip moves most; a tongue that comes out is flattened.
    """
    share = np.clip(tongue_up + tongue_out, 1e-6, None)
    strength = min(tongue_up + tongue_out, 1.0)
    shift = (strength / share) * (tongue_up * (up_target - tip) + tongue_out * (out_target - tip))
    near = np.clip((along - 0.25) / 0.75, 0, 1)
    near = near * near * (3 - 2 * near)
    bent = points + near[:, None] * shift.astype(np.float32)
    middle = tip[1] + near * shift[1]
    bent[:, 1] += np.float32(-0.55 * tongue_out) * np.clip((along - 0.7) / 0.3, 0, 1) * (bent[:, 1] - middle)
    return bent.astype(np.float32)


def _paint(traits: Traits) -> np.ndarray:
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
