"""How the lower jaw moves: a turn about the axis through both joints and a small glide forwards."""

import numpy as np

PIVOT = (0.0, -1.2, 1.0)  # cm, head space: middle of the axis through the jaw joints, which runs along x
OPEN_ANGLE = 0.25  # radians at jaw = 1
OPEN_GLIDE = 0.25  # cm that the joints slide forwards at jaw = 1


def jaw_motion(points: np.ndarray, jaw: float, weight: float | np.ndarray = 1.0) -> np.ndarray:
    """Points (... 3) cm as the jaw carries them; jaw = 0 is closed, 1 wide open.

    `weight` (one number or one a point) blends linearly from staying in place (0) to the rigid motion of the bone (1). Returns float32.
    """
    points = np.asarray(points, np.float32)
    cosine, sine = np.float32(np.cos(OPEN_ANGLE * jaw)), np.float32(np.sin(OPEN_ANGLE * jaw))
    y, z = points[..., 1] - np.float32(PIVOT[1]), points[..., 2] - np.float32(PIVOT[2])
    weight = np.asarray(weight, np.float32)
    moved = points.copy()
    moved[..., 1] += weight * (y * (cosine - 1) - z * sine)
    moved[..., 2] += weight * (y * sine + z * (cosine - 1) + np.float32(OPEN_GLIDE * jaw))
    return moved
