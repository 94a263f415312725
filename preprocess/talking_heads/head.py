"""One person as a posable model: what moves in a frame, and where everything is then."""

from dataclasses import dataclass, field

import numpy as np

from preprocess.talking_heads.anatomy.expression import Expression, Mouth
from preprocess.talking_heads.anatomy.eyelids import EYE_RADIUS
from preprocess.talking_heads.anatomy.face import FaceShape, Skin
from preprocess.talking_heads.anatomy.identity import draw_face
from preprocess.talking_heads.anatomy.landmarks import landmark_vertices
from preprocess.talking_heads.anatomy.oral import LipOpening
from preprocess.talking_heads.anatomy.sheet import INNER_RINGS, MOUTH_ANGLES
from preprocess.talking_heads.assembly import assemble
from preprocess.talking_heads.curves import smooth
from preprocess.talking_heads.scene.motion import place
from preprocess.talking_heads.scene.wardrobe import breathe
from preprocess.talking_heads.traits import Traits

_TRUNK, _SKULL = -18.5, -12.0  # cm: below the first height the neck stays with the trunk, above the second it goes with the head
_HAIR_TRUNK, _HAIR_SKULL = -26.0, -10.0  # the same of hair that falls over the shoulders


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
