"""In which order the clips of shards are read: shuffled, the same every time, shared out among ranks without overlap."""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from latentsync.errors import InputError


@dataclass(frozen=True)
class Schedule:
    """The endless sequence of clips that one rank reads; a place in it is counted from 0, `epoch_length` clips an epoch.

    Each epoch permutes all shards, gives every rank as many of them, and reads `mix` at a time with their clips permuted. So a clip meets
    those of `mix` shards and no more than that many are needed at once; the first epoch begins with one shard, then one, two, four and so
    on, so that work can start while shards are still being made.
    """

    seed: int
    shards: int  # in an epoch, of all ranks
    clips: int  # in a shard
    mix: int = 4
    rank: int = 0
    ranks: int = 1
    fresh: bool = False  # each epoch has shards of its own, numbered on; else all epochs have the same

    def __post_init__(self) -> None:
        """Raises InputError for numbers that leave a rank without a shard."""
        if min(self.clips, self.mix, self.ranks) < 1 or not 0 <= self.rank < self.ranks:
            raise InputError(f"rank {self.rank} of {self.ranks} with {self.mix} shards mixed: give at least one, and ranks counted from 0")
        if self.shards < self.ranks:
            raise InputError(f"{self.shards} shards for {self.ranks} ranks: render more shards, each rank needs one of its own")

    @cached_property
    def epoch_length(self) -> int:
        """Clips of this rank in an epoch; a remainder of shards that cannot be shared evenly is left out, another one each epoch."""
        return self.shards // self.ranks * self.clips

    def blocks(self, epoch: int) -> list[np.ndarray]:
        """The shards (int64) of this rank, in the groups that are read together."""
        mine = np.random.default_rng([self.seed, epoch]).permutation(self.shards)[self.rank :: self.ranks][: self.shards // self.ranks]
        mine += epoch * self.shards if self.fresh else 0
        starts, size = [0], 1 if epoch == 0 else self.mix
        while starts[-1] < len(mine):
            starts.append(starts[-1] + min(size, self.mix))
            size = max(starts[-1], 1)
        return [mine[start:stop] for start, stop in itertools.pairwise(starts)]

    def order(self, epoch: int) -> np.ndarray:
        """Shard and clip of every place of an epoch: int64 epoch_length 2."""
        rng = np.random.default_rng([self.seed, epoch, self.rank])
        groups = [np.stack([np.repeat(block, self.clips), np.tile(np.arange(self.clips), len(block))], -1) for block in self.blocks(epoch)]
        return np.concatenate([rng.permutation(group) for group in groups])

    def place_of(self, epoch: int, shard: int, clip: int) -> int:
        """The place of a clip. Raises InputError when this rank does not read it in that epoch."""
        found = np.flatnonzero((self.order(epoch) == (shard, clip)).all(-1))
        if not len(found):
            raise InputError(f"clip {clip} of shard {shard} is not read in epoch {epoch}: this position belongs to other shards")
        return epoch * self.epoch_length + int(found[0])


class Progress:
    """Which places have been consumed: all below `done`, and some beyond it where several workers take turns."""

    def __init__(self, done: int = 0, beyond: Iterable[int] = ()) -> None:
        self.done, self.beyond = done, set(beyond)

    def __contains__(self, place: int) -> bool:
        """Whether a place has been consumed."""
        return place < self.done or place in self.beyond

    def add(self, place: int) -> None:
        """A place has been consumed; saying so twice does no harm."""
        if place >= self.done:
            self.beyond.add(place)
        while self.done in self.beyond:
            self.beyond.remove(self.done)
            self.done += 1
