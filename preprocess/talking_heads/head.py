"""One person as a posable model: every mesh and strand put together at rest, and moved for each frame."""

from dataclasses import dataclass, field, replace

import numpy as np

from preprocess.talking_heads.beards import beard
from preprocess.talking_heads.complexion import skin_colour
from preprocess.talking_heads.ear import EarShape, ear
from preprocess.talking_heads.expression import Expression, Mouth
from preprocess.talking_heads.eyelids import EYE_RADIUS
from preprocess.talking_heads.eyes import eyeball
from preprocess.talking_heads.face import FaceShape, Skin
from preprocess.talking_heads.facial_hair import eyebrows, eyelashes
from preprocess.talking_heads.hair import scalp_colour, scalp_hair, scalp_shade
from preprocess.talking_heads.hair_roots import RestSkin
from preprocess.talking_heads.identity import draw_face
from preprocess.talking_heads.landmarks import landmark_vertices
from preprocess.talking_heads.motion import place
from preprocess.talking_heads.normals import vertex_normals
from preprocess.talking_heads.occlusion import bake_occlusion
from preprocess.talking_heads.oral import LipOpening, OralFit, build_oral
from preprocess.talking_heads.sheet import INNER_RINGS, MOUTH_ANGLES, MOUTH_T
from preprocess.talking_heads.skin import paint_skin
from preprocess.talking_heads.skull import smooth
from preprocess.talking_heads.solids import Mesh, Strands, join
from preprocess.talking_heads.template import EAR, to_uv
from preprocess.talking_heads.traits import Traits
from preprocess.talking_heads.wardrobe import breathe, bust


