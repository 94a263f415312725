"""The outer ear: rolled rim, folds, bowl, tragus and lobe as one grid mesh.

Ear space: cm, origin at the ear canal, x away from the head, y up, z forwards. It is drawn as the ear on the right of the picture; the
other one is its mirror image. In the side view a runs backwards and b upwards, before the ear is turned out and leans back.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from scipy.interpolate import CubicSpline

from embedded.talking_heads.solids import Material, Mesh, grid_faces
from embedded.talking_heads.traits import Traits, stream

COLUMNS = 40  # around the ear, from the front over the top to the back and the lobe
FRONT_ROWS = 14  # from the bowl to the rim
SINK = 0.5  # cm that the edge lies under the skin of the head
FLOOR = 0.30  # cm that the bottom of the bowl stands above the skin, so that the head does not cut through it
TEXTURE = 96
_TEXTURE_CORNER, _TEXTURE_SIZE = np.array([-1.1, -3.9]), np.array([4.4, 7.6])  # a, b covered by the texture

# The rows run from here outwards: middle of the bowl
_CENTRE = np.array([0.62, -0.1])
_ROLLED = np.radians([172, 135, 98, 60, 20, -25, -70])  # around the rolled rim, from its inner side over the crest
_ROUND = np.radians([85, 65, 45, 20, -10, -40, -70])  # around the plain edge of the lobe
_BACK = np.array([0.22, 0.48, 0.76, 1.0])  # share of the way from the rim down the ear's back into the head

# Outline: a, b, whether it stands off the head (1) or is grown to the cheek (0), radius of the rim, height of the rim over the sheet
_OUTLINE = np.array(
    [
        (-0.62, 0.70, 0.00, 0.06, 0.00),
        (-0.64, 1.25, 0.60, 0.16, 0.00),
        (-0.50, 1.90, 1.00, 0.21, 0.05),
        (-0.10, 2.55, 1.00, 0.24, 0.10),
        (0.50, 2.98, 1.00, 0.25, 0.12),
        (1.15, 3.05, 1.00, 0.25, 0.12),
        (1.78, 2.78, 1.00, 0.24, 0.10),
        (2.25, 2.20, 1.00, 0.22, 0.08),
        (2.48, 1.45, 1.00, 0.20, 0.08),
        (2.50, 0.65, 1.00, 0.18, 0.07),
        (2.36, -0.15, 1.00, 0.16, 0.05),
        (2.08, -0.90, 1.00, 0.14, 0.00),
        (1.70, -1.60, 1.00, 0.14, 0.00),
        (1.32, -2.25, 1.00, 0.17, 0.00),
        (0.88, -2.78, 1.00, 0.20, 0.00),
        (0.34, -2.96, 1.00, 0.20, 0.00),
        (-0.10, -2.70, 0.80, 0.17, 0.00),
        (-0.40, -2.20, 0.25, 0.10, 0.00),
        (-0.62, -1.50, 0.00, 0.05, 0.00),
        (-0.78, -0.80, 0.00, 0.05, 0.00),
        (-0.78, -0.05, 0.00, 0.05, 0.00),
    ]
)
_BOWL = [
    (-0.38, -0.72),
    (0.02, -1.05),
    (0.55, -1.0),
    (1.0, -0.78),
    (1.2, -0.25),
    (1.27, 0.3),
    (1.12, 0.85),
    (0.7, 1.0),
    (0.1, 0.98),
    (-0.38, 0.85),
    (-0.42, 0.2),
]
_FOSSA = [(0.35, 1.5), (0.95, 1.55), (0.8, 2.15), (0.35, 2.2)]  # the hollow between the two arms of the antihelix
# Ridges: corners, height and half width in cm
_RIDGES = (
    (((0.72, -1.22), (1.15, -1.02), (1.46, -0.5), (1.56, 0.2), (1.48, 0.9)), 1.0, 0.22),  # antihelix
    (((1.48, 0.9), (1.36, 1.5), (1.08, 2.15)), 0.75, 0.27),  # its upper arm
    (((1.48, 0.9), (0.95, 1.2), (0.25, 1.28), (-0.25, 1.2)), 0.85, 0.17),  # its lower arm
)
_ROOT_OF_RIM = ((-0.62, 0.95), (-0.2, 0.5), (0.3, 0.28), (0.75, 0.25))


@dataclass(frozen=True)
class EarShape:
    """An ear in ear space, or placed on a head."""

    mesh: Mesh
    lobe: np.ndarray  # float32 3: middle of the lobe's outer face, where an earring hangs
    top: np.ndarray  # float32 3: in the fold between the top of the ear and the head, where the temple of glasses rests

    def placed(self, canal: np.ndarray, outward: np.ndarray, side: int) -> "EarShape":
        """The ear with its canal at `canal` (3, cm, head space) and its x axis along `outward` (3), which is taken level.

        `side` is 1 for the ear on the right of the picture, -1 for the mirror image on the left; `outward` points away from the head there.
        """
        turn = np.arctan2(-float(outward[2]), abs(float(outward[0])))
        rotation = np.array([[np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)]])

        def move(points: np.ndarray) -> np.ndarray:
            return (np.asarray(canal) + (points @ rotation.T) * [side, 1, 1]).astype(np.float32)

        mesh = self.mesh
        faces = mesh.faces if side > 0 else np.ascontiguousarray(mesh.faces[:, ::-1])
        moved = Mesh(move(mesh.vertices), faces, mesh.uv, mesh.materials, mesh.face_material, mesh.occlusion)
        return EarShape(moved, move(self.lobe), move(self.top))


@dataclass(frozen=True)
class _Form:
    """What tells one ear from another."""

    height: float  # factor on lengths along b
    width: float  # factor on lengths along a
    protrusion: float  # radians that the ear is turned out from the head
    tilt: float  # radians that it leans back
    lobe: float  # factor on the length of the lobe
    attached: float  # 0: free lobe, 1: lobe grown to the cheek
    rim: float  # factor on the radius of the rolled rim
    antihelix: float  # height of the fold in cm
    tragus: float  # height in cm


def ear(traits: Traits, skin_colour: np.ndarray, side: int = 1) -> EarShape:
    """The ear, in ear space, of a person with skin of `skin_colour` (3, linear RGB); `side` picks the slight difference of the two."""
    form = _draw_form(traits, side)
    flat, x = _surface(form)
    corner = (flat - _TEXTURE_CORNER) / _TEXTURE_SIZE
    uv = np.stack([corner[..., 0], 1 - corner[..., 1]], -1).reshape(-1, 2)
    vertices = _to_space(flat, x, form)
    rows = len(vertices)
    material = Material(_paint(traits, np.asarray(skin_colour)), roughness=0.5, specular=0.028, scatter=(0.6, 0.25, 0.15))
    faces = np.ascontiguousarray(grid_faces(rows, COLUMNS, closed=True)[:, ::-1])
    mesh = Mesh(
        vertices.reshape(-1, 3).astype(np.float32),
        faces,
        np.clip(uv, 0, 1).astype(np.float32),
        (material,),
        np.zeros(len(faces), np.int16),
        _occlusion(flat).ravel().astype(np.float32),
    )
    outline = flat[FRONT_ROWS - 1]
    lobe = vertices[FRONT_ROWS - 3, np.argmin(outline[:, 1])]
    crest = vertices[FRONT_ROWS + 3, np.argmax(outline[:, 1])]
    return EarShape(mesh, lobe.astype(np.float32), np.array([0.12, crest[1] - 0.25, crest[2]], np.float32))


def _draw_form(traits: Traits, side: int) -> _Form:
    """Ears grow with age, lobes most; masculine ones are larger. Both sides share the draw but for a few per cent."""
    rng, own = stream(traits.seed, "ear"), stream(traits.seed, f"ear {side}")
    age = float(np.clip((traits.age - 20) / 60, 0, 1))
    size = (1.03 - 0.07 * traits.femininity + 0.07 * age) * (1 + 0.03 * rng.normal())
    return _Form(
        height=size * (1 + 0.01 * own.normal()),
        width=0.94 * size * float(np.clip(1 + 0.04 * rng.normal(), 0.92, 1.1)),
        protrusion=float(np.clip(0.40 + 0.09 * rng.normal() + 0.02 * own.normal(), 0.26, 0.61)),
        tilt=float(np.clip(0.27 + 0.05 * rng.normal() + 0.01 * own.normal(), 0.15, 0.4)),
        lobe=float(np.clip(0.9 + 0.12 * rng.normal() + 0.25 * age, 0.65, 1.4)),
        attached=float(np.clip(rng.normal(0.25, 0.4), 0, 1)),
        rim=float(np.clip(1 + 0.13 * rng.normal(), 0.75, 1.3)),
        antihelix=float(np.clip(0.34 + 0.06 * rng.normal(), 0.2, 0.46)),
        tragus=float(np.clip(0.42 + 0.06 * rng.normal(), 0.3, 0.55)),
    )


def _outline(form: _Form) -> np.ndarray:
    """The outline's five numbers at every column (COLUMNS 5), evenly spread along it."""
    knots = _OUTLINE.copy()
    low = np.clip(-1.5 - knots[:, 1], 0, None)
    knots[:, 1] -= low * (form.lobe - 1)
    near_cheek = (low > 0) & (knots[:, 0] < 0.5)
    knots[near_cheek, 2] *= 1 - 0.7 * form.attached
    knots[:, 3] *= form.rim
    around = np.concatenate([knots, knots[:1]])
    length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(around[:, :2], axis=0), axis=1))])
    return CubicSpline(length, around, bc_type="periodic")(np.arange(COLUMNS) / COLUMNS * length[-1])


