"""Whether picture and sound of a talking face fit in time, told by a SyncNet of this project: offset, confidence, accuracy of pairs.

Offset and confidence are found as SyncNet's authors find them (Chung and Zisserman, Out of Time, 2016): the sound is moved against the
picture by up to MAX_SHIFT frames; the best place is the offset, and how far it stands out from the median of all places is the confidence.
Their distance of embeddings is here the cosine that this project's networks are trained on, so confidences are not theirs: they are 0 to 1.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from latentsync.config import load_syncnet_config
from latentsync.data.clips import SYNCNET_LENGTHS, choose_syncnet
from latentsync.data.frames import resize_faces
from latentsync.data.sound import heard_frames
from latentsync.errors import InputError
from latentsync.faces.mask import to_pixels
from latentsync.losses.sync import IN_SYNC, syncnet_frames
from latentsync.models.syncnet import SyncNet
from latentsync.models.syncnet_choice import load_syncnet
from latentsync.spectrogram import mel_window

MAX_SHIFT = 15  # frames to either side, as far as SyncNet's authors look
WINDOWS_AT_ONCE = 16  # windows that go through a network together


class SyncReading(NamedTuple):
    """How picture and sound of a clip lie to each other."""

    offset: int  # frames by which the sound comes too early; 0 where both fit
    confidence: float  # cosine at the offset less the median over all shifts
    cosines: tuple[float, ...]  # mean cosine where the sound is moved by -MAX_SHIFT .. MAX_SHIFT frames


class PairTally(NamedTuple):
    """How often SyncNet told pairs that belong together from pairs that do not."""

    pairs: int
    right: int
    right_shuffled: int  # ... had the labels been shuffled


def compare(seen: Tensor, heard: Tensor, max_shift: int = MAX_SHIFT) -> SyncReading:
    """The reading of unit vectors, one for each window that begins at frame 0, 1, ...: of the pictures n d and of the sound m d.

    At each shift the cosine is averaged over the windows that have a partner there, so that the ends of a clip favour no shift. Where the
    sound of frame i belongs to the picture of frame i + 3 the offset is 3. Raises InputError where a shift has no pair at all.
    """
    if min(len(seen), len(heard)) <= max_shift:
        raise InputError(
            f"A clip of {len(seen)} windows of pictures and {len(heard)} of sound is too short to move its sound by {max_shift} frames: "
            "measure longer clips"
        )
    cosines = []
    for shift in range(-max_shift, max_shift + 1):
        first, last = max(0, -shift), min(len(seen), len(heard) - shift)
        cosines.append((seen[first:last] * heard[first + shift : last + shift]).sum(-1).mean())
    values = torch.stack(cosines).double()
    best = int(values.argmax())
    return SyncReading(max_shift - best, float(values[best] - values.median()), tuple(values.tolist()))


def pair_accuracy(seen: Tensor, heard: Tensor, num_frames: int, pairs: int, rng: np.random.Generator) -> PairTally:
    """Pairs drawn as in training from the windows of one clip, n d and m d: pictures beside the sound of the same or of another moment.

    Raises InputError where the clip is shorter than training takes.
    """
    frames = min(len(seen), len(heard)) + num_frames - 1
    if frames < SYNCNET_LENGTHS * num_frames:
        raise InputError(f"A clip of {frames} frames is shorter than {SYNCNET_LENGTHS} windows of {num_frames}: measure longer clips")
    choices = [choose_syncnet(rng, frames, num_frames) for _ in range(pairs)]
    cosines = torch.stack([seen[choice.pictures] @ heard[choice.sound] for choice in choices])
    told, labels = (cosines > IN_SYNC).numpy(), np.array([choice.label for choice in choices], dtype=bool)
    return PairTally(pairs, int((told == labels).sum()), int((told == rng.permutation(labels)).sum()))


class SyncMeter:
    """A trained SyncNet of pixels that looks at whole clips, window by window.

    Args:
        network: the network, already where it is to compute.
        resolution, num_frames, lower_half: what it was trained on.
    """

    def __init__(self, network: SyncNet, *, resolution: int, num_frames: int, lower_half: bool) -> None:
        self.network = network.eval().requires_grad_(False)
        self.resolution, self.num_frames, self.lower_half = resolution, num_frames, lower_half

    @torch.no_grad()
    def see(self, faces: Tensor) -> Tensor:
        """Aligned faces uint8 f h w 3 -> unit vectors float32 n d of all windows, on the CPU. Raises InputError: not one window."""
        starts = self._starts(len(faces), "pictures")
        pixels = to_pixels(resize_faces(faces, self.resolution))  # f c h w
        device, found = next(self.network.parameters()).device, []
        for part in starts.split(WINDOWS_AT_ONCE):
            windows = torch.stack([pixels[start : start + self.num_frames] for start in part.tolist()])  # b f c h w
            found.append(self.network.embed_frames(syncnet_frames(windows.to(device), self.lower_half)).float().cpu())
        return torch.cat(found)

    @torch.no_grad()
    def hear(self, mel: Tensor) -> Tensor:
        """A clip's mel 80 t -> unit vectors float32 m d of all windows, on the CPU. Raises InputError: not one window."""
        starts = self._starts(heard_frames(mel), "sound")
        device, found = next(self.network.parameters()).device, []
        for part in starts.split(WINDOWS_AT_ONCE):
            windows = torch.stack([mel_window(mel, start, self.num_frames) for start in part.tolist()])  # b 1 80 t
            found.append(self.network.embed_audio(windows.float().to(device)).float().cpu())
        return torch.cat(found)

    def _starts(self, frames: int, what: str) -> Tensor:
        if frames < self.num_frames:
            raise InputError(f"A clip has {what} for {frames} frames and SyncNet looks at {self.num_frames}: measure longer clips")
        return torch.arange(frames - self.num_frames + 1)


def load_sync_meter(config_path: Path, weights: Path, device: torch.device | str = "cpu") -> SyncMeter:
    """A trained SyncNet for measuring.

    Raises:
        ConfigError, WeightsError: configuration and weights do not belong together or cannot be read.
        InputError: it looks at latents, which a finished video has none of.
    """
    if load_syncnet_config(config_path).data.latent_space:
        raise InputError(f"{config_path} is a SyncNet of latents, and videos are measured by one of pixels: name another configuration")
    config, network = load_syncnet(config_path, weights)
    data = config.data
    return SyncMeter(network.to(device), resolution=data.resolution, num_frames=data.num_frames, lower_half=data.lower_half)
