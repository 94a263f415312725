"""What a measure is: a video under test in, numbers or features out. Nothing in here measures anything.

Videos go by in chunks, so that memory does not grow with their length and each is decoded once for all measures.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from torch import Tensor

Kind = Literal["reconstruction", "cross"]
Better = Literal["high", "low", "zero"]


@dataclass(frozen=True)
class Case:
    """One video under test. Frame i of it shows what frame i of its source shows at 25 frames a second, but for the mouth.

    Attributes:
        name: a file name without an ending, of its own in a run.
        video: under test.
        source: the video that it was made of.
        audio: what it was made to say.
        kind: "reconstruction": the sound of the source itself; "cross": that of another video.
    """

    name: str
    video: Path
    source: Path
    audio: Path
    kind: Kind

    def truth(self) -> "Case":
        """The row beside it: the source itself in the place of the video, with the sound it was recorded with."""
        return replace(self, video=self.source, audio=self.source, kind="reconstruction")


@dataclass(frozen=True)
class Chunk:
    """Some successive frames of the video under test, beside those of its source.

    Attributes:
        start: number of the first frame.
        frames, source_frames: uint8 f h w 3, RGB, of one size.
        has_face: bool f: whether inference would paint the frame of the source.
        faces, source_faces: uint8 k R R 3, aligned by the transforms of the source; of the frames that have a face.
        matrices: float32 k 2 3: pixels of the frame -> pixels of the aligned face.
    """

    start: int
    frames: np.ndarray
    source_frames: np.ndarray
    has_face: np.ndarray
    faces: Tensor
    source_faces: Tensor
    matrices: Tensor


@dataclass(frozen=True)
class Column:
    """One number that a measure gives of a video, or of a set of videos.

    Attributes:
        name: in results and tables, such as "ssim_face".
        unit: "dB", "frames"; empty for a plain number.
        better: which way is better; "zero": as near to 0 as possible; None: neither.
        digits: behind the point in tables.
    """

    name: str
    unit: str = ""
    better: Better | None = None
    digits: int = 3


Numbers = Mapping[str, float | None]  # column -> value; None where a video has none


class Tally(Protocol):
    """A measure at work on one video."""

    def add(self, chunk: Chunk) -> None:
        """Take the next frames."""

    def finish(self) -> Numbers:
        """The numbers of the video, once all its frames went by. Raises InputError where it cannot be measured."""


class Measure(Protocol):
    """Something that is measured of each video by itself; its row in a table is the mean over videos with its interval.

    Attributes:
        name: what commands and results call it, such as "ssim".
        protocol: one or two sentences: what is done to the video, on which part of the picture, by which network with which weights.
        columns: what it gives.
    """

    name: str
    protocol: str
    columns: Sequence[Column]

    def open(self, case: Case) -> Tally:
        """Begin with a video. It may look at the files of the case itself, sound among them, in `open` or in `Tally.finish`."""


class FeatureTally(Protocol):
    """A network at work on one video, for a measure of sets of videos."""

    def add(self, chunk: Chunk) -> None:
        """Take the next frames."""

    def finish(self) -> np.ndarray:
        """Features float64 n d of the video; n may be 0. Raises InputError where it cannot be looked at."""


class SetMeasure(Protocol):
    """Something that is measured of all videos together, against their sources.

    Attributes:
        name, protocol: see `Measure`.
        column: what it gives.
    """

    name: str
    protocol: str
    column: Column

    def open(self, case: Case) -> FeatureTally:
        """Begin with a video; for a row of sources, with `Case.truth()`."""

    def compare(self, made: Sequence[np.ndarray], real: Sequence[np.ndarray]) -> float:
        """The distance of two sets of videos, by the features of each. Raises InputError where there are too few."""
