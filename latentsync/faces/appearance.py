"""How a face looks, compared with a picture of a person: its structure and its colours, as far as the mouth plays no part.

No network is behind it: people of one scene are told apart, not one in a thousand.
"""

import cv2
import numpy as np
import torch
from skimage.feature import hog

from latentsync.constants import TEMPLATE_RESOLUTION
from latentsync.faces.alignment import face_size, fit_similarity

SIZE = (60, 80)  # width and height of the aligned face
ABOVE_MOUTH = 50  # rows of it
CELLS = (12, 10)  # columns and rows in which colours are compared
DARK = 24.0  # grey levels added to brightness, so that the noise of dark pixels is no colour


def describe_face(picture: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """The face with anchors [3 2] in a picture uint8 [h w 3] as three parts of norm 1 each: gradients, brightness, colours; float32 [n]."""
    matrix = fit_similarity(torch.from_numpy(anchors)[None], TEMPLATE_RESOLUTION)[0][0].numpy()
    face = cv2.warpAffine(picture, matrix * (SIZE[0] / face_size(TEMPLATE_RESOLUTION)[0]), SIZE, borderMode=cv2.BORDER_REPLICATE)
    upper = face[:ABOVE_MOUTH]
    gradients = np.sqrt(hog(cv2.cvtColor(upper, cv2.COLOR_RGB2GRAY), 8, (10, 10), (2, 2)))
    cells = cv2.resize(upper, CELLS, interpolation=cv2.INTER_AREA).astype(np.float32)
    brightness = cells.mean(axis=-1, keepdims=True)
    light = np.log(brightness + DARK)
    colours = (cells - brightness) / (brightness + DARK)
    parts = (part.ravel() / max(float(np.linalg.norm(part)), 1e-6) for part in (gradients, light - light.mean(), colours))
    return np.concatenate(list(parts)).astype(np.float32)
