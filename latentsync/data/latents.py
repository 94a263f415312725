"""`LatentStore`: what the autoencoder makes of every face of the clips, computed once before training."""

import hashlib
import logging
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from latentsync.data.cache import ClipCache
from latentsync.data.catalog import Catalog
from latentsync.data.frames import read_pieces, resize_faces
from latentsync.errors import InputError
from latentsync.faces.mask import masked_pixels, to_pixels
from latentsync.models.vae import LatentCodec

logger = logging.getLogger(__name__)

_WHOLE, _MASKED = 0, 1  # of each face both are kept


class Window(NamedTuple):
    """A clip and the first of its frames that is looked at."""

    path: Path
    start: int


class LatentStore:
    """Moments (mean and log-variance, before any scale) of the posteriors of each face and of each masked face, in float16.

    They are kept apart by autoencoder, mask and resolution. Filled before training; processes that are started afterwards read it.

    Args:
        cache_dir: where they are kept: 2 x 8 x 32 x 32 numbers, 32 KiB, for a frame of 256 pixels.
        resolution: side of a face in pixels.
        mask_name: of the mask that hides the mouth, or the path of its picture.
    """

    def __init__(self, cache_dir: Path, resolution: int, mask_name: str) -> None:
        self.cache_dir, self.resolution, self.mask_name = Path(cache_dir), resolution, mask_name
        self._cache: ClipCache | None = None  # known with the autoencoder

    def fill(
        self, codec: LatentCodec, catalog: Catalog, mask: Tensor, rank: int = 0, world: int = 1, *, show_progress: bool = False
    ) -> None:
        """Encode this process's share of the clips, those that are there already left out; then all processes have to wait for all.

        A clip that cannot be read is left out with a warning: in training its turn goes to the next one.

        Raises:
            OutputError: the disk is full.
        """
        self._cache = ClipCache(self.cache_dir, f"latents-{self.resolution}-{Path(self.mask_name).stem}-{_digest(codec, mask)}")
        share = catalog.clips[rank::world]
        for clip in tqdm(share, unit="clip", desc="Encoding faces", disable=not show_progress):
            try:
                self._cache.get(clip.path, lambda clip=clip: encode_clip(codec, clip.path, clip.frames, mask, self.resolution))
            except InputError as error:
                logger.warning("%s", error)

    def moments(self, target: Window, source: Window, reference: Window, length: int) -> Tensor:
        """Moments of `length` frames of each: the target's, the source's with its mouth masked, the reference's.

        Returns:
            float32 f 3 8 h w.

        Raises:
            InputError: a clip was not encoded.
        """
        parts = [self._rows(*target, length)[:, _WHOLE], self._rows(*source, length)[:, _MASKED], self._rows(*reference, length)[:, _WHOLE]]
        return torch.from_numpy(np.stack(parts, axis=1)).float()

    def _rows(self, path: Path, start: int, length: int) -> np.ndarray:
        """Moments of `length` frames of a clip from `start` on, float16 f 2 8 h w. Raises InputError."""
        assert self._cache is not None, "filled before it is read"
        rows = self._cache.get(path, lambda: _missing(path))  # n 2 8 h w
        if len(rows) < start + length:
            raise InputError(f"{path} has latents of {len(rows)} frames only: delete {self._cache.place(path)} and start again")
        return rows[start : start + length]


@torch.no_grad()
def encode_clip(codec: LatentCodec, path: Path, frames: int, mask: Tensor, resolution: int) -> np.ndarray:
    """Moments of a clip's first `frames` faces and masked faces (mask h w, 1 = keep): float16 n 2 8 h/8 w/8. Raises InputError."""
    pieces = []
    for faces in read_pieces(path, frames):
        pixels = to_pixels(resize_faces(faces, resolution).to(codec.device))  # n 3 h w
        both = torch.stack([pixels, masked_pixels(pixels, mask)], dim=1).to(codec.dtype)
        found = codec.moments(both.flatten(0, 1)).unflatten(0, both.shape[:2])
        pieces.append(found.half().cpu().numpy())
    return np.concatenate(pieces)


def _missing(path: Path) -> np.ndarray:
    raise InputError(f"{path} has no cached latents: the beginning of the log says why it could not be encoded")


def _digest(codec: LatentCodec, mask: Tensor) -> str:
    """Sixteen letters that tell this autoencoder's encoder, mask and resolution from others."""
    digest = hashlib.blake2b(digest_size=8)
    for name, value in [
        *sorted(codec.vae.encoder.state_dict().items()),
        *sorted(codec.vae.quant_conv.state_dict().items()),
        ("mask", mask),
    ]:
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
