"""One person as a posable model: all parts fitted to each other, and where they are in a frame."""

from dataclasses import dataclass, replace

import numpy as np

from embedded.talking_heads.clothes import NeckSeat, breathe, bust, earrings
from embedded.talking_heads.ear import EarShape, ear
from embedded.talking_heads.expression import Expression
from embedded.talking_heads.eyes import EYE_RADIUS, eyeball
from embedded.talking_heads.face import FaceShape, Skin, draw_face, landmark_vertices
from embedded.talking_heads.facial_hair import beard, brow_shade, eyebrows, eyelashes, whisker_shade
from embedded.talking_heads.glasses import FaceFit, glasses
from embedded.talking_heads.hair import (
    RestSkin,
    draw_style,
    scalp_colour,
    scalp_density,
    scalp_hair,
)
from embedded.talking_heads.motion import Pose, place
from embedded.talking_heads.mouth import LipOpening, Oral, OralFit, build_oral
from embedded.talking_heads.pigment import skin_colour
from embedded.talking_heads.render.shadow import bake_occlusion
from embedded.talking_heads.render.vectors import vertex_normals
from embedded.talking_heads.skin import paint_skin
from embedded.talking_heads.solids import Mesh, Strands, join
from embedded.talking_heads.template import BROW, EAR, INNER_RINGS, MOUTH_ANGLES, plane, to_uv
from embedded.talking_heads.traits import Traits, smooth


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


SIDES = (-1, 1)  # left and right of the picture
_EAR_TURN = np.array([1.0, 0.0, -0.12])  # the way the head faces at the ear canal, on the right
_NECK_LIT = -15.8  # cm: below, the neck lies on the chest and is as light as it
_UNDER_LASHES = 0.75  # share of the light that lashes and the rim of the lids leave to an eye
_UNDER_HAIR = 0.9  # how far the skin between the roots takes the hair's colour


@dataclass(frozen=True)
class Person:
    """Everything that is drawn of a person, at rest in head space."""

    mesh: Mesh
    parts: dict[str, slice]  # vertices of skin, left eye, right eye, mouth, worn (ears, glasses, earrings) and bust
    strands: dict[str, Strands]  # scalp, brows, lashes, beard: those that the person has
    oral: Oral
    eyes: tuple[Mesh, Mesh]  # each about its own centre
    seat: NeckSeat


def assemble(traits: Traits, skin: Skin, texture_size: int) -> Person:
    """The parts of a person around a skin, whose neck is settled on the bust; the skin's textures have `texture_size` texels a side."""
    neck = skin.neck_radius
    seat = NeckSeat(traits, neck, skin.base)
    skin.rest_on(seat.settle(skin.base).astype(np.float64))
    rest = skin.vertices.astype(np.float32)
    cover = _skin_mesh(traits, skin, rest, texture_size)
    eye = eyeball(traits, EYE_RADIUS * skin.eye_scale)
    ears = [_placed_ear(traits, skin, rest, side) for side in SIDES]
    oral = build_oral(traits, _oral_fit(traits, skin, rest))
    worn = [glasses(traits, _face_fit(skin, rest, ears)), earrings(traits, ears[0].lobe, ears[1].lobe)]
    meshes = {
        "skin": cover,
        "left eye": moved(eye, skin.eye_centres[0]),
        "right eye": moved(eye, skin.eye_centres[1]),
        "mouth": oral.mesh,
        "worn": join([shape.mesh for shape in ears] + [mesh for mesh in worn if mesh is not None]),
        "bust": bust(traits, neck, skin_colour(traits), cover.materials[0].scatter),
    }
    starts = np.cumsum([0, *(len(mesh.vertices) for mesh in meshes.values())]).tolist()
    parts = {name: slice(start, stop) for name, start, stop in zip(meshes, starts, starts[1:], strict=False)}
    mesh = join(list(meshes.values()))
    occlusion = mesh.occlusion * bake_occlusion(mesh)
    for eye_part in ("left eye", "right eye"):
        occlusion[parts[eye_part]] *= _UNDER_LASHES
    foot = np.flatnonzero(rest[:, 1] < _NECK_LIT)
    occlusion[foot] = np.maximum(occlusion[foot], np.interp(rest[foot, 1], [_NECK_LIT - 1.5, _NECK_LIT], [0.78, 0.0]))  # not buried
    for ring, light in zip(skin.sheet.mouth, np.linspace(0.25, 0.75, INNER_RINGS), strict=False):
        occlusion[ring] = light  # the wet side of the lips: baked with the mouth shut it would stay black in an open one
    return Person(replace(mesh, occlusion=occlusion), parts, _grown(traits, skin, rest), oral, (eye, eye), seat)


