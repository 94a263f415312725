"""The 68 points of a face as vertices of the skin, in the order that face trackers share: jaw, brows, nose, eyes, mouth."""

from functools import lru_cache

import numpy as np
from scipy.spatial import cKDTree

from preprocess.talking_heads.anatomy.lips import red_share
from preprocess.talking_heads.anatomy.sheet import EYE_ANGLES, INNER_RINGS, MOUTH_ANGLES, MOUTH_RINGS, Sheet, skin_sheet
from preprocess.talking_heads.template import BROW

MOUTH_LEFT, MOUTH_RIGHT = 48, 54  # corners, as in the picture
LIP_INNER_TOP, LIP_INNER_BOTTOM = 62, 66

_JAW = ((9.4, 0.0), (9.3, -2.0), (9.2, -4.3), (9.0, -7.0), (8.2, -10.2), (6.3, -11.0), (4.2, -11.2), (2.1, -11.35), (0.0, -11.4))
_NOSE_BACK = ((0.0, 0.3), (0.0, -1.0), (0.0, -2.3), (0.0, -3.55))
_NOSE_FOOT = ((1.35, -4.45), (0.68, -4.62), (0.0, -4.62))


@lru_cache(maxsize=1)
def landmark_vertices() -> np.ndarray:
    """Vertex of the skin sheet for each of the 68 points (int32 68)."""
    sheet = skin_sheet()
    tree = cKDTree(sheet.st)
    mirror = np.array([-1.0, 1.0])
    jaw = [np.array(point) * mirror for point in _JAW] + [np.array(point) for point in _JAW[-2::-1]]
    brow_right = [np.array(point) for point in BROW]
    brow_left = [point * mirror for point in brow_right[::-1]]
    foot = [np.array(point) * mirror for point in _NOSE_FOOT] + [np.array(point) for point in _NOSE_FOOT[-2::-1]]
    on_plane = tree.query(np.array([*jaw, *brow_left, *brow_right, *(np.array(point) for point in _NOSE_BACK), *foot]))[1]
    return np.concatenate([on_plane, _eyes(sheet), _mouth(sheet)]).astype(np.int32)


def _eyes(sheet: Sheet) -> np.ndarray:
    """Left eye from its outer corner over the top, right eye from its inner corner over the top (12)."""
    left, right = sheet.eyes[0][1], sheet.eyes[1][1]  # ring 1: the outer edge of the lid margin
    third, half = round(EYE_ANGLES * 0.16), EYE_ANGLES // 2
    over_left = [0, third, half - third, half, half + third, EYE_ANGLES - third]
    over_right = [half, half - third, third, 0, EYE_ANGLES - third, half + third]
    return np.concatenate([left[over_left], right[over_right]])


def _mouth(sheet: Sheet) -> np.ndarray:
    """The border of the red from the left corner over the top (12), then the line where the lips meet (8)."""
    quarter, half = MOUTH_ANGLES // 4, MOUTH_ANGLES // 2
    line = sheet.mouth[INNER_RINGS]
    outer = [line[half]]
    angles = [half - quarter + round(quarter * k) for k in (0.62, 0.26, 0.0, -0.26, -0.62)]
    outer += [_border(sheet, angle) for angle in angles]
    outer.append(line[0])
    outer += [_border(sheet, (-angle) % MOUTH_ANGLES) for angle in reversed(angles)]
    step = round(quarter * 0.4)
    top = [quarter + step, quarter, quarter - step]
    inner = [line[half], *(line[k] for k in top), line[0], *(line[(-k) % MOUTH_ANGLES] for k in reversed(top))]
    return np.array([*outer, *inner])


def _border(sheet: Sheet, angle: int) -> int:
    """The vertex nearest the border of the red at one angle of the rings."""
    column = sheet.mouth[INNER_RINGS : INNER_RINGS + len(MOUTH_RINGS), angle]
    return int(column[np.argmin(np.abs(red_share(sheet.mu[column], sheet.alpha[column]) - 1))])
