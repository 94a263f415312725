"""Eyes: lids that lie on the eyeball and close in a blink, and the eyeball with its white and its iris."""

from dataclasses import dataclass

import numpy as np

from embedded.talking_heads.solids import Material, Mesh, grid_faces
from embedded.talking_heads.template import EYE_ANGLES, EYE_HALF, EYE_MIDDLE, EYE_RINGS, INNER_CANTHUS, OUTER_CANTHUS, PUPIL, lid_height
from embedded.talking_heads.traits import Traits, smooth, stream

EYE_RADIUS = 1.26  # cm; a little more than the real 1.2 so that it fills the lids' corners
_LID = 0.15  # cm: a lid stands off the ball by its thickness and the cornea's bulge
_MIDDLE = EYE_MIDDLE - PUPIL[0]


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
        self._open = lid_height(self._u, self._upper) * np.where(self._upper, 1, -1) * shape.height
        outward = np.stack([EYE_HALF * self._u, self._open + 0.25 * np.sin(angle)], -1)
        self._outward = outward / np.linalg.norm(outward, axis=1, keepdims=True)
        self._corner_line = INNER_CANTHUS[1] + (OUTER_CANTHUS[1] - INNER_CANTHUS[1]) * (self._u + 1) / 2

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
        meeting = lower_open[-np.arange(EYE_ANGLES)] * 0.72
        margin = np.where(self._upper, upper_open * (1 - closed) + meeting * closed, lower_open * (1 - 0.12 * closed))
        along = 1 - smooth(0.0, 1.1, EYE_RINGS)[:, None]  # the skin further away follows less
        distance = EYE_RINGS[:, None]
        x = _MIDDLE + EYE_HALF * self._u[None] + distance * self._outward[None, :, 0]
        rest = self._open[None] + distance * self._outward[None, :, 1]
        y = rest + (margin - self._open)[None] * along + self._corner_line[None]
        z = self._shell(x, y)
        # the innermost ring is drawn into the ball, so that the margin has a thickness and the corners have a floor
        x[0], y[0] = _MIDDLE + 0.8 * (x[0] - _MIDDLE), 0.62 * y[0] + 0.38 * self._corner_line
        z[0] = np.sqrt(np.clip(EYE_RADIUS**2 - x[0] ** 2 - y[0] ** 2, 0.04, None)) - 0.12
        turned = np.stack([x, y + x * self.shape.slant, z], -1) * self.shape.size
        turned[..., 0] *= self.side
        return self.centre + turned

    def _shell(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Depth over the eyeball's centre of the lids' outer surface; wider than the ball, and turned outwards."""
        radius = EYE_RADIUS + _LID
        under = np.clip(1 - (x / 1.9) ** 2 - (y / radius) ** 2, 0.02, 1)
        bag = self.shape.bag * np.exp(-(((y + 1.0) / 0.35) ** 2) - (x / 1.1) ** 2)
        return radius * np.sqrt(under) - 0.16 * x + 0.03 * x * x + bag


TEXTURE, SECTORS = 256, 28  # texels a side; vertices around the axis
REACH = np.radians(115)  # angle from the optical axis that the mesh covers; behind it lies the socket
SPREAD = 0.7  # exponent of the angle in the texture, below 1: more texels for the iris
CORNEA_RADIUS, CORNEA_HEIGHT = 0.78, 0.10  # cm, of curvature, and over the sphere at the apex
IRIS_RADIUS = 0.59  # cm: white to white 11.8 mm
# Iris colours, linear RGB, the outer part and the part around the pupil: blue, grey, green, hazel; and brown, dark brown
_LIGHT_IRIS = np.array(
    [[[0.17, 0.24, 0.33], [0.25, 0.28, 0.28]], [[0.20, 0.23, 0.25], [0.26, 0.24, 0.19]], [[0.15, 0.18, 0.10], [0.24, 0.17, 0.07]],
     [[0.13, 0.10, 0.05], [0.19, 0.10, 0.035]]]
)  # fmt: skip
_BROWN, _DARK = np.array([[[0.085, 0.034, 0.010], [0.12, 0.050, 0.013]], [[0.022, 0.009, 0.004], [0.032, 0.013, 0.005]]])


def eyeball(traits: Traits, radius: float = 1.2) -> Mesh:
    """The eye in its own space: origin at the ball's centre, looking along +z; `radius` in cm."""
    cornea = np.arcsin(IRIS_RADIUS / radius) * np.array([0.0, 0.18, 0.38, 0.58, 0.76, 0.90, 1.0, 1.12])
    angle = np.concatenate([cornea, np.linspace(cornea[-1], REACH, 8)[1:]])  # from the axis, dense over the cornea
    sector = 2 * np.pi * np.arange(SECTORS) / SECTORS
    # the sphere, or the cornea's cap where that stands out, with a soft edge between them
    centre = radius + CORNEA_HEIGHT - CORNEA_RADIUS
    cap = centre * np.cos(angle) + np.sqrt(np.maximum((centre * np.cos(angle)) ** 2 - centre**2 + CORNEA_RADIUS**2, 0))
    distance = radius + np.logaddexp(0, (cap - radius) / 0.012) * 0.012
    across, forward = distance * np.sin(angle), distance * np.cos(angle)
    shape = (len(angle), SECTORS)
    x, y = across[:, None] * np.cos(sector), -across[:, None] * np.sin(sector)
    vertices = np.stack([x, y, np.broadcast_to(forward[:, None], shape)], -1).reshape(-1, 3)
    reach = 0.5 * (angle / REACH) ** SPREAD
    uv = 0.5 + np.stack([reach[:, None] * np.cos(sector), reach[:, None] * np.sin(sector)], -1).reshape(-1, 2)
    material = Material(albedo=paint_eye(traits, radius), roughness=0.08, specular=0.025, scatter=(0.25, 0.16, 0.12))
    return Mesh.of(vertices, grid_faces(*shape, closed=True)[:, ::-1], uv, material)


def paint_eye(traits: Traits, radius: float = 1.2) -> np.ndarray:
    """Albedo of the eyeball (float32 TEXTURE TEXTURE 3, linear RGB), the pupil in the middle."""
    rng = stream(traits.seed, "eyes")
    middle = (np.arange(TEXTURE, dtype=np.float32) + 0.5) / TEXTURE * 2 - 1
    x, y = middle[None], -middle[:, None]
    angle = REACH * np.minimum(np.hypot(x, y), 1.0) ** (1 / SPREAD)
    around = np.arctan2(y, x) + 0 * angle
    share = radius * np.sin(np.minimum(angle, np.pi / 2)) / IRIS_RADIUS  # 1 at the rim of the iris
    white = _white(traits, rng, angle, around)
    iris = _iris(traits, rng, share, around)
    inside = (1 - smooth(0.93, 1.05, share)) * (angle < np.pi / 2)
    return np.clip(white + inside[..., None] * (iris - white), 0, 1).astype(np.float32)


def _white(traits: Traits, rng: np.random.Generator, angle: np.ndarray, around: np.ndarray) -> np.ndarray:
    """The sclera: off-white, pinker and veined to the corners, yellower with age and in dark skin, bluish in the young."""
    aged = float(np.clip((traits.age - 25) / 50, 0, 1))
    yellow = 0.5 * aged + 0.5 * traits.melanin * rng.uniform(0.3, 1)
    base = np.array([0.51, 0.475, 0.445]) * rng.uniform(0.92, 1.06) * (1 - yellow * np.array([0.06, 0.10, 0.24]))
    corner = smooth(0.5, 1.35, angle) * (0.45 + 0.55 * np.abs(np.cos(around)))
    red = (rng.uniform(0.25, 0.8) * corner)[..., None]
    rim = (0.10 * np.exp(-(((angle - 0.56) / 0.08) ** 2)))[..., None]  # the white is thin and bluish next to the iris
    return base * (1 - red * np.array([0.14, 0.52, 0.46])) * (1 - rim * np.array([1.3, 1.0, 0.7]))


def _iris(traits: Traits, rng: np.random.Generator, share: np.ndarray, around: np.ndarray) -> np.ndarray:
    """Fibres around the pupil, a wreath (collarette), a dark limbal ring, and the pupil itself."""
    if rng.random() < np.clip(0.85 - 1.9 * traits.melanin, 0.0, 0.75):  # brown for most people, light eyes only with light skin
        chosen = _LIGHT_IRIS[rng.choice(4, p=(0.4, 0.2, 0.2, 0.2))]
    else:
        chosen = _BROWN + float(np.clip(rng.normal(traits.melanin, 0.25), 0, 1)) * (_DARK - _BROWN)
    outer, inner = chosen * rng.uniform(0.75, 1.25) * rng.uniform(0.93, 1.07, 3)
    pupil = (rng.uniform(0.21, 0.27) - 0.05 * float(np.clip((traits.age - 30) / 50, 0, 1))) / IRIS_RADIUS
    fibres = 0 * share
    for count in rng.uniform(14, 90, 9).round():
        phase = rng.uniform(0, 6.3) + rng.normal(0, 1.2) * np.sin(rng.integers(2, 6) * around + 4 * share)
        fibres = fibres + 0.38 * np.cos(count * around + phase)
    wreath = pupil + 0.20 + 0.03 * np.cos(5 * around + rng.uniform(0, 6)) + 0.02 * np.cos(11 * around)
    near = 1 - smooth(-0.07, 0.10, share - wreath + 0.03 * fibres)
    colour = outer + near[..., None] * (inner - outer)
    light = 1 + 0.22 * fibres * smooth(pupil, pupil + 0.12, share) + 0.30 * np.exp(-(((share - wreath) / 0.06) ** 2))
    limbal = 1 - rng.uniform(0.45, 0.85) * smooth(0.74, 0.98, share)
    colour = colour * (np.maximum(light, 0.25) * limbal)[..., None]
    open_pupil = 1 - smooth(pupil - 0.03, pupil + 0.035, share)
    return colour + open_pupil[..., None] * (0.004 - colour)
