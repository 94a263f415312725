"""`UNetDataset`: a target, a reference of the same person elsewhere in the clip, and the sound of the target."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from latentsync.data.clip_index import Catalog, ClipInfo, counterpart_path
from latentsync.data.features import Features, LatentStore
from latentsync.data.sampling import UNET_LENGTHS, ClipDataset, UNetBatch, choose_unet
from latentsync.mel import mel_window

REFERENCE = 2  # of the pictures of a frame in the moments: target, masked source, reference


class UNetDataset(ClipDataset[UNetBatch]):
    """Samples for the denoiser (LatentSync, arXiv 2412.09262).

    Args:
        audio_dropout: share of samples whose audio is zeros, so that guidance has a trained other half (arXiv 2207.12598).
        latents: gives the latents of the faces; None: the training encodes them itself.
        counterfactual_pairs: where a clip has a counterpart, the target is to be painted over the counterpart's mouth, and the
            counterpart is the reference: nothing in the pictures says what is said. Other clips are their own source.
        single_reference: the reference of all frames is one frame of the reference window, in which no mouth moves.
        with_faces: give the target's faces beside cached latents, too, for losses that compare faces.
    """

    batch_type = UNetBatch

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
        counterfactual_pairs: bool = False,
        single_reference: bool = False,
        with_faces: bool = True,
        faces_cache: Path | None = None,
    ) -> None:
        super().__init__(catalog, num_frames=num_frames, resolution=resolution, seed=seed, faces_cache=faces_cache)
        self.mels, self.features, self.latents = mels, features, latents
        self.audio_dropout, self.with_faces, self.counterfactual_pairs = audio_dropout, with_faces, counterfactual_pairs
        self.single_reference = single_reference
        by_path = {clip.path: clip for clip in catalog.clips} if counterfactual_pairs else {}
        self.counterparts = {path: other for path in by_path if (other := by_path.get(counterpart_path(path))) is not None}

    def sample(self, clip: ClipInfo, rng: np.random.Generator, problems: list[str]) -> dict[str, Tensor | None]:
        mel, length, counterpart = self.mels(clip.path), self.num_frames, self.counterparts.get(clip.path)
        frames, source_mel = self.frames_of(clip, mel, UNET_LENGTHS), None
        if counterpart is not None:
            source_mel = self.mels(counterpart.path)
            frames = min(frames, self.frames_of(counterpart, source_mel, UNET_LENGTHS))
        start, reference = choose_unet(rng, frames, length)
        reference = reference if counterpart is None or self.single_reference else start  # else as inference has it: each frame its own
        dropped = rng.random() < self.audio_dropout
        audio = self.features.window(clip.path, start, start + length)
        target_mel = mel_window(mel, start, length).clone()
        if self.counterfactual_pairs:
            source_mel = torch.zeros_like(target_mel) if source_mel is None else mel_window(source_mel, start, length).clone()
        sound = {"audio": torch.zeros_like(audio) if dropped else audio, "mel": target_mel, "source_mel": source_mel}
        return sound | self._pictures(clip, counterpart or clip, start, reference)

    def _pictures(self, clip: ClipInfo, source: ClipInfo, start: int, reference: int) -> dict[str, Tensor]:
        """The latents, or the faces, of a sample, by their names in the batch: f ... each."""
        length = self.num_frames
        target = range(start, start + length)
        if self.latents is not None:
            windows = ((clip.path, start), (source.path, start), (source.path, reference))
            moments = self.latents.moments(*windows, length)
            if self.single_reference:
                moments[:, REFERENCE] = moments[0, REFERENCE].clone()
            return {"moments": moments} | ({"faces": self.faces(clip, target)} if self.with_faces else {})
        other = [reference] * length if self.single_reference else range(reference, reference + length)
        both = self.faces(source, [*target, *other])
        if not self.counterfactual_pairs:
            return {"faces": both[:length], "reference": both[length:]}
        return {"faces": self.faces(clip, target), "source": both[:length], "reference": both[length:]}
