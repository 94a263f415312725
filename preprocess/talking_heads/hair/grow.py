"""All hair of a person: scalp, brows, lashes and beard as strands, and the shade of hair on the skin beneath."""

import numpy as np

from preprocess.talking_heads.curves import smooth
from preprocess.talking_heads.hair.beards import beard, whisker_shade
from preprocess.talking_heads.hair.facial_hair import brow_shade, eyebrows, eyelashes
from preprocess.talking_heads.hair.form import HeadForm
from preprocess.talking_heads.hair.growth import draw_locks, grow, lengths, tie, trim
from preprocess.talking_heads.hair.look import buried, colours, draw_tint, mean_colour, taper
from preprocess.talking_heads.hair.regions import scalp_density, scalp_margin
from preprocess.talking_heads.hair.roots import RestSkin, strew
from preprocess.talking_heads.hair.styles import draw_style
from preprocess.talking_heads.solids import Strands
from preprocess.talking_heads.template import plane
from preprocess.talking_heads.traits import Traits, stream

_STUMP = 0.12  # strands of which less is left are dropped


def grow_hair(traits: Traits, skin: RestSkin) -> dict[str, Strands]:
    """All strands of a person on the skin at rest: scalp, brows, lashes, beard, in this order; a kind that a person lacks is left out."""
    kinds = {"scalp": scalp_hair, "brows": eyebrows, "lashes": eyelashes, "beard": beard}
    grown = {name: kind(traits, skin) for name, kind in kinds.items()}
    return {name: strands for name, strands in grown.items() if strands is not None and len(strands)}


def scalp_shade(traits: Traits, size: int) -> np.ndarray:
    """How far the skin looks like hair, seen between the strands: float32 size size over the template plane, 0 (skin) .. 1 (hair)."""
    s, t = plane(size)
    style = draw_style(traits)
    scalp = style.cover * scalp_density(style.line, s, t)
    return np.maximum.reduce([scalp, brow_shade(traits, s, t), whisker_shade(traits, s, t)]).astype(np.float32)


def scalp_colour(traits: Traits) -> np.ndarray:
    """The colour that goes with `scalp_shade`: linear RGB (float32 3), dyed and greyed as the hair is."""
    return mean_colour(draw_tint(traits))


def scalp_hair(traits: Traits, skin: RestSkin) -> Strands | None:
    """The hair of the head in the person's style; None for a bald one."""
    style = draw_style(traits)
    if style.strands == 0:
        return None
    rng = stream(traits.seed, "scalp hair")
    form = HeadForm.of(skin)
    roots = strew(skin, lambda s, t: scalp_density(style.line, s, t), style.strands, rng)
    locks = draw_locks(form, style, roots, rng)
    points = grow(form, style, roots, locks, lengths(form, style, roots, rng), rng)
    points, left = trim(points, form.freedom(points, locks.top))
    edge = scalp_margin(style.line, roots.st[:, 0], roots.st[:, 1])
    size = np.exp(0.2 * rng.normal(size=len(points))) * (1 - 0.45 * locks.stray) * (0.5 + 0.5 * smooth(0.0, 1.2, edge))
    keep = left > _STUMP
    points, size, clump, vertex = points[keep], size[keep], locks.clump[keep], roots.vertex[keep]
    if style.knot is not None:
        tied, strand = tie(form, style, rng)
        clump = np.concatenate([clump, strand])
        vertex = np.concatenate([vertex, np.full(len(tied), vertex[np.argmin(np.square(points[:, 0] - tied[0, 0]).sum(1))])])
        points, size = np.concatenate([points, tied]), np.concatenate([size, np.ones(len(tied))])
    radius = taper(style.radius, style.points, size)
    return Strands(points, radius, colours(draw_tint(traits), clump, rng), vertex, 0.55, buried(points, radius, form.middle))
