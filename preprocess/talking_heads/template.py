"""The plane on which the skin is drawn: where each feature of the average face lies, in cm.

The skin is one sheet. Its plane (s, t) is the picture plane of the average adult face seen from the front: s runs to the right and equals x
as far as the outer corners of the eyes, from there it wraps around the side of the head; t runs up and equals y on the face, further up it
follows the skull to the crown, further down the throat. The sheet has holes: the two eye openings and the slit between the lips.
Every identity moves the same sheet in space, so that a texture drawn at the mouth here lies on the mouth of everybody.

Sizes: adult averages of craniofacial anthropometry (Farkas, Anthropometry of the Head and Face, 2nd ed. 1994), women and men pooled.
"""

import numpy as np

# Extent of textures over the plane
S_LIMIT = 16.0  # the texture covers s in [-16, 16]: from ear to ear and some way behind
T_TOP, T_BOTTOM = 17.0, -15.0  # and t from the crown to the throat

# Features (right half of the picture; the left mirrors them)
PUPIL = (3.15, 0.0)
INNER_CANTHUS = (1.68, -0.12)
OUTER_CANTHUS = (4.55, 0.12)
EYE_TOP, EYE_BOTTOM = (3.1, 0.52), (3.2, -0.52)  # middle of the lid margins, eye open
BROW = ((1.2, 1.55), (2.3, 1.85), (3.5, 2.1), (4.6, 1.95), (5.45, 1.45))  # middle line of the brow, from the nose outwards
NOSE_TIP = (0.0, -3.55)
ALA = (1.72, -3.85)  # the widest point of the nostril's wing
NOSTRIL = (0.72, -4.2)
SUBNASALE = (0.0, -4.55)
CUPID_BOW = (0.55, -5.72)  # peak of the red of the upper lip
LIP_TOP = (0.0, -5.88)  # its dip in the middle
STOMION = (0.0, -6.6)  # where the lips meet
MOUTH_CORNER = (2.55, -6.6)
LIP_BOTTOM = (0.0, -7.62)
CHIN = (0.0, -9.9)  # the foremost point of the chin
MENTON = (0.0, -11.3)  # the lowest
CHEEKBONE = (5.4, -1.9)
EAR = (10.6, -1.0)  # the ear canal; the ear is attached from t = -3.6 to t = 2
HAIRLINE = ((0.0, 6.7), (3.0, 6.5), (5.2, 5.2), (6.2, 3.2), (7.4, 1.6), (8.3, -0.6))  # average, from the middle to the sideburn


def to_uv(s: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Plane coordinates in cm -> texture coordinates (... 2) in [0, 1], v downwards."""
    return np.stack([(s + S_LIMIT) / (2 * S_LIMIT), (T_TOP - t) / (T_TOP - T_BOTTOM)], -1).astype(np.float32)


def plane(size: int) -> tuple[np.ndarray, np.ndarray]:
    """s and t (float32 size size) at the texel centres of a square texture over the plane."""
    middle = (np.arange(size, dtype=np.float32) + 0.5) / size
    s = 2 * S_LIMIT * middle - S_LIMIT
    t = T_TOP - (T_TOP - T_BOTTOM) * middle
    return np.broadcast_to(s[None], (size, size)), np.broadcast_to(t[:, None], (size, size))
