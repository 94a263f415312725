"""`ClipCache`: arrays that are computed once for each clip and kept on disk, safe with many processes."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from latentsync.errors import InputError, OutputError
from latentsync.media.files import staged


def stamp(path: Path) -> str:
    """Size and time of a file: with its path, what tells it from any other and from what it was before. InputError where it is gone."""
    try:
        status = path.stat()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({(error.strerror or str(error)).lower()}): put it back or take it off the list") from None
    return f"{status.st_size}-{status.st_mtime_ns}"


class ClipCache:
    """One array for each clip.

    Entries are found by the clip's absolute path, its size and its time, so that clips of one name in two folders, or a clip that was
    made again, never share one. An entry appears whole or not at all; two processes that miss the same one both compute it.

    Args:
        folder: of all caches; made when something is kept.
        kind: what the arrays are and with which settings they were made; part of a file name.
    """

    def __init__(self, folder: Path, kind: str) -> None:
        self.folder = Path(folder) / kind
        self.kind = kind

    def place(self, path: Path) -> Path:
        """Where the entry of a clip lies, whether or not it is there. InputError where the clip is gone."""
        key = "\0".join((os.path.abspath(path), stamp(path), self.kind))  # noqa: PTH100 - links are not followed
        digest = hashlib.blake2b(os.fsencode(key), digest_size=16).hexdigest()
        return self.folder / digest[:2] / f"{digest[2:]}.npy"

    def get(self, path: Path, compute: Callable[[], np.ndarray]) -> np.ndarray:
        """The array of a clip, mapped into memory (what is written into it stays private); computed where it is missing or damaged.

        Raises:
            InputError: the clip is gone, or what was computed of it is no finite number somewhere; and what `compute` raises.
            OutputError: the entry cannot be written.
        """
        place = self.place(path)
        found = self._load(place)
        if found is None:
            values = compute()
            if not np.isfinite(values).all():
                raise InputError(
                    f"{path} gives numbers that are not finite ({self.kind}): look at this clip, and whether the weights are whole"
                )
            self._save(place, values)
            found = self._load(place)
        if found is None:
            raise OutputError(f"{place} cannot be read back: the disk of data.cache_dir looks damaged, name another folder")
        return found

    @staticmethod
    def _load(place: Path) -> np.ndarray | None:
        """An entry; None where there is none or what is there is no whole array."""
        try:
            return np.load(place, mmap_mode="c", allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None

    @staticmethod
    def _save(place: Path, values: np.ndarray) -> None:
        with staged(place) as temporary:
            try:
                with temporary.open("wb") as file:
                    np.save(file, np.ascontiguousarray(values), allow_pickle=False)
            except OSError as error:
                why = (error.strerror or str(error)).lower()
                raise OutputError(f"cannot write {place} ({why}): free some space, or give data.cache_dir another disk") from None