def _surface(form: _Form) -> tuple[np.ndarray, np.ndarray]:
    """Places a, b (rows COLUMNS 2) in the flat ear and heights x above the skin (rows COLUMNS), from the bowl over the rim to the back."""
    outline = _outline(form)
    free, radius, lift = np.clip(outline[:, 2], 0, 1), np.clip(outline[:, 3], 0.03, None), outline[:, 4]
    reach = np.linalg.norm(outline[:, :2] - _CENTRE, axis=1)
    outwards = (outline[:, :2] - _CENTRE) / reach[:, None]
    share = np.linspace(0.0, 1.0, FRONT_ROWS)[:, None]
    rolled = np.clip((outline[:, 1] + 2.2) / 1.2, 0, 1)  # the rim unrolls towards the lobe
    front_reach = share * (reach - (1.0 + 0.6 * rolled) * radius * free)
    front = _CENTRE + front_reach[..., None] * outwards
    front_x = _front_height(front, form)
    fade = np.clip((share - 0.72) / 0.28, 0, 1)
    front_x = front_x + (1 - free) * fade * fade * (3 - 2 * fade) * (-0.08 - front_x)

    angle = _ROUND[:, None] + rolled * (_ROLLED - _ROUND)[:, None]
    plain = front_x[-1] - radius
    middle_x = plain + rolled * (_sheet(outline[:, :2], form) + lift - plain)
    tube_reach = reach - radius + radius * np.cos(angle)
    tube_x = middle_x + radius * np.sin(angle)
    step = (np.arange(len(_ROLLED)) + 1)[:, None] / len(_ROLLED)
    tube_reach = free * tube_reach + (1 - free) * (reach + 0.1 * step)
    tube_x = free * tube_x + (1 - free) * (-0.08 - (SINK - 0.08) * step)

    back = _BACK[:, None]
    back_reach = tube_reach[-1] + back * (0.42 * reach - tube_reach[-1])
    back_x = tube_x[-1] + (0.35 * back + 0.65 * back**2) * (-SINK - tube_x[-1])
    around = np.concatenate([tube_reach, back_reach])
    flat = np.concatenate([front, _CENTRE + around[..., None] * outwards])
    return flat, np.concatenate([front_x, tube_x, back_x])


