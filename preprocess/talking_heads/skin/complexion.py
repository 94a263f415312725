"""The colour of skin from what it is made of: melanin in the epidermis, blood and carotene in the dermis below.

The dermis is an endless scattering layer (Kubelka & Munk 1931), the epidermis a filter that light passes twice. Melanin's absorption falls
with the wavelength as l^-3.33 and blood's is that of oxygenated haemoglobin (Jacques, Optical properties of biological tissues, 2013).
Melanin comes in grains, so that its density saturates: very dark skin is nearly neutral, not orange. The three bands are about 610, 540
and 470 nm.
"""

from dataclasses import dataclass

import numpy as np
from numba import njit

from preprocess.talking_heads.traits import Traits, stream

MELANIN_BANDS = (1.0, 1.5, 2.38)  # (l / 610 nm) ^ -3.33
MELANIN_LIMIT = 5.0  # density that packed grains approach
BLOODLESS = (0.010, 0.032, 0.140)  # absorption over scattering of a dermis without blood
BLOOD_BANDS = (0.010, 0.145, 0.135)  # what the blood of average skin adds
CAROTENE_BAND = 0.06  # what carotene adds to the blue band
BLUE_BANDS = (1.0, 0.88, 0.68)  # density of what shines through bluish: veins, hair roots, thin skin over muscle
EPIDERMIS = 0.010  # light thrown back before it meets any melanin


@dataclass
class Pigment:
    """What lies in the skin at each texel (float32 h w each), painted in place by the parts of the skin."""

    melanin: np.ndarray  # density in the red band, 0 (none) .. 5 (darkest)
    blood: np.ndarray  # amount, 1 on average skin, 3..8 in lips
    blue: np.ndarray  # density of bluish shade, 0..1
    shade: np.ndarray  # density of grey shade: folds and hollows that light hardly reaches, 0..4


def melanin_density(melanin: float) -> float:
    """The red density of a person's melanin: slow at first, where small amounts already tell, then steep. melanin in 0..1."""
    return 0.02 + 0.6 * melanin + 4.4 * melanin**4.5


def mean_blood(traits: Traits) -> float:
    """The amount of blood in a person's skin, 0.45 .. 1.45; deeper skin shows less of it."""
    return float((0.55 + 0.9 * traits.redness) * (1 - 0.2 * traits.melanin))


def carotene(traits: Traits) -> float:
    """The share of yellow in a person's skin, 0.1 .. 1.6: olive and golden undertones against rosy ones."""
    return float(stream(traits.seed, "undertone").uniform(0.1, 1.6))


def skin_colour(traits: Traits) -> np.ndarray:
    """The plain linear RGB albedo (float32 3) of a person's skin, for parts that carry no texture."""
    fields = [np.full((1, 1), value, np.float32) for value in (melanin_density(traits.melanin), mean_blood(traits), 0.0, 0.0)]
    return colour(Pigment(*fields), carotene(traits))[0, 0]


def colour(pigment: Pigment, yellow: float) -> np.ndarray:
    """Linear RGB albedo (float32 h w 3) of painted skin; `yellow` is the share of carotene."""
    albedo = np.empty((*pigment.melanin.shape, 3), np.float32)
    floor = np.array(BLOODLESS, np.float32) + np.array([0, 0.12, 1], np.float32) * np.float32(CAROTENE_BAND * yellow)
    _mix(pigment.melanin, pigment.blood, pigment.blue, pigment.shade, floor, albedo)
    return albedo


@njit(cache=True, nogil=True)
def _mix(melanin: np.ndarray, blood: np.ndarray, blue: np.ndarray, shade: np.ndarray, floor: np.ndarray, albedo: np.ndarray) -> None:
    limit = np.float32(MELANIN_LIMIT)
    for row in range(albedo.shape[0]):
        for column in range(albedo.shape[1]):
            amount, flow = max(melanin[row, column], np.float32(0.0)), max(blood[row, column], np.float32(0.0))
            veil = np.exp(-shade[row, column])
            for band in range(3):
                absorbed = floor[band] + flow * np.float32(BLOOD_BANDS[band])
                dermis = np.float32(1.0) + absorbed - np.sqrt(absorbed * (absorbed + np.float32(2.0)))
                grains = limit * (np.float32(1.0) - np.exp(-amount * np.float32(MELANIN_BANDS[band]) / limit))
                passed = np.exp(-grains - blue[row, column] * np.float32(BLUE_BANDS[band]))
                albedo[row, column, band] = veil * (np.float32(EPIDERMIS) + dermis * passed)
