"""How much memory a batch needs, and what to do when there is too little."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import nn

from latentsync.constants import VAE_FACTOR
from latentsync.errors import OutOfMemoryError
from latentsync.models.unet import UNet3DConditionModel
from latentsync.models.vae import LatentCodec

Item = TypeVar("Item")
Result = TypeVar("Result")

UNET_VALUES_PER_CHANNEL = 30  # most values alive at once per latent cell, frame and channel of the first level; measured at full size
VAE_VALUES_PER_CHANNEL = 10  # the same per decoded pixel and channel of the autoencoder's first level
OUT_OF_MEMORY = ("DefaultCPUAllocator", "out of memory", "ALLOC_FAILED")  # in the messages of failures that have no type of their own


def parameter_bytes(*modules: nn.Module) -> int:
    """Bytes that the weights of modules take."""
    return sum(tensor.numel() * tensor.element_size() for module in modules for tensor in (*module.parameters(), *module.buffers()))


def estimate_bytes(unet: UNet3DConditionModel, vae: LatentCodec, audio_encoder: nn.Module, *, resolution: int, unet_frames: int) -> int:
    """Memory that generation needs, roughly: all weights and the larger of the two networks' activations.

    Args:
        resolution: side of a face in pixels.
        unet_frames: frames that go through the denoiser at once, guidance counted twice.
    """
    cells = unet_frames * (resolution // VAE_FACTOR) ** 2
    vae_pixels = (vae.slice_size or unet_frames) * resolution**2
    unet_bytes = cells * unet.config.block_out_channels[0] * UNET_VALUES_PER_CHANNEL * unet.dtype.itemsize
    vae_bytes = vae_pixels * vae.vae.config.block_out_channels[0] * VAE_VALUES_PER_CHANNEL * vae.dtype.itemsize
    return parameter_bytes(unet, vae, audio_encoder) + max(unet_bytes, vae_bytes)


def describe_bytes(count: int) -> str:
    """A size for a person: "850 MB", "6.1 GB"."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{max(1, round(count / 1e6))} MB"


def release_cached_memory() -> None:
    """Give what the allocators hold in reserve back to the device."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether a failure is the device's or the machine's lack of memory."""
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in OUT_OF_MEMORY)


def in_smaller_batches(
    work: Callable[[Sequence[Item]], list[Result]], items: Sequence[Item], on_shrink: Callable[[int], bool]
) -> list[Result]:
    """Do `work` on all items at once, or in halves when memory runs out.

    Args:
        work: takes items, returns one result each.
        on_shrink: told the size of the batch that failed; says whether to try again even though that batch was a single item
            (because something else was made smaller).

    Raises:
        OutOfMemoryError: memory ran out and nothing could be made smaller.
    """
    try:
        return work(items)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        reason = str(error).splitlines()[0]
    release_cached_memory()
    can_shrink = on_shrink(len(items))
    if len(items) > 1:
        half = (len(items) + 1) // 2
        return in_smaller_batches(work, items[:half], on_shrink) + in_smaller_batches(work, items[half:], on_shrink)
    if can_shrink:
        return in_smaller_batches(work, items, on_shrink)
    raise OutOfMemoryError(
        f"The device ran out of memory with a single clip ({reason}): "
        "use half precision (--dtype fp16 or bf16), a configuration of lower resolution, or a device with more memory."
    )
