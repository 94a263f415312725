"""Filling a folder with shards: each is rendered once, by whichever process or machine claims it first."""

import multiprocessing
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import NoReturn

import cv2
import torch

from latentsync.errors import LatentSyncError
from preprocess.talking_heads.shards.claims import EXPIRY, claimed
from preprocess.talking_heads.shards.format import Collection, StoredClip, shard_bytes, write_shard

Make = Callable[[Collection, int, int], StoredClip]  # collection, shard, number in it -> clip

_POLL = 0.5  # s between two looks at shards that others are rendering
_GRACE = 10.0  # s that a process has to clean up


def render_shard(folder: Path, collection: Collection, index: int, make: Make, expiry: float = EXPIRY) -> bool:
    """Render a shard unless it is there or somebody else is at it; whether this call wrote it. Raises OutputError, and what `make` does."""
    path = collection.shard_path(folder, index)
    if path.is_file():
        return False
    with claimed(path, expiry) as claim:
        if claim is None or path.is_file():
            return False
        clips = []
        for number in range(collection.clips):
            clips.append(make(collection, index, number))
            if not claim.is_held():
                return False
        write_shard(path, shard_bytes(clips))
    return True


def fill(folder: Path, collection: Collection, indices: Iterable[int], make: Make, expiry: float = EXPIRY) -> Iterator[int]:
    """Render shards until all are there; yields those that were written here. What others have claimed is waited for, and taken over when
    they fall silent."""
    missing = list(indices)
    while missing:
        before = len(missing)
        for index in missing:
            if render_shard(folder, collection, index, make, expiry):
                yield index
        missing = [index for index in missing if not collection.shard_path(folder, index).is_file()]
        if len(missing) == before:
            time.sleep(min(_POLL, expiry / 2))


class Renderer:
    """A process that fills shards beside this one."""

    def __init__(self, folder: Path, collection: Collection, indices: Iterable[int], make: Make) -> None:
        """Starts at once. `make` is a function of a module, since the process imports it anew."""
        context = multiprocessing.get_context("spawn")
        self.indices = tuple(indices)
        self._news, ours = context.Pipe(duplex=False)
        self._process = context.Process(target=_work, args=(ours, folder, collection, self.indices, make), name="renderer", daemon=True)
        self._process.start()
        ours.close()

    def written(self) -> list[int]:
        """The shards it has written since the last call. Raises what has ended it, in this process."""
        found: list[int] = []
        try:
            while self._news.poll():
                news = self._news.recv()
                if isinstance(news, LatentSyncError):
                    raise news
                found.append(news)
        except (EOFError, OSError):  # it has ended, well or not
            self._process.join(_GRACE)
            if self._process.exitcode:
                code = self._process.exitcode
                raise LatentSyncError(f"a rendering process ended with status {code}: is there enough memory for it?") from None
        return found

    def is_running(self) -> bool:
        """Whether it is still at work."""
        return self._process.is_alive()

    def stop(self) -> None:
        """End it; a shard in work is not written."""
        self._process.terminate()
        self._process.join(_GRACE)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._news.close()


def _work(news: Connection, folder: Path, collection: Collection, indices: tuple[int, ...], make: Make) -> None:
    """The body of a renderer. Ctrl-C reaches all processes of a terminal: the parent alone decides, and its word ends the work cleanly."""
    asked = threading.Event()

    def end(signum: int, frame: FrameType | None) -> NoReturn:
        asked.set()
        raise KeyboardInterrupt

    def make_unless_asked(collection: Collection, shard: int, number: int) -> StoredClip:
        if asked.is_set():  # an interrupt that comes inside a finalizer or a callback of an import is lost
            raise KeyboardInterrupt
        return make(collection, shard, number)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, end)
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    try:
        for index in fill(folder, collection, indices, make_unless_asked):
            news.send(index)
    except LatentSyncError as error:
        news.send(error)
    except (KeyboardInterrupt, BrokenPipeError):
        return
