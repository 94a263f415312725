"""How the skin moves: the lower jaw, lips and cheeks in speech, and the brows."""

from dataclasses import dataclass

import numpy as np

from embedded.talking_heads.face import FaceSurface, nasolabial_line, red_share
from embedded.talking_heads.template import INNER_RINGS, MOUTH_ANGLES
from embedded.talking_heads.traits import bump, smooth

PIVOT = (0.0, -1.2, 1.0)  # cm, head space: middle of the axis through the jaw joints, which runs along x
OPEN_ANGLE = 0.25  # radians at jaw = 1
OPEN_GLIDE = 0.25  # cm that the joints slide forwards at jaw = 1


def jaw_motion(points: np.ndarray, jaw: float, weight: float | np.ndarray = 1.0) -> np.ndarray:
    """Points (... 3) cm as the jaw carries them; jaw = 0 is closed, 1 wide open.

    `weight` (one number or one a point) blends linearly from staying in place (0) to the rigid motion of the bone (1). Returns float32.
    """
    points = np.asarray(points, np.float32)
    cosine, sine = np.float32(np.cos(OPEN_ANGLE * jaw)), np.float32(np.sin(OPEN_ANGLE * jaw))
    y, z = points[..., 1] - np.float32(PIVOT[1]), points[..., 2] - np.float32(PIVOT[2])
    weight = np.asarray(weight, np.float32)
    moved = points.copy()
    moved[..., 1] += weight * (y * (cosine - 1) - z * sine)
    moved[..., 2] += weight * (y * sine + z * (cosine - 1) + np.float32(OPEN_GLIDE * jaw))
    return moved


_CORNER = 0.4  # share of the jaw's motion that the mouth's corners follow


@dataclass(frozen=True)
class MouthShape:
    """What the mouth does: the channels of speech, each 0 .. 1 (spread from -0.3), and a smile."""

    jaw: float = 0.0
    spread: float = 0.0
    pucker: float = 0.0
    funnel: float = 0.0
    closure: float = 0.0
    upper_lip: float = 0.0
    lower_lip: float = 0.0
    tuck: float = 0.0
    press: float = 0.0
    tongue_up: float = 0.0
    tongue_out: float = 0.0
    smile: float = 0.0


