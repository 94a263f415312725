"""Hair of the head: where it roots, the hairstyles, how strands grow, and their colours."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from scipy.ndimage import map_coordinates
from scipy.spatial import cKDTree

from embedded.talking_heads.solids import Strands
from embedded.talking_heads.template import BROW, CHEEKBONE, CHIN, HAIRLINE
from embedded.talking_heads.traits import Traits, smooth, stream, unit

Density = Callable[[np.ndarray, np.ndarray], np.ndarray]  # plane coordinates s, t (cm) -> 0..1

SEAM = 12.0  # cm: a triangle wider than this in s crosses the seam at the back, where s jumps
SLIVER = 0.03  # height over length of triangles that only close the rim of the plane; in space they may cut through the head


@dataclass(frozen=True)
class RestSkin:
    """The skin at rest."""

    st: np.ndarray  # float32 v 2, template plane
    vertices: np.ndarray  # float32 v 3, cm, head space, neutral face
    normals: np.ndarray  # float32 v 3, unit, outwards
    faces: np.ndarray  # int32 f 3

    def near(self, s: float, t: float) -> np.ndarray:
        """The vertex (3) whose place on the plane is nearest to (s, t)."""
        return self.vertices[np.argmin(np.square(self.st - (s, t)).sum(1))]


@dataclass(frozen=True)
class Roots:
    """Points of the skin out of which hair grows."""

    points: np.ndarray  # float32 n 3, cm
    normals: np.ndarray  # float32 n 3, unit
    st: np.ndarray  # float32 n 2, template plane
    along_s: np.ndarray  # float32 n 3, unit: where s grows
    along_t: np.ndarray  # float32 n 3, unit: where t grows
    vertex: np.ndarray  # int32 n, nearest vertex

    def __len__(self) -> int:
        return len(self.points)

    def tangent(self, s: np.ndarray, t: np.ndarray) -> np.ndarray:
        """Unit directions (n 3) in space of directions s, t (n) of the plane."""
        return unit(self.along_s * s[:, None] + self.along_t * t[:, None])


def sample_roots(skin: RestSkin, density: Density, count: int, rng: np.random.Generator) -> Roots:
    """About `count` roots, as dense in space as `density` says on the plane.

    Candidates are drawn evenly (stratified) over the triangles by area and highest density, then kept with the chance that the density at
    their own place gives, so that regions narrower than a triangle come out sharp. Narrow regions yield fewer roots than `count`.
    """
    corners, plane = skin.vertices[skin.faces], skin.st[skin.faces].astype(np.float32)  # f 3 3, f 3 2
    at_vertices = density(skin.st[:, 0], skin.st[:, 1])
    at_middles = density(plane[..., 0].mean(1), plane[..., 1].mean(1))
    highest = np.maximum(at_vertices[skin.faces].max(1), at_middles)
    area = 0.5 * np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    first, second = plane[:, 1] - plane[:, 0], plane[:, 2] - plane[:, 0]
    longest = np.maximum.reduce([np.square(edge).sum(1) for edge in (first, second, first - second)])
    area[np.abs(first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]) < SLIVER * longest] = 0
    total = np.cumsum(area * highest, dtype=np.float64)
    drawn = 3 * count
    triangle = np.searchsorted(total, (np.arange(drawn) + rng.random(drawn)) / drawn * total[-1]).clip(0, len(total) - 1)
    a, b = rng.random((2, drawn), np.float32)
    weights = np.stack([1 - np.sqrt(a), np.sqrt(a) * (1 - b), np.sqrt(a) * b], -1)  # even over a triangle
    across = plane[triangle]
    seam = np.ptp(across[..., 0], axis=1) > SEAM
    across[seam] = across[seam][:, :1]
    st = np.einsum("nk,nkd->nd", weights, across)
    chosen = np.flatnonzero(rng.random(drawn) * highest[triangle] < density(st[:, 0], st[:, 1]))
    chosen = np.sort(rng.permutation(chosen)[:count])
    return _roots(skin, triangle[chosen], weights[chosen], st[chosen])


def _roots(skin: RestSkin, triangle: np.ndarray, weights: np.ndarray, st: np.ndarray) -> Roots:
    faces = skin.faces[triangle]
    corners, plane = skin.vertices[faces], skin.st[faces]
    edge, turn = corners[:, 1:] - corners[:, :1], plane[:, 1:] - plane[:, :1]  # n 2 3, n 2 2
    sign = np.sign(turn[:, 0, 0] * turn[:, 1, 1] - turn[:, 0, 1] * turn[:, 1, 0] + 1e-12)[:, None]
    return Roots(
        points=np.einsum("nk,nkd->nd", weights, corners).astype(np.float32),
        normals=unit(np.einsum("nk,nkd->nd", weights, skin.normals[faces])).astype(np.float32),
        st=st.astype(np.float32),
        along_s=unit(sign * (edge[:, 0] * turn[:, 1, 1:] - edge[:, 1] * turn[:, 0, 1:])).astype(np.float32),
        along_t=unit(sign * (edge[:, 1] * turn[:, 0, :1] - edge[:, 0] * turn[:, 1, :1])).astype(np.float32),
        vertex=faces[np.arange(len(faces)), weights.argmax(1)].astype(np.int32),
    )


_FORM_ROWS, _FORM_COLUMNS = 48, 96  # of the table of the head's radius by direction

# Where hair that falls before or behind the shoulders lies: z (cm) at heights y; clothes included
_FALL_Y = (-45.0, -34.0, -27.0, -22.0, -18.0, -14.0, -11.0)
_FRONT_Z = (12.6, 12.4, 10.4, 8.0, 5.8, 4.6, 2.0)
_BACK_Z = (-13.0, -13.0, -12.0, -10.4, -8.4, -7.2, -5.5)


@dataclass(frozen=True)
class HeadForm:
    """Radius of the head in every direction from a middle, and the face that stays free."""

    middle: np.ndarray  # float32 3, cm
    radius: np.ndarray  # float32 rows columns: over the angle from straight up, and around from the front
    brow: float  # y of the brows
    chin: float  # y of the chin
    half: float  # x of the cheekbone

    @staticmethod
    def of(skin: RestSkin) -> "HeadForm":
        """Measure a head: a direction's radius is the average of the nearest vertices."""
        middle = np.array([0.0, 0.5, -0.5], np.float32)
        offset = skin.vertices - middle
        distance = np.linalg.norm(offset, axis=1)
        polar, around = np.meshgrid(
            (np.arange(_FORM_ROWS) + 0.5) * np.pi / _FORM_ROWS, np.arange(_FORM_COLUMNS) * 2 * np.pi / _FORM_COLUMNS, indexing="ij"
        )
        rays = np.stack([np.sin(polar) * np.sin(around), np.cos(polar), np.sin(polar) * np.cos(around)], -1)
        gap, near = cKDTree(offset / distance[:, None]).query(rays.reshape(-1, 3), k=4)
        share = 1 / (gap + 0.01) ** 2
        radius = ((distance[near] * share).sum(1) / share.sum(1)).reshape(_FORM_ROWS, _FORM_COLUMNS)
        radius = np.concatenate([radius, radius[:, :1]], 1)  # it goes around
        brow, chin, cheek = skin.near(*BROW[2]), skin.near(*CHIN), skin.near(*CHEEKBONE)
        return HeadForm(middle, radius.astype(np.float32), float(brow[1]), float(chin[1]), float(cheek[0]))

    def locate(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Unit directions (... 3) from the middle, distances (...) from it, and the head's radius (...) there."""
        offset = points - self.middle
        distance = np.sqrt(np.einsum("...i,...i->...", offset, offset))
        towards = offset / np.maximum(distance, 1e-6)[..., None]
        row = np.arccos(np.clip(towards[..., 1], -1, 1)) * (_FORM_ROWS / np.pi) - 0.5
        column = np.arctan2(towards[..., 0], towards[..., 2]) * (_FORM_COLUMNS / (2 * np.pi)) % _FORM_COLUMNS
        return towards, distance, map_coordinates(self.radius, [row, column], order=1, mode="nearest")

    def hold(self, points: np.ndarray, clearance: np.ndarray | float, cling: np.ndarray | float = 0.0) -> np.ndarray:
        """Points (... 3) moved out until they lie `clearance` (cm) off the head; those beyond come closer by the share `cling`."""
        towards, distance, reach = self.locate(points)
        off = reach + clearance - distance
        return points + towards * np.where(off > 0, off, cling * off)[..., None]

    def half_width(self, y: np.ndarray) -> np.ndarray:
        """|x| (cm) that hair before the face keeps free at heights y."""
        return self.half * np.interp(
            y, (self.chin - 13, self.chin - 6, self.chin, 0.5 * self.chin, self.brow), (0.45, 0.62, 0.84, 1.04, 1.08)
        )

    def beside_face(self, points: np.ndarray, side: np.ndarray, top: np.ndarray) -> np.ndarray:
        """Points (n 3) before the face and under the height `top` (n) moved to their side (n, -1 or 1) of it."""
        x, y, z = points.T
        inside = smooth(top + 0.3, top - 0.9, y) * smooth(1.5, 3.5, z)
        shift = np.maximum(self.half_width(y) - x * side, 0) * side * inside
        return points + np.stack([shift, np.zeros_like(shift), np.zeros_like(shift)], -1)

    def freedom(self, points: np.ndarray, top: np.ndarray) -> np.ndarray:
        """How far (cm) points (n k 3) lie outside the part of the face, under `top` (n), that no hair may hide; negative inside."""
        x, y, z = np.moveaxis(points, -1, 0)
        return np.maximum.reduce([np.abs(x) - 0.9 * self.half_width(y), y - top[:, None], self.chin - y, 3.0 - z])


def drape(points: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Points (... 3) of hair kept clear of neck and shoulders: where `before` (...) in front of them, else behind."""
    x, y, z = np.moveaxis(points, -1, 0)
    front = np.interp(y, _FALL_Y, _FRONT_Z) - 0.012 * np.maximum(np.abs(x) - 4, 0) ** 2
    back = np.interp(y, _FALL_Y, _BACK_Z) + 0.01 * np.maximum(np.abs(x) - 4, 0) ** 2
    draped = points.copy()
    draped[..., 2] += smooth(-13.0, -18.5, y) * np.where(before, np.maximum(front - z, 0), np.minimum(back - z, 0))
    return draped


# Behind the sideburn the edge of the scalp climbs over the ear, descends behind it and crosses the nape
_BEHIND = ((8.9, -0.9), (9.35, 2.2), (11.8, 2.5), (12.7, -1.0), (13.4, -4.4), (15.5, -6.6), (19.0, -7.8), (24.0, -8.2))
_EDGE_S, _EDGE_T = np.array((*HAIRLINE, *_BEHIND)).T


@dataclass(frozen=True)
class Hairline:
    """How the edge of the scalp differs from the average, in cm."""

    height: float = 0.0  # the front higher up
    temples: float = 0.0  # recession at the temples
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
    edge = edge + line.temples * np.exp(-(((side - 4.3) / 1.7) ** 2))
    return edge + 0.13 * np.sin(2.3 * s + line.phase) + 0.09 * np.sin(5.9 * s + 2.1 * line.phase)


def scalp_density(line: Hairline, s: np.ndarray, t: np.ndarray) -> np.ndarray:
    """How dense hair grows on the scalp, 0..1."""
    dense = smooth(-0.15, line.softness, scalp_margin(line, s, t))
    if line.thin > 0:
        dense = dense * (1 - line.thin * smooth(6.5, 9.5, t))
    if line.rim is not None:
        dense = dense * smooth(line.rim + 1.3, line.rim - 0.6, t + 0.2 * np.sin(1.7 * s + line.phase))
    return dense


_GREY = np.array([0.40, 0.385, 0.36])


@dataclass(frozen=True)
class Tint:
    """The colours of a person's hair, linear RGB."""

    base: np.ndarray  # float32 3
    streak: np.ndarray  # float32 3: bleached by sun or dyed
    streaks: float  # share of strands
    grey: float  # share of grey strands


def draw_tint(traits: Traits) -> Tint:
    """The colour on the head: natural or dyed, sometimes streaked; women hide grey more often."""
    rng = stream(traits.seed, "hair tint")
    dyed = rng.random() < 0.01 + 0.13 * traits.femininity
    base = np.array([rng.uniform(0.01, 0.4), rng.uniform(0.01, 0.06), 0.015]) if dyed else traits.hair_colour.astype(np.float64)
    hides_grey = dyed or rng.random() < 0.5 * traits.femininity
    streaks = float(rng.uniform(0.1, 0.4)) if rng.random() < 0.05 + 0.45 * traits.femininity else 0.0
    lighter = np.minimum(base * rng.uniform(1.5, 2.6) + 0.01, 0.6)
    return Tint(base.astype(np.float32), lighter.astype(np.float32), streaks, traits.grey * (0.08 if hides_grey else 1.0))


def scalp_colour(traits: Traits) -> np.ndarray:
    """What a person's hair looks like from afar: linear RGB (float32 3)."""
    tint = draw_tint(traits)
    return (tint.base + tint.grey * (_GREY - tint.base)).astype(np.float32)


def natural_tint(traits: Traits, darker: float, grey: float) -> Tint:
    """Undyed hair elsewhere than on the scalp: `darker` is a factor, `grey` a share of grey hairs."""
    return Tint((traits.hair_colour * darker).astype(np.float32), traits.hair_colour, 0.0, grey)


def colours(tint: Tint, clump: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Linear RGB (float32 n 3) of strands: shades vary from clump (int n) to clump and from hair to hair."""
    count = len(clump)
    mix = 0.6 * rng.random(count)[clump] + 0.4 * rng.random(count)
    streak = (mix > 0.85 - 0.6 * tint.streaks)[:, None] & (tint.streaks > 0)
    colour = (
        np.where(streak, tint.streak, tint.base) * np.exp(0.16 * rng.normal(size=count)[clump] + 0.16 * rng.normal(size=count))[:, None]
    )
    if tint.grey > 0.02:  # a drawn strand stands for several hairs, so most are a mixture
        share = tint.grey + 0.10 * rng.normal(size=count)[clump] + 0.16 * rng.normal(size=count)
        share = np.where(rng.random(count) < 0.12, rng.random(count) < tint.grey, np.clip(share, 0, 1))
        colour = colour + share[:, None] * (_GREY * np.exp(0.15 * rng.normal(size=(count, 1))) - colour)
    return colour.clip(0.003, 0.75).astype(np.float32)


def taper(radius: float, points: int, size: np.ndarray, tip: float = 0.25) -> np.ndarray:
    """Radii (float32 n points, cm): half at the root, full in the middle, the share `tip` at the tip; `size` (n) is a factor a strand."""
    along = np.linspace(0, 1, points)
    return (radius * size[:, None] * (1 - 0.5 * smooth(0.2, 0.0, along) - (1 - tip) * along**2.5)).astype(np.float32)


def buried(points: np.ndarray, form: HeadForm, thickness: float) -> np.ndarray:
    """Share of light (float32 n k, 0..1) that reaches points of strands through hair that lies `thickness` cm off the skin."""
    _, distance, reach = form.locate(points)
    return (0.3 + 0.7 * smooth(0.0, 1.0, (distance - reach) / max(thickness, 0.3))).astype(np.float32)


@dataclass(frozen=True)
class HairStyle:
    """One head of hair. Lengths in cm; a share or a strength lies in 0..1."""

    name: str = ""
    strands: int = 6200
    points: int = 9  # of a strand
    top: float = 6.0  # length of the hair on top
    side: float = 0.3  # lengths at the sides and at the back, as shares of that on top
    back: float = 0.35
    line: Hairline = field(default_factory=Hairline)
    fade: float = 0.0  # share of the sides' length that is lost towards the lower edge
    part: float = 0.0  # |x| of the parting
    sideways: float = 0.0  # comb on top: away from the parting,
    backward: float = 0.0  # to the back (negative: to the front),
    natural: float = 0.4  # as it grows: away from the whorl
    side_back: float = 0.15  # comb of the sides to the back
    fringe: float = 0.0  # share of the front hair that falls onto the forehead, and how likely it does so
    fringe_chance: float = 1.0
    fringe_gap: float = 0.6  # cm that the fringe ends above the brows
    lift: float = 0.5  # how steeply hair leaves the skin: 0 flat .. 1 upright
    stiffness: float = 0.55  # how slowly it turns into the direction of the comb
    weight: float = 0.3  # pull of gravity where hair hangs free
    cling: float = 0.6  # how firmly hair lies down on the head
    volume: float = 1.2  # cm that the outermost hair stands off the head
    mess: float = 0.12  # radians: spread of the directions
    clumps: int = 130
    clumping: float = 0.6  # how far the hairs of a clump meet at their tips
    wave: float = 0.3  # how much of the person's natural wave it shows; its radius is `curl`, of a turn `pitch` cm long
    curl: float = 0.0
    pitch: float = 6.0
    frizz: float = 0.06  # cm: how far single hairs stray
    ragged: float = 0.12  # spread of the lengths
    radius: float = 0.043  # cm: half the drawn width
    cover: float = 1.0  # how much the skin between the roots looks like hair


_SHORT = {"cling": 0.0, "clumps": 260, "volume": (0.6, 1.4), "mess": 0.24, "frizz": 0.03, "wave": 0.0}
_LONG = {"sideways": 1.0, "natural": 0.2, "stiffness": 0.45, "weight": 0.82, "volume": (1.4, 2.8), "mess": 0.065, "clumps": 85, "wave": 1.1}
# How likely a kind is for a person (male share m, female share f), and its numbers: one, or the range that it is drawn from
_KINDS = {
    "buzz": (lambda p, m, f: 0.7 * m + 0.02, _SHORT | {"points": 4, "top": (0.25, 1.0), "side": (0.4, 1.0), "back": 0.8, "natural": 1.0,
        "lift": 0.65, "stiffness": 0.8, "weight": 0.05, "clumps": 1, "clumping": 0.0, "volume": 0.6, "radius": 0.026, "cover": 0.75}),
    "crew": (lambda p, m, f: 1.2 * m, _SHORT | {"points": 6, "top": (1.8, 3.6), "side": (0.2, 0.35), "fade": (0.3, 0.8), "part": 9.0,
        "sideways": 0.35, "backward": (-0.7, 0.3), "cling": 0.3, "stiffness": 0.7, "weight": 0.15, "radius": 0.036, "cover": 0.85}),
    "side part": (lambda p, m, f: 1.5 * m + 0.1 * f, {"top": (6, 9.5), "side": (0.2, 0.35), "fade": 0.4, "part": (2.4, 3.8),
        "sideways": 1.0, "backward": (0.1, 0.7), "natural": 0.15, "lift": (0.4, 0.65), "side_back": 0.5, "volume": (0.9, 1.7)}),
    "swept back": (lambda p, m, f: 0.8 * m + 0.8 * f, {"points": 10, "top": (7, 12), "side": (0.3, 0.7), "back": (0.4, 0.7), "part": (0, 1),
        "fade": (0, 0.5), "backward": 1.0, "natural": 0.1, "sideways": 0.25, "side_back": 1.0, "lift": (0.3, 0.8), "volume": (0.5, 2.2)}),
    "messy": (lambda p, m, f: (1.2 * m + 0.4 * f) * (1.3 - p.age / 80), {"top": (4, 7.5), "side": (0.35, 0.6), "back": 0.5,
        "fade": (0, 0.5), "natural": 0.7, "sideways": 0.5, "part": (0, 4), "backward": (-0.8, 0.5), "fringe": 0.5, "fringe_chance": 0.5,
        "fringe_gap": 1.2, "lift": 0.7, "cling": 0.25, "volume": (1.2, 2.2), "mess": 0.4, "clumps": 200, "clumping": 0.8, "frizz": 0.1,
        "ragged": 0.28}),
    "fringe": (lambda p, m, f: 0.3 * m + 0.5 * f, {"top": (7, 10), "side": (0.45, 0.75), "back": (0.5, 0.7), "natural": 1.0, "ragged": 0.15,
        "backward": -0.5, "fringe": 1.0, "fringe_gap": (0.1, 2.0), "lift": 0.35, "weight": 0.5, "volume": (0.8, 1.5), "mess": 0.16}),
    "bob": (lambda p, m, f: 1.7 * f, _LONG | {"strands": 5400, "points": 18, "top": (20, 28), "side": 0.68, "back": 0.6, "part": (0.2, 2.6),
        "backward": 0.25, "fringe": 1.0, "fringe_chance": 0.35, "radius": 0.05}),
    "long": (lambda p, m, f: 2.4 * f * (1.15 - p.age / 100) + 0.08, _LONG | {"strands": 4700, "points": 24, "top": (30, 50), "side": 0.88,
        "back": 0.82, "part": (0.2, 2.2), "backward": 0.3, "side_back": (0, 0.5), "fringe": 1.0, "fringe_chance": 0.25, "radius": 0.056}),
    "curly": (lambda p, m, f: 0.35 + 0.5 * f, {"strands": 4100, "points": 24, "top": (6, 20), "side": 0.85, "back": 0.8, "part": (0, 2),
        "sideways": 0.6, "natural": 0.6, "lift": 0.75, "cling": 0.25, "weight": 0.6, "fringe": 0.3, "fringe_gap": 1.0, "volume": (1.3, 3.3),
        "mess": 0.3, "clumps": 240, "clumping": 0.8, "wave": 0.0, "curl": (0.35, 0.6), "pitch": (3.5, 5.0), "frizz": 0.16, "ragged": 0.2}),
    "afro": (lambda p, m, f: 2.6 * max(p.melanin - 0.5, 0), {"points": 12, "top": (0.8, 7), "side": (0.5, 0.95), "back": 0.9,
        "natural": 0.15, "lift": 0.98, "cling": 0.0, "stiffness": 0.97, "weight": 0.04, "volume": 7.0, "mess": 0.25, "clumps": 420,
        "clumping": 0.5, "wave": 0.0, "curl": 0.25, "pitch": (1.0, 2.2), "frizz": 0.12, "radius": 0.045}),
    "balding": (lambda p, m, f: 0.05 * (p.age - 38) * m, {"strands": 4600, "points": 6, "top": (0.6, 4.8), "side": 0.6, "back": 0.6,
        "natural": 0.6, "backward": 0.6, "side_back": 0.4, "volume": 0.8, "mess": 0.25, "radius": 0.034, "cover": 0.55}),
    "bald": (lambda p, m, f: (0.3 + 0.008 * (p.age - 35)) * m, {"strands": 0, "cover": (0.0, 0.22)}),
}  # fmt: skip


def draw_style(traits: Traits) -> HairStyle:
    """The hairstyle of a person: a kind by sex, age and texture of the hair, its numbers by the seed."""
    rng = stream(traits.seed, "hairstyle")
    female = traits.femininity
    male = float(max(1 - female, 0.0)) if female < 0.5 else 0.0
    chances = {name: max(chance(traits, male, female), 0.0) for name, (chance, _) in _KINDS.items()}
    name = str(rng.choice(list(chances), p=np.array(list(chances.values())) / sum(chances.values())))
    numbers = {key: float(rng.uniform(*value)) if isinstance(value, tuple) else value for key, value in _KINDS[name][1].items()}
    style = HairStyle(name, **numbers)
    wave = float(np.clip(rng.beta(1.1, 1.5) * (1 + 0.4 * traits.melanin) - 0.15, 0, 1))
    ageing = float(np.clip((traits.age - 25) / 45, 0, 1)) * male
    thin = name == "balding"
    line = Hairline(
        height=float(rng.normal(0.0, 0.35)) + 0.4 * ageing + 1.0 * thin,
        temples=float(abs(rng.normal(0.15, 0.35)) + 1.6 * ageing * rng.random()) + 0.35 * male + 2.2 * thin,
        softness=float(rng.uniform(0.7, 1.3)) * (1.4 if thin else 0.5 if style.points < 7 else 0.8),
        phase=float(rng.uniform(0, 6.28)),
        rim=float(rng.uniform(4.0, 8.0)) if thin and rng.random() < 0.6 else None,
        thin=0.6 * thin,
    )
    curl = style.curl + 0.85 * style.wave * wave
    pitch = float(rng.uniform(7, 12)) - 3.5 * wave if style.wave else style.pitch
    fringe = style.fringe * float(rng.random() < style.fringe_chance)
    return replace(style, line=line, part=style.part * float(rng.choice([-1, 1])), curl=curl, pitch=pitch, fringe=fringe)


_DOWN, _FRONT, _RIGHT = np.array([0, -1, 0], np.float32), np.array([0, 0, 1], np.float32), np.array([1, 0, 0], np.float32)
_WHORL = unit(np.array([0.08, 0.86, -0.5], np.float32))  # where hair grows away from, as a direction from the head's middle
_CLEAR = 0.05  # cm that hair keeps from the skin


@dataclass(frozen=True)
class Locks:
    """What tells the strands of a head apart before they grow (n each)."""

    side: np.ndarray  # -1 or 1: of the parting, and of the face
    fringe: np.ndarray  # bool: falls onto the forehead
    before: np.ndarray  # bool: falls before the shoulders
    layer: np.ndarray  # 0..1: from next to the skin to the outermost
    stray: np.ndarray  # 0..1: how little a hair keeps to its clump; 1 is a flyaway
    top: np.ndarray  # cm: height at which the strand is cut where it falls before the face
    open: np.ndarray  # cm: height under which the comb keeps the strand beside the face
    clump: np.ndarray  # int: the strand that leads the clump


def draw_locks(form: HeadForm, style: HairStyle, roots: Roots, rng: np.random.Generator) -> Locks:
    """Sort the strands into sides, layers and clumps."""
    count = len(roots)
    x, _, z = roots.points.T
    side = np.where(x + 0.15 * rng.normal(size=count) > style.part * smooth(-1.0, 2.0, z), 1.0, -1.0)
    margin = scalp_margin(style.line, roots.st[:, 0], roots.st[:, 1])
    front = smooth(5.0, 3.4, np.abs(roots.points[:, 0])) * smooth(6.5, 3.5, margin) * (z > 1.0)
    fringe = rng.random(count) < style.fringe * front
    split = np.quantile(z, 1 - 0.45 * 0.5) if count else 0.0
    layer = rng.random(count)
    ragged = np.abs(rng.normal(size=count)) * 0.35
    top = np.where(fringe, form.brow + style.fringe_gap + ragged - 0.02 * x**2 * (style.fringe_gap > 0.5), form.brow - 0.1)
    open_below = np.where(fringe, top, form.brow + 2.2 + 1.2 * np.abs(rng.normal(size=count)))
    stray = np.clip(rng.beta(1.2, 5, count) + (rng.random(count) < 0.03), 0, 1)
    before = z + 0.8 * rng.normal(size=count) > split
    leaders = rng.choice(count, min(style.clumps, count), replace=False)
    keys = np.column_stack([roots.points, 4 * side, 4 * fringe, 6 * before, 1.2 * layer])
    clump = leaders[cKDTree(keys[leaders]).query(keys)[1]]
    return Locks(side, fringe, before, layer, stray, np.maximum(top, form.brow - 0.1), open_below, clump)


def lengths(form: HeadForm, style: HairStyle, roots: Roots, rng: np.random.Generator) -> np.ndarray:
    """Length (n, cm) of each strand: by its place on the head, shorter at the edge of the scalp."""
    towards, _, _ = form.locate(roots.points)
    above = smooth(0.50, 0.92, towards[:, 1])
    behind = smooth(-0.2, -0.7, towards[:, 2])
    margin = scalp_margin(style.line, roots.st[:, 0], roots.st[:, 1])
    low = style.top * (style.side * (1 - behind) + style.back * behind) * (1 - style.fade * smooth(6.0, -3.0, roots.points[:, 1]))
    length = low * (1 - above) + style.top * above
    soft = 0.45 + 0.55 * smooth(0.0, 0.9, margin + 0.2 * rng.normal(size=len(roots)))
    return length * soft * np.exp(style.ragged * rng.normal(size=len(roots)))


def grow(form: HeadForm, style: HairStyle, roots: Roots, locks: Locks, length: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Strands (n k 3) of the given lengths (n) on the scalp, clumped, curled and clear of head and face."""
    points = _combed(form, style, roots, locks, length, rng)
    along = np.linspace(0, 1, style.points, dtype=np.float32)
    points = _clumped(style, points, locks, along)
    points = drape(points + _curls(style, points, locks, length, along, rng), locks.before[:, None])
    clear = np.minimum(_CLEAR, 0.6 * along)
    flat = form.hold(points, clear[None])
    flat[:, 0] = points[:, 0]
    return flat


def _combed(form: HeadForm, style: HairStyle, roots: Roots, locks: Locks, length: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Strands (n k 3) that follow the comb and their weight, one step for each point."""
    count, steps = len(roots), style.points - 1
    strays = rng.normal(size=(count, 3))
    noise = style.mess * (0.9 * strays[locks.clump] + (0.35 + 1.2 * locks.stray[:, None]) * rng.normal(size=(count, 3)))
    heading = _comb(form, style, locks, roots.points)
    lift = style.lift * (0.7 + 0.6 * locks.layer[:, None])
    heading = unit(heading * np.sqrt(np.maximum(1 - lift**2, 0.05)) + roots.normals * lift + noise)
    points = np.empty((count, steps + 1, 3), np.float32)
    points[:, 0] = place = roots.points
    for step in range(1, steps + 1):
        pull = style.weight * (0.25 + 0.75 * smooth(7.0, -3.0, place[:, 1]))[:, None]
        inwards = np.array([-0.06, 0, 0]) * (place[:, :1] / 8) * smooth(1.0, -5.0, place[:, 1:2])
        target = unit(_comb(form, style, locks, place) * (1 - pull) + (_DOWN + inwards) * pull)
        heading = unit(style.stiffness * heading + (1 - style.stiffness) * target + 0.15 * noise)
        moved = place + heading * (length / steps)[:, None]
        raised = _CLEAR + style.volume * locks.layer * smooth(0.0, 0.4, np.full(count, step / steps))
        moved = form.hold(moved, raised, style.cling * smooth(-8.0, 0.0, place[:, 1]))
        moved = drape(form.beside_face(moved, locks.side, locks.open), locks.before)
        heading = unit(moved - place)
        place = place + heading * (length / steps)[:, None]
        points[:, step] = place
    return points


def _comb(form: HeadForm, style: HairStyle, locks: Locks, place: np.ndarray) -> np.ndarray:
    """Directions (n 3, unit, along the head) that hair at `place` (n 3) is combed to."""
    towards, _, _ = form.locate(place)
    above = smooth(0.30, 0.75, towards[:, 1])[:, None]
    away = unit(towards - _WHORL)
    side = locks.side[:, None] * _RIGHT
    on_top = style.sideways * side + style.natural * away - style.backward * _FRONT
    below = _DOWN + 0.3 * style.natural * away - style.side_back * _FRONT
    onto = _FRONT + 0.5 * _DOWN + 0.12 * side + 0.25 * style.sideways * side
    comb = np.where(locks.fringe[:, None], onto, on_top * above + below * (1 - above))
    return unit(comb - towards * (comb * towards).sum(1, keepdims=True))


def _clumped(style: HairStyle, points: np.ndarray, locks: Locks, along: np.ndarray) -> np.ndarray:
    """Strands drawn to the leader of their clump, more so towards the tips."""
    keep = style.clumping * (1 - locks.stray)[:, None, None] * smooth(0.0, 0.9, along)[None, :, None]
    leaders = points[locks.clump]
    offset = points[:, :1] - leaders[:, :1]
    return points + keep * (leaders + 0.3 * offset - points)


def _curls(
    style: HairStyle, points: np.ndarray, locks: Locks, length: np.ndarray, along: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Offsets (n k 3): a helix that the hairs of a clump share, and the straying of single hairs."""
    count, steps = len(points), len(along) - 1
    tangent = unit(np.gradient(points, axis=1))
    across = unit(np.cross(tangent, unit(points - np.array([0, -2, -1], np.float32)) + 1e-3))
    outward = np.cross(across, tangent)
    clump_phase, clump_pitch = rng.uniform(0, 2 * np.pi, count)[locks.clump], np.exp(0.2 * rng.normal(size=count))[locks.clump]
    phase = clump_phase + 0.5 * rng.normal(size=count) * (0.4 + locks.stray)
    turns = np.minimum(length / (style.pitch * clump_pitch), steps / 3.8)  # fewer points a turn would draw zigzags
    turn = phase[:, None] + 2 * np.pi * turns[:, None] * along[None]
    size = style.curl * smooth(0.02, 0.45, along)[None] * np.exp(0.25 * rng.normal(size=(count, 1)))
    offset = (size * np.cos(turn))[..., None] * across + (0.8 * size * np.sin(turn))[..., None] * outward
    bend, sway = rng.normal(size=(2, count, 1, 3))
    strays = bend * along[None, :, None] ** 2 + sway * np.sin(np.pi * along)[None, :, None]
    loose = style.frizz * (0.6 + 5 * locks.stray[:, None, None] ** 1.5)
    return offset + (loose * smooth(0.0, 0.6, along)[None, :, None] * strays).astype(np.float32)


def trim(points: np.ndarray, room: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Strands (n k 3) that end at the last point before `room` (n k) first turns negative, and the share (n) that is left of each."""
    steps = points.shape[1] - 1
    cut = room < 0
    last = np.where(cut.any(1), cut.argmax(1) - 1, steps)
    kept = np.minimum(np.arange(steps + 1)[None], np.maximum(last, 0)[:, None])
    return points[np.arange(len(points))[:, None], kept].astype(np.float32), last / steps


def scalp_shade(traits: Traits, s: np.ndarray, t: np.ndarray) -> np.ndarray:
    """How far the skin between the strands looks like hair, 0 (skin) .. 1 (hair), at plane coordinates s, t."""
    style = draw_style(traits)
    return style.cover * scalp_density(style.line, s, t)


def scalp_hair(traits: Traits, skin: RestSkin) -> Strands | None:
    """The hair of the head in the person's style; None for a bald one."""
    style = draw_style(traits)
    if style.strands == 0:
        return None
    rng = stream(traits.seed, "scalp hair")
    form = HeadForm.of(skin)
    roots = sample_roots(skin, lambda s, t: scalp_density(style.line, s, t), style.strands, rng)
    locks = draw_locks(form, style, roots, rng)
    points = grow(form, style, roots, locks, lengths(form, style, roots, rng), rng)
    points, left = trim(points, form.freedom(points, locks.top))
    edge = scalp_margin(style.line, roots.st[:, 0], roots.st[:, 1])
    size = np.exp(0.2 * rng.normal(size=len(points))) * (1 - 0.45 * locks.stray) * (0.5 + 0.5 * smooth(0.0, 1.2, edge))
    keep = left > 0.12
    points, size, clump, vertex = points[keep], size[keep], locks.clump[keep], roots.vertex[keep]
    radius = taper(style.radius, style.points, size)
    return Strands(points, radius, colours(draw_tint(traits), clump, rng), vertex, 0.55, buried(points, form, style.volume))