def _sheet(flat: np.ndarray, form: _Form) -> np.ndarray:
    """Height of the unfolded ear over the skin at a, b (... 2): a sheet hinged at the cheek; the lobe hangs closer to the neck."""
    lower = np.clip((-0.8 - flat[..., 1]) / 1.6, 0, 1)
    return (flat[..., 0] + 0.6) * form.width * np.tan(form.protrusion) * (1 - 0.25 * lower) + 0.08


def _front_height(flat: np.ndarray, form: _Form) -> np.ndarray:
    """Height over the skin of the ear's front at a, b (... 2)."""
    x = _sheet(flat, form)
    x -= 0.10 * _inside(flat, _FOSSA, 0.2)
    ridges = [height * np.exp(-((_distance(flat, corners) / half_width) ** 2)) for corners, height, half_width in _RIDGES]
    x += form.antihelix * np.max(ridges, 0)
    bowl = _inside(flat, _BOWL, 0.34)
    x += bowl * (np.minimum(FLOOR, x) - x)
    a, b = flat[..., 0], flat[..., 1]
    root = np.exp(-((_distance(flat, _ROOT_OF_RIM) / 0.17) ** 2)) * np.clip((0.85 - a) / 1.1, 0, 1)
    tragus = np.exp(-(((a + 0.42) / 0.25) ** 2) - ((b + 0.32) / 0.42) ** 2)
    antitragus = np.exp(-(((a - 0.62) / 0.3) ** 2) - ((b + 1.22) / 0.24) ** 2)
    lobe = np.exp(-(((a - 0.42) / 0.6) ** 2) - ((b + 2.2) / 0.55) ** 2)
    return x + 0.34 * root + form.tragus * tragus + 0.12 * antitragus + 0.12 * lobe


