"""Training clips from a folder of shards, as a PyTorch data set that streams, shuffles, resumes and waits for what is not there yet.

This module and what it imports of its own room (`format`, `order`) know nothing of the renderer: a training machine that only
reads shards needs neither synthesiser nor rasteriser.
"""

import itertools
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from latentsync.constants import AUDIO_SAMPLE_RATE, WHISPER_HOP_LENGTH
from latentsync.errors import InputError, LatentSyncError
from latentsync.media.audio import FULL_SCALE
from preprocess.talking_heads.shards.format import Collection, Shard, StoredClip, read_collection, read_mask
from preprocess.talking_heads.shards.order import Progress, Schedule

Choose = Callable[[np.random.Generator, int], np.ndarray]  # a random stream and the length of a clip -> the frames wanted of it

_POLL = 0.2  # s between two looks whether a shard is there
_CENSUS = 3.0  # s between two looks whether anything in the folder has changed


class Sample(NamedTuple):
    """A clip, k takes of it: itself and, in a collection of pairs, its twin with the same movements. Frames are those chosen, the sound
    and the phones are those of the whole clip. Equal in shape for all samples, so that the default collation batches them."""

    faces: Tensor  # uint8 k f R R 3, RGB
    landmarks: Tensor  # float32 k f 68 2, pixels of the face; whole numbers are pixel centres
    mouth: Tensor  # float32 k f c, order of `Collection.channels`
    lip_gap: Tensor  # float32 k f, cm
    lip_width: Tensor  # float32 k f, cm
    matrices: Tensor  # float32 f 2 3, picture -> crop
    frames: Tensor  # int64 f: which frames of the clip these are
    samples: Tensor  # float32 k t, mono sound in [-1, 1]
    mel: Tensor  # float32 k m columns: Whisper's log-mel, four columns a frame
    phones: Tensor  # int64 k columns: the phone in the middle of each column of the log-mel, index into `Collection.symbols`
    identity: Tensor  # int64: seed of the person
    place: Tensor  # int64: place in the sequence, for `ShardSource.consumed`


def all_frames(rng: np.random.Generator, frames: int) -> np.ndarray:
    """Every frame of a clip."""
    return np.arange(frames)


@dataclass(frozen=True)
class Window:
    """Chooses neighbouring frames from a random place on."""

    length: int

    def __call__(self, rng: np.random.Generator, frames: int) -> np.ndarray:
        """Raises InputError when the clip is shorter."""
        if frames < self.length:
            raise InputError(f"clips of {frames} frames hold no {self.length} neighbouring ones: ask for fewer, or render longer clips")
        return rng.integers(frames - self.length + 1) + np.arange(self.length)


class Readers:
    """Where each process that reads a source is, in memory that they share with the process that made it."""

    MOST = 255

    def __init__(self) -> None:
        self._failed, self._count = torch.zeros(2, 1, dtype=torch.int64).share_memory_()
        self._places = torch.zeros(self.MOST, dtype=torch.int64).share_memory_()

    def begin(self, worker: int, workers: int, place: int) -> None:
        """A worker, counted from 0, starts at a place."""
        self._places[worker] = place
        self._count[0] = workers

    def move(self, worker: int, place: int) -> None:
        """A worker has read everything of its own before this place."""
        self._places[worker] = place

    def lowest(self, start: int) -> int:
        """The place before which everything has been read; `start` while nobody reads."""
        count = int(self._count)
        return int(self._places[:count].min()) if count else start

    def fail(self) -> None:
        """Tell everybody that no more shards will come."""
        self._failed[0] = 1

    def has_failed(self) -> bool:
        """Whether `fail` was called in any process."""
        return bool(self._failed)


