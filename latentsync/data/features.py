"""Mel spectrograms, Whisper features and latents of clips, each computed once."""

import hashlib
import logging
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor
from tqdm import tqdm

from latentsync.data.cache import ClipCache, read_pieces
from latentsync.data.clip_index import Catalog
from latentsync.errors import InputError
from latentsync.faces.alignment import resize_faces
from latentsync.faces.mask import masked_pixels, to_pixels
from latentsync.media.audio import read_audio
from latentsync.mel import log_mel
from latentsync.models.vae import LatentCodec
from latentsync.whisper.audio2feature import Audio2Feature, limited, load_whisper_encoder, whisper_sha256, window_steps

logger = logging.getLogger(__name__)

Window = tuple[Path, int]  # a clip and the first of its frames that is read

_MEL_KIND = "mel-1"
_WHOLE, _MASKED = 0, 1  # of each face the latents of both are kept
_PIECE = 1500  # encoder steps that are in memory in float32 at once


class Mels:
    """Mel spectrograms of clips, kept in `cache_dir`."""

    def __init__(self, cache_dir: Path) -> None:
        self._cache = ClipCache(cache_dir, _MEL_KIND)

    def __call__(self, path: Path) -> Tensor:
        """The mel of a clip's whole sound: float32 80 t, mapped into memory. Raises InputError."""
        return torch.from_numpy(self._cache.get(path, lambda: _mel(path)))


class Features:
    """Whisper's features of clips, the windows of inference, from states kept in float16; each process loads its own encoder."""

    def __init__(self, cache_dir: Path, encoder: Path, feat_length: tuple[int, int] = (2, 2), limit: float = 0.0) -> None:
        """Raises WeightsError when the encoder cannot be read."""
        self.encoder_path = Path(encoder)
        self.feat_length, self.limit = (feat_length[0], feat_length[1]), limit
        self._cache = ClipCache(cache_dir, f"whisper-{whisper_sha256(self.encoder_path, 'check weights.whisper')[:16]}")
        self._extractor: Audio2Feature | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_extractor": None}

    @property
    def width(self) -> int:
        return self._encoder().width

    def window(self, path: Path, start: int, stop: int) -> Tensor:
        """Windows of the video frames `start` to `stop` of a clip: float32 f n d. Raises InputError."""
        states = torch.from_numpy(self._cache.get(path, lambda: self._states(path)))  # t l d
        steps = window_steps(start, stop, self.feat_length, len(states))
        return rearrange(limited(states[steps].float(), self.limit), "f p l d -> f (p l) d")

    def _encoder(self) -> Audio2Feature:
        if self._extractor is None:
            self._extractor = Audio2Feature(load_whisper_encoder(self.encoder_path), self.feat_length)
        return self._extractor

    def _states(self, path: Path) -> np.ndarray:
        """States of all encoder steps of a clip: float16 t l d."""
        windows = self._encoder().windows(read_audio(path))
        ends = [*range(_PIECE, windows.num_steps, _PIECE), windows.num_steps]
        pieces = [windows.features(start, stop).half().numpy() for start, stop in zip([0, *ends], ends, strict=False)]
        return np.concatenate(pieces)


def _mel(path: Path) -> np.ndarray:
    samples = read_audio(path)
    if not len(samples):
        raise InputError(f"{path} holds no sound: make this clip again")
    return log_mel(samples).float().numpy()


class LatentStore:
    """Moments (mean, log-variance, unscaled) of the posteriors of faces and masked faces, float16, 32 KiB a frame of 256 pixels."""

    def __init__(self, cache_dir: Path, resolution: int, mask_name: str) -> None:
        self.cache_dir, self.resolution, self.mask_name = Path(cache_dir), resolution, mask_name
        self._cache: ClipCache | None = None  # known with the autoencoder

    def fill(
        self, codec: LatentCodec, catalog: Catalog, mask: Tensor, rank: int = 0, world: int = 1, *, show_progress: bool = False
    ) -> None:
        """Encode this process's share of the clips before training; unreadable ones are left out with a warning. Raises OutputError."""
        self._cache = ClipCache(self.cache_dir, f"latents-{self.resolution}-{Path(self.mask_name).stem}-{_digest(codec, mask)}")
        share = catalog.clips[rank::world]
        for clip in tqdm(share, unit="clip", desc="Encoding faces", disable=not show_progress):
            try:
                self._cache.get(clip.path, lambda clip=clip: encode_clip(codec, clip.path, clip.frames, mask, self.resolution))
            except InputError as error:
                logger.warning("%s", error)

    def moments(self, target: Window, source: Window, reference: Window, length: int) -> Tensor:
        """The moments of `length` frames of target, masked source and reference: float32 f 3 8 h w. Raises InputError."""
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
    """Sixteen hexadecimal digits of the autoencoder's encoder and the mask."""
    digest = hashlib.blake2b(digest_size=8)
    encoder = (sorted(module.state_dict().items()) for module in (codec.vae.encoder, codec.vae.quant_conv))
    for name, value in (*chain.from_iterable(encoder), ("mask", mask)):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
