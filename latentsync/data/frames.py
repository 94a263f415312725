"""Frames of a clip by number, and faces at the resolution that is trained at."""

import contextlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2  # noqa: F401  before decord, whose old zlib it would otherwise be bound to: then no PNG can be read or written
import decord
import torch
import torch.nn.functional as F
from decord import DECORDError
from einops import rearrange
from torch import Tensor

from latentsync.errors import InputError

_FAILURES = (DECORDError, RuntimeError, AssertionError, IndexError)  # what decord raises for a file that it cannot use
_PIECE = 32  # frames that are held at once when a whole clip is read
_REPLACED = 2  # frames decord may make up for broken ones before it gives up (it takes whole numbers above 1)


@contextlib.contextmanager
def open_video(path: Path) -> Iterator[decord.VideoReader]:
    """A clip for reading on one thread; failures inside the block, too, become an InputError that names the clip."""
    decord.logging.set_level(decord.logging.QUIET)  # ffmpeg's own remarks; what matters is raised
    try:
        reader = decord.VideoReader(str(path), num_threads=1, fault_tol=_REPLACED)
        yield reader
        del reader
    except _FAILURES as error:
        raise InputError(f"{path} cannot be decoded ({_reason(error)}): make this clip again") from None


def read_frames(path: Path, indices: Sequence[int]) -> Tensor:
    """Frames of a clip, by number and in this order: uint8 f h w 3, RGB. Raises InputError where one cannot be decoded."""
    with open_video(path) as reader:
        return torch.from_numpy(reader.get_batch(list(indices)).asnumpy())


def read_pieces(path: Path, frames: int) -> Iterator[Tensor]:
    """The first `frames` frames of a clip, in pieces uint8 f h w 3 of bounded length. Raises InputError."""
    with open_video(path) as reader:
        for start in range(0, frames, _PIECE):
            yield torch.from_numpy(reader.get_batch(range(start, min(start + _PIECE, frames))).asnumpy())


def resize_faces(faces: Tensor, resolution: int) -> Tensor:
    """Faces uint8 f h w 3 at `resolution` pixels a side: bicubic with antialiasing, in float and rounded; as they are if they fit."""
    if faces.shape[1:3] == (resolution, resolution):
        return faces
    planes = rearrange(faces, "f h w c -> f c h w").float()
    planes = F.interpolate(planes, size=(resolution, resolution), mode="bicubic", align_corners=False, antialias=True)
    return rearrange(planes.clamp(0, 255).round().to(torch.uint8), "f c h w -> f h w c").contiguous()


def _reason(error: Exception) -> str:
    """What decord says, without the places and the conditions in its source that it says it of."""
    line = str(error).strip().split("\n")[0]
    return re.sub(r".*(\.cc:\d+: | vs\. [^)]*\) )", "", line).rstrip(".") or "decord gives no reason"