def moved(mesh: Mesh, shift: np.ndarray) -> Mesh:
    """A mesh moved by `shift` (3, cm)."""
    return replace(mesh, vertices=(mesh.vertices + shift).astype(np.float32))


def _skin_mesh(traits: Traits, skin: Skin, rest: np.ndarray, size: int) -> Mesh:
    """The painted skin, with the colour of hair under the hair."""
    material = paint_skin(traits, size, skin.shape.eyes.crease)
    shade = _UNDER_HAIR * scalp_shade(traits, size)[..., None]
    albedo = material.albedo * (1 - shade) + shade * 0.7 * scalp_colour(traits)
    throat = smooth(-11.6, -14.0, plane(size)[1])[..., None]  # runs out into the plain skin of the chest
    albedo = (albedo + throat * (skin_colour(traits) - albedo)).astype(np.float32)
    uv = to_uv(*skin.sheet.st.T.astype(np.float32))
    return Mesh.of(rest, skin.sheet.faces, np.clip(uv, 0, 1), replace(material, albedo=albedo))


def _placed_ear(traits: Traits, skin: Skin, rest: np.ndarray, side: int) -> EarShape:
    canal = rest[skin.nearest(EAR[0] * side, EAR[1])]
    return ear(traits, skin_colour(traits), side).placed(canal, _EAR_TURN * [side, 1, 1], side)


