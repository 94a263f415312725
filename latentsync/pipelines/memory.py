"""Device memory: how much a job needs, and what is done when it runs out."""

import ctypes
import logging
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeVar

import torch
from torch import nn

from latentsync.constants import VAE_FACTOR
from latentsync.errors import OutOfMemoryError
from latentsync.media.video_reader import SEGMENT_BYTES
from latentsync.models.unet import UNet3DConditionModel
from latentsync.models.vae import LatentCodec

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")
UNET_VALUES_PER_CHANNEL = 30  # most values alive at once per latent cell, frame and channel of the first level; measured at full size
CACHED_VALUES_PER_CHANNEL = 2  # the same of a `FeatureCache`, whatever its branch: the widest state has twice the channels
VAE_VALUES_PER_CHANNEL = 10  # the same per decoded pixel and channel of the autoencoder's first level
FRAMES_AHEAD = 16  # decoded pictures that may wait for the networks, or as many as a batch takes
BYTES_AHEAD = 512 << 20  # ... but never more than this
PASTE_FRAMES = 20  # what pasting takes at most, in pictures: float32 coordinates, masks and colours of one of them, and the encoder's queue
OUT_OF_MEMORY = ("DefaultCPUAllocator", "out of memory", "ALLOC_FAILED")  # in the messages of failures that have no type of their own


def estimate_bytes(
    unet: UNet3DConditionModel, vae: LatentCodec, audio_encoder: nn.Module, *, resolution: int, unet_frames: int, is_cached: bool = False
) -> int:
    """Memory that generation needs, roughly: all weights and the larger of the two networks' activations.

    `unet_frames` go through the denoiser at once, guidance counted twice; `is_cached` where features are kept between denoising steps.
    """
    tensors = (tensor for module in (unet, vae, audio_encoder) for tensor in (*module.parameters(), *module.buffers()))
    cells = unet_frames * (resolution // VAE_FACTOR) ** 2
    vae_pixels = (vae.slice_size or unet_frames) * resolution**2
    values = UNET_VALUES_PER_CHANNEL + CACHED_VALUES_PER_CHANNEL * is_cached
    unet_bytes = cells * unet.config.block_out_channels[0] * values * unet.dtype.itemsize
    vae_bytes = vae_pixels * vae.first_width * VAE_VALUES_PER_CHANNEL * vae.dtype.itemsize
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors) + max(unet_bytes, vae_bytes)


def frames_ahead(frame_bytes: int, batch_frames: int = 0) -> int:
    """How many decoded pictures of so many bytes may wait for the networks, which take `batch_frames` at once."""
    return min(max(FRAMES_AHEAD, batch_frames), max(1, BYTES_AHEAD // frame_bytes))


def estimate_picture_bytes(frame_bytes: int, batch_frames: int, *, plays_back: bool) -> int:
    """Main memory that the pictures of a job take: those that wait, a batch, one in work; `plays_back`: the video turns round."""
    frames = frames_ahead(frame_bytes, batch_frames) + batch_frames + PASTE_FRAMES
    return frames * frame_bytes + (max(SEGMENT_BYTES, frame_bytes) if plays_back else 0)


def release_cached_memory() -> None:
    """Give what the allocators hold in reserve back to the device and to the system."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # another C library than glibc
            ctypes.CDLL(None).malloc_trim(0)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether a failure is the device's or the machine's lack of memory."""
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in OUT_OF_MEMORY)


class BatchLimiter:
    """Works on batches of clips; from the moment memory runs out on smaller batches, and then fewer frames in the autoencoder at once."""

    def __init__(self, vae: LatentCodec) -> None:
        self.largest: int | None = None  # clips that fit into memory at once; None until memory ran out
        self._vae = vae

    def __call__(self, work: Callable[[Sequence[Item]], Sequence[Result]], items: Sequence[Item]) -> list[Result]:
        """`work` takes items and returns one result each. Raises OutOfMemoryError when nothing can be made smaller."""
        done: list[Result] = []
        while len(done) < len(items):
            batch = items[len(done) : len(done) + (self.largest or len(items))]
            try:
                done += work(batch)
                continue
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                reason = str(error).partition("\n")[0]
            release_cached_memory()  # here, where the failure no longer holds its tensors
            self._shrink(len(batch), reason)
        return done

    def _shrink(self, failed: int, reason: str) -> None:
        logger.warning("Memory ran out with %d clip(s) at once: going on with less.", failed)
        self.largest = max(1, failed // 2)
        if failed > 1:
            return
        if self._vae.slice_size == 1:
            raise OutOfMemoryError(
                f"The device ran out of memory with a single clip ({reason}): "
                "use half precision (--dtype fp16 or bf16), a configuration of lower resolution, or a device with more memory."
            )
        self._vae.slice_size = max(1, (self._vae.slice_size or 16) // 2)
