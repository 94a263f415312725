"""One person as a posable model: all parts fitted to each other at rest, and where they are in a frame."""

from dataclasses import dataclass, replace

import numpy as np

from embedded.talking_heads.clothes import breathe, bust, glasses, wears_glasses
from embedded.talking_heads.ear import ear
from embedded.talking_heads.expression import Expression
from embedded.talking_heads.eyes import EYE_RADIUS, eyeball
from embedded.talking_heads.face import FaceSurface, draw_face, landmark_vertices
from embedded.talking_heads.facial_hair import beard, brow_shade, eyebrows, eyelashes, whisker_shade
from embedded.talking_heads.hair import RestSkin, scalp_colour, scalp_hair, scalp_shade
from embedded.talking_heads.motion import Pose, place
from embedded.talking_heads.mouth import LipOpening, OralFit, build_oral
from embedded.talking_heads.render.shadow import bake_occlusion
from embedded.talking_heads.render.vectors import vertex_normals
from embedded.talking_heads.skin import paint_skin, skin_colour
from embedded.talking_heads.solids import Mesh, Strands, join
from embedded.talking_heads.template import BROW, EAR, INNER_RINGS, MOUTH_ANGLES, plane, to_uv
from embedded.talking_heads.traits import Traits, smooth

_SIDES = (-1, 1)  # left and right of the picture
_EAR_TURN = np.array([1.0, 0.0, -0.12])  # the way the head faces at the ear canal, on the right
_NECK_LIT = -15.8  # cm: below, the neck lies on the chest and is as light as it
_UNDER_LASHES = 0.75  # share of the light that lashes and the rim of the lids leave to an eye
_UNDER_HAIR = 0.9  # how far the skin between the roots takes the hair's colour
_TRUNK, _SKULL = -18.5, -12.0  # cm: below the first height the neck stays with the trunk, above the second it goes with the head
_HAIR_TRUNK, _HAIR_SKULL = -26.0, -10.0  # the same of hair that falls over the shoulders


@dataclass(frozen=True)
class PosedHead:
    """A frame's geometry: same topology as `Head.mesh` and `Head.strands`."""

    vertices: np.ndarray  # float32 v 3
    occlusion: np.ndarray  # float32 v
    strands: tuple[np.ndarray, ...]  # float32 s k 3 each
    landmarks: np.ndarray  # float32 68 3
    lip_gap: float  # cm between the lips at their middle
    lip_width: float  # cm between the corners


