"""Where hair grows on the template plane: scalp, brows and beard as densities between 0 and 1."""

from dataclasses import dataclass

import numpy as np

from preprocess.talking_heads.curves import smooth
from preprocess.talking_heads.template import BROW, CUPID_BOW, HAIRLINE, LIP_BOTTOM, LIP_TOP, MENTON, MOUTH_CORNER, SUBNASALE

# Behind the sideburn the edge of the scalp climbs over the ear, descends behind it and crosses the nape
_BEHIND = ((8.9, -0.9), (9.35, 2.2), (11.8, 2.5), (12.7, -1.0), (13.4, -4.4), (15.5, -6.6), (19.0, -7.8), (24.0, -8.2))
_EDGE_S, _EDGE_T = np.array((*HAIRLINE, *_BEHIND)).T
LIP_CLEARANCE = 0.17  # cm on the plane between the red of the lips and the nearest hair


@dataclass(frozen=True)
class Hairline:
    """How the edge of the scalp differs from the average, in cm."""

    height: float = 0.0  # the front higher up
    temples: float = 0.0  # recession at the temples
    peak: float = 0.0  # widow's peak
    sideburn: float = 0.0  # sideburns longer
    softness: float = 0.8  # width over which hair grows sparse
    phase: float = 0.0  # radians: the wobble of the edge
    rim: float | None = None  # height t under which hair is left on a bald head; None: all of it
    thin: float = 0.0  # 0..1: how thin the hair is on top


def scalp_margin(line: Hairline, s: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Distance (cm) inside the edge of the scalp, negative outside."""
    side = np.abs(s)
    low, high = _edge(line, s, side - 0.1), _edge(line, s, side + 0.1)
    return (t - 0.5 * (low + high)) / np.sqrt(1 + ((high - low) / 0.2) ** 2)


def _edge(line: Hairline, s: np.ndarray, side: np.ndarray) -> np.ndarray:
    front = smooth(7.5, 5.0, side)
    edge = np.interp(side, _EDGE_S, _EDGE_T) + line.height * front
    edge = edge + line.temples * np.exp(-(((side - 4.3) / 1.7) ** 2)) - line.peak * np.exp(-((side / 1.1) ** 2))
    edge = edge - line.sideburn * np.exp(-(((side - 8.6) / 0.6) ** 2))
    return edge + 0.13 * np.sin(2.3 * s + line.phase) + 0.09 * np.sin(5.9 * s + 2.1 * line.phase)


def scalp_density(line: Hairline, s: np.ndarray, t: np.ndarray) -> np.ndarray:
    """How dense hair grows on the scalp, 0..1."""
    dense = smooth(-0.15, line.softness, scalp_margin(line, s, t))
    if line.thin > 0:
        dense = dense * (1 - line.thin * smooth(6.5, 9.5, t))
    if line.rim is not None:
        dense = dense * smooth(line.rim + 1.3, line.rim - 0.6, t + 0.2 * np.sin(1.7 * s + line.phase))
    return dense


@dataclass(frozen=True)
class BrowShape:
    """The look of a pair of brows."""

    thickness: float = 0.36  # cm, half the height at its thickest
    arch: float = 0.0  # cm that the outer third is higher
    slant: float = 0.0  # cm that the outer end is higher
    reach: float = 0.0  # cm that the brow is longer at the nose
    density: float = 1.0  # 0.3 thin .. 1 bushy


def brow_middle(shape: BrowShape, side: np.ndarray) -> np.ndarray:
    """Height t of the middle line of the brow at |s|."""
    known_s, known_t = np.array(BROW).T
    bow = shape.arch * np.exp(-(((side - 3.7) / 1.4) ** 2)) + (shape.slant - 0.22) * (side - 1.2) / 4.2 + 0.16
    return np.interp(side, known_s, known_t) + bow


def brow_density(shape: BrowShape, s: np.ndarray, t: np.ndarray) -> np.ndarray:
    """How dense the brows grow, 0..1."""
    side = np.abs(s)
    known = np.array([0.9, 1.4, 2.3, 3.5, 4.6, 5.5])
    half = shape.thickness * np.interp(side, known, [0.6, 0.85, 1.0, 0.82, 0.55, 0.25])
    off = (t - brow_middle(shape, side)) / half
    ends = smooth(1.05 - shape.reach, 1.75 - shape.reach, side) * smooth(5.5, 4.7, side)
    return np.exp(-(np.clip(np.abs(off), 0, 4) ** 3.0)) * ends


def lip_distance(s: np.ndarray, t: np.ndarray) -> np.ndarray:
    """How far (cm, roughly) points of the plane lie outside the red of the lips; negative on it."""
    corner_s, corner_t = MOUTH_CORNER
    side = np.abs(s)
    upper = np.interp(side, [0, CUPID_BOW[0], 1.5, corner_s], [LIP_TOP[1], CUPID_BOW[1], -5.98, corner_t])
    lower = np.interp(side, [0, 1.2, 2.0, corner_s], [LIP_BOTTOM[1], -7.46, -7.1, corner_t])
    inside = np.maximum(t - upper, lower - t) * 0.9
    beyond = 0.8 * np.hypot(np.maximum(side - corner_s, 0), t - corner_t)
    return np.where(side > corner_s, beyond, inside)


@dataclass(frozen=True)
class BeardShape:
    """Which parts of the beard are grown, each 0..1, and where it ends."""

    moustache: float
    chin: float
    cheeks: float
    cheek_line: float = 0.0  # cm lower
    neck_line: float = 0.0  # cm higher
    patchy: float = 0.0  # 0..1
    phase: float = 0.0


def beard_density(shape: BeardShape, s: np.ndarray, t: np.ndarray) -> np.ndarray:
    """How dense the beard grows, 0..1; nothing on the lips."""
    side = np.abs(s)
    cheek = np.interp(side, [0, 1.9, 2.6, 3.4, 4.6, 6.4, 7.7, 8.3, 9.3], [-4.7, -4.75, -5.0, -5.75, -5.9, -4.6, -2.4, -0.6, -0.6])
    cheek = cheek - shape.cheek_line * smooth(3.0, 4.2, side) * smooth(8.2, 7.0, side)
    neck = np.interp(side, [0, 3.0, 6.0, 8.4, 9.3], [MENTON[1] - 1.2, MENTON[1] - 0.9, -10.6, -8.4, -6.8]) + shape.neck_line
    whole = smooth(-0.1, 0.55, cheek - t) * smooth(-0.3, 0.9, t - neck) * smooth(9.5, 9.0, side)
    clear = smooth(LIP_CLEARANCE, LIP_CLEARANCE + 0.12, lip_distance(s, t)) * np.maximum(
        smooth(0.05, 0.3, SUBNASALE[1] - t + 0.35 * smooth(0.8, 1.6, side)), smooth(2.4, 3.0, side)
    )
    upper = smooth(-6.75, -6.45, t) * smooth(3.5, 2.9, side)
    ring = (1 - upper) * smooth(3.9, 3.0, side)
    share = shape.moustache * upper + shape.chin * ring + shape.cheeks * (1 - upper - ring)
    bare = 0.75 * np.exp(-(((side - 1.5) / 0.5) ** 2) - ((t + 8.0) / 0.4) ** 2) + 0.35 * np.exp(-((side / 0.22) ** 2)) * (t > -6)
    spots = 0.5 + 0.5 * np.sin(1.9 * s + shape.phase) * np.sin(1.6 * t + 2 * shape.phase)
    return whole * clear * share * (1 - bare) * (1 - shape.patchy * spots * smooth(3.2, 4.5, side))
