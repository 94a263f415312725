"""The skin of one face as a surface: skull, nose, lips and eyelids on the common mesh; its 68 landmarks; faces drawn from seeds."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from scipy.interpolate import PchipInterpolator
from scipy.spatial import cKDTree

from embedded.talking_heads.eyes import Eyelids, EyeShape
from embedded.talking_heads.skull import SkullShape, surface
from embedded.talking_heads.template import (
    BROW,
    EYE_ANGLES,
    FOCUS,
    INNER_RINGS,
    MOUTH_ANGLES,
    MOUTH_RINGS,
    MOUTH_T,
    PUPIL,
    SkinMesh,
    skin_mesh,
)
from embedded.talking_heads.traits import Traits, bump, smooth, stream

# Height of the ridge over the surface (cm) along t, and the half width of the ridge
_RIDGE = PchipInterpolator(
    [-5.45, -5.05, -4.75, -4.55, -4.4, -4.25, -4.05, -3.8, -3.5, -3.1, -2.5, -1.5, -0.6, 0.2, 0.8, 1.6],
    [0.0, 0.05, 0.22, 0.5, 1.0, 1.75, 2.35, 2.72, 2.86, 2.78, 2.45, 1.72, 1.05, 0.52, 0.22, 0.0],
)
_HALF_WIDTH = PchipInterpolator([-4.8, -4.2, -3.6, -3.0, -2.0, -1.0, 0.2, 1.6], [0.8, 1.0, 1.2, 1.16, 1.06, 0.92, 0.78, 1.1])


@dataclass(frozen=True)
class NoseShape:
    """How a nose differs from the average."""

    projection: float = 1.0  # factor on the height of the tip
    bridge: float = 1.0  # factor on the height of the bridge
    hump: float = 0.0  # cm: a convex (or hollow) back
    width: float = 1.0  # factor at the wings
    bridge_width: float = 1.0
    tip: float = 1.0  # factor on the breadth of the tip
    tip_up: float = 0.0  # cm: the tip is turned up
    wings: float = 1.0  # factor on the bulge of the wings
    bend: float = 0.0  # cm to one side
    philtrum: float = 1.0


def raise_nose(shape: NoseShape, s: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Displacements (n 3) in cm that make the nose at plane coordinates s, t (n)."""
    away = np.abs(s)
    tip_share = smooth(-0.5, -3.2, t)
    ridge = _RIDGE(np.clip(t, -5.45, 1.6)) * (shape.bridge + (shape.projection - shape.bridge) * tip_share)
    ridge = ridge + shape.hump * bump(t + 1.3, 0.95)
    half = _HALF_WIDTH(np.clip(t, -4.8, 1.6)) * (shape.bridge_width + (shape.tip - shape.bridge_width) * tip_share)
    back = ridge * np.exp(-((away / half) ** 2.2))
    ball = 0.2 * shape.tip * bump(away, 0.7) * bump(t + 3.55, 0.6)
    low, high = smooth(-4.72, -4.28, t), 1 - smooth(-3.9, -2.7, t)
    wing = 1.5 * shape.wings * shape.projection * np.exp(-((np.abs(away - 1.0) / 0.66) ** 3.4)) * low * high
    middle, sharp = back + ball, 0.22
    height = 0.5 * (middle + wing + np.sqrt((middle - wing) ** 2 + sharp**2)) - 0.5 * sharp  # the larger of both, rounded where they meet
    height -= 0.16 * bump(away - 1.84, 0.17) * bump(t + 3.95, 0.75)  # the groove around the wing
    height -= 0.7 * bump(away - 0.68, 0.25) * bump(t + 4.36, 0.16) * shape.projection  # the nostril
    height -= 0.1 * shape.philtrum * bump(away, 0.2) * bump(t + 5.2, 0.55)
    height += 0.07 * shape.philtrum * bump(away - 0.42, 0.2) * bump(t + 5.2, 0.6)
    height *= 1 - smooth(2.2, 2.6, away)
    moved = np.zeros((len(s), 3))
    share = np.clip(height / 2.4, 0, 1)
    at_wings = bump(t + 3.95, 1.0) * smooth(0.2, 1.3, away) * (1 - smooth(2.0, 3.0, away))
    moved[:, 0] = s * (shape.width - 1) * at_wings + shape.bend * share * smooth(0.6, -1.5, t)
    moved[:, 1] = shape.tip_up * bump(t + 3.7, 0.8) * bump(away, 1.0) - 0.16 * bump(t + 4.25, 0.3) * bump(away, 0.9)
    moved[:, 2] = height
    return moved


