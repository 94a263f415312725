"""What was found in a video and computed from its faces, kept on disk: another sound for the same video starts at once."""

import hashlib
import json
import logging
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import diskcache
import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from latentsync.errors import OutputError
from latentsync.faces.detector import Face
from latentsync.faces.plan import Sighting
from latentsync.media.files import temporary_folder
from latentsync.weights import file_sha256

logger = logging.getLogger(__name__)

SIZE_LIMIT = 10 << 30  # bytes; beyond it what was not used for longest goes
TEMPORARY_LIMIT = 2 << 30
LONGEST = 30_000  # frames of a video whose faces are kept
ARRAYS = ("box", "anchors", "landmarks", "colours", "appearance")  # of a `Face`, all but its mesh
LAYOUT = 2  # raise it when what is kept, or how it is computed, changes
FAILURES = (OSError, sqlite3.Error, diskcache.Timeout, SafetensorError)


class FaceCache:
    """A folder of tensors by key that several processes may share. One that fails later is as good as empty: it never stops a job.

    The folder is made if it is not there; `size_limit` counts bytes. Raises OutputError where the folder cannot be used.
    """

    def __init__(self, folder: Path, size_limit: int = SIZE_LIMIT) -> None:
        self.folder = folder
        try:
            self._store = diskcache.Cache(str(folder), size_limit=size_limit, eviction_policy="least-recently-used")
        except FAILURES as error:
            raise OutputError(f"{folder} cannot hold a cache ({error}): name another folder with --cache_dir.") from error

    def close(self) -> None:
        """Let go of the folder's files."""
        self._store.close()

    def get(self, key: str) -> dict[str, Tensor] | None:
        """What is kept under a key, on the CPU."""
        try:
            content = self._store.get(key)
            return safetensors.torch.load(content) if isinstance(content, bytes) else None
        except FAILURES as error:
            logger.debug("%s cannot be read: %s", self.folder, error)
            return None

    def put(self, key: str, tensors: Mapping[str, Tensor]) -> None:
        try:
            self._store.set(key, safetensors.torch.save({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}))
        except FAILURES as error:
            logger.debug("%s cannot be written: %s", self.folder, error)

    def sightings(
        self, key: str, length: int | None, find: Callable[[], Iterator[Sighting]], is_sound: Callable[[], bool]
    ) -> Iterator[Sighting]:
        """The faces of the first `length` frames of a video, or of all; `find` finds them where they are not kept.

        They are kept only where `is_sound` says, at the end, that the video turned out to be undamaged.
        """
        kept = self.get(key)
        if kept is not None and (kept["is_complete"] or (length is not None and length <= len(kept["faces"]))):
            yield from unpack_sightings(kept, length)
            return
        fresh: list[Sighting] | None = []
        for sighting in find():
            yield sighting
            if fresh is not None:
                fresh.append(([replace(face, mesh=None) for face in sighting[0]], sighting[1]))  # it is large, and no plan needs it
                fresh = fresh if len(fresh) <= LONGEST else None
        if fresh and is_sound():
            self.put(key, {**pack_sightings(fresh), "is_complete": torch.tensor(length is None or len(fresh) < length)})

    def rows(self, key: str, names: Sequence[str], compute: Callable[[list[int]], Tensor]) -> Tensor:
        """One row for each name (which may come more than once), each computed once; `key` is what rows depend on beside their name.

        Rows with numbers that are not finite are not kept: they are computed again, perhaps in another precision.

        `compute`: places in `names` -> the rows of these, [m ...].
        """
        rows = {name: found["row"] for name in set(names) if (found := self.get(f"{key}-{name}")) is not None}
        places = [names.index(name) for name in dict.fromkeys(names) if name not in rows]
        for place, row in zip(places, compute(places) if places else (), strict=True):
            rows[names[place]] = row
            if row.isfinite().all():
                self.put(f"{key}-{names[place]}", {"row": row})
        return torch.stack([rows[name].cpu() for name in names])


def pack_sightings(sightings: Sequence[Sighting]) -> dict[str, Tensor]:
    """Faces of frames as tensors: per frame how many there are and whether a shot begins, then the faces of all frames."""
    faces = [face for found, _ in sightings for face in found]
    tensors = {
        "faces": torch.tensor([len(found) for found, _ in sightings]),
        "is_cut": torch.tensor([is_cut for _, is_cut in sightings]),
        "score": torch.tensor([face.score for face in faces], dtype=torch.float64),
        "turns": torch.tensor([face.turns for face in faces]),
    }
    for name in ARRAYS:
        arrays = [getattr(face, name) for face in faces]
        if arrays and all(array is not None for array in arrays):
            tensors[name] = torch.from_numpy(np.stack(arrays))
    return tensors


def unpack_sightings(tensors: Mapping[str, Tensor], length: int | None) -> Iterator[Sighting]:
    """The faces of the first `length` frames, or of all."""
    arrays = {name: tensors[name].numpy() for name in ARRAYS if name in tensors}
    scores, turns, first = tensors["score"].tolist(), tensors["turns"].tolist(), 0
    for count, is_cut in zip(tensors["faces"].tolist()[:length], tensors["is_cut"].tolist(), strict=False):
        places = range(first, first + count)
        first += count
        yield [Face(score=scores[i], turns=turns[i], **{name: array[i] for name, array in arrays.items()}) for i in places], is_cut


@contextmanager
def temporary_cache() -> Iterator[FaceCache]:
    """A cache that goes with the block."""
    with temporary_folder("latentsync-cache-") as folder, closing(FaceCache(folder, TEMPORARY_LIMIT)) as cache:
        yield cache


def digest(*settings: Any) -> str:
    """One name for settings that JSON can hold."""
    return hashlib.sha256(json.dumps([LAYOUT, *settings], sort_keys=True).encode()).hexdigest()


def source_digest(path: Path) -> str:
    """One name for what a video file, or a folder of frames, holds."""
    if path.is_dir():
        return digest(*((file.name, file_sha256(file)) for file in sorted(path.iterdir()) if file.is_file()))
    return file_sha256(path)


def weights_digest(module: nn.Module) -> str:
    """One name for the weights of a network, their type and their device."""
    found = hashlib.sha256()
    for tensor in module.parameters():
        found.update(f"{tensor.dtype} {tensor.device.type}".encode())
        found.update(tensor.detach().cpu().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()
