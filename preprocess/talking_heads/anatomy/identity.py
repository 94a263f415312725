"""Faces from seeds: draws every measure of a face around the averages for its age, sex and build, within human ranges."""

import numpy as np

from preprocess.talking_heads.anatomy.eyelids import EyeShape
from preprocess.talking_heads.anatomy.face import FaceShape
from preprocess.talking_heads.anatomy.lips import LipShape
from preprocess.talking_heads.anatomy.nose import NoseShape
from preprocess.talking_heads.anatomy.skull import SkullShape
from preprocess.talking_heads.traits import Traits, stream


class _Draw:
    """Normal draws cut at 2.2 deviations, so that nobody leaves the human range."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng

    def __call__(self, mean: float, deviation: float) -> float:
        return float(mean + deviation * np.clip(self._rng.normal(), -2.2, 2.2))


def draw_face(traits: Traits) -> FaceShape:
    """The shape of the face of a person: a pure function of the traits and their seed."""
    draw = _Draw(stream(traits.seed, "face"))
    masculine = 0.5 - traits.femininity  # -0.5 .. 0.5
    old = float(np.clip((traits.age - 30) / 45, 0, 1))
    full = traits.fullness
    breadth = draw(0.0, 1.0)  # broad or narrow features run together, as they do in families
    return FaceShape(
        skull=_skull(draw, masculine, old, full, breadth),
        nose=_nose(draw, masculine, old, breadth),
        lips=_lips(draw, masculine, old, breadth),
        eyes=_eyes(draw, masculine, old),
        fold=float(np.clip(draw(0.28 + 0.5 * old + 0.1 * full, 0.15), 0.05, 1.0)),
        jowl=float(np.clip(draw(0.7 * old + 0.35 * max(full, 0), 0.15), 0, 1)),
        cheek_drop=float(np.clip(draw(0.3 * old, 0.08), 0, 0.5)),
        larynx=max(draw(0.18 + 0.45 * masculine - 0.1 * full, 0.1), 0.0),
        asymmetry=(draw(0, 0.025), draw(0, 0.05), draw(0, 0.03), draw(0, 0.05), draw(0, 0.05), draw(0, 0.03)),
    )


def _skull(draw: _Draw, masculine: float, old: float, full: float, breadth: float) -> SkullShape:
    return SkullShape(
        width=draw(1.0 + 0.04 * masculine, 0.028),
        depth=draw(1.0 + 0.03 * masculine, 0.022),
        upper=draw(1.0, 0.05),
        middle=draw(1.0 + 0.03 * masculine, 0.045),
        lower=draw(1.0 + 0.07 * masculine, 0.05),
        cheekbone=draw(0.02 - 0.1 * masculine, 0.17),
        cheek=draw(0.4 * full - 0.22 * old, 0.18),
        jaw=draw(0.66 * masculine + 0.12 * full, 0.26),
        jaw_drop=draw(0.5 * masculine, 0.25),
        chin_width=draw(0.35 * masculine, 0.2),
        chin_depth=draw(0.25 * masculine, 0.28),
        chin_point=draw(-0.1 * masculine, 0.16),
        brow_ridge=max(draw(0.5 * masculine, 0.17), -0.25),
        forehead_slope=draw(0.5 * masculine, 0.25),
        temple=max(draw(0.05 + 0.2 * old - 0.15 * full, 0.12), -0.15),
        mouth_depth=draw(0.08 * breadth, 0.17),
        double_chin=max(0.0, draw(0.75 * max(full, 0) + 0.22 * old, 0.14)),
        neck=draw(1.0 + 0.17 * masculine + 0.07 * full, 0.03),
        skew=draw(0.0, 0.04),
    )


def _nose(draw: _Draw, masculine: float, old: float, breadth: float) -> NoseShape:
    return NoseShape(
        projection=draw(1.0 + 0.08 * masculine - 0.03 * breadth + 0.05 * old, 0.07),
        bridge=draw(1.0 + 0.2 * masculine - 0.16 * breadth, 0.14),
        hump=draw(0.1 * masculine - 0.03 * breadth, 0.12),
        width=draw(1.0 + 0.06 * masculine + 0.11 * breadth + 0.04 * old, 0.06),
        bridge_width=draw(1.0 + 0.08 * masculine + 0.08 * breadth, 0.09),
        tip=draw(1.0 + 0.1 * masculine + 0.08 * breadth + 0.06 * old, 0.1),
        tip_up=draw(-0.22 * masculine - 0.12 * old, 0.16),
        wings=draw(1.0 + 0.06 * breadth, 0.08),
        bend=draw(0.0, 0.04),
        philtrum=draw(1.0 - 0.3 * old, 0.35),
    )


def _lips(draw: _Draw, masculine: float, old: float, breadth: float) -> LipShape:
    return LipShape(
        width=draw(1.0 + 0.06 * masculine + 0.03 * breadth, 0.055),
        upper=max(draw(0.95 - 0.25 * masculine - 0.3 * old + 0.14 * breadth, 0.17), 0.35),
        lower=max(draw(0.97 - 0.2 * masculine - 0.2 * old + 0.12 * breadth, 0.14), 0.45),
        bow=draw(1.0, 0.5),
        pout=max(draw(0.95 - 0.15 * masculine - 0.2 * old + 0.08 * breadth, 0.12), 0.55),
        corner=draw(-0.08 * old, 0.07),
        down=draw(0.0, 0.1),
    )


def _eyes(draw: _Draw, masculine: float, old: float) -> EyeShape:
    hooded = max(draw(0.35 * old, 0.2), 0.0)
    return EyeShape(
        size=draw(0.985 - 0.03 * masculine, 0.03),
        height=max(draw(0.98 - 0.13 * masculine - 0.1 * old, 0.09), 0.62),
        slant=draw(0.02 - 0.05 * masculine - 0.03 * old, 0.045),
        depth=draw(0.16 * masculine + 0.06, 0.09),
        spread=draw(0.0, 0.10),
        raised=draw(0.0, 0.06),
        crease=float(np.clip(draw(0.5 - 0.15 * masculine - 0.3 * hooded, 0.13), 0.16, 0.75)),
        bag=float(np.clip(draw(0.03 + 0.1 * old, 0.035), 0, 0.22)),
    )
