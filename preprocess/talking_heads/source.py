"""Talking heads as a training source: reads shards while they are being rendered in the background, and keeps the disk small.

    with TalkingHeadSource(Path("heads"), Order(resolution=256, pairs=True), shards=64, render_ahead=True, keep=16) as source:
        for batch in DataLoader(source, batch_size=4, num_workers=2):
            step(batch)
            source.consumed(batch)
"""

import itertools
import logging
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from latentsync.errors import InputError
from latentsync.faces.mask import fixed_mask
from preprocess.talking_heads.crops import Order
from preprocess.talking_heads.shard_fill import Make, Renderer, make_clip
from preprocess.talking_heads.shard_format import write_collection
from preprocess.talking_heads.shard_order import Schedule
from preprocess.talking_heads.shard_reader import _STOPPED, _WORKERS, Choose, ShardSource, all_frames

logger = logging.getLogger(__name__)

_POLL = 0.2  # s


class TalkingHeadSource(ShardSource):
    """A `ShardSource` that renders what it reads.

    Without `render_ahead` it only reads a folder that others fill. With it, as a context manager, processes beside the training render the
    shards in the order in which they are needed; several sources and machines may do so in one folder. With `keep`, every epoch has new
    shards and at most `keep` of those that this source has written stay on the disk: the oldest that has been read makes room for the next.
    Files of others are never touched.
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
        """`shards` in an epoch, `renderers` processes. Raises InputError for numbers that do not fit, and where the folder holds shards of
        the same name that are made otherwise."""
        if keep is not None and (not render_ahead or keep <= mix):
            raise InputError(f"keep={keep}: only with render_ahead, and with more than the {mix} shards that are read at a time")
        if renderers < 1:
            raise InputError(f"renderers={renderers}: give at least one process")
        super(ShardSource, self).__init__()
        collection = order.collection()
        write_collection(folder, collection, fixed_mask(collection.resolution).numpy())
        schedule = Schedule(seed, shards, collection.clips, mix, rank, ranks, fresh=keep is not None)
        self._set_up(folder, collection, schedule, choose, epochs, patience)
        self._render_ahead, self._renderers, self._keep, self._make = render_ahead, renderers, keep, make
        self._written: dict[int, None] = {}  # shards of ours on the disk, oldest first
        self._running: list[Renderer] = []
        self._end = threading.Event()
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None
