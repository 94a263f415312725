"""What a user of the data pipeline can choose; the network libraries, which take seconds to import, are not needed to know it."""

from dataclasses import dataclass
from pathlib import Path

from latentsync.errors import InputError

FILTERS = ("decode_check", "high_resolution", "av_sync", "visual_quality")  # steps that others do not need: they may be left out


@dataclass(frozen=True)
class StepOptions:
    """What a user can choose.

    Attributes:
        resolution: pixels a side of the faces that come out, and least size of the faces that go in.
        min_seconds, max_seconds: lengths of the pieces that shots are cut into; the second is at least twice the first.
        sync_conf_threshold: least confidence of SyncNet v2.
        max_offset: frames that mouth and sound may be apart; they are then put together.
        quality_threshold: least score of hyperIQA.
        skip: steps to leave out, of `FILTERS`.
        checkpoints: folder of weight files; None: the project's.
    """

    resolution: int = 256
    min_seconds: float = 5.0
    max_seconds: float = 10.0
    sync_conf_threshold: float = 3.0
    max_offset: int = 6
    quality_threshold: float = 40.0
    skip: frozenset[str] = frozenset()
    checkpoints: Path | None = None

    def __post_init__(self) -> None:
        """Raises InputError for options that cannot be honoured."""
        if unknown := sorted(self.skip - set(FILTERS)):
            raise InputError(f"The step {unknown[0]!r} cannot be left out: name some of {', '.join(FILTERS)}.")
        if self.resolution < 32 or self.resolution % 8:
            raise InputError(f"The resolution {self.resolution} cannot be trained on: use a multiple of 8 such as 256 or 512.")
        if not 0 < 2 * self.min_seconds <= self.max_seconds:
            lengths = f"{self.min_seconds:g} to {self.max_seconds:g} s"
            raise InputError(f"Not every shot can be cut into pieces of {lengths}: let the longest be at least twice the shortest.")
        if not 0 <= self.max_offset <= 15:
            raise InputError(f"An offset of {self.max_offset} frames cannot be found: SyncNet looks 15 frames either way.")
