"""Brows and lashes."""

import numpy as np
from scipy.spatial import cKDTree

from preprocess.talking_heads.anatomy.sheet import eye_outline
from preprocess.talking_heads.curves import smooth
from preprocess.talking_heads.hair.look import colours, natural_tint, taper
from preprocess.talking_heads.hair.regions import BrowShape, brow_density, brow_middle
from preprocess.talking_heads.hair.roots import RestSkin, Roots, strew, unit
from preprocess.talking_heads.solids import Strands
from preprocess.talking_heads.traits import Traits, stream

_BROW_POINTS, _LASH_POINTS = 4, 5


def draw_brows(traits: Traits) -> BrowShape:
    """The brows of a person: thick and level on men, thinner and arched on women, with all in between."""
    rng = stream(traits.seed, "brows")
    female = traits.femininity
    return BrowShape(
        thickness=float(np.clip(rng.normal(0.35 - 0.11 * female, 0.06), 0.15, 0.5)),
        arch=float(np.clip(rng.normal(0.02 + 0.10 * female, 0.09), -0.15, 0.35)),
        slant=float(rng.normal(-0.05 + 0.12 * female, 0.15)),
        reach=float(rng.uniform(-0.25, 0.2)),
        density=float(np.clip(rng.normal(0.85, 0.2), 0.4, 1.0)),
    )


def brow_shade(traits: Traits, s: np.ndarray, t: np.ndarray) -> np.ndarray:
    """How far the skin under the brows looks like hair, 0..1 at plane coordinates s, t."""
    shape = draw_brows(traits)
    return 0.38 * shape.density * brow_density(shape, s, t)


def eyebrows(traits: Traits, skin: RestSkin) -> Strands:
    """Both brows: hairs that rise at the nose, then turn outwards and close over each other along the middle line."""
    rng = stream(traits.seed, "brow hairs")
    shape = draw_brows(traits)
    count = int(2 * (90 + 90 * shape.density * shape.thickness / 0.36))
    roots = strew(skin, lambda s, t: brow_density(shape, s, t), count, rng)
    s, t = roots.st.T
    side, off = np.abs(s), (t - brow_middle(shape, np.abs(s))) / shape.thickness
    slope = (brow_middle(shape, side + 0.1) - brow_middle(shape, side - 0.1)) / 0.2
    angle = np.interp(side, [1.0, 1.7, 2.6, 5.4], [1.25, 0.75, 0.35, 0.0]) - 0.30 * off * smooth(1.6, 2.6, side) + np.arctan(slope)
    angle = angle + 0.16 * rng.normal(size=len(roots))
    heading = roots.tangent(np.sign(s) * np.cos(angle), np.sin(angle))
    bent = roots.tangent(np.sign(s) * np.cos(angle - 0.5), np.sin(angle - 0.5))
    length = (
        np.interp(side, [1.0, 2.2, 3.8, 5.4], [0.45, 0.72, 0.68, 0.42])
        * (0.6 + 0.4 * shape.thickness / 0.36)
        * np.exp(0.18 * rng.normal(size=len(roots)))
    )
    points = _short(roots, heading, bent, length, _BROW_POINTS, 0.05 * np.exp(0.3 * rng.normal(size=len(roots))))
    old = float(np.clip((traits.age - 45) / 40, 0, 1))
    tint = natural_tint(traits, 0.95, traits.grey * (0.3 + 0.5 * old))
    radius = taper(0.014, _BROW_POINTS, np.exp(0.2 * rng.normal(size=len(roots))))
    return Strands(points, radius, colours(tint, np.arange(len(roots)), rng), roots.vertex, 0.2)


def _short(roots: Roots, heading: np.ndarray, bent: np.ndarray, length: np.ndarray, points: int, lift: np.ndarray) -> np.ndarray:
    """Short strands (n points 3) along the skin that turn from `heading` to `bent` (n 3, unit), their middles `lift` (n, cm) off it."""
    along = np.linspace(0, 1, points, dtype=np.float32)[None, :, None]
    path = heading[:, None] * along + 0.5 * (bent - heading)[:, None] * along**2
    rise = lift[:, None, None] * (1 - (1 - along) ** 2)
    return (roots.points[:, None] + length[:, None, None] * path + roots.normals[:, None] * rise).astype(np.float32)


def eyelashes(traits: Traits, skin: RestSkin) -> Strands:
    """Upper and lower lashes of both eyes, curved away from the eye; longer and darker on made-up faces."""
    rng = stream(traits.seed, "lashes")
    female = traits.femininity
    rows = [_lash_row(skin, side, upper, female, rng) for side in (-1, 1) for upper in (True, False)]
    points, vertex = (np.concatenate(part) for part in zip(*rows, strict=True))
    colour = traits.hair_colour * 0.5 * (1 - 0.6 * female) + np.array([0.012, 0.009, 0.008])
    shades = (colour * np.exp(0.15 * rng.normal(size=(len(points), 1)))).astype(np.float32)
    return Strands(points, taper(0.009 + 0.004 * female, _LASH_POINTS, np.ones(len(points)), 0.2), shades, vertex, 0.1)


def _lash_row(skin: RestSkin, side: int, upper: bool, female: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Points (n k 3) and vertices (n) of one lid's lashes; `side` is -1 or 1 in the picture."""
    count = 46 if upper else 26
    angle = np.pi * (0.06 + 0.78 * (np.arange(count) + rng.uniform(0.2, 0.8, count)) / count)
    s, t = eye_outline(angle if upper else -angle)
    gap, near = cKDTree(skin.st).query(np.stack([side * s, t], -1), k=4)
    margin = skin.vertices[near]
    foremost = np.exp(12 * (margin[..., 2] - margin[..., 2].max(1, keepdims=True)))  # the outer of the two edges of the lid
    share = foremost / (gap + 0.03) ** 2
    base = np.einsum("nk,nkd->nd", share / share.sum(1, keepdims=True), margin)
    fan = side * (np.where(angle < np.pi / 2, 0.75, 0.35) * np.cos(angle) + 0.12) + 0.10 * rng.normal(size=count)
    size = (0.62 + 0.22 * female if upper else 0.28 + 0.10 * female) * (0.72 + 0.28 * np.sin(angle)) * np.exp(0.12 * rng.normal(size=count))
    rise = np.where(upper, -0.05, -0.25)
    heading = unit(np.stack([fan, np.full(count, rise), np.ones(count)], -1))
    bent = unit(np.stack([fan, np.full(count, 1.5 if upper else -1.2), np.full(count, 0.45)], -1))
    along = np.linspace(0, 1, _LASH_POINTS)[None, :, None]
    path = heading[:, None] * along + 0.5 * (bent - heading)[:, None] * along**2
    return (base[:, None] + size[:, None, None] * path).astype(np.float32), near[np.arange(count), share.argmax(1)].astype(np.int32)
