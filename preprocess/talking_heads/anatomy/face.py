"""One person's skin as a surface: skull, nose, lips and lids put together on the sheet, with the points that others hang things on."""

from dataclasses import dataclass, field

import numpy as np

from preprocess.talking_heads.anatomy.eyelids import Eyelids, EyeShape
from preprocess.talking_heads.anatomy.lips import LipShape, raise_lips
from preprocess.talking_heads.anatomy.nose import NoseShape, raise_nose
from preprocess.talking_heads.anatomy.sheet import skin_sheet
from preprocess.talking_heads.anatomy.skull import SkullShape, surface
from preprocess.talking_heads.curves import bump, smooth
from preprocess.talking_heads.template import PUPIL

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
    larynx: float = 0.1  # cm that it stands out
    asymmetry: tuple[float, ...] = (0.0,) * 6  # cm: seeded differences of the left half


def nasolabial_line(t: np.ndarray) -> np.ndarray:
    """How far to the side (|s|, cm) the fold from the nose past the mouth runs at heights t of the plane."""
    return 2.05 + 1.25 * smooth(-3.9, -6.4, t) + 0.15 * smooth(-6.4, -8.0, t)


class Skin:
    """The skin of one person at rest: eyes open, lips closed."""

    def __init__(self, shape: FaceShape) -> None:
        self.shape, self.sheet = shape, skin_sheet()
        s, t = self.sheet.st.T
        base = surface(shape.skull, s, t)
        self._relax_folds(base, s, t)
        self._shape_neck(base, s, t)
        base += raise_nose(shape.nose, s, t) * smooth(-1.0, 3.0, base[:, 2])[:, None]
        base += raise_lips(shape.lips, self.sheet)
        base += self._uneven(s, t)
        self.lids = tuple(Eyelids(shape.eyes, side, self._eye_centre(side)) for side in (-1, 1))
        self.held = [lids.held()[..., None] for lids in self.lids]
        self.rest_on(base)

    def rest_on(self, base: np.ndarray) -> None:
        """Take `base` (v 3, the skin but for the lids) as the skin at rest."""
        self.base = base
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
        shift = self.shape.asymmetry[0] if side < 0 else 0.0
        return np.array([x, eyes.raised + shift, 7.12 * skull.depth - eyes.depth])

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

    def _shape_neck(self, base: np.ndarray, s: np.ndarray, t: np.ndarray) -> None:
        """The muscles from behind the ears to the collar bones, and the larynx, raised from the neck in `base`."""
        away = np.abs(s)
        line = np.interp(t, [-20.0, -17.0, -14.0, -11.0], [1.5, 3.6, 6.6, 9.6])
        along = smooth(-21.0, -18.5, t) * (1 - smooth(-13.5, -11.0, t))
        ridge = bump(away - line, 0.95) * along
        hollow = bump(away - line + 1.7, 0.9) * along
        strength = 0.26 - 0.12 * max(self.shape.skull.double_chin, 0.0)
        outward = base * np.array([1.0, 0.0, 1.0]) + np.array([0.0, 0.0, 1.2])
        outward /= np.maximum(np.linalg.norm(outward, axis=1, keepdims=True), 1e-6)
        base += outward * (strength * ridge - 0.16 * hollow)[:, None]
        base[:, 2] += self.shape.larynx * bump(s, 0.75) * bump(t + 15.2, 1.1)

    def _uneven(self, s: np.ndarray, t: np.ndarray) -> np.ndarray:
        """Small differences of the two halves."""
        brow, mouth, cheek, jaw, nose = self.shape.asymmetry[1:]
        moved = np.zeros((len(s), 3))
        left = smooth(0.3, -2.5, s)
        moved[:, 1] += left * (brow * bump(t - 2.3, 1.2) + mouth * bump(t + 6.6, 1.4) * bump(s + 2.4, 1.6))
        moved[:, 2] += left * cheek * bump(t + 3.5, 3.0) * bump(s + 4.5, 2.2)
        moved[:, 0] += left * jaw * bump(t + 8.5, 3.0) * bump(s + 6.5, 3.0)
        moved[:, 0] += nose * bump(s, 1.8) * smooth(0.0, -3.0, t) * smooth(-5.0, -4.0, t)
        return moved

    @property
    def eye_centres(self) -> tuple[np.ndarray, np.ndarray]:
        """Centres of the left and the right eyeball (3 each)."""
        return self.lids[0].centre, self.lids[1].centre

    @property
    def eye_scale(self) -> float:
        """Factor from the average eyeball's size to this person's."""
        return self.shape.eyes.size

    def nearest(self, s: float, t: float) -> int:
        """The vertex whose place on the template plane is nearest to (s, t)."""
        return int(np.argmin(np.square(self.sheet.st - (s, t)).sum(1)))
