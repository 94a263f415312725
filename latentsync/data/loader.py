"""Which clip when, and the processes that read ahead."""

import os
import signal
from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler

from latentsync.data.batches import BatchType, Turn
from latentsync.data.clip_dataset import ClipDataset, collate
from latentsync.data.clips import EPOCHS, generator

_EPOCHS_KEPT = 2  # a batch may straddle two epochs
_AHEAD = 2  # batches that each loading process has ready


class TurnSampler(Sampler[list[Turn]]):
    """The endless sequence of turns, cut into this process's batches.

    Position p is in epoch p // num_clips, in which every clip has one turn in an order drawn from (seed, epoch). Global batch g covers
    `world` batches of `batch_size` positions, of which process r takes the r-th; so the sequence does not depend on how many
    processes share it, and it can be entered anywhere.

    Args:
        start: the global batch to begin with.
    """

    def __init__(self, num_clips: int, *, seed: int, batch_size: int, rank: int = 0, world: int = 1, start: int = 0) -> None:
        self.num_clips, self.seed = num_clips, seed
        self.batch_size, self.rank, self.world, self.start = batch_size, rank, world, start
        self._orders: dict[int, np.ndarray] = {}  # epoch -> its order

    def __iter__(self) -> Iterator[list[Turn]]:
        """Batch after batch, without end."""
        batch = self.start
        while True:
            first = (batch * self.world + self.rank) * self.batch_size
            yield [self.turn(position) for position in range(first, first + self.batch_size)]
            batch += 1

    def turn(self, position: int) -> Turn:
        """The turn at a position."""
        epoch, place = divmod(position, self.num_clips)
        if epoch not in self._orders:
            self._orders = {kept: order for kept, order in self._orders.items() if abs(kept - epoch) < _EPOCHS_KEPT}
            self._orders[epoch] = generator(self.seed, epoch, EPOCHS).permutation(self.num_clips)
        return Turn(position, int(self._orders[epoch][place]))


def make_loader(
    dataset: ClipDataset[BatchType], sampler: Sampler[list[Turn]], num_workers: int, pin_memory: bool = False
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


class _FixedTurns(Sampler[list[Turn]]):
    """The same batches of turns every time."""

    def __init__(self, turns: list[Turn], batch_size: int) -> None:
        self.turns, self.batch_size = turns, batch_size

    def __iter__(self) -> Iterator[list[Turn]]:
        """Batch after batch; the last may be short."""
        yield from (self.turns[start : start + self.batch_size] for start in range(0, len(self.turns), self.batch_size))

    def __len__(self) -> int:
        """Number of batches."""
        return -(-len(self.turns) // self.batch_size)


def fixed_batches(
    dataset: ClipDataset[BatchType], count: int, batch_size: int, rank: int = 0, world: int = 1, num_workers: int = 0
) -> DataLoader[BatchType]:
    """This process's share of `count` samples that are the same whenever they are iterated over: sample i is clip i % n at position i."""
    turns = [Turn(position, position % len(dataset)) for position in range(rank, count, world)]
    return make_loader(dataset, _FixedTurns(turns, batch_size), num_workers)


def _begin_worker(_: int) -> None:
    """One thread for each loading process, and interruptions left to the process that it loads for.

    Terminals and launchers send signals to whole groups of processes, so it leaves the group; the process that it loads for still ends it.
    """
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.setpgid(0, 0)
