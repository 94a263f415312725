"""Sync losses by SyncNet: binary cross-entropy of the cosine of mouth and sound (arXiv 2412.09262), and InfoNCE."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentsync.constants import VAE_FACTOR
from latentsync.errors import InputError
from latentsync.models.syncnet import SyncNet, load_syncnet, syncnet_frames

IN_SYNC = 0.5  # cosines above it count as "in sync"
TEMPERATURE = 0.07  # of InfoNCE


def cosine_loss(visual: Tensor, audio: Tensor, label: Tensor) -> Tensor:
    """Binary cross-entropy of the raw cosine of unit vectors b d, one value for each pair: b.

    label (b or b 1) is 1 for a mouth that belongs to the sound. Cosines lie in [0, 1], since SyncNet's outputs are not negative; what
    rounding adds beyond is cut off. Computed in float32 whatever the vectors are. Where a vector is no number, neither is the loss.
    """
    cosine = F.cosine_similarity(visual.float(), audio.float(), dim=1)
    with torch.autocast(cosine.device.type, enabled=False):  # half precision has no safe logarithm of a value near 0
        loss = F.binary_cross_entropy(cosine.nan_to_num().clamp(0.0, 1.0), label.float().reshape(-1), reduction="none")
    return torch.where(cosine.isnan(), cosine, loss)


def infonce_loss(visual: Tensor, audio: Tensor, label: Tensor) -> Tensor:
    """InfoNCE: pairs that belong together against all others of a batch; a scalar (van den Oord et al. 2018, arXiv 1807.03748).

    Each mouth whose label (b or b 1) is 1 should be nearer to its sound than to every other sound of the batch, and each such sound to its
    mouth; unit vectors b d, cosines over TEMPERATURE. Pairs that do not belong together are others alone. 0 where no pair does.
    """
    together = label.reshape(-1) > IN_SYNC
    with torch.autocast(visual.device.type, enabled=False):
        logits = visual.float() @ audio.float().T / TEMPERATURE  # b b
        own = torch.arange(len(logits), device=logits.device)
        both = F.cross_entropy(logits, own, reduction="none") + F.cross_entropy(logits.T, own, reduction="none")  # b
        return (both * together).sum() / (2 * together.sum().clamp(min=1))


def accuracy(visual: Tensor, audio: Tensor, label: Tensor) -> Tensor:
    """Share of pairs (0 .. 1, a scalar) whose cosine lies on the side of IN_SYNC that its label says."""
    cosine = F.cosine_similarity(visual.float(), audio.float(), dim=1)
    return ((cosine > IN_SYNC) == (label.reshape(-1) > IN_SYNC)).float().mean()


class SyncLoss(nn.Module):
    """How badly generated mouths fit their sound, by a trained SyncNet. The network is frozen."""

    def __init__(self, network: SyncNet, *, resolution: int, num_frames: int, latent_space: bool, lower_half: bool) -> None:
        """The network and what it was trained on: side of the face in pixels, frames, latents or pixels, lower halves or all."""
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        self.latent_space = latent_space
        self.num_frames = num_frames
        self._lower_half = lower_half
        self._side = resolution // VAE_FACTOR if latent_space else resolution

    def forward(self, predicted: Tensor, mel: Tensor, other: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Two losses of generated frames, each one value for each sample, b: how badly they fit a sound, how well they fit another one.

        Args:
            predicted: pixels b f 3 h w in [-1, 1], resized to SyncNet's size (bicubic); latents b f 4 h/8 w/8 for one of latents.
            mel: b 1 80 t, the sound of the same frames.
            other: b 1 80 t, a sound that they should not fit; None: the second loss is None.

        Raises InputError where SyncNet was trained on another number of frames, or on latents of another size.
        """
        side = predicted.shape[-1] * (VAE_FACTOR if self.latent_space else 1)
        self.check(predicted.shape[1], side)
        dtype = next(self.network.parameters()).dtype
        if predicted.shape[-2:] != (self._side, self._side):
            resized = F.interpolate(predicted.float().flatten(0, 1), size=(self._side,) * 2, mode="bicubic", align_corners=False)
            predicted = resized.unflatten(0, predicted.shape[:2])
        frames = syncnet_frames(predicted, self._lower_half)
        visual, audio = self.network(frames.to(dtype), mel.to(dtype))
        fits = torch.ones(len(visual), device=visual.device)
        misfit = cosine_loss(visual, audio, fits)
        if other is None:
            return misfit, None
        return misfit, cosine_loss(visual, self.network.embed_audio(other.to(dtype)), 1 - fits)

    def check(self, num_frames: int, resolution: int) -> None:
        """Raises InputError where clips of so many frames and pixels a side are none that this network takes."""
        if num_frames != self.num_frames:
            raise InputError(
                f"SyncNet was trained on {self.num_frames} frames and the clips have {num_frames}: change data.num_frames, "
                "or name another SyncNet in data.syncnet_config_path and weights.syncnet."
            )
        if self.latent_space and resolution != self._side * VAE_FACTOR:
            raise InputError(
                f"SyncNet was trained on latents of faces of {self._side * VAE_FACTOR} pixels and these are of {resolution}: "
                "change data.resolution, or name another SyncNet in data.syncnet_config_path."
            )


def load_sync_loss(config_path: Path, weights: Path) -> SyncLoss:
    """The loss with a trained SyncNet, on the CPU. Raises ConfigError, WeightsError where configuration and weights do not fit."""
    config, network = load_syncnet(config_path, weights)
    data = config.data
    sizes = {"resolution": data.resolution, "num_frames": data.num_frames}
    return SyncLoss(network, **sizes, latent_space=data.latent_space, lower_half=data.lower_half)
