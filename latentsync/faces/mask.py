"""The mask: which part of an aligned face is generated, drawn from its outline or read from a picture, at any resolution."""

import logging
from pathlib import Path

import cv2
import numpy as np
import torch
from skimage.draw import polygon
from torch import Tensor

from latentsync.constants import TEMPLATE_RESOLUTION, VAE_FACTOR
from latentsync.errors import ConfigError

logger = logging.getLogger(__name__)

# Outlines on a 256 x 256 face, (x, y) of pixel centres.
JAW = (
    *((9, 128), (247, 128), (247, 134), (245, 162), (244, 169), (240, 177), (228, 195), (223, 201), (210, 214), (202, 220), (196, 224)),
    *((191, 227), (183, 231), (164, 239), (152, 242), (131, 242), (108, 241), (99, 239), (95, 238), (87, 235), (82, 233), (60, 222)),
    *((52, 217), (49, 215), (45, 212), (40, 208), (34, 202), (26, 193), (22, 188), (16, 178), (12, 170), (11, 163), (9, 135)),
)
MOUTH = (
    *((39, 128), (217, 128), (217, 136), (216, 143), (215, 148), (214, 152), (211, 161), (205, 173), (202, 178), (200, 181), (197, 185)),
    *((186, 196), (178, 202), (173, 205), (161, 211), (152, 214), (148, 215), (143, 216), (136, 217), (120, 217), (113, 216), (108, 215)),
    *((100, 213), (97, 212), (90, 209), (86, 207), (78, 202), (70, 196), (59, 185), (56, 181), (54, 178), (51, 173), (45, 161), (42, 152)),
    *((41, 148), (40, 143), (39, 136)),
)
CHEEKS = (((9, 95), (77, 95), (77, 127), (9, 127)), ((178, 95), (246, 95), (246, 127), (178, 127)))  # beside the nose, which stays
NOSE_AND_CHEEKS = ((9, 60), (246, 60), (246, 127), (9, 127))

MOUTH_KEPT = 0.5  # share of the box of the lips: a mask that keeps more of it is probably inverted
LIPS = (76, 152, 180, 232)  # left, top, right, bottom of a box that lips stay in, on the same face

HIDDEN = {  # polygons whose union is generated
    "mask": (JAW, *CHEEKS),
    "mask2": (JAW,),
    "mask3": (MOUTH,),
    "mask4": (JAW, NOSE_AND_CHEEKS),
}


def fixed_mask(resolution: int, name: str = "mask") -> Tensor:
    """The mask of a face of `resolution` x `resolution` pixels, float32 [h w] in [0, 1]: 1 = keep, 0 = generate.

    `name`: one of `HIDDEN`, drawn at 256 without grey values, or the path of a picture (white = keep); resized as an 8-bit picture with a
    Lanczos-4 filter. Raises ConfigError: it is neither, cannot be read, or hides nothing or everything.
    """
    if name in HIDDEN:
        keep = np.full((TEMPLATE_RESOLUTION, TEMPLATE_RESOLUTION), 255, dtype=np.uint8)
        for outline in HIDDEN[name]:
            x, y = zip(*outline, strict=True)
            keep[polygon(y, x)] = 0
    elif Path(name).is_absolute():
        keep = _read_grey(Path(name))
    else:
        raise ConfigError(
            f"data.mask is '{name}', which is no mask of this project: use one of {', '.join(HIDDEN)}, or the path of a picture."
        )
    if keep.shape != (resolution, resolution):
        keep = cv2.resize(keep, (resolution, resolution), interpolation=cv2.INTER_LANCZOS4)
    mask = torch.from_numpy(keep.astype(np.float32) / 255.0)
    if name not in HIDDEN:
        _check_picture(mask, name)
    return mask


def _read_grey(path: Path) -> np.ndarray:
    """A picture as uint8 [h w]; what is transparent counts as black. Raises ConfigError."""
    advice = "name a picture such as a .png (a relative path counts from the folder of the YAML file, on the command line from yours)"
    try:
        content = np.frombuffer(path.read_bytes(), dtype=np.uint8)
    except OSError as error:
        raise ConfigError(f"The mask {path} (data.mask) cannot be read ({(error.strerror or str(error)).lower()}): {advice}.") from None
    picture = cv2.imdecode(content, cv2.IMREAD_UNCHANGED) if len(content) else None
    if picture is None:
        raise ConfigError(f"The mask {path} (data.mask) is no picture that can be read: {advice}.")
    if picture.dtype != np.uint8:
        picture = (picture / (np.iinfo(picture.dtype).max if picture.dtype.kind == "u" else 1) * 255).clip(0, 255).round().astype(np.uint8)
    if picture.ndim == 2:
        return picture
    grey = picture[..., 0] if picture.shape[2] < 3 else cv2.cvtColor(np.ascontiguousarray(picture[..., :3]), cv2.COLOR_BGR2GRAY)
    if picture.shape[2] in (2, 4):
        grey = (grey * (picture[..., -1] / 255.0)).round().astype(np.uint8)
    return grey


def _check_picture(mask: Tensor, name: str) -> None:
    """Refuse a mask that hides nothing or everything, where the denoiser sees it; warn of one that keeps the mouth."""
    for value, what in ((1, "nothing"), (0, "the whole face")):
        if (latent_mask(mask) == value).all():
            raise ConfigError(f"The mask {name} (data.mask) hides {what}: paint black what is to be generated, white what is kept.")
    kept = float(mask[lip_box(len(mask)).bool()].mean())
    if kept > MOUTH_KEPT:
        logger.warning("The mask %s keeps %.0f%% of the mouth: black is generated and white kept; is it inverted?", name, 100 * kept)


def latent_mask(mask: Tensor) -> Tensor:
    """A mask [h w] at latent resolution [h/8 w/8]: every eighth row and column (nearest neighbour)."""
    return mask[::VAE_FACTOR, ::VAE_FACTOR]


def lip_box(size: int) -> Tensor:
    """Which cells of a grid of `size` x `size` over an aligned face belong to the box that lips stay in; float32 [size size], 0 or 1."""
    centres = (torch.arange(size) + 0.5) * TEMPLATE_RESOLUTION / size
    left, top, right, bottom = LIPS
    return (((centres >= top) & (centres <= bottom))[:, None] & (centres >= left) & (centres <= right)).float()


def mouth_weights(size: int, weight: float) -> Tensor:
    """How much each cell of an aligned face's latents counts, float32 [size size], mean 1: those of the lips `weight` times the others."""
    weights = 1.0 + (weight - 1.0) * lip_box(size)
    return weights / weights.mean()


def masked_pixels(pixels: Tensor, mask: Tensor) -> Tensor:
    """Pixels [... 3 h w] in [-1, 1] with what is to be generated set to 0, which is mid grey."""
    return pixels * mask.to(device=pixels.device, dtype=pixels.dtype)


def to_pixels(faces: Tensor) -> Tensor:
    """Faces uint8 [... h w 3] as pixels float32 [... 3 h w] in [-1, 1]: the one place that fixes range and channel order."""
    return (faces.movedim(-1, -3).float() / 255.0 - 0.5) / 0.5
