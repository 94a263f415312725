"""How different the people are: distances between identities in the shape of the face and in its colours."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from preprocess.talking_heads.anatomy.face import Skin
from preprocess.talking_heads.anatomy.identity import draw_face
from preprocess.talking_heads.anatomy.landmarks import landmark_vertices
from preprocess.talking_heads.hair.look import draw_tint, mean_colour
from preprocess.talking_heads.skin.paint import paint_skin
from preprocess.talking_heads.template import LIP_BOTTOM, STOMION, to_uv
from preprocess.talking_heads.traits import draw_traits

_TEXTURE = 256  # pixels a side at which skin is painted for its mean colours
_CHEEK = (3.6, -4.2)  # on the template plane, cm
_LEFT_EYE, _RIGHT_EYE = slice(36, 42), slice(42, 48)
_ROUNDS = 5  # of generalised Procrustes alignment; the mean stands still to 1e-6 after three


@dataclass(frozen=True)
class Spread:
    """Distances between all pairs of people."""

    mean: float
    least: float
    closest: tuple[int, int]  # identities of the pair with the least distance


def spread(distances: np.ndarray, identities: Sequence[int]) -> Spread:
    """Mean and least of the distances (n n, symmetric) between people, n >= 2."""
    row, column = np.triu_indices(len(identities), 1)
    pairs = distances[row, column]
    at = int(np.argmin(pairs))
    return Spread(float(pairs.mean()), float(pairs[at]), (identities[row[at]], identities[column[at]]))


def diversity(identities: Sequence[int]) -> dict[str, Spread]:
    """How far at least two people are spread.

    shape: RMS distance a landmark in % of the distance of the eyes; colour: mean CIELAB distance of skin, hair and lips; both: the mean of
    the two, each over its own mean.
    """
    shapes = align(np.stack([neutral_landmarks(identity) for identity in identities]))
    colours = np.stack([face_colours(identity) for identity in identities])
    shape = np.sqrt(np.square(shapes[:, None] - shapes[None]).sum(-1).mean(-1))
    colour = np.linalg.norm(colours[:, None] - colours[None], axis=-1).mean(-1)
    in_shape, in_colour = spread(shape, identities), spread(colour, identities)
    both = 0.5 * (shape / in_shape.mean + colour / in_colour.mean)
    return {"shape": in_shape, "colour": in_colour, "both": spread(both, identities)}


def neutral_landmarks(identity: int) -> np.ndarray:
    """The 68 points (float64 68 2, cm) of a person at rest, seen straight from the front."""
    return Skin(draw_face(draw_traits(identity))).vertices[landmark_vertices(), :2].astype(np.float64)


def align(shapes: np.ndarray) -> np.ndarray:
    """Shapes (n 68 2) moved, turned and scaled onto their common mean (generalised Procrustes, Gower 1975), whose eyes are 100 apart."""
    points = shapes[..., 0] + 1j * shapes[..., 1]  # n 68
    points = points - points.mean(1, keepdims=True)
    mean = points[0]
    for _ in range(_ROUNDS):
        fit = (points.conj() * mean).sum(1) / np.square(np.abs(points)).sum(1)  # the least-squares turn and scale of each
        aligned = points * fit[:, None]
        mean = aligned.mean(0)
        mean = mean * (100 / (mean[_RIGHT_EYE].mean() - mean[_LEFT_EYE].mean()))
    fit = (points.conj() * mean).sum(1) / np.square(np.abs(points)).sum(1)
    aligned = points * fit[:, None]
    return np.stack([aligned.real, aligned.imag], -1)


def face_colours(identity: int) -> np.ndarray:
    """CIELAB (float64 3 3: skin of the cheek, hair, lower lip) of a person under white light."""
    traits = draw_traits(identity)
    albedo = paint_skin(traits, _TEXTURE).albedo
    lip = (STOMION[0], 0.5 * (STOMION[1] + LIP_BOTTOM[1]))
    linear = np.stack([_mean_at(albedo, _CHEEK, 0.8), mean_colour(draw_tint(traits)), _mean_at(albedo, lip, 0.3)])
    return cv2.cvtColor(linear[None].astype(np.float32), cv2.COLOR_LRGB2Lab)[0].astype(np.float64)


def _mean_at(albedo: np.ndarray, place: tuple[float, float], reach: float) -> np.ndarray:
    """Mean albedo (3) of a rectangle on the template plane, `reach` cm around its middle."""
    s, t = place
    (left, top), (right, bottom) = to_uv(np.array([s - reach, s + reach]), np.array([t + reach, t - reach])) * _TEXTURE
    return albedo[round(float(top)) : round(float(bottom)), round(float(left)) : round(float(right))].mean((0, 1))
