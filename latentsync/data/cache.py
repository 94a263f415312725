"""Decoding of clips, and arrays that are computed once for each clip and kept on disk."""

import contextlib
import hashlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2  # noqa: F401  before decord, whose old zlib it would otherwise be bound to: then no PNG can be read or written
import decord
import numpy as np
import torch
from decord import DECORDError
from torch import Tensor

from latentsync.errors import InputError, OutputError
from latentsync.media.files import staged

_FAILURES = (DECORDError, RuntimeError, AssertionError, IndexError)  # what decord raises for a file that it cannot use
_PIECE = 32  # frames that are in memory at once when a whole clip is read
_REPLACED = 2  # broken frames that decord may replace before it gives up (it takes whole numbers above 1)


@contextlib.contextmanager
def open_video(path: Path) -> Iterator[decord.VideoReader]:
    """A clip for reading on one thread; failures inside the block, too, become an InputError that names the clip."""
    decord.logging.set_level(decord.logging.QUIET)  # ffmpeg's own remarks; what matters is raised
    try:
        reader = decord.VideoReader(str(path), num_threads=1, fault_tol=_REPLACED)
        yield reader
        del reader
    except _FAILURES as error:
        line = str(error).strip().split("\n")[0]
        reason = re.sub(r".*(\.cc:\d+: | vs\. [^)]*\) )", "", line).rstrip(".") or "decord gives no reason"  # without lines of its source
        raise InputError(f"{path} cannot be decoded ({reason}): make this clip again") from None


def read_frames(path: Path, indices: Sequence[int]) -> Tensor:
    """Frames of a clip, by number and in this order: uint8 f h w 3, RGB. Raises InputError where one cannot be decoded."""
    with open_video(path) as reader:
        return torch.from_numpy(reader.get_batch(list(indices)).asnumpy())


def read_pieces(path: Path, frames: int) -> Iterator[Tensor]:
    """The first `frames` frames of a clip, in pieces uint8 f h w 3 of bounded length. Raises InputError."""
    with open_video(path) as reader:
        for start in range(0, frames, _PIECE):
            yield torch.from_numpy(reader.get_batch(range(start, min(start + _PIECE, frames))).asnumpy())


def stamp(path: Path) -> str:
    """Size and time of a file: with its path, it identifies this very content. InputError where it is gone."""
    try:
        status = path.stat()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({(error.strerror or str(error)).lower()}): put it back or take it off the list") from None
    return f"{status.st_size}-{status.st_mtime_ns}"


class ClipCache:
    """One array for each clip, below `folder`, found by its absolute path, size and time; `kind` says what it is, by which settings."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.folder = Path(folder) / kind
        self.kind = kind

    def place(self, path: Path) -> Path:
        """Where the entry of a clip lies, whether or not it is there. InputError where the clip is gone."""
        key = "\0".join((os.path.abspath(path), stamp(path), self.kind))  # noqa: PTH100 - links are not followed
        digest = hashlib.blake2b(os.fsencode(key), digest_size=16).hexdigest()
        return self.folder / digest[:2] / f"{digest[2:]}.npy"

    def get(self, path: Path, compute: Callable[[], np.ndarray]) -> np.ndarray:
        """The array of a clip, mapped into memory, privately; computed where missing or damaged. Raises InputError, OutputError."""
        place = self.place(path)
        found = self._load(place)
        if found is None:
            values = compute()
            if not np.isfinite(values).all():
                reason = f"gives numbers that are not finite ({self.kind})"
                raise InputError(f"{path} {reason}: check this clip, and whether the weights are whole")
            try:
                with staged(place) as temporary, temporary.open("wb") as file:
                    np.save(file, np.ascontiguousarray(values), allow_pickle=False)
            except OSError as error:
                why = (error.strerror or str(error)).lower()
                raise OutputError(f"cannot write {place} ({why}): free some space, or give data.cache_dir another disk") from None
            found = self._load(place)
        if found is None:
            raise OutputError(f"{place} cannot be read back: the disk of data.cache_dir looks damaged, name another folder")
        return found

    @staticmethod
    def _load(place: Path) -> np.ndarray | None:
        try:
            return np.load(place, mmap_mode="c", allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
