"""What the data sets hand out: which clip when, one sample, a batch of them."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor


class Turn(NamedTuple):
    """One entry of the endless sequence of samples that a training sees."""

    position: int  # place in the sequence, counted over all processes; all chance in a sample is seeded with it
    clip: int  # index of the clip


@dataclass(frozen=True)
class Batch:
    """What all batches have. The first axis of every tensor counts samples, b."""

    position: Tensor  # int64 b, see `Turn`
    clip: Tensor  # int64 b, index of the clip that was read
    problems: list[str]  # clips that could not be read and whose turn went to the next one: a sentence each

    def to(self: "BatchType", device: torch.device) -> "BatchType":
        """The same on a device."""
        moved = {field.name: getattr(self, field.name) for field in fields(self)}
        moved = {name: value.to(device, non_blocking=True) if isinstance(value, Tensor) else value for name, value in moved.items()}
        return type(self)(**moved)

    def pin_memory(self: "BatchType") -> "BatchType":
        """The same in memory that a GPU copies from while it computes; the loader calls this."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return type(self)(**{name: value.pin_memory() if isinstance(value, Tensor) else value for name, value in values.items()})


BatchType = TypeVar("BatchType", bound=Batch)


@dataclass(frozen=True)
class UNetBatch(Batch):
    """Clips for the denoiser. Faces are as read, uint8 RGB, and left out where cached latents say all that is wanted of them."""

    audio: Tensor  # float32 b f n d: windows of the target's sound; zeros where it was dropped
    mel: Tensor  # float32 b 1 80 t: what SyncNet hears of the target's sound
    faces: Tensor | None = None  # uint8 b f h w 3: the target
    reference: Tensor | None = None  # uint8 b f h w 3: the same person elsewhere in the clip
    source: Tensor | None = None  # uint8 b f h w 3: what the mouth is masked in, and painted into; None: the target itself
    moments: Tensor | None = None  # float32 b f 3 8 h/8 w/8: mean and log-variance of target, masked target and reference
    source_mel: Tensor | None = None  # float32 b 1 80 t: what SyncNet hears of the source's sound; zeros where it is the target itself


@dataclass(frozen=True)
class SyncNetBatch(Batch):
    """Pictures beside the sound of the same clip, at the same moment or at another one."""

    faces: Tensor  # uint8 b f h w 3
    mel: Tensor  # float32 b 1 80 t
    label: Tensor  # float32 b: 1 where both belong together
    mouth: Tensor | None = None  # float32 b f k: true mouth channels during the pictures, for clips that come with them
    heard_mouth: Tensor | None = None  # float32 b f k: ... during the sound


def stack(values: Sequence[Tensor | None]) -> Tensor | None:
    """Tensors along a new first axis; None where any of them is missing."""
    present = [value for value in values if value is not None]
    return torch.stack(present) if len(present) == len(values) else None
