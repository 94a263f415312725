"""The eyelids: skin that lies on the eyeball, opens to an almond and closes in a blink."""

from dataclasses import dataclass

import numpy as np

from preprocess.talking_heads.anatomy.sheet import EYE_ANGLES, EYE_RINGS, lid_height
from preprocess.talking_heads.curves import smooth
from preprocess.talking_heads.template import INNER_CANTHUS, OUTER_CANTHUS, PUPIL

EYE_RADIUS = 1.26  # cm; a little more than the real 1.2 so that it fills the lids' corners
_LID = 0.15  # cm: a lid stands off the ball by its thickness and the cornea's bulge
_HALF = (OUTER_CANTHUS[0] - INNER_CANTHUS[0]) / 2
_MIDDLE = (OUTER_CANTHUS[0] + INNER_CANTHUS[0]) / 2 - PUPIL[0]


@dataclass(frozen=True)
class EyeShape:
    """How eyes differ from the average."""

    size: float = 1.0
    height: float = 1.0  # factor on the opening's height
    slant: float = 0.0  # radians, positive: the outer corners higher
    depth: float = 0.0  # cm further back
    spread: float = 0.0  # cm further apart, each
    raised: float = 0.0  # cm
    crease: float = 0.5  # cm from the margin to the fold of the upper lid; small: a hooded lid
    bag: float = 0.0  # cm of swelling under the eye


class Eyelids:
    """The rings of skin around one eye of one person."""

    def __init__(self, shape: EyeShape, side: int, centre: np.ndarray) -> None:
        """`side` is -1 for the left of the picture, 1 for the right; `centre` (3) is the eyeball's centre in cm."""
        self.shape, self.side, self.centre = shape, side, centre
        angle = np.linspace(0, 2 * np.pi, EYE_ANGLES, endpoint=False)
        self._u, self._upper = np.cos(angle), np.sin(angle) >= 0
        self._open = np.where(
            self._upper, lid_height(self._u, np.full_like(self._upper, True)), -lid_height(self._u, np.full_like(self._upper, False))
        )
        self._open *= shape.height
        outward = np.stack([_HALF * self._u, self._open + 0.25 * np.sin(angle)], -1)
        self._outward = outward / np.linalg.norm(outward, axis=1, keepdims=True)
        line = INNER_CANTHUS[1] + (OUTER_CANTHUS[1] - INNER_CANTHUS[1]) * (self._u + 1) / 2
        self._corner_line = line

    def held(self) -> np.ndarray:
        """How firmly each ring vertex (r a) lies on the eyeball: 1 at the margin, 0 where the face begins."""
        distance = EYE_RINGS[:, None]
        above = 1 - smooth(self.shape.crease * 0.65, self.shape.crease * 1.55 + 0.08, distance)
        below = 1 - smooth(0.22, 1.15, distance)
        aside = 1 - smooth(0.1, 0.62, distance)
        up = np.abs(np.sin(np.linspace(0, 2 * np.pi, EYE_ANGLES, endpoint=False)))[None] ** 0.7
        return (np.where(self._upper[None], above, below) * up + aside * (1 - up)) * np.ones((len(EYE_RINGS), 1))

    def points(self, closed: float, squint: float = 0.0, look_down: float = 0.0) -> np.ndarray:
        """Ring points (r a 3) on the eyeball. `closed` 0 .. 1, `squint` raises the lower lid, `look_down` -1 .. 1 lowers the upper one."""
        upper_open = self._open * np.clip(1 - 0.28 * look_down - 0.18 * squint, 0.3, 1.25)
        lower_open = self._open * (1 - 0.45 * squint)
        meeting = lower_open[self._mirror()] * 0.72
        margin = np.where(self._upper, upper_open * (1 - closed) + meeting * closed, lower_open * (1 - 0.12 * closed))
        along = 1 - smooth(0.0, 1.1, EYE_RINGS)[:, None]  # the skin further away follows less
        distance = EYE_RINGS[:, None]
        x = _MIDDLE + _HALF * self._u[None] + distance * self._outward[None, :, 0]
        rest = self._open[None] + distance * self._outward[None, :, 1]
        y = rest + (margin - self._open)[None] * along + self._corner_line[None]
        z = self._shell(x, y)
        x, y, z = self._thicken(x, y, z)
        turned = np.stack([x, y + x * self.shape.slant, z], -1) * self.shape.size
        turned[..., 0] *= self.side
        return self.centre + turned

    def _mirror(self) -> np.ndarray:
        """For each vertex of a ring, the one above or below it."""
        return (-np.arange(EYE_ANGLES)) % EYE_ANGLES

    def _shell(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Depth over the eyeball's centre of the lids' outer surface; wider than the ball, and turned outwards."""
        radius = EYE_RADIUS + _LID
        under = np.clip(1 - (x / 1.9) ** 2 - (y / radius) ** 2, 0.02, 1)
        bag = self.shape.bag * np.exp(-(((y + 1.0) / 0.35) ** 2) - (x / 1.1) ** 2)
        return radius * np.sqrt(under) - 0.16 * x + 0.03 * x * x + bag

    def _thicken(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The innermost ring drawn into the ball, so that the margin has a thickness and the corners have a floor."""
        x, y, z = x.copy(), y.copy(), z.copy()
        x[0], y[0] = _MIDDLE + 0.8 * (x[0] - _MIDDLE), 0.62 * y[0] + 0.38 * self._corner_line
        z[0] = np.sqrt(np.clip(EYE_RADIUS**2 - x[0] ** 2 - y[0] ** 2, 0.04, None)) - 0.12
        return x, y, z