def _inside(flat: np.ndarray, corners: list[tuple[float, float]], soft: float) -> np.ndarray:
    """0 outside a polygon .. 1 `soft` cm inside it, smooth, at a, b (... 2)."""
    contour = np.asarray(corners, np.float32)[:, None]
    points = flat.reshape(-1, 2)
    depth = np.array([cv2.pointPolygonTest(contour, (float(a), float(b)), True) for a, b in points]).reshape(flat.shape[:-1])
    share = np.clip(depth / soft, 0, 1)
    return share * share * (3 - 2 * share)


def _distance(flat: np.ndarray, corners: tuple[tuple[float, float], ...]) -> np.ndarray:
    """Distance in cm of a, b (... 2) to a chain of lines."""
    nearest = np.full(flat.shape[:-1], np.inf)
    for start, end in zip(np.asarray(corners)[:-1], np.asarray(corners)[1:], strict=True):
        way = end - start
        share = np.clip((flat - start) @ way / (way @ way), 0, 1)
        nearest = np.minimum(nearest, np.linalg.norm(flat - start - share[..., None] * way, axis=-1))
    return nearest


def _to_space(flat: np.ndarray, x: np.ndarray, form: _Form) -> np.ndarray:
    """Ear space (... 3) of a, b (... 2) at heights x: scaled, narrowed by the turn outwards, leaning back."""
    shear = np.clip(x, 0, None) * np.sin(form.protrusion) * 0.5  # what stands off a turned ear moves forwards
    y = flat[..., 1] * form.height
    z = -flat[..., 0] * form.width * np.cos(0.5 * form.protrusion) + shear
    cosine, sine = np.cos(form.tilt), np.sin(form.tilt)
    return np.stack([x, y * cosine + z * sine, z * cosine - y * sine], -1)


def _occlusion(flat: np.ndarray) -> np.ndarray:
    """Share of the surroundings (rows COLUMNS) each vertex sees: little in the bowl, in the groove under the rim and behind the ear."""
    front = 1 - 0.62 * _inside(flat[:FRONT_ROWS], _BOWL, 0.45) - 0.2 * _inside(flat[:FRONT_ROWS], _FOSSA, 0.2)
    groove = np.interp(np.arange(FRONT_ROWS), [0, FRONT_ROWS - 4, FRONT_ROWS - 1], [1.0, 1.0, 0.62])[:, None]
    tube = np.array([0.62, 0.85, 1.0, 1.0, 1.0, 0.9, 0.75])[:, None] * np.ones(COLUMNS)
    back = np.array([0.6, 0.45, 0.3, 0.2])[:, None] * np.ones(COLUMNS)
    return np.concatenate([front * groove, tube, back])


def _paint(traits: Traits, skin: np.ndarray) -> np.ndarray:
    """Albedo (float32 96 96 3) over a, b: the colour of the skin, redder at rim and lobe, darker in the bowl, almost black in the canal."""
    rng = stream(traits.seed, "ear colour")
    middle = (np.arange(TEXTURE) + 0.5) / TEXTURE
    a = _TEXTURE_CORNER[0] + _TEXTURE_SIZE[0] * middle[None] * np.ones((TEXTURE, 1))
    b = _TEXTURE_CORNER[1] + _TEXTURE_SIZE[1] * (1 - middle[:, None]) * np.ones((1, TEXTURE))
    flat = np.stack([a, b], -1)
    rim = np.exp(-((_distance(flat, tuple(map(tuple, _OUTLINE[2:17, :2]))) / 0.5) ** 2))
    lobe = np.exp(-(((a - 0.4) / 0.8) ** 2) - ((b + 2.4) / 0.7) ** 2)
    bowl = _inside(flat, _BOWL, 0.3)
    mottle = cv2.GaussianBlur(rng.normal(size=(TEXTURE, TEXTURE)).astype(np.float32), (0, 0), 3.0) * 5
    blood = (
        (0.35 + 0.5 * traits.redness)
        * (1 - 0.6 * traits.melanin)
        * np.clip(0.35 + 0.6 * rim + 0.4 * lobe + 0.3 * bowl + 0.12 * mottle, 0, 1.4)
    )
    albedo = skin * (1 - blood[..., None] * np.array([0.02, 0.30, 0.28])) * (1 + 0.03 * mottle[..., None])
    canal = np.exp(-(((a + 0.12) / 0.22) ** 2) - ((b + 0.15) / 0.30) ** 2)
    shade = (1 - 0.28 * bowl - 0.12 * _inside(flat, _FOSSA, 0.2)) * (1 - 0.85 * canal)
    return np.clip(albedo * shade[..., None] ** np.array([0.7, 1.1, 1.2]), 0.002, 0.9).astype(np.float32)
