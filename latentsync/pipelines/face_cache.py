"""What was found in a video and computed from its faces, kept on disk: another sound for the same video starts at once."""

import hashlib
import json
import logging
import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import diskcache
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from latentsync.errors import OutputError

logger = logging.getLogger(__name__)

SIZE_LIMIT = 10 << 30  # bytes; beyond it what was not used for longest goes
LAYOUT = 1  # raise it when what is kept, or how it is computed, changes
FAILURES = (OSError, sqlite3.Error, diskcache.Timeout, SafetensorError)


class FaceCache:
    """A folder of tensors by key that several processes may share. One that fails later is as good as empty: it never stops a job.

    Args:
        folder: made if it is not there.
        size_limit: bytes.

    Raises:
        OutputError: the folder cannot be used.
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
        """Keep something."""
        try:
            self._store.set(key, safetensors.torch.save({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}))
        except FAILURES as error:
            logger.debug("%s cannot be written: %s", self.folder, error)

    def rows(self, key: str, names: Sequence[str], compute: Callable[[list[int]], Tensor]) -> Tensor:
        """One row for each name, each computed once.

        Args:
            key: what the rows depend on beside their name.
            names: a name may come more than once.
            compute: places in `names` -> the rows of these, [m ...].
        """
        rows = {name: found["row"] for name in set(names) if (found := self.get(f"{key}-{name}")) is not None}
        places = [names.index(name) for name in dict.fromkeys(names) if name not in rows]
        for place, row in zip(places, compute(places) if places else (), strict=True):
            rows[names[place]] = row
            self.put(f"{key}-{names[place]}", {"row": row})
        return torch.stack([rows[name].cpu() for name in names])


@contextmanager
def temporary_cache() -> Iterator[FaceCache]:
    """A cache that goes with the block."""
    with tempfile.TemporaryDirectory(prefix="latentsync-") as folder:
        cache = FaceCache(Path(folder))
        try:
            yield cache
        finally:
            cache.close()


def digest(*settings: Any) -> str:
    """One name for settings that JSON can hold."""
    return hashlib.sha256(json.dumps([LAYOUT, *settings], sort_keys=True).encode()).hexdigest()


def weights_digest(module: nn.Module) -> str:
    """One name for the weights of a network, their type and their device."""
    found = hashlib.sha256()
    for tensor in module.parameters():
        found.update(f"{tensor.dtype} {tensor.device.type}".encode())
        found.update(tensor.detach().cpu().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()
