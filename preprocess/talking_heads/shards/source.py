"""Talking heads as a training source: reads shards while they are being rendered in the background, and keeps the disk small.

with TalkingHeadSource(Path("heads"), Order(resolution=256, pairs=True), shards=64, render_ahead=True, keep=16) as source:
    for batch in DataLoader(source, batch_size=4, num_workers=2):
        step(batch)
        source.consumed(batch)
"""

import contextlib
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from latentsync.errors import InputError, LatentSyncError
from latentsync.faces.mask import fixed_mask
from preprocess.talking_heads.shards.claims import is_claimed
from preprocess.talking_heads.shards.crops import Order, make_clip
from preprocess.talking_heads.shards.fill import Make, Renderer
from preprocess.talking_heads.shards.format import write_collection
from preprocess.talking_heads.shards.order import Schedule
from preprocess.talking_heads.shards.reader import Choose, ShardSource, all_frames

_POLL = 0.2  # s


class RenderAhead:
    """A thread that has the shards rendered which a source is going to read next, and removes those of its own that have been read."""

    def __init__(self, source: ShardSource, renderers: int, keep: int | None, make: Make) -> None:
        self._source, self._renderers, self._keep, self._make = source, renderers, keep, make
        self.written: dict[int, int] = {}  # our shards on the disk -> the place from which on they are not needed
        self._running: list[tuple[Renderer, int]] = []  # one shard each, and the same place
        self._present: set[int] = set()  # shards of the epoch that have been seen
        self._epoch = -1
        self._end = threading.Event()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="render ahead", daemon=True)

    def start(self) -> None:
        """Begin to render."""
        self._thread.start()

    def stop(self) -> None:
        """End all rendering; shards in work are not written. Raises what has made rendering fail."""
        self._end.set()
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            while not self._end.wait(_POLL):
                self._collect()
                self._start_next(self._source.readers.lowest(self._source.position))
        except Exception as error:  # noqa: BLE001 - raised by `stop`; whoever waits for a shard is told
            self._error = error
            self._source.readers.fail()
        finally:
            with contextlib.suppress(LatentSyncError):
                self._collect()  # what has been written since the last look is ours, too
            for renderer, _ in self._running:
                renderer.stop()

    def _collect(self) -> None:
        """Take note of what has been written."""
        for renderer, until in list(self._running):
            ended = not renderer.is_running()
            self.written |= dict.fromkeys(renderer.written(), until)
            if ended:
                renderer.stop()
                self._running.remove((renderer, until))

    def _start_next(self, lowest: int) -> None:
        """Start renderers for the next missing shards, as far as there is room."""
        upcoming = self._upcoming(lowest)
        while len(self._running) < self._renderers and self._has_room(lowest):
            shard, until = next(upcoming, (-1, 0))
            if shard < 0:
                return
            self._running.append((Renderer(self._source.folder, self._source.collection, [shard], self._make), until))

    def _upcoming(self, lowest: int) -> Iterator[tuple[int, int]]:
        """Shards of this epoch and the next that are missing and nobody is at, from the group on that holds the place `lowest`."""
        schedule, collection = self._source.schedule, self._source.collection
        now = lowest // schedule.epoch_length
        if now != self._epoch:
            self._epoch, self._present = now, set()
        busy = {index for renderer, _ in self._running for index in renderer.indices}
        for epoch in range(now, min(now + 2, self._source.epochs or now + 2)):
            until = epoch * schedule.epoch_length
            for block in schedule.blocks(epoch):
                until += len(block) * schedule.clips
                for shard in block.tolist() if until > lowest else ():
                    path = collection.shard_path(self._source.folder, shard)
                    if shard in self._present or shard in busy or is_claimed(path):
                        continue
                    if path.is_file():
                        self._present.add(shard)
                        continue
                    busy.add(shard)
                    yield shard, until

    def _has_room(self, lowest: int) -> bool:
        """Whether one more shard may be written; the oldest of ours that has been read makes room for it."""
        if self._keep is None:
            return True
        while len(self.written) + len(self._running) >= self._keep:
            oldest = min(self.written, key=self.written.__getitem__, default=None)
            if oldest is None or self.written[oldest] > lowest:
                return False
            self._source.collection.shard_path(self._source.folder, oldest).unlink(missing_ok=True)
            del self.written[oldest]
        return True


class TalkingHeadSource(ShardSource):
    """A `ShardSource` that renders what it reads.

    Without `render_ahead` it only reads a folder that others fill. With it, as a context manager, processes beside the training render the
    shards in the order in which they are needed; several sources and machines may do so in one folder. With `keep`, every epoch has new
    shards and at most `keep` of those that this source has written stay on the disk: the oldest that has been read makes room for the next.
    Files of others are never removed.
    """

    def __init__(
        self,
        folder: Path,
        order: Order,
        shards: int,
        *,
        render_ahead: bool = False,
        renderers: int = 1,
        keep: int | None = None,
        seed: int = 0,
        mix: int = 4,
        rank: int = 0,
        ranks: int = 1,
        choose: Choose = all_frames,
        epochs: int | None = None,
        patience: float = 600.0,
        make: Make = make_clip,
    ) -> None:
        """`shards` is their number in an epoch, of all ranks; `renderers` that of processes; the rest as in `Schedule` and `ShardSource`.

        Raises InputError for numbers that do not fit, and where the folder holds shards of the same name that are made otherwise.
        """
        if keep is not None and (not render_ahead or keep <= mix):
            raise InputError(f"keep={keep}: only with render_ahead, and with more than the {mix} shards that are read at a time")
        if renderers < 1:
            raise InputError(f"renderers={renderers}: give at least one process")
        collection = order.collection()
        schedule = Schedule(seed, shards, collection.clips, mix, rank, ranks, fresh=keep is not None)
        write_collection(folder, collection, fixed_mask(collection.resolution).numpy())
        super().__init__(folder, collection, schedule, choose=choose, epochs=epochs, patience=patience)
        self._ahead = RenderAhead(self, renderers, keep, make) if render_ahead else None

    def __enter__(self) -> "TalkingHeadSource":
        """Start rendering. A source is entered once."""
        if self._ahead is not None:
            self._ahead.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End rendering. Raises what has made it fail, rather than what followed from that."""
        if self._ahead is not None:
            self._ahead.stop()

    def __getstate__(self) -> dict[str, Any]:
        """What a reading process needs of a source: all but the thread that renders."""
        return {**self.__dict__, "_ahead": None}

    def state_dict(self) -> dict[str, Any]:
        """As in `ShardSource`, with the shards that are ours to remove; those that are written later stay when another source goes on."""
        return super().state_dict() | {"written": list(self._ahead.written.items()) if self._ahead else []}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """As in `ShardSource`; to be called before rendering starts."""
        super().load_state_dict(state)
        if self._ahead is not None:
            paths = {shard: self.collection.shard_path(self.folder, shard) for shard, _ in state["written"]}
            self._ahead.written = {shard: until for shard, until in state["written"] if paths[shard].is_file()}