def _oral_fit(traits: Traits, skin: Skin, rest: np.ndarray) -> OralFit:
    """Teeth a little behind the lips, their edges below the line where the lips meet: further in women."""
    line = skin.sheet.mouth[INNER_RINGS]
    middle, corners = rest[line[MOUTH_ANGLES // 4]], rest[line[[0, MOUTH_ANGLES // 2]]]
    edge = middle - [0.0, 0.22 + 0.1 * traits.femininity, 0.6]
    return OralFit(edge.astype(np.float32), 0.5 * float(np.linalg.norm(corners[0] - corners[1])), skin.shape.skull.width)


def _face_fit(skin: Skin, rest: np.ndarray, ears: list[EarShape]) -> FaceFit:
    """Where glasses rest."""
    left, right = (centre + np.array([0.0, 0.0, EYE_RADIUS]) for centre in skin.eye_centres)
    temples = [rest[skin.nearest(8.4 * side, 0.0), 0] for side in SIDES]
    return FaceFit(
        pupil_left=left,
        pupil_right=right,
        nose_bridge=rest[skin.nearest(0.0, -0.5)],
        ear_left=ears[0].top,
        ear_right=ears[1].top,
        temple_width=float(temples[1] - temples[0]),
        brow_y=float(rest[skin.nearest(*BROW[2]), 1]),
    )


def _grown(traits: Traits, skin: Skin, rest: np.ndarray) -> dict[str, Strands]:
    bed = RestSkin(skin.sheet.st.astype(np.float32), rest, vertex_normals(rest, skin.sheet.faces), skin.sheet.faces)
    return grow_hair(traits, bed)


_TRUNK, _SKULL = -18.5, -12.0  # cm: below the first height the neck stays with the trunk, above the second it goes with the head
_HAIR_TRUNK, _HAIR_SKULL = -26.0, -10.0  # the same of hair that falls over the shoulders


@dataclass(frozen=True)
class Posed:
    """A frame's geometry: same topology as `Head.mesh` and `Head.strands`."""

    vertices: np.ndarray  # float32 v 3
    occlusion: np.ndarray  # float32 v
    strands: tuple[np.ndarray, ...]  # float32 s k 3 each
    landmarks: np.ndarray  # float32 68 3
    lip_gap: float  # cm between the lips at their middle
    lip_width: float  # cm between the corners


class Head:
    """A person: traits, face, and all the meshes and hairs, at rest in head space."""

    def __init__(self, traits: Traits, face: FaceShape | None = None, texture_size: int = 1024) -> None:
        self.traits = traits
        self.skin = Skin(face or draw_face(traits))
        self._person = assemble(traits, self.skin, texture_size)
        self.expression = Expression(self.skin)
        self.mesh = self._person.mesh
        self.strands = list(self._person.strands.values())
        self._rest = self.mesh.vertices[self._person.parts["skin"]]
        self._with_head = smooth(_TRUNK, _SKULL, self.mesh.vertices[:, 1])[:, None].astype(np.float32)
        self._with_head[self._person.parts["bust"]] = 0.0

    def pose(self, pose: Pose) -> Posed:
        """The person in one frame."""
        moved = self.expression.skin_at(pose.mouth, pose.brow_raise, pose.brow_knit)
        skin = self.skin.with_lids(moved, *pose.blink, pose.squint, -pose.gaze[1]).astype(np.float32)
        mouth, mouth_light = self._person.oral.pose(pose.mouth.jaw, pose.mouth.tongue_up, pose.mouth.tongue_out, self._lip_opening(skin))
        vertices, occlusion = self.mesh.vertices.copy(), self.mesh.occlusion.copy()
        parts = self._person.parts
        vertices[parts["skin"]], vertices[parts["mouth"]], occlusion[parts["mouth"]] = skin, mouth, mouth_light
        for part, eye, centre in zip(("left eye", "right eye"), self._person.eyes, self.skin.eye_centres, strict=True):
            vertices[parts[part]] = eye.vertices @ _gaze_rotation(*pose.gaze).T + centre
        vertices[parts["bust"]] = breathe(self.mesh.vertices[parts["bust"]], pose.breath)
        placed = self._person.seat.settle(_carried(vertices, self._with_head, pose))
        strands = tuple(self._strand_points(kind, skin, pose) for kind in self._person.strands)
        gap, width = self.expression.opening(skin)
        return Posed(placed, occlusion, strands, placed[landmark_vertices()], gap, width)

    def _strand_points(self, kind: str, skin: np.ndarray, pose: Pose) -> np.ndarray:
        """Strands of one kind as they follow the skin, the head and, where long, the shoulders."""
        strands = self._person.strands[kind]
        points = strands.points
        if kind == "scalp":
            share = smooth(_HAIR_TRUNK, _HAIR_SKULL, points[..., 1])[..., None].astype(np.float32)
            return _carried(points, share, pose)
        shift = (skin - self._rest)[strands.root][:, None]  # s 1 3
        points = points + shift
        if kind == "lashes":
            points = _tip_over(points, shift[..., 1] / EYE_RADIUS)
        return _carried(points, np.float32(1.0), pose)

    def _lip_opening(self, skin: np.ndarray) -> LipOpening:
        line = self.skin.sheet.mouth[INNER_RINGS]
        quarter = MOUTH_ANGLES // 4
        right, top, left, bottom = (skin[line[quarter * k]] for k in range(4))
        return LipOpening(left, right, top, bottom, loop=skin[self.skin.sheet.mouth[0]])


def _carried(points: np.ndarray, share: np.ndarray | np.float32, pose: Pose) -> np.ndarray:
    """Points (... 3) carried by the turned head, as far as `share` of them follow it; float32."""
    turned = place(points, np.array(pose.turn), np.array(pose.translation))
    return (points + share * (turned - points)).astype(np.float32)


def _gaze_rotation(right: float, up: float) -> np.ndarray:
    """Rotation (3 3) of an eye that looks `right` and `up` (radians)."""
    cosine, sine = np.cos(right), np.sin(right)
    about_y = np.array([[cosine, 0, sine], [0, 1, 0], [-sine, 0, cosine]])
    cosine, sine = np.cos(up), np.sin(up)
    about_x = np.array([[1, 0, 0], [0, cosine, sine], [0, -sine, cosine]])
    return (about_y @ about_x).astype(np.float32)


def _tip_over(points: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """Strands (s k 3) turned about their roots in the y-z plane by `angle` (s 1), as lashes on a lid that rolls down."""
    from_root = points - points[:, :1]
    cosine, sine = np.cos(angle), np.sin(angle)
    y = from_root[..., 1] * cosine + from_root[..., 2] * sine
    z = from_root[..., 2] * cosine - from_root[..., 1] * sine
    return points[:, :1] + np.stack([from_root[..., 0], y, z], -1)
