"""Paints a person's skin on the template plane: what it is made of, its relief and its shine."""

import numpy as np

from preprocess.talking_heads.skin.blemishes import paint_blemishes
from preprocess.talking_heads.skin.brushes import enlarge, noise, rim_fade, tile_noise
from preprocess.talking_heads.skin.complexion import Pigment, carotene, colour
from preprocess.talking_heads.skin.lids import paint_eyelids
from preprocess.talking_heads.skin.lips import paint_lips
from preprocess.talking_heads.skin.makeup import apply_makeup, choose_makeup
from preprocess.talking_heads.skin.regions import base_pigment, beard_area, oiliness, paint_nostrils, stubble_strength
from preprocess.talking_heads.skin.wrinkles import wrinkle_strength, wrinkles
from preprocess.talking_heads.solids import Material
from preprocess.talking_heads.traits import Traits, stream

PORE_TILE = 128  # texels a side of the tile of pores
PORE_REPEAT = 15.0  # tiles across the plane: a tile is 2.1 cm wide, so that pores lie 0.6 mm apart
SHADE_OF_DEPTH = 5.5  # grey density per cm of a crease


def paint_skin(traits: Traits, size: int = 1024, lid_crease: float = 0.45) -> Material:
    """The material of a person's skin over the template plane (textures size x size, `template.to_uv`).

    lid_crease: cm on the plane from the margin of the upper lid to its fold, 0.2 (hooded) .. 0.7.
    """
    pigment = base_pigment(traits, size)
    bump = _unevenness(traits, size)
    wet = np.zeros((size, size), np.float32)
    paint_blemishes(traits, pigment, bump)
    _stubble(traits, pigment)
    _shade_creases(wrinkles(traits, size, lid_crease), pigment, bump)
    paint_nostrils(pigment, size)
    paint_eyelids(traits, pigment, wet, size)
    lips = paint_lips(traits, pigment, size)
    bump[lips.part] = bump[lips.part] * (1 - lips.red) + lips.bump
    wet[lips.part] = np.maximum(wet[lips.part], lips.wet)
    albedo = colour(pigment, carotene(traits))
    gloss = enlarge(oiliness(traits), size) * (1 + 1.6 * wet)
    apply_makeup(choose_makeup(traits), albedo, lips, gloss)
    return Material(
        albedo=np.clip(albedo, 0.002, 0.95),
        roughness=float(stream(traits.seed, "shine").uniform(0.36, 0.46)),
        specular=0.028,
        scatter=(0.5 - 0.2 * traits.melanin, 0.2 - 0.06 * traits.melanin, 0.12 - 0.04 * traits.melanin),
        bump=bump,
        gloss=gloss,
        detail=_pores(traits),
        detail_repeat=PORE_REPEAT,
    )


def _unevenness(traits: Traits, size: int) -> np.ndarray:
    """Gentle waves of the skin, stronger with age (cm)."""
    rng = stream(traits.seed, "unevenness")
    aged = wrinkle_strength(traits)
    waves = (0.003 + 0.007 * aged) * noise(rng, size, 0.9) + (0.0015 + 0.004 * aged) * noise(rng, size, 0.35)
    crepe = (0.0006 + 0.0030 * aged**1.5) * noise(rng, size, 0.14)
    return (rim_fade(size, 2.0) * (waves + crepe)).astype(np.float32)


def _shade_creases(depth: np.ndarray, pigment: Pigment, bump: np.ndarray) -> None:
    """Cuts creases (cm, positive is deep) into the relief; little light leaves them, and it is redder."""
    bump -= depth
    pigment.shade += SHADE_OF_DEPTH * depth
    pigment.blood *= 1 + 3.0 * depth


def _stubble(traits: Traits, pigment: Pigment) -> None:
    """The cut hairs of a beard, as fine dots that are too small to be drawn one by one."""
    strength = stubble_strength(traits)
    if strength < 0.02:
        return
    size = len(pigment.shade)
    dots = np.maximum(noise(stream(traits.seed, "stubble dots"), size, 0.07), 0)
    pigment.shade += (0.45 * strength) * enlarge(beard_area(256), size) * dots


def _pores(traits: Traits) -> np.ndarray:
    """A tile of pores and of the furrows between them (cm)."""
    rng = stream(traits.seed, "pores")
    cells = tile_noise(rng, PORE_TILE, 4.2)
    furrows = -np.exp(-((tile_noise(rng, PORE_TILE, 9.0) / 0.35) ** 2))
    pits = -np.maximum(cells - 0.9, 0)
    coarse = rng.uniform(0.7, 1.2) * (1 + 0.35 * wrinkle_strength(traits)) * (1.1 - 0.25 * traits.femininity)
    return (coarse * (0.0022 * pits + 0.0009 * cells + 0.0010 * furrows)).astype(np.float32)
