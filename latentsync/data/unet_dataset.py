"""`UNetDataset`: a target, a reference of the same person elsewhere in the clip, and what is heard during the target."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from latentsync.data.batches import Turn, UNetBatch
from latentsync.data.catalog import Catalog, ClipInfo
from latentsync.data.clip_dataset import ClipDataset, whole
from latentsync.data.clips import UNET_LENGTHS, choose_unet
from latentsync.data.latents import LatentStore
from latentsync.data.sound import Features
from latentsync.spectrogram import mel_window


class UNetDataset(ClipDataset[UNetBatch]):
    """Samples for the denoiser (LatentSync, arXiv 2412.09262).

    Args:
        mels: gives the mel of a clip's sound.
        features: gives the denoiser's windows of it.
        audio_dropout: share of samples that hear nothing, so that guidance has a trained other half (arXiv 2207.12598).
        latents: gives what the autoencoder makes of the faces; None: the training does that itself.
        with_faces: hand out the target's faces beside cached latents, too, for losses that compare pictures.
    """

    def __init__(
        self,
        catalog: Catalog,
        mels: Callable[[Path], Tensor],
        features: Features,
        *,
        num_frames: int,
        resolution: int,
        seed: int,
        audio_dropout: float = 0.0,
        latents: LatentStore | None = None,
        with_faces: bool = True,
        faces_cache: Path | None = None,
    ) -> None:
        super().__init__(catalog, num_frames=num_frames, resolution=resolution, seed=seed, faces_cache=faces_cache)
        self.mels, self.features, self.latents = mels, features, latents
        self.audio_dropout, self.with_faces = audio_dropout, with_faces

    def sample(self, turn: Turn, clip: ClipInfo, rng: np.random.Generator, problems: list[str]) -> UNetBatch:
        """See `ClipDataset`."""
        mel, length = self.mels(clip.path), self.num_frames
        start, reference = choose_unet(rng, self.frames_of(clip, mel, UNET_LENGTHS), length)
        dropped = rng.random() < self.audio_dropout
        indices = [*range(start, start + length)] if self.latents is None or self.with_faces else []
        indices += range(reference, reference + length) if self.latents is None else []
        faces = self.faces(clip, indices)[None] if indices else None
        audio = self.features.window(clip.path, start, start + length)
        return UNetBatch(
            position=whole(turn.position),
            clip=whole(turn.clip),
            problems=problems,
            faces=None if faces is None else faces[:, :length],
            reference=None if self.latents is not None else faces[:, length:],
            audio=(torch.zeros_like(audio) if dropped else audio)[None],
            mel=mel_window(mel, start, length)[None].clone(),
            moments=None if self.latents is None else self.latents.moments(clip.path, start, reference, length)[None],
        )
