"""`UNetDataset`: a target, a reference of the same person elsewhere in the clip, and what is heard during the target."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from latentsync.data.clip_index import Catalog, ClipInfo, find_twins
from latentsync.data.features import CachedWindow, Features, LatentStore
from latentsync.data.sampling import UNET_LENGTHS, ClipDataset, SampleIndex, UNetBatch, choose_unet, whole
from latentsync.mel import mel_window


class UNetDataset(ClipDataset[UNetBatch]):
    """Samples for the denoiser (LatentSync, arXiv 2412.09262).

    Args:
        mels: gives the mel of a clip's sound.
        features: gives the denoiser's windows of it.
        audio_dropout: share of samples that hear nothing, so that guidance has a trained other half (arXiv 2207.12598).
        latents: gives what the autoencoder makes of the faces; None: the training does that itself.
        counterfactual: where a clip has a twin, the target is to be painted over the twin's mouth, and the twin's same frames are the
            reference: just as in use, where nothing that is seen tells what is said. Other clips are their own source.
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
        counterfactual: bool = False,
        with_faces: bool = True,
        faces_cache: Path | None = None,
    ) -> None:
        super().__init__(catalog, num_frames=num_frames, resolution=resolution, seed=seed, faces_cache=faces_cache)
        self.mels, self.features, self.latents = mels, features, latents
        self.audio_dropout, self.with_faces = audio_dropout, with_faces
        self.counterfactual, self.twins = counterfactual, find_twins(catalog.clips) if counterfactual else {}

    def sample(self, turn: SampleIndex, clip: ClipInfo, rng: np.random.Generator, problems: list[str]) -> UNetBatch:
        """See `ClipDataset`."""
        mel, length, twin = self.mels(clip.path), self.num_frames, self.twins.get(clip.path)
        frames = self.frames_of(clip, mel, UNET_LENGTHS)
        if twin is not None:
            frames = min(frames, self.frames_of(twin, self.mels(twin.path), UNET_LENGTHS))
        start, reference = choose_unet(rng, frames, length)
        reference = reference if twin is None else start
        dropped = rng.random() < self.audio_dropout
        audio = self.features.window(clip.path, start, start + length)
        return UNetBatch(
            position=whole(turn.position),
            clip=whole(turn.clip),
            problems=problems,
            audio=(torch.zeros_like(audio) if dropped else audio)[None],
            mel=mel_window(mel, start, length)[None].clone(),
            source_mel=self._source_mel(twin, mel, start) if self.counterfactual else None,
            moments=None if self.latents is None else self._moments(clip, twin or clip, start, reference)[None],
            **self._pictures(clip, twin or clip, start, reference),
        )

    def _source_mel(self, twin: ClipInfo | None, mel: Tensor, start: int) -> Tensor:
        """What SyncNet hears of a twin's sound during the window, 1 1 80 t; zeros where a clip has none."""
        window = mel_window(mel if twin is None else self.mels(twin.path), start, self.num_frames)[None].clone()
        return torch.zeros_like(window) if twin is None else window

    def _moments(self, clip: ClipInfo, source: ClipInfo, start: int, reference: int) -> Tensor:
        """What the autoencoder made of target, masked source and reference."""
        windows = (CachedWindow(clip.path, start), CachedWindow(source.path, start), CachedWindow(source.path, reference))
        return self.latents.moments(*windows, self.num_frames)

    def _pictures(self, clip: ClipInfo, source: ClipInfo, start: int, reference: int) -> dict[str, Tensor]:
        """The faces of a sample that somebody is going to look at, each 1 f h w 3, by their names in the batch."""
        if self.latents is not None and not self.with_faces:
            return {}
        length = self.num_frames
        target, other = range(start, start + length), range(reference, reference + length)
        if self.latents is not None:
            return {"faces": self.faces(clip, target)[None]}
        if not self.counterfactual:
            both = self.faces(clip, [*target, *other])[None]
            return {"faces": both[:, :length], "reference": both[:, length:]}
        both = self.faces(source, [*target, *other])[None]
        return {"faces": self.faces(clip, target)[None], "source": both[:, :length], "reference": both[:, length:]}