class Expression:
    """Moves the skin of one person; holds what depends on the person alone."""

    def __init__(self, face: FaceSurface) -> None:
        self.face = face
        sheet = face.sheet
        s, t = sheet.st.T
        mu, alpha = sheet.mu, sheet.alpha
        self._cosine, self._sine = np.cos(alpha), np.abs(np.sin(alpha))
        self._upper = (np.sin(alpha) >= 0) * 1.0
        self._share = red_share(mu, alpha)
        self._wide, self._near, self._lip = (np.exp(-((mu / reach) ** 2)) for reach in (1.1, 0.92, 0.5))
        below_eyes = 1 - smooth(-3.6, -1.0, t)
        self._wide, self._near = self._wide * below_eyes, self._near * below_eyes
        self._edge = np.abs(self._cosine) ** 3
        self._jaw = self._jaw_weight(t)
        away = np.abs(s)
        self._front = smooth(2.0, 5.0, face.base[:, 2])
        self._cheek = bump(away - 4.0, 1.35) * bump(t + 4.2, 1.5) * self._front
        self._hollow = bump(away - 4.3, 1.5) * bump(t + 6.2, 1.8) * self._front
        line = nasolabial_line(t)
        self._fold = bump(away - line, 0.22) * smooth(-7.4, -6.0, t) * (1 - smooth(-4.4, -3.4, t))
        self._brow = bump(t - 2.5, 1.5) * (1 - smooth(5.0, 7.5, away)) * self._front
        self._frown = bump(t - 2.2, 1.2) * bump(away - 1.3, 1.1) * self._front
        self._chin = bump(s, 1.6) * bump(t + 9.2, 0.9) * self._front
        self._side = np.sign(s)

    def _jaw_weight(self, t: np.ndarray) -> np.ndarray:
        """Share of the jaw's motion that each vertex follows (v)."""
        mu, low = self.face.sheet.mu, -np.sin(self.face.sheet.alpha)
        reach = np.abs(low) ** 0.8
        at_lips = np.where(low > 0, _CORNER + (0.93 - _CORNER) * reach, _CORNER * (1 - reach))
        at_face = smooth(-3.4, -8.6, t)
        near = np.exp(-((mu / 0.85) ** 2))
        weight = near * at_lips + (1 - near) * at_face
        bone = smooth(-1.5, 3.0, self.face.base[:, 2])
        throat = smooth(-16.5, -11.6, t)
        return weight * bone * throat

    def skin_at(self, mouth: MouthShape, brow_raise: float = 0.0, brow_knit: float = 0.0) -> np.ndarray:
        """Skin vertices (float64 v 3) in head space with the eyes' rings still where the face leaves them."""
        moved = jaw_motion(self.face.base, mouth.jaw, self._jaw).astype(np.float64)
        self._shape_lips(moved, mouth)
        self._shape_face(moved, mouth, brow_raise, brow_knit)
        self._meet(moved, mouth.closure)
        return moved

    def _shape_lips(self, moved: np.ndarray, mouth: MouthShape) -> None:
        """Corners, protrusion and the lips' own motion, in place."""
        sign = 2 * self._upper - 1
        open_share = 1 - mouth.closure
        narrower = (0.40 * mouth.pucker + 0.20 * mouth.funnel + 0.09 * mouth.jaw) * self._wide
        wider = 0.62 * mouth.spread + 0.5 * mouth.smile
        moved[:, 0] = moved[:, 0] * (1 - narrower) + wider * self._cosine * self._near
        moved[:, 2] -= (0.34 * mouth.spread + 0.3 * mouth.smile) * self._near * self._edge
        moved[:, 1] += (0.06 * mouth.spread + 0.55 * mouth.smile) * self._near * self._edge
        forward = (0.72 * mouth.pucker + 0.52 * mouth.funnel) * self._near * (0.45 + 0.55 * self._sine)
        moved[:, 2] += forward - 0.08 * mouth.jaw * self._wide
        apart = (0.10 * mouth.pucker + 0.30 * mouth.funnel) * open_share
        lift = (0.42 * mouth.upper_lip + 0.10 * mouth.smile) * self._upper + 0.36 * mouth.lower_lip * (1 - self._upper)
        moved[:, 1] += sign * (apart * self._lip + lift * open_share * self._near) * self._sine
        self._roll(moved, mouth, sign)

    def _roll(self, moved: np.ndarray, mouth: MouthShape, sign: np.ndarray) -> None:
        """What turns the red in or out: pressed lips, the lip tucked under the teeth, the plump lips of a pucker; in place."""
        red = np.exp(-((self._share / 1.1) ** 2)) * self._sine
        lower = 1 - self._upper
        reach = np.minimum(self._share, 1.6) * red
        thinner = 0.20 * mouth.press + 0.12 * np.maximum(mouth.spread, 0) + 0.10 * mouth.smile - 0.12 * mouth.pucker
        moved[:, 1] -= sign * thinner * reach * 0.9
        moved[:, 2] -= (0.20 * mouth.press - 0.10 * mouth.funnel) * red
        moved[:, 2] -= 0.52 * mouth.tuck * lower * self._lip * self._sine
        moved[:, 1] += 0.40 * mouth.tuck * lower * self._lip * self._sine
        moved[:, 1] += 0.10 * mouth.tuck * self._upper * self._near * self._sine

    def _shape_face(self, moved: np.ndarray, mouth: MouthShape, brow_raise: float, brow_knit: float) -> None:
        """Cheeks, folds, chin and brows, in place."""
        push = 0.5 * np.maximum(mouth.spread, 0) + 2.0 * mouth.smile
        moved[:, 2] += 0.20 * push * self._cheek
        moved[:, 1] += 0.16 * push * self._cheek
        moved[:, 2] -= (0.10 * push + 0.05 * mouth.upper_lip) * self._fold
        suck = 0.5 * mouth.jaw + 0.45 * mouth.pucker
        moved[:, 0] -= 0.30 * suck * self._hollow * self._side
        moved[:, 2] -= 0.18 * suck * self._hollow
        moved[:, 2] += 0.06 * (mouth.press + mouth.pucker) * self._chin
        moved[:, 1] += 0.10 * mouth.press * self._chin
        moved[:, 1] += (0.48 * brow_raise - 0.16 * brow_knit) * self._brow
        moved[:, 0] -= 0.22 * brow_knit * self._frown * self._side
        moved[:, 2] += 0.07 * brow_knit * self._frown

    def _meet(self, moved: np.ndarray, closure: float) -> None:
        """Brings the lips together by `closure` of their gap, and apart where they would pass through each other; in place."""
        rings = self.face.sheet.mouth
        half = MOUTH_ANGLES // 2
        line = rings[INNER_RINGS]
        above, below = line[: half + 1], np.roll(line[::-1], 1)[: half + 1]
        gap = moved[above] - moved[below]  # h 3
        rest = self.face.base[above] - self.face.base[below]
        gap = gap - rest
        share = np.where(gap[:, 1:2] > 0, closure, 1.0)
        around = np.linspace(0, np.pi, half + 1)
        angle = np.abs(np.arctan2(np.sin(self.face.sheet.alpha), np.cos(self.face.sheet.alpha)))
        near = self._lip > 0.02
        correction = np.stack([np.interp(angle[near], around, (gap * share)[:, axis]) for axis in (1, 2)], -1)
        weight = (self._lip[near] * np.where(self._upper[near] > 0, -0.28, 0.72))[:, None]
        moved[np.flatnonzero(near)[:, None], [1, 2]] += weight * correction

    def opening(self, vertices: np.ndarray) -> tuple[float, float]:
        """Height of the gap between the lips and distance of the mouth's corners, in cm, of `vertices` (v 3)."""
        line = self.face.sheet.mouth[INNER_RINGS]
        quarter = MOUTH_ANGLES // 4
        gap = vertices[line[quarter]] - vertices[line[-quarter]]
        rest = self.face.base[line[quarter]] - self.face.base[line[-quarter]]
        width = np.linalg.norm(vertices[line[0]] - vertices[line[2 * quarter]])
        return float(max(gap[1] - rest[1], 0.0)), float(width)
