"""A person before a camera: everything about a picture that is not the pose, and the picture of a pose."""

from dataclasses import dataclass, replace

import numpy as np

from preprocess.talking_heads.head import Head, Pose
from preprocess.talking_heads.render.picture import prepare, render
from preprocess.talking_heads.render.tone import tone
from preprocess.talking_heads.scene.camera import apply, draw_look, expose, frame_camera
from preprocess.talking_heads.scene.lighting import light
from preprocess.talking_heads.scene.room import background
from preprocess.talking_heads.traits import draw_traits

_FINE = 320  # pixels of picture height from which on textures are painted at full size


@dataclass(frozen=True)
class Frame:
    """One picture and the truth about it."""

    picture: np.ndarray  # uint8 h w 3, RGB
    landmarks: np.ndarray  # float32 68 2, pixels: x, y; 0 is the outer edge of the first pixel
    lip_gap: float  # cm between the lips at their middle
    lip_width: float  # cm between the corners of the mouth


class Studio:
    """Renders one identity in one scene; a frame is a pure function of (identity, seed, size, pose, index)."""

    def __init__(self, identity: int, seed: int, width: int, height: int) -> None:
        """`identity` is the seed of the person, `seed` that of light, room and camera; sizes in pixels."""
        self.width, self.height, self._seed = width, height, seed
        self.head = Head(draw_traits(identity), texture_size=1024 if height > _FINE else 512)
        self._prepared = prepare(self.head.mesh)
        self._light, self.camera, self._look = light(seed), frame_camera(seed, width / height), draw_look(seed)
        self._background = background(seed, width, height)

    def frame(self, pose: Pose, index: int) -> Frame:
        """The picture of a pose; `index` numbers the frame in its clip and picks the sensor's noise."""
        posed = self.head.pose(pose)
        mesh = replace(self.head.mesh, vertices=posed.vertices, occlusion=posed.occlusion)
        strands = [replace(kind, points=points) for kind, points in zip(self.head.strands, posed.strands, strict=True)]
        linear = render(mesh, strands, self._light, self.camera, self._background, self.width, self.height, self._prepared)
        picture = apply(self._look, tone(expose(self._look, linear)), index, self._seed)
        landmarks = self.camera.project(posed.landmarks, self.width, self.height)[:, :2]
        return Frame(picture, landmarks, posed.lip_gap, posed.lip_width)
