"""Where faces lie in their crops: as the truth puts them, or as the offline detector finds them on rendered people.

Networks that only ever saw the first kind draw mouths bent or out of place on what inference cuts with the second.
"""

from typing import Literal

import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

from latentsync.faces.align import face_size
from preprocess.talking_heads.traits import stream

Placement = Literal["truth", "detector"]

MARGIN = {"truth": 0.02, "detector": 0.12}  # of the crop's height, on each side, that a picture must show beyond crops placed by truth

# MTCNN's crops beside those of the truth, 14 people of the test split: scale, turn (degrees), shift in x and y (shares of the crop's width
# and height, where the mouth is). Spread is that between people, a third wider, since cameras show more people than the renderer.
_MEAN = (0.942, 0.85, -0.0134, -0.022)
_SPREAD = (0.027, 1.3, 0.0142, 0.0117)
_WOBBLE = (0.011, 0.5, 0.0078, 0.0059)  # standard deviation along a clip
_SLOWNESS = 4.0  # frames: width of the Gaussian that makes the wobble smooth
_MOUTH = (0.5, 0.75)  # where shifts were measured, shares of the crop


def as_detected(matrices: Tensor, resolution: int, seed: int) -> Tensor:
    """Transforms of a clip (float32 n 2 3, picture -> crop) moved as the detector would have erred; a pure function of its arguments."""
    rng, frames = stream(seed, "placement"), len(matrices)
    noise = gaussian_filter1d(rng.standard_normal((frames + 48, 4)), _SLOWNESS, axis=0)[24 : 24 + frames]
    noise *= np.sqrt(2 * np.sqrt(np.pi) * _SLOWNESS)  # the filter's loss of variance
    scale, degrees, across, down = (np.array(_MEAN) + np.array(_SPREAD) * rng.standard_normal(4) + np.array(_WOBBLE) * noise).T
    turn = np.radians(degrees)
    linear = scale[:, None, None] * np.stack([np.cos(turn), -np.sin(turn), np.sin(turn), np.cos(turn)], -1).reshape(-1, 2, 2)
    size = np.array(face_size(resolution))
    mouth = size * _MOUTH
    shift = mouth + np.stack([across, down], -1) * size - linear @ mouth  # the mouth stays where it is, but for the shift
    moved = linear @ matrices.double().numpy()
    moved[..., 2] += shift
    return torch.from_numpy(moved).float()
