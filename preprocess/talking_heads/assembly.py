"""A person at rest: skin, eyes, ears, mouth, hair, glasses and clothes, fitted to each other."""

from dataclasses import dataclass, replace

import numpy as np

from preprocess.talking_heads.anatomy.ear import EarShape, ear
from preprocess.talking_heads.anatomy.eyelids import EYE_RADIUS
from preprocess.talking_heads.anatomy.face import Skin
from preprocess.talking_heads.anatomy.oral import Oral, OralFit, build_oral
from preprocess.talking_heads.anatomy.sheet import INNER_RINGS, MOUTH_ANGLES
from preprocess.talking_heads.curves import smooth
from preprocess.talking_heads.hair.grow import grow_hair, scalp_colour, scalp_shade
from preprocess.talking_heads.hair.roots import RestSkin
from preprocess.talking_heads.render.normals import vertex_normals
from preprocess.talking_heads.render.occlusion import bake_occlusion
from preprocess.talking_heads.scene.glasses import FaceFit, glasses
from preprocess.talking_heads.scene.jewellery import earrings
from preprocess.talking_heads.scene.wardrobe import NeckSeat, bust
from preprocess.talking_heads.skin.complexion import skin_colour
from preprocess.talking_heads.skin.eyes import eyeball
from preprocess.talking_heads.skin.paint import paint_skin
from preprocess.talking_heads.solids import Mesh, Strands, join
from preprocess.talking_heads.template import BROW, EAR, plane, to_uv
from preprocess.talking_heads.traits import Traits

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