class Head:
    """A person with everything that is drawn, at rest in head space: `mesh` and `strands` (scalp, brows, lashes, beard, where there)."""

    def __init__(self, traits: Traits, texture_size: int = 1024) -> None:
        """The skin's textures have `texture_size` texels a side."""
        self.face = face = FaceSurface(draw_face(traits))
        self._rest = rest = face.vertices.astype(np.float32)
        self._eye = eyeball(traits, EYE_RADIUS * face.shape.eyes.size)
        self._oral = build_oral(traits, _oral_fit(traits, face, rest))
        self.expression = Expression(face)
        skin = _skin_mesh(traits, face, rest, texture_size)
        meshes = {
            "skin": skin,
            "left eye": _moved(self._eye, face.eye_centres[0]),
            "right eye": _moved(self._eye, face.eye_centres[1]),
            "mouth": self._oral.mesh,
            "worn": _ears_and_glasses(traits, face, rest),
            "bust": bust(traits, face.neck_radius, skin_colour(traits), skin.materials[0].scatter),
        }
        starts = np.cumsum([0, *(len(mesh.vertices) for mesh in meshes.values())]).tolist()
        self._parts = {name: slice(start, stop) for name, start, stop in zip(meshes, starts, starts[1:], strict=False)}
        self.mesh = self._with_occlusion(join(list(meshes.values())))
        self._strands = _grown(traits, face, rest)
        self.strands = list(self._strands.values())
        self._with_head = smooth(_TRUNK, _SKULL, self.mesh.vertices[:, 1])[:, None].astype(np.float32)
        self._with_head[self._parts["bust"]] = 0.0

    def pose(self, pose: Pose) -> PosedHead:
        """The person in one frame."""
        moved = self.expression.skin_at(pose.mouth, pose.brow_raise, pose.brow_knit)
        skin = self.face.with_lids(moved, *pose.blink, pose.squint, -pose.gaze[1]).astype(np.float32)
        mouth, mouth_light = self._oral.pose(pose.mouth.jaw, pose.mouth.tongue_up, pose.mouth.tongue_out, self._lip_opening(skin))
        vertices, occlusion, parts = self.mesh.vertices.copy(), self.mesh.occlusion.copy(), self._parts
        vertices[parts["skin"]], vertices[parts["mouth"]], occlusion[parts["mouth"]] = skin, mouth, mouth_light
        for part, centre in zip(("left eye", "right eye"), self.face.eye_centres, strict=True):
            vertices[parts[part]] = self._eye.vertices @ _gaze_rotation(*pose.gaze).T + centre
        vertices[parts["bust"]] = breathe(self.mesh.vertices[parts["bust"]], pose.breath)
        placed = _carried(vertices, self._with_head, pose)
        strands = tuple(self._strand_points(kind, skin, pose) for kind in self._strands)
        return PosedHead(placed, occlusion, strands, placed[landmark_vertices()], *self.expression.opening(skin))

    def _with_occlusion(self, mesh: Mesh) -> Mesh:
        """The whole mesh with the share of light that each vertex gets from all around."""
        occlusion, rest = mesh.occlusion * bake_occlusion(mesh), self._rest
        for eye in ("left eye", "right eye"):
            occlusion[self._parts[eye]] *= _UNDER_LASHES
        foot = np.flatnonzero(rest[:, 1] < _NECK_LIT)
        occlusion[foot] = np.maximum(occlusion[foot], np.interp(rest[foot, 1], [_NECK_LIT - 1.5, _NECK_LIT], [0.78, 0.0]))  # not buried
        for ring, light in zip(self.face.sheet.mouth, np.linspace(0.25, 0.75, INNER_RINGS), strict=False):
            occlusion[ring] = light  # the wet side of the lips: baked with the mouth shut it would stay black in an open one
        return replace(mesh, occlusion=occlusion)

    def _strand_points(self, kind: str, skin: np.ndarray, pose: Pose) -> np.ndarray:
        """Strands of one kind as they follow the skin, the head and, where long, the shoulders."""
        strands = self._strands[kind]
        if kind == "scalp":
            share = smooth(_HAIR_TRUNK, _HAIR_SKULL, strands.points[..., 1])[..., None].astype(np.float32)
            return _carried(strands.points, share, pose)
        shift = (skin - self._rest)[strands.root][:, None]  # s 1 3
        points = strands.points + shift
        if kind == "lashes":
            points = _tip_over(points, shift[..., 1] / EYE_RADIUS)
        return _carried(points, np.float32(1.0), pose)

    def _lip_opening(self, skin: np.ndarray) -> LipOpening:
        right, top, left, bottom = (skin[self.face.sheet.mouth[INNER_RINGS][MOUTH_ANGLES // 4 * k]] for k in range(4))
        return LipOpening(left, right, top, bottom, loop=skin[self.face.sheet.mouth[0]])


def _moved(mesh: Mesh, shift: np.ndarray) -> Mesh:
    """A mesh moved by `shift` (3, cm)."""
    return replace(mesh, vertices=(mesh.vertices + shift).astype(np.float32))


def _skin_mesh(traits: Traits, face: FaceSurface, rest: np.ndarray, size: int) -> Mesh:
    """The painted skin, with the colour of hair under the hair."""
    material = paint_skin(traits, size, face.shape.eyes.crease)
    s, t = plane(size)
    hairy = np.maximum.reduce([scalp_shade(traits, s, t), brow_shade(traits, s, t), whisker_shade(traits, s, t)])
    shade = _UNDER_HAIR * hairy.astype(np.float32)[..., None]
    albedo = material.albedo * (1 - shade) + shade * 0.7 * scalp_colour(traits)
    throat = smooth(-11.6, -14.0, t)[..., None]  # runs out into the plain skin of the chest
    albedo = (albedo + throat * (skin_colour(traits) - albedo)).astype(np.float32)
    uv = to_uv(*face.sheet.st.T.astype(np.float32))
    return Mesh.of(rest, face.sheet.faces, np.clip(uv, 0, 1), replace(material, albedo=albedo))


def _ears_and_glasses(traits: Traits, face: FaceSurface, rest: np.ndarray) -> Mesh:
    canals = [rest[face.nearest(EAR[0] * side, EAR[1])] for side in _SIDES]
    skin = skin_colour(traits)
    meshes, tops = zip(
        *(ear(traits, skin, canal, _EAR_TURN * [side, 1, 1], side) for canal, side in zip(canals, _SIDES, strict=True)), strict=True
    )
    if not wears_glasses(traits):
        return join(meshes)
    temples = [rest[face.nearest(8.4 * side, 0.0), 0] for side in _SIDES]
    worn = glasses(
        traits.seed,
        pupils=tuple(centre + np.array([0.0, 0.0, EYE_RADIUS]) for centre in face.eye_centres),
        nose_bridge=rest[face.nearest(0.0, -0.5)],
        ears=tops,
        temple_width=float(temples[1] - temples[0]),
        brow_y=float(rest[face.nearest(*BROW[2]), 1]),
    )
    return join([*meshes, worn])


def _oral_fit(traits: Traits, face: FaceSurface, rest: np.ndarray) -> OralFit:
    """Teeth a little behind the lips, their edges below the line where the lips meet: further in women."""
    line = face.sheet.mouth[INNER_RINGS]
    middle, corners = rest[line[MOUTH_ANGLES // 4]], rest[line[[0, MOUTH_ANGLES // 2]]]
    edge = middle - [0.0, 0.22 + 0.1 * traits.femininity, 0.6]
    return OralFit(edge.astype(np.float32), 0.5 * float(np.linalg.norm(corners[0] - corners[1])), face.shape.skull.width)


def _grown(traits: Traits, face: FaceSurface, rest: np.ndarray) -> dict[str, Strands]:
    """All strands of a person; a kind that the person lacks is left out."""
    skin = RestSkin(face.sheet.st.astype(np.float32), rest, vertex_normals(rest, face.sheet.faces), face.sheet.faces)
    grown = {"scalp": scalp_hair, "brows": eyebrows, "lashes": eyelashes, "beard": beard}
    found = {name: grow(traits, skin) for name, grow in grown.items()}
    return {name: strands for name, strands in found.items() if strands is not None and len(strands)}


def _carried(points: np.ndarray, share: np.ndarray | np.float32, pose: Pose) -> np.ndarray:
    """Points (... 3) carried by the turned head, as far as `share` of them follow it; float32."""
    turned = place(points, np.array(pose.turn), np.array(pose.translation))
    return (points + share * (turned - points)).astype(np.float32)


def _gaze_rotation(right: float, up: float) -> np.ndarray:
    """Rotation (3 3) of an eye that looks `right` and `up` (radians)."""
    (cr, cu), (sr, su) = np.cos([right, up]), np.sin([right, up])
    return (np.array([[cr, 0, sr], [0, 1, 0], [-sr, 0, cr]]) @ np.array([[1, 0, 0], [0, cu, su], [0, -su, cu]])).astype(np.float32)


def _tip_over(points: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """Strands (s k 3) turned about their roots in the y-z plane by `angle` (s 1), as lashes on a lid that rolls down."""
    x, y, z = np.moveaxis(points - points[:, :1], -1, 0)
    cosine, sine = np.cos(angle), np.sin(angle)
    return points[:, :1] + np.stack([x, y * cosine + z * sine, z * cosine - y * sine], -1)
