"""Which clip, which frames, which batch: samples, batches, data loaders."""

import hashlib
import os
import signal
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from latentsync.data.cache import ClipCache, read_frames, read_pieces
from latentsync.data.clip_index import Catalog, ClipInfo
from latentsync.errors import InputError
from latentsync.faces.alignment import resize_faces
from latentsync.mel import audio_frames


def sample_generator(seed: int, position: int) -> torch.Generator:
    """The random numbers of one sample of a training, as torch gives them."""
    digest = hashlib.blake2b(f"{seed} {position}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little"))


class SampleIndex(NamedTuple):
    """One entry of the endless sequence of samples that a training sees."""

    position: int  # place in the sequence, counted over all processes; everything random in a sample is seeded with it
    clip: int  # index of the clip


@dataclass(frozen=True)
class Batch:
    """What all batches have. The first axis of every tensor counts samples, b."""

    position: Tensor  # int64 b, see `SampleIndex`
    clip: Tensor  # int64 b, index of the clip that was read
    problems: list[str]  # clips that could not be read, so that the next one took their place: a sentence each

    def to(self: "BatchType", device: torch.device) -> "BatchType":
        return replace(self, **{name: value.to(device, non_blocking=True) for name, value in self.tensors().items()})

    def pin_memory(self: "BatchType") -> "BatchType":
        """The same in memory that a GPU copies from while it computes; the loader calls this."""
        return replace(self, **{name: value.pin_memory() for name, value in self.tensors().items()})

    def tensors(self) -> dict[str, Tensor]:
        return {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}


BatchType = TypeVar("BatchType", bound=Batch)


@dataclass(frozen=True)
class UNetBatch(Batch):
    """Clips for the denoiser. Faces are as read, uint8 RGB, and left out where cached latents are all that is needed."""

    audio: Tensor  # float32 b f n d: windows of the target's sound; zeros where it was dropped
    mel: Tensor  # float32 b 1 80 t: the target's sound for SyncNet
    faces: Tensor | None = None  # uint8 b f h w 3: the target
    reference: Tensor | None = None  # uint8 b f h w 3: the same person elsewhere in the clip
    source: Tensor | None = None  # uint8 b f h w 3: what the mouth is masked in, and painted into; None: the target itself
    moments: Tensor | None = None  # float32 b f 3 8 h/8 w/8: mean and log-variance of target, masked target and reference
    source_mel: Tensor | None = None  # float32 b 1 80 t: the source's sound for SyncNet; zeros where the source is the target itself


@dataclass(frozen=True)
class SyncNetBatch(Batch):
    """Pictures beside the sound of the same clip, at the same moment or at another one."""

    faces: Tensor  # uint8 b f h w 3
    mel: Tensor  # float32 b 1 80 t
    label: Tensor  # float32 b: 1 where both belong together
    mouth: Tensor | None = None  # float32 b f k: known mouth channels during the pictures, for clips that come with them
    audio_mouth: Tensor | None = None  # float32 b f k: ... during the sound


SAMPLES, EPOCHS = 0, 1  # purposes of random numbers: streams of different purposes never coincide
UNET_LENGTHS, SYNCNET_LENGTHS = 3, 2  # a clip is at least so many windows long


class UNetChoice(NamedTuple):
    """First frames of two windows that do not overlap."""

    start: int  # the target, and its sound
    reference: int


class SyncNetChoice(NamedTuple):
    """First frames of the sound and of the pictures beside it."""

    sound: int
    pictures: int
    label: int  # 1 where both are the same