class ShardSource(IterableDataset[Sample]):
    """Samples of a folder of shards, without end or for some epochs.

    Workers of one DataLoader take turns, ranks have shards of their own. The sequence depends on neither the number of workers nor the
    time when shards appear. One clip at a time is held, whatever the shuffling, because any clip of a shard can be read by itself.

    The position is kept by itself where the source is iterated in this process. With workers of a DataLoader, hand each batch that was
    used to `consumed`; `state_dict` then names exactly what is left, and another number of workers may go on with it.
    """

    def __init__(
        self,
        folder: Path,
        collection: Collection,
        schedule: Schedule,
        *,
        choose: Choose = all_frames,
        epochs: int | None = None,
        patience: float = 600.0,
    ) -> None:
        """`patience` is how long (s) a shard is waited for while nothing in the folder moves."""
        super().__init__()
        self.folder, self.collection, self.schedule = folder, collection, schedule
        self.readers = Readers()
        self.epochs = epochs
        self._choose, self._patience = choose, patience
        self._progress = Progress()

    @property
    def mask(self) -> Tensor:
        """The mask of the faces, float32 R R: 1 = keep, 0 = generate."""
        return torch.from_numpy(read_mask(self.folder, self.collection))

    def __iter__(self) -> Iterator[Sample]:
        """The samples from the current position on. Raises InputError for a damaged shard and for one that does not appear."""
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        if workers > Readers.MOST:
            raise InputError(f"{workers} workers read shards: use {Readers.MOST} at most")
        progress = Progress(self._progress.done, self._progress.beyond)
        self.readers.begin(worker, workers, progress.done)
        open_shards = _OpenShards(self.schedule.mix)
        epoch, order = -1, np.empty((0, 2), np.int64)
        try:
            for place in itertools.count(progress.done) if self._total is None else range(progress.done, self._total):
                if place % workers != worker or place in progress:
                    continue
                if place // self.schedule.epoch_length != epoch:
                    epoch = place // self.schedule.epoch_length
                    order = self.schedule.order(epoch)
                self.readers.move(worker, place)
                shard, number = order[place % self.schedule.epoch_length].tolist()
                clip = open_shards.get(self._await(shard)).clip(number)
                if info is None:
                    self._note(place)
                yield self._sample(clip, place)
        finally:
            open_shards.close()

    def consumed(self, batch: Sample) -> None:
        """The consumer has used these samples: a batch, or a single one."""
        for place in batch.place.reshape(-1).tolist():
            self._note(place)

    def state_dict(self) -> dict[str, Any]:
        """The position: epoch, shard and sample of the first clip that has not been consumed, and which later ones have (their distance
        from it). It fits a source of the same collection, shards, seed, mix and ranks."""
        epoch, within = divmod(self._progress.done, self.schedule.epoch_length)
        shard, sample = self.schedule.order(epoch)[within].tolist()
        ahead = sorted(place - self._progress.done for place in self._progress.beyond)
        return {"made_for": self._made_for(), "epoch": epoch, "shard": shard, "sample": sample, "ahead": ahead}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken; iterators that are running are not touched. Raises InputError when it is of another source."""
        for key, value in self._made_for().items():
            found = state.get("made_for", {}).get(key)
            if found != value:
                raise InputError(f"this position was taken with {key} {found}, not {value}: give the source the same settings")
        done = self.schedule.place_of(state["epoch"], state["shard"], state["sample"])
        self._progress = Progress(done, (done + distance for distance in state["ahead"]))

    @property
    def position(self) -> int:
        """The place of the first clip that has not been consumed."""
        return self._progress.done

    @property
    def _total(self) -> int | None:
        return None if self.epochs is None else self.epochs * self.schedule.epoch_length

    def _made_for(self) -> dict[str, Any]:
        plan = self.schedule
        settings = {"shards": plan.shards, "clips": plan.clips, "seed": plan.seed, "mix": plan.mix, "fresh": plan.fresh}
        return {"collection": self.collection.name, **settings, "rank": plan.rank, "ranks": plan.ranks}

    def _note(self, place: int) -> None:
        """Mark a place; where that was the last one, the next iteration starts anew."""
        self._progress.add(place)
        if self._progress.done == self._total:
            self._progress = Progress()

    def _await(self, shard: int) -> Path:
        """The file of a shard, as soon as it is there. Raises InputError when nothing happens for too long."""
        path = self.collection.shard_path(self.folder, shard)
        seen, moved, looked = None, time.monotonic(), -_CENSUS
        while not path.is_file():
            if self.readers.has_failed():
                raise LatentSyncError(f"{path} will not be rendered: the renderer beside this training has failed")
            now = time.monotonic()
            if now - looked > min(_CENSUS, self._patience / 2):
                looked, census = now, _census(self.folder)
                if census != seen:
                    seen, moved = census, now
            if now - moved > self._patience:
                raise InputError(f"{path} is missing and nobody renders it: run python -m preprocess.talking_heads.shards for this folder")
            time.sleep(_POLL)
        return path

    def _sample(self, clip: StoredClip, place: int) -> Sample:
        """The chosen frames of a clip as tensors."""
        frames = self._choose(np.random.default_rng([self.schedule.seed, self.schedule.rank, place, 1]), len(clip))
        takes = clip.takes
        columns = (np.arange(takes[0].mel.shape[1]) * (WHISPER_HOP_LENGTH / AUDIO_SAMPLE_RATE))[None]  # s
        heard = [take.phones[np.minimum(np.searchsorted(take.phone_ends, columns[0], "right"), len(take.phones) - 1)] for take in takes]
        return Sample(
            faces=torch.from_numpy(np.stack([take.faces(frames) for take in takes])),
            landmarks=_stacked([take.landmarks[frames] for take in takes]),
            mouth=_stacked([take.mouth[frames] for take in takes]),
            lip_gap=_stacked([take.lip_gap[frames] for take in takes]),
            lip_width=_stacked([take.lip_width[frames] for take in takes]),
            matrices=_stacked(clip.matrices[frames]),
            frames=torch.from_numpy(np.asarray(frames, np.int64)),
            samples=_stacked([take.samples / np.float32(FULL_SCALE) for take in takes]),
            mel=_stacked([take.mel for take in takes]),
            phones=torch.from_numpy(np.stack(heard).astype(np.int64)),
            identity=torch.tensor(clip.about["identity"]),
            place=torch.tensor(place),
        )


def open_folder(
    folder: Path, *, name: str | None = None, shards: int | None = None, seed: int = 0, rank: int = 0, ranks: int = 1, **how: Any
) -> ShardSource:
    """The source of a folder that holds shards, or is being filled with them. `how` goes to `ShardSource`.

    `shards` is their number, counted from 0; None: as many as there are now, which ranks that start while the folder still fills must not
    rely on. Raises InputError when the folder holds no collection, or several and `name` does not say which.
    """
    collection = read_collection(folder, name)
    count = len(list(folder.glob(f"{collection.name}-*.npz"))) if shards is None else shards
    return ShardSource(folder, collection, Schedule(seed, count, collection.clips, rank=rank, ranks=ranks), **how)


class _OpenShards:
    """The few shards that are being read, each opened once."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._open: OrderedDict[Path, Shard] = OrderedDict()

    def get(self, path: Path) -> Shard:
        """A shard, opened; the one that was not asked for longest is closed for it."""
        if path not in self._open:
            while len(self._open) >= self._most:
                self._open.popitem(last=False)[1].close()
            self._open[path] = Shard(path)
        self._open.move_to_end(path)
        return self._open[path]

    def close(self) -> None:
        """Close all."""
        while self._open:
            self._open.popitem()[1].close()


def _stacked(arrays: list[np.ndarray] | np.ndarray) -> Tensor:
    return torch.from_numpy(np.asarray(arrays, np.float32))


def _census(folder: Path) -> int:
    """A number that changes when anything in a folder does: shards that appear, and claims that are kept alive."""
    try:
        return hash(frozenset((path.name, path.stat().st_mtime_ns) for path in folder.iterdir()))
    except OSError:  # a file went away in the middle: something moves
        return time.monotonic_ns()
