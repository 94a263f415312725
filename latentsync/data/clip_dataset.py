"""What both data sets share: a turn becomes a sample, and a clip that turns out unreadable gives its turn to the next one."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Generic

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from latentsync.data.batches import BatchType, Turn, stack
from latentsync.data.catalog import Catalog, ClipInfo
from latentsync.data.clips import generator
from latentsync.data.faces import Faces
from latentsync.data.sound import heard_frames
from latentsync.errors import InputError

FAILURES_IN_A_ROW = 20  # clips in a row that cannot be read before a training gives up


class ClipDataset(Dataset[BatchType], ABC, Generic[BatchType]):
    """Samples by turn: all chance in one comes from (seed, position), so it does not matter which process makes it.

    Args:
        catalog: the clips.
        num_frames: of a sample.
        resolution: side of a face in pixels.
        seed: of all chance.
        faces_cache: see `Faces`.
    """

    def __init__(self, catalog: Catalog, *, num_frames: int, resolution: int, seed: int, faces_cache: Path | None = None) -> None:
        self.catalog = catalog
        self.num_frames = num_frames
        self.faces = Faces(resolution, faces_cache)
        self.seed = seed
        self._broken: dict[int, str] = {}  # clips that this process could not read

    def __len__(self) -> int:
        """Number of clips."""
        return len(self.catalog.clips)

    def __getitem__(self, turn: Turn | int) -> BatchType:
        """The sample of a turn, as a batch of one; a number alone is that clip at that position.

        Raises:
            InputError: FAILURES_IN_A_ROW clips in a row, or all there are, cannot be read.
            OutputError: what is computed of a clip cannot be kept.
        """
        if not isinstance(turn, tuple) and not 0 <= turn < len(self):
            raise IndexError(f"there are {len(self)} clips and this is number {turn}")
        position, first = turn if isinstance(turn, tuple) else (turn, turn)
        attempts = min(FAILURES_IN_A_ROW, len(self))
        problems: list[str] = []
        for index in ((first + step) % len(self) for step in range(attempts)):
            if index in self._broken:
                continue
            try:
                return self.sample(Turn(position, index), self.catalog.clips[index], generator(self.seed, position), problems)
            except InputError as error:
                self._broken[index] = f"{error}"
                problems.append(f"{error} (its turn went to the next clip)")
        last = self._broken[(first + attempts - 1) % len(self)]
        raise InputError(f"{attempts} clips in a row cannot be read, the last because: {last}")

    @abstractmethod
    def sample(self, turn: Turn, clip: ClipInfo, rng: np.random.Generator, problems: list[str]) -> BatchType:
        """A batch of one from this very clip. Raises InputError."""

    def frames_of(self, clip: ClipInfo, mel: Tensor, lengths: int) -> int:
        """Frames of a clip to choose windows from, now that its sound is decoded. InputError where `lengths` windows do not fit."""
        frames = min(clip.frames, heard_frames(mel))
        if frames < lengths * self.num_frames:
            raise InputError(
                f"{clip.path} holds sound for {frames} frames and {lengths * self.num_frames} are needed: make this clip again"
            )
        return frames


def collate(samples: Sequence[BatchType]) -> BatchType:
    """Batches of one to one batch."""
    kind = type(samples[0])
    joined: dict[str, Tensor | list[str] | None] = {"problems": [problem for sample in samples for problem in sample.problems]}
    for name in (field.name for field in fields(kind) if field.name != "problems"):
        values = stack([getattr(sample, name) for sample in samples])  # b 1 ...
        joined[name] = None if values is None else values.flatten(0, 1)
    return kind(**joined)  # type: ignore[arg-type]


def whole(value: int) -> Tensor:
    """A whole number as a batch of one: int64 1."""
    return torch.tensor([value])