# Height of the red over (under) the line where the lips meet, along |s| / half the mouth's width
_UPPER_RED = PchipInterpolator([0, 0.12, 0.215, 0.4, 0.6, 0.8, 0.92, 1.0], [0.73, 0.80, 0.88, 0.76, 0.55, 0.29, 0.12, 0.0])
_LOWER_RED = PchipInterpolator([0, 0.2, 0.4, 0.6, 0.8, 0.92, 1.0], [1.02, 1.0, 0.90, 0.70, 0.38, 0.15, 0.0])
# Forward bulge over the head's surface along the share of the red: 0 where the lips meet, 1 at the border
_UPPER_BULGE = PchipInterpolator(
    [0, 0.15, 0.35, 0.6, 0.85, 1.0, 1.12, 1.4, 1.9, 2.6, 3.2], [0.26, 0.44, 0.62, 0.70, 0.68, 0.63, 0.55, 0.46, 0.34, 0.14, 0.0]
)
_LOWER_BULGE = PchipInterpolator(
    [0, 0.15, 0.35, 0.6, 0.82, 1.0, 1.15, 1.45, 1.9, 2.6], [0.24, 0.42, 0.64, 0.72, 0.64, 0.46, 0.30, 0.12, 0.02, 0.0]
)


@dataclass(frozen=True)
class LipShape:
    """How a mouth differs from the average."""

    width: float = 1.0
    upper: float = 1.0  # factors on the height of the red
    lower: float = 1.0
    bow: float = 1.0  # depth of the dip in the upper border
    pout: float = 1.0  # factor on the forward bulge
    corner: float = 0.0  # cm: the corners higher
    down: float = 0.0  # cm: the whole mouth lower


