"""`SyncNetDataset`: frames beside the sound of the same moment, or of another one."""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from latentsync.data.clip_index import Catalog, ClipInfo, read_mouth
from latentsync.data.sampling import SYNCNET_LENGTHS, ClipDataset, SyncNetBatch, choose_syncnet
from latentsync.errors import InputError
from latentsync.mel import mel_window

CACHED_CLIPS = 2000  # clips whose mouth channels a process keeps in memory, some megabytes


class SyncNetDataset(ClipDataset[SyncNetBatch]):
    """Samples for SyncNet (LatentSync, arXiv 2412.09262; the pairs are those of Wav2Lip, arXiv 2008.10010)."""

    batch_type = SyncNetBatch

    def __init__(
        self,
        catalog: Catalog,
        mels: Callable[[Path], Tensor],
        *,
        num_frames: int,
        resolution: int,
        seed: int,
        with_mouth: bool = False,
        faces_cache: Path | None = None,
    ) -> None:
        """Raises InputError where mouth channels are wanted and a clip comes without."""
        super().__init__(catalog, num_frames=num_frames, resolution=resolution, seed=seed, faces_cache=faces_cache)
        without = [clip.path for clip in catalog.clips if not clip.mouth]
        if with_mouth and without:
            raise InputError(
                f"{len(without)} of {len(catalog)} clips come without known mouth channels, such as {without[0]}: "
                "set run.loss_weights.mouth=0, or train on rendered heads alone"
            )
        self.mels, self.with_mouth = mels, with_mouth
        self._read_mouth = lru_cache(CACHED_CLIPS)(read_mouth)  # parsing the text takes time

    def sample(self, clip: ClipInfo, rng: np.random.Generator, problems: list[str]) -> dict[str, Tensor | None]:
        mel, length = self.mels(clip.path), self.num_frames
        choice = choose_syncnet(rng, self.frames_of(clip, mel, SYNCNET_LENGTHS), length)
        faces = self.faces(clip, range(choice.pictures, choice.pictures + length))
        sample = {"faces": faces, "mel": mel_window(mel, choice.sound, length).clone(), "label": torch.tensor(float(choice.label))}
        if not self.with_mouth:
            return sample
        values = torch.from_numpy(self._read_mouth(clip.path))  # n k
        if len(values) < max(choice.pictures, choice.sound) + length:
            raise InputError(f"{clip.path} comes with mouth channels of {len(values)} frames only: render this clip again")
        mouth, audio_mouth = (values[start : start + length] for start in (choice.pictures, choice.sound))
        return {**sample, "mouth": mouth, "audio_mouth": audio_mouth}
