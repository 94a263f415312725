"""From light to a picture: exposure, a film's soft shoulder, and the sRGB curve."""

import numpy as np

from preprocess.talking_heads.render.vectors import kernel

KNEE = 0.55  # linear value from which on the shoulder bends
STEPS = 8192  # entries of the table, even in the square root of the light


def _srgb(linear: np.ndarray) -> np.ndarray:
    """Linear light in [0, 1] -> sRGB in [0, 1] (IEC 61966-2-1)."""
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 0.0031308) ** (1 / 2.4) - 0.055)


def shoulder(light: np.ndarray, white: float) -> np.ndarray:
    """Light -> [0, 1]: unchanged below the knee, then bent without a corner so that `white` (above 1) and more become 1."""
    power = (white - KNEE) / (1 - KNEE)
    beyond = np.clip((light - KNEE) / (white - KNEE), 0, 1)
    return np.where(light < KNEE, light, KNEE + (1 - KNEE) * (1 - (1 - beyond) ** power))


@kernel
def _look_up(linear: np.ndarray, scale: float, table: np.ndarray, out: np.ndarray) -> None:
    """out = table at sqrt(linear * scale), flat arrays."""
    last = len(table) - 1
    for index in range(len(linear)):
        light = min(max(linear[index] * scale, np.float32(0.0)), np.float32(1.0))
        out[index] = table[int(np.sqrt(light) * last + 0.5)]


def tone(linear: np.ndarray, exposure: float = 1.0, white: float = 4.0) -> np.ndarray:
    """Linear RGB (float32 h w 3) -> sRGB (uint8 h w 3).

    exposure: factor on the light. white: exposed light that becomes full white, above 1; the shoulder reaches it gently.
    """
    light = white * np.linspace(0, 1, STEPS) ** 2
    table = np.round(255 * _srgb(shoulder(light, white))).astype(np.uint8)
    out = np.empty(linear.shape, np.uint8)
    _look_up(np.ascontiguousarray(linear, np.float32).reshape(-1), np.float32(exposure / white), table, out.reshape(-1))
    return out