def generator(seed: int, position: int, purpose: int = SAMPLES) -> np.random.Generator:
    """The random numbers of the sample at one position (or of one epoch's order), on whichever process."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(purpose, position)))


def choose_unet(rng: np.random.Generator, frames: int, length: int) -> UNetChoice:
    """A target anywhere and, as its reference, any window of `length` frames that shares none, equally likely (arXiv 2412.09262)."""
    start = int(rng.integers(frames - length + 1))
    before = max(0, start - length + 1)  # references that end before the target begins
    after = max(0, frames - 2 * length - start + 1)
    place = int(rng.integers(before + after))
    return UNetChoice(start, place if place < before else start + length + place - before)


def choose_syncnet(rng: np.random.Generator, frames: int, length: int) -> SyncNetChoice:
    """Sound anywhere in the clip; with equal odds the pictures of the same moment or of any other one, which may overlap it."""
    sound = int(rng.integers(frames - length + 1))
    other = int(rng.integers(frames - length))
    other += other >= sound
    label = int(rng.integers(2))
    return SyncNetChoice(sound, sound if label else other, label)


FAILURES_IN_A_ROW = 20  # clips in a row that cannot be read before a training gives up


class ClipDataset(Dataset[BatchType], ABC, Generic[BatchType]):
    """Samples by `SampleIndex`, random by (seed, position) alone; the folder `faces_cache` keeps decoded clips, for slow decoding."""

    batch_type: type[BatchType]

    def __init__(self, catalog: Catalog, *, num_frames: int, resolution: int, seed: int, faces_cache: Path | None = None) -> None:
        self.catalog, self.num_frames, self.resolution, self.seed = catalog, num_frames, resolution, seed
        self._faces = None if faces_cache is None else ClipCache(faces_cache, f"faces-{resolution}")
        self._broken: dict[int, str] = {}  # clips that this process could not read

    def __len__(self) -> int:
        return len(self.catalog.clips)

    def __getitem__(self, index: SampleIndex | int) -> BatchType:
        """A sample, as a batch of one; a number is that clip at that position. Raises InputError where many clips cannot be read."""
        if not isinstance(index, tuple) and not 0 <= index < len(self):
            raise IndexError(f"there are {len(self)} clips and this is number {index}")
        position, first = index if isinstance(index, tuple) else (index, index)
        attempts = min(FAILURES_IN_A_ROW, len(self))
        problems: list[str] = []
        for clip in ((first + step) % len(self) for step in range(attempts)):
            if clip in self._broken:
                continue
            try:
                tensors = self.sample(self.catalog.clips[clip], generator(self.seed, position), problems)
                tensors |= {"position": torch.tensor(position), "clip": torch.tensor(clip)}
                return self.batch_type(
                    problems=problems, **{name: None if value is None else value[None] for name, value in tensors.items()}
                )
            except InputError as error:
                self._broken[clip] = f"{error}"
                problems.append(f"{error} (the next clip takes its place)")
        last = self._broken[(first + attempts - 1) % len(self)]
        raise InputError(f"{attempts} clips in a row cannot be read, the last because: {last}")

    @abstractmethod
    def sample(self, clip: ClipInfo, rng: np.random.Generator, problems: list[str]) -> dict[str, Tensor | None]:
        """The tensors of one sample from this very clip, by their names in the batch, without its first axis. Raises InputError."""

    def faces(self, clip: ClipInfo, indices: Sequence[int]) -> Tensor:
        """Frames of a clip in this order: uint8 f h w 3, RGB. Raises InputError where one cannot be decoded."""
        if self._faces is None:
            return resize_faces(read_frames(clip.path, indices), self.resolution)

        def decode() -> np.ndarray:
            return np.concatenate([resize_faces(piece, self.resolution).numpy() for piece in read_pieces(clip.path, clip.frames)])

        return torch.from_numpy(self._faces.get(clip.path, decode)[list(indices)])

    def frames_of(self, clip: ClipInfo, mel: Tensor, lengths: int) -> int:
        """Frames of a clip to choose windows from, given the mel of its sound. InputError where `lengths` windows do not fit."""
        frames = min(clip.frames, audio_frames(mel))
        if frames < lengths * self.num_frames:
            raise InputError(
                f"{clip.path} holds sound for {frames} frames and {lengths * self.num_frames} are needed: make this clip again"
            )
        return frames


def collate(samples: Sequence[BatchType]) -> BatchType:
    """Batches of one to one batch."""
    joined: dict[str, Any] = {"problems": [problem for sample in samples for problem in sample.problems]}
    for name in vars(samples[0]).keys() - {"problems"}:
        values = [getattr(sample, name) for sample in samples]  # each 1 ...
        joined[name] = None if any(value is None for value in values) else torch.cat(values)
    return type(samples[0])(**joined)


_EPOCHS_KEPT = 2  # a batch may straddle two epochs
_AHEAD = 2  # batches that each loading process has ready


class IndexSampler(Sampler[list[SampleIndex]]):
    """Endless batches from global batch `start` on; position p is of epoch p // num_clips; of `world` batches process r takes the r-th."""

    def __init__(self, num_clips: int, *, seed: int, batch_size: int, rank: int = 0, world: int = 1, start: int = 0) -> None:
        self.num_clips, self.seed = num_clips, seed
        self.batch_size, self.rank, self.world, self.start = batch_size, rank, world, start
        self._orders: dict[int, np.ndarray] = {}  # epoch -> its order

    def __iter__(self) -> Iterator[list[SampleIndex]]:
        batch = self.start
        while True:
            first = (batch * self.world + self.rank) * self.batch_size
            yield [self.index(position) for position in range(first, first + self.batch_size)]
            batch += 1

    def index(self, position: int) -> SampleIndex:
        epoch, place = divmod(position, self.num_clips)
        if epoch not in self._orders:
            self._orders = {kept: order for kept, order in self._orders.items() if abs(kept - epoch) < _EPOCHS_KEPT}
            self._orders[epoch] = generator(self.seed, epoch, EPOCHS).permutation(self.num_clips)
        return SampleIndex(position, int(self._orders[epoch][place]))


def make_loader(
    dataset: ClipDataset[BatchType], sampler: Iterable[list[SampleIndex]], num_workers: int, pin_memory: bool = False
) -> DataLoader[BatchType]:
    """Batches in the sampler's order, read ahead by `num_workers` processes; 0: read when they are asked for."""
    return DataLoader(
        dataset,
        batch_sampler=sampler,
        num_workers=num_workers,
        collate_fn=collate,
        persistent_workers=num_workers > 0,
        prefetch_factor=_AHEAD if num_workers else None,
        pin_memory=pin_memory,
        worker_init_fn=_begin_worker,
        generator=torch.Generator(),  # of the workers' seeds, which nothing here uses: the global one is left alone
    )


def fixed_batches(
    dataset: ClipDataset[BatchType], count: int, batch_size: int, rank: int = 0, world: int = 1, num_workers: int = 0
) -> DataLoader[BatchType]:
    """This process's share of `count` samples that are the same whenever they are iterated over: sample i is clip i % n at position i."""
    indices = [SampleIndex(position, position % len(dataset)) for position in range(rank, count, world)]
    return make_loader(dataset, [indices[start : start + batch_size] for start in range(0, len(indices), batch_size)], num_workers)


def _begin_worker(_: int) -> None:
    """One thread for each loading process, in a process group of its own: signals are for the process that it loads for."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.setpgid(0, 0)