@dataclass(frozen=True)
class Pose:
    """Everything that moves in one frame."""

    mouth: Mouth = field(default_factory=Mouth)
    turn: tuple[float, float, float] = (0.0, 0.0, 0.0)  # yaw, pitch, roll in radians
    translation: tuple[float, float, float] = (0.0, 0.0, 0.0)  # cm
    gaze: tuple[float, float] = (0.0, 0.0)  # radians to the right of the picture, up
    blink: tuple[float, float] = (0.0, 0.0)  # left and right of the picture, 0 .. 1
    brow_raise: float = 0.0
    brow_knit: float = 0.0
    squint: float = 0.0
    breath: float = 0.0


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
        self.expression = Expression(self.skin)
        self._rest = self.skin.vertices.astype(np.float32)
        skin_mesh = self._skin_mesh(texture_size)
        self._eyes = [eyeball(traits, EYE_RADIUS * self.skin.eye_scale) for _ in (-1, 1)]
        self.ears = [self._ear(side) for side in (-1, 1)]
        self.oral = build_oral(traits, self._oral_fit())
        neck = float(np.abs(self._rest[np.abs(self.skin.sheet.st[:, 1] + 19) < 0.8, 0]).max())
        self._bust = bust(traits, neck, skin_colour(traits), skin_mesh.materials[0].scatter)
        rigid = [mesh for shape in self.ears for mesh in (shape.mesh,)]
        eyes = [self._placed_eye(index, (0.0, 0.0)) for index in (0, 1)]
        parts = [skin_mesh, *eyes, self.oral.mesh, *rigid, self._bust]
        self._starts = np.cumsum([0, *(len(part.vertices) for part in parts)])
        mesh = join(parts)
        self.mesh = replace(mesh, occlusion=mesh.occlusion * self._inside_lips(bake_occlusion(mesh)))
        self._follows = self._head_share(self.mesh.vertices)
        self.strands, self._kinds = self._grow()

    def _skin_mesh(self, size: int) -> Mesh:
        sheet, material = self.skin.sheet, paint_skin(self.traits, size, self.skin.shape.eyes.crease)
        shade = scalp_shade(self.traits, size)[..., None]
        albedo = (material.albedo * (1 - 0.9 * shade) + 0.9 * shade * 0.7 * scalp_colour(self.traits)).astype(np.float32)
        uv = to_uv(*sheet.st.T.astype(np.float32))
        return Mesh.of(self._rest, sheet.faces, np.clip(uv, 0, 1), replace(material, albedo=albedo))

    def _ear(self, side: int) -> EarShape:
        at = np.argmin(np.abs(self.skin.sheet.st - np.array([EAR[0] * side, EAR[1]])).sum(1))
        shape = ear(self.traits, skin_colour(self.traits), side)
        return shape.placed(self._rest[at], np.array([float(side), 0.0, -0.12]), side)

    def _inside_lips(self, occlusion: np.ndarray) -> np.ndarray:
        """`occlusion` (v) with the wet side of the lips as dark as it is in an open mouth: it is baked with the mouth shut."""
        lit = np.linspace(0.25, 0.75, INNER_RINGS)
        for ring, share in zip(self.skin.sheet.mouth, lit, strict=False):
            occlusion[ring] = share
        return occlusion

    def _oral_fit(self) -> OralFit:
        line = self.skin.sheet.mouth[INNER_RINGS]
        middle = self._rest[line[MOUTH_ANGLES // 4]]
        half = 0.5 * float(np.linalg.norm(self._rest[line[0]] - self._rest[line[MOUTH_ANGLES // 2]]))
        return OralFit(np.array([middle[0], middle[1] - 0.22 - 0.1 * self.traits.femininity, middle[2] - 0.6], np.float32), half, self.skin.shape.skull.width)

    def _placed_eye(self, index: int, gaze: tuple[float, float]) -> Mesh:
        """The eyeball turned to a gaze, at its place."""
        mesh = self._eyes[index]
        yaw, pitch = gaze
        cosine, sine = np.cos(yaw), np.sin(yaw)
        about_y = np.array([[cosine, 0, sine], [0, 1, 0], [-sine, 0, cosine]])
        cosine, sine = np.cos(pitch), np.sin(pitch)
        about_x = np.array([[1, 0, 0], [0, cosine, sine], [0, -sine, cosine]])
        points = mesh.vertices @ (about_y @ about_x).T + self.skin.eye_centres[index]
        return replace(mesh, vertices=points.astype(np.float32))

    def _head_share(self, points: np.ndarray) -> np.ndarray:
        """How far each point follows the head rather than the trunk (v 1)."""
        share = smooth(-18.5, -12.0, points[:, 1])
        share[self._starts[-2] :] = 0.0
        return share[:, None].astype(np.float32)

    def _grow(self) -> tuple[list[Strands], list[str]]:
        normals = vertex_normals(self._rest, self.skin.sheet.faces)
        bed = RestSkin(self.skin.sheet.st.astype(np.float32), self._rest, normals, self.skin.sheet.faces)
        kinds = {"scalp": scalp_hair, "brows": eyebrows, "lashes": eyelashes, "beard": beard}
        grown = {name: grow(self.traits, bed) for name, grow in kinds.items()}
        grown = {name: strands for name, strands in grown.items() if strands is not None and len(strands)}
        return list(grown.values()), list(grown)

    def pose(self, pose: Pose) -> Posed:
        """The person in one frame."""
        moved = self.expression.skin_at(pose.mouth, pose.brow_raise, pose.brow_knit)
        skin = self.skin.with_lids(moved, *pose.blink, pose.squint, -pose.gaze[1]).astype(np.float32)
        gap, width = self.expression.opening(skin)
        oral, oral_light = self.oral.pose(pose.mouth.jaw, pose.mouth.tongue_up, pose.mouth.tongue_out, self._lip_opening(skin))
        vertices = self.mesh.vertices.copy()
        parts = (skin, *(self._placed_eye(index, pose.gaze).vertices for index in (0, 1)), oral)
        for start, part in zip(self._starts, parts, strict=False):
            vertices[start : start + len(part)] = part
        vertices[self._starts[-2] :] = breathe(self._bust.vertices, pose.breath)
        placed = vertices + self._follows * (place(vertices, np.array(pose.turn), np.array(pose.translation)) - vertices)
        occlusion = self.mesh.occlusion.copy()
        occlusion[self._starts[3] : self._starts[4]] = oral_light
        strands = tuple(self._strand_points(index, skin, pose) for index in range(len(self.strands)))
        return Posed(placed.astype(np.float32), occlusion, strands, placed[landmark_vertices()], gap, width)

    def _strand_points(self, index: int, skin: np.ndarray, pose: Pose) -> np.ndarray:
        """Strands of one kind as they follow the skin, the head and, where long, the shoulders."""
        strands, kind = self.strands[index], self._kinds[index]
        points = strands.points
        if kind != "scalp":
            shift = (skin - self._rest)[strands.root][:, None]
            points = points + shift
            if kind == "lashes":
                points = _tip_over(points, shift[..., 1] / EYE_RADIUS)
            return place(points, np.array(pose.turn), np.array(pose.translation)).astype(np.float32)
        share = smooth(-26.0, -10.0, points[..., 1])[..., None]
        return (points + share * (place(points, np.array(pose.turn), np.array(pose.translation)) - points)).astype(np.float32)

    def _lip_opening(self, skin: np.ndarray) -> LipOpening:
        line = self.skin.sheet.mouth[INNER_RINGS]
        quarter = MOUTH_ANGLES // 4
        corners = (skin[line[2 * quarter]], skin[line[0]])
        return LipOpening(*corners, skin[line[quarter]], skin[line[3 * quarter]], loop=skin[self.skin.sheet.mouth[0]])


def _tip_over(points: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """Strands (s k 3) turned about their roots in the y-z plane by `angle` (s 1), as lashes on a lid that rolls down."""
    from_root = points - points[:, :1]
    cosine, sine = np.cos(angle), np.sin(angle)
    y = from_root[..., 1] * cosine + from_root[..., 2] * sine
    z = from_root[..., 2] * cosine - from_root[..., 1] * sine
    return points[:, :1] + np.stack([from_root[..., 0], y, z], -1)


__all__ = ["MOUTH_T", "Head", "Pose", "Posed"]