def red_height(s: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """Height in cm of the red of the lip on the template plane over (under) the slit at s."""
    u = np.clip(np.abs(s) / FOCUS, 0, 1)
    return np.where(upper, _UPPER_RED(u), _LOWER_RED(u))


def red_share(mu: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """How far out of the slit points lie: 0 where the lips meet, 1 at the border of the red, growing beyond."""
    sine = np.abs(np.sin(alpha))
    height = red_height(1.03 * FOCUS * np.cos(alpha), np.sin(alpha) >= 0)
    border = np.arcsinh(height / np.maximum(FOCUS * sine, 1e-6))
    return mu / np.maximum(border, 0.035)


def raise_lips(shape: LipShape, sheet: SkinMesh) -> np.ndarray:
    """Displacements (v 3) in cm that make the closed lips."""
    s, t = sheet.st.T
    mu, alpha = sheet.mu, sheet.alpha
    share, upper = red_share(mu, alpha), np.sin(alpha) >= 0
    across = np.abs(np.sin(alpha)) ** 0.55
    bulge = np.where(upper, _UPPER_BULGE(np.clip(share, 0, 3.2)), _LOWER_BULGE(np.clip(share, 0, 2.6)))
    bulge *= np.where(np.abs(s) > 3.4, 0.0, 1.0)
    near = np.exp(-((mu / 0.75) ** 2))
    moved = np.zeros((len(s), 3))
    moved[:, 2] = shape.pout * bulge * (0.2 + 0.8 * across) * near**0.5
    moved[:, 2] += 0.06 * bump(s, 0.35) * bump(share - 0.55, 0.4) * upper  # the tubercle of the upper lip
    moved[:, 2] -= 0.14 * bump(np.abs(s) - FOCUS * 1.04, 0.32) * bump(t - MOUTH_T, 0.4)  # the dimple at the corners
    thick = np.where(upper, shape.upper, shape.lower) - 1
    reach = np.minimum(np.abs(t - MOUTH_T), 1.0) * np.exp(-((np.maximum(share - 1, 0) / 1.2) ** 2))
    moved[:, 1] = np.sign(np.sin(alpha)) * thick * reach
    moved[:, 1] -= (shape.bow - 1) * 0.12 * bump(s, 0.28) * bump(share - 1, 0.5) * upper
    wide = np.exp(-((mu / 0.95) ** 2))
    moved[:, 0] = s * (shape.width - 1) * wide
    edge = np.abs(np.cos(alpha)) ** 3
    moved[:, 1] += (shape.corner * edge + shape.down) * wide
    moved[:, 1] += 0.05 * bump(s, 0.5) * bump(mu, 0.03) - 0.05 * bump(np.abs(s) - 1.25, 0.6) * bump(mu, 0.06)  # the line is a bow, too
    return moved + _inner_side(sheet)


def _inner_side(sheet: SkinMesh) -> np.ndarray:
    """The wet rings behind the line where the lips meet: back, and apart above and below."""
    moved = np.zeros((len(sheet.st), 3))
    for ring in range(INNER_RINGS):
        deep = (INNER_RINGS - ring) / INNER_RINGS  # 1 at the deepest
        vertices = sheet.mouth[ring]
        sine = np.sin(sheet.alpha[vertices])
        moved[vertices, 2] = -0.14 * smooth(0, 0.3, deep) - 1.15 * deep**1.3
        moved[vertices, 1] = 0.62 * sine * deep**0.8
        moved[vertices, 0] = -0.12 * np.cos(sheet.alpha[vertices]) * deep
    return moved


_NECK_FOOT = -19.0  # t


@dataclass(frozen=True)
class FaceShape:
    """Every number that makes one face; the defaults are the average adult."""

    skull: SkullShape = field(default_factory=SkullShape)
    nose: NoseShape = field(default_factory=NoseShape)
    lips: LipShape = field(default_factory=LipShape)
    eyes: EyeShape = field(default_factory=EyeShape)
    fold: float = 0.35  # 0 .. 1: depth of the nasolabial fold
    jowl: float = 0.0  # 0 .. 1: sagging beside the chin
    cheek_drop: float = 0.0


def nasolabial_line(t: np.ndarray) -> np.ndarray:
    """How far to the side (|s|, cm) the fold from the nose past the mouth runs at heights t of the plane."""
    return 2.05 + 1.25 * smooth(-3.9, -6.4, t) + 0.15 * smooth(-6.4, -8.0, t)


class FaceSurface:
    """The skin of one person's head as a surface at rest: eyes open, lips closed."""

    def __init__(self, shape: FaceShape) -> None:
        self.shape, self.sheet = shape, skin_mesh()
        s, t = self.sheet.st.T
        base = surface(shape.skull, s, t)
        self._relax_folds(base, s, t)
        base += raise_nose(shape.nose, s, t) * smooth(-1.0, 3.0, base[:, 2])[:, None]
        base += raise_lips(shape.lips, self.sheet)
        self.lids = tuple(Eyelids(shape.eyes, side, self._eye_centre(side)) for side in (-1, 1))
        self.held = [lids.held()[..., None] for lids in self.lids]
        self.base = base  # v 3, the skin but for the lids
        self.vertices = self.with_lids(base, 0.0, 0.0)

    @property
    def neck_radius(self) -> float:
        """Half the width of the neck at its foot, in cm."""
        return float(np.abs(self.base[np.abs(self.sheet.st[:, 1] - _NECK_FOOT) < 0.8, 0]).max())

    def with_lids(
        self, vertices: np.ndarray, closed_left: float, closed_right: float, squint: float = 0.0, look_down: float = 0.0
    ) -> np.ndarray:
        """`vertices` (v 3) with the rings around the eyes laid on the eyeballs; a copy."""
        laid = vertices.copy()
        for rings, lids, held, closed in zip(self.sheet.eyes, self.lids, self.held, (closed_left, closed_right), strict=True):
            on_ball = lids.points(closed, squint, look_down)
            laid[rings] = held * on_ball + (1 - held) * vertices[rings]
        return laid

    def _eye_centre(self, side: int) -> np.ndarray:
        eyes, skull = self.shape.eyes, self.shape.skull
        x = (PUPIL[0] * (1 + 0.6 * (skull.width - 1)) + eyes.spread) * side
        return np.array([x, eyes.raised, 7.12 * skull.depth - eyes.depth])

    def _relax_folds(self, base: np.ndarray, s: np.ndarray, t: np.ndarray) -> None:
        """Folds and sagging that come with age and smiling, worked into `base`."""
        away = np.abs(s)
        line = nasolabial_line(t)
        along = smooth(-7.6, -6.2, t) * (1 - smooth(-4.4, -3.4, t))
        groove = bump(away - line, 0.24) * along
        pad = bump(away - line - 0.65, 0.6) * along
        base[:, 2] += self.shape.fold * (0.16 * pad - 0.17 * groove)
        jowl = bump(away - 3.3, 0.9) * bump(t + 10.0, 1.3)
        base[:, 1] -= 0.45 * self.shape.jowl * jowl
        base[:, 0] += 0.25 * self.shape.jowl * jowl * np.sign(s)
        base[:, 2] += 0.2 * self.shape.jowl * jowl
        base[:, 1] -= self.shape.cheek_drop * bump(away - 4.2, 1.8) * bump(t + 4.5, 2.2)

    @property
    def eye_centres(self) -> tuple[np.ndarray, np.ndarray]:
        """Centres of the left and the right eyeball (3 each)."""
        return self.lids[0].centre, self.lids[1].centre

    def nearest(self, s: float, t: float) -> int:
        """The vertex whose place on the template plane is nearest to (s, t)."""
        return int(np.argmin(np.square(self.sheet.st - (s, t)).sum(1)))


_Draw = Callable[[float, float], float]


def draw_face(traits: Traits) -> FaceShape:
    """The shape of the face of a person: a pure function of the traits and their seed."""
    rng = stream(traits.seed, "face")

    def draw(mean: float, deviation: float) -> float:  # cut at 2.2 deviations, so that nobody leaves the human range
        return float(mean + deviation * np.clip(rng.normal(), -2.2, 2.2))

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


MOUTH_LEFT, MOUTH_RIGHT = 48, 54  # corners, as in the picture

_JAW_LINE = ((9.4, 0.0), (9.3, -2.0), (9.2, -4.3), (9.0, -7.0), (8.2, -10.2), (6.3, -11.0), (4.2, -11.2), (2.1, -11.35), (0.0, -11.4))
_NOSE_BACK = ((0.0, 0.3), (0.0, -1.0), (0.0, -2.3), (0.0, -3.55))
_NOSE_FOOT = ((1.35, -4.45), (0.68, -4.62), (0.0, -4.62))


@lru_cache(maxsize=1)
def landmark_vertices() -> np.ndarray:
    """Vertex of the skin sheet for each of the 68 points (int32 68)."""
    sheet = skin_mesh()
    tree = cKDTree(sheet.st)
    mirror = np.array([-1.0, 1.0])
    jaw, brow, back, foot = map(np.array, (_JAW_LINE, BROW, _NOSE_BACK, _NOSE_FOOT))
    lines = (jaw * mirror, jaw[-2::-1], brow[::-1] * mirror, brow, back, foot * mirror, foot[-2::-1])
    on_plane = tree.query(np.concatenate(lines))[1]
    return np.concatenate([on_plane, _eye_points(sheet), _mouth_points(sheet)]).astype(np.int32)


def _eye_points(sheet: SkinMesh) -> np.ndarray:
    """Left eye from its outer corner over the top, right eye from its inner corner over the top (12)."""
    left, right = sheet.eyes[0][1], sheet.eyes[1][1]  # ring 1: the outer edge of the lid margin
    third, half = round(EYE_ANGLES * 0.16), EYE_ANGLES // 2
    over_left = [0, third, half - third, half, half + third, EYE_ANGLES - third]
    over_right = [half, half - third, third, 0, EYE_ANGLES - third, half + third]
    return np.concatenate([left[over_left], right[over_right]])


def _mouth_points(sheet: SkinMesh) -> np.ndarray:
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


def _border(sheet: SkinMesh, angle: int) -> int:
    """The vertex nearest the border of the red at one angle of the rings."""
    column = sheet.mouth[INNER_RINGS : INNER_RINGS + len(MOUTH_RINGS), angle]
    return int(column[np.argmin(np.abs(red_share(sheet.mu[column], sheet.alpha[column]) - 1))])
