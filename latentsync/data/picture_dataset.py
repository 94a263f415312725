"""`PictureDataset`: crops of aligned faces, varied in colour, mixed with pictures of nothing in particular."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from latentsync.data.batches import Batch, Turn
from latentsync.data.catalog import Catalog, ClipInfo
from latentsync.data.clip_dataset import ClipDataset, whole
from latentsync.data.dead_leaves import dead_leaves
from latentsync.faces.mask import fixed_mask

LOWER_SHARE = 0.6  # of the crops are centred in the lower face
LOWER = ((0.45, 0.95), (0.2, 0.8))  # where that is: rows and columns, as shares of the face
MIRRORED, BLURRED = 0.5, 0.1  # shares of the faces
MOUTH = ((0.6, 0.9), (0.25, 0.75))  # rows and columns of an aligned face around the mouth, as shares of its side
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # what red, green and blue add to brightness (BT.601)


@dataclass(frozen=True)
class PictureBatch(Batch):
    """Pictures for the autoencoder."""

    pictures: Tensor  # uint8 b f h w 3
    keep: Tensor  # float32 b f h w: 1 where a picture is shown, 0 where it is hidden
    weight: Tensor  # float32 b f h w: how much a pixel counts


class PictureDataset(ClipDataset[PictureBatch]):
    """Some pictures of one clip a sample, each cropped and varied on its own.

    Args:
        num_frames: pictures in a sample; clips are at least as many frames long.
        crop: side of a picture in pixels, the resolution or less.
        general_share: of the pictures are dead leaves.
        masked_share: of the pictures have what the fixed mask hides hidden.
        mouth_weight: how much more the pixels around a mouth count.
        varied: mirror and blur faces, and change their colours.
    """

    def __init__(
        self,
        catalog: Catalog,
        *,
        num_frames: int,
        resolution: int,
        crop: int,
        seed: int,
        general_share: float = 0.0,
        masked_share: float = 0.0,
        mouth_weight: float = 1.0,
        varied: bool = True,
        faces_cache: Path | None = None,
    ) -> None:
        super().__init__(catalog, num_frames=num_frames, resolution=resolution, seed=seed, faces_cache=faces_cache)
        self.crop, self.varied = crop, varied
        self.general_share, self.masked_share = general_share, masked_share
        self.mask = fixed_mask(resolution).numpy()  # h w
        self.weight = np.ones((resolution, resolution), np.float32)
        self.weight[lip_box(resolution)] = mouth_weight

    def sample(self, turn: Turn, clip: ClipInfo, rng: np.random.Generator, problems: list[str]) -> PictureBatch:
        """See `ClipDataset`."""
        general = rng.random(self.num_frames) < self.general_share
        frames = np.sort(rng.choice(clip.frames, self.num_frames, replace=False))[~general]
        faces = iter(self.faces(clip, frames.tolist()).numpy() if len(frames) else ())
        parts = [self._leaves(rng) if is_general else self._crop(next(faces), rng) for is_general in general]
        pictures, keep, weight = (torch.from_numpy(np.stack(part))[None] for part in zip(*parts, strict=True))
        return PictureBatch(
            position=whole(turn.position),
            clip=whole(turn.clip),
            problems=problems,
            pictures=pictures,
            keep=keep,
            weight=weight,
        )

    def _leaves(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """A picture of nothing [h w 3], all of it shown [h w], each pixel counting alike [h w]."""
        return dead_leaves(rng, self.crop), *np.ones((2, self.crop, self.crop), np.float32)

    def _crop(self, face: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Part of a face [h w 3], which of it is shown [h w], and how much each pixel counts [h w]."""
        if self.varied and rng.random() < MIRRORED:
            face = face[:, ::-1]
        top, left = crop_corner(rng, self.crop, self.faces.resolution)
        window = (slice(top, top + self.crop), slice(left, left + self.crop))
        hidden = rng.random() < self.masked_share
        picture = vary(face[window], rng) if self.varied else face[window]
        weight = np.ones((self.crop, self.crop), np.float32)
        return (picture, self.mask[window], weight) if hidden else (picture, weight, self.weight[window])


def lip_box(side: int) -> tuple[slice, slice]:
    """Rows and columns around the mouth on an aligned face of `side` pixels."""
    rows, columns = (slice(*(round(share * side) for share in bounds)) for bounds in MOUTH)
    return rows, columns


def crop_corner(rng: np.random.Generator, crop: int, side: int) -> tuple[int, int]:
    """First row and column of a crop of a face of `side` pixels: anywhere, or centred in the lower face."""
    if rng.random() >= LOWER_SHARE:
        row, column = rng.integers(side - crop + 1, size=2)
        return int(row), int(column)
    row, column = (round(rng.uniform(*bounds) * side - crop / 2) for bounds in LOWER)
    return min(max(row, 0), side - crop), min(max(column, 0), side - crop)


def vary(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A picture uint8 [h w 3] in other light and colours, now and then a little blurred."""
    matrix, offset = colour_change(rng)
    varied = cv2.transform(picture.astype(np.float32), np.column_stack([matrix, offset]))
    if rng.random() < BLURRED:
        varied = cv2.GaussianBlur(varied, (0, 0), rng.uniform(0.3, 1.0))
    return varied.clip(0, 255).round().astype(np.uint8)


def colour_change(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Brightness, contrast, saturation and hue as one step: float32 matrix [3 3] and offset [3] for colours from 0 to 255."""
    angle, saturation = rng.normal(0, 0.1), rng.uniform(0.7, 1.3)
    contrast, brightness = rng.uniform(0.8, 1.2), rng.uniform(-20, 20)
    x, y, z = np.full(3, 3**-0.5) * np.sin(angle)  # hue turns around the axis of grey
    turn = np.cos(angle) * np.eye(3) + (1 - np.cos(angle)) / 3 + np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    grey = np.outer(np.ones(3), LUMA)
    matrix = contrast * (grey + saturation * (np.eye(3) - grey)) @ turn
    return matrix.astype(np.float32), np.full(3, 127.5 * (1 - contrast) + brightness, np.float32)
