"""What a metric is: what it is given of a video, and what it gives."""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from latentsync.errors import InputError, WeightsError, first_line

Kind = Literal["reconstruction", "cross"]
Better = Literal["high", "low", "zero"]
Numbers = Mapping[str, float | None]  # column -> value; None where a video has none


@dataclass(frozen=True)
class Case:
    """One video under test. Frame i of it shows what frame i of its source shows at 25 frames a second, but for the mouth."""

    name: str  # a file name without an ending, of its own in a run
    video: Path  # under test
    source: Path  # the video that it was generated from
    audio: Path  # what it was generated to say
    kind: Kind  # "reconstruction": the sound of the source itself; "cross": that of another video

    def reference(self) -> "Case":
        """The row beside it: the source itself in the place of the video, with the sound it was recorded with."""
        return replace(self, video=self.source, audio=self.source, kind="reconstruction")


@dataclass(frozen=True)
class Chunk:
    """Successive frames of the video under test, beside those of its source."""

    start: int  # number of the first frame
    frames: np.ndarray  # uint8 f h w 3, RGB
    source_frames: np.ndarray  # of the same size
    has_face: np.ndarray  # bool f: whether inference would generate a mouth on the frame of the source
    faces: Tensor  # uint8 k R R 3, aligned by the transforms of the source; of the frames that have a face
    source_faces: Tensor
    matrices: Tensor  # float32 k 2 3: pixels of the frame -> pixels of the aligned face

    def reference(self) -> "Chunk":
        """The same moment of `Case.reference()`: the source in the place of the video under test."""
        return replace(self, frames=self.source_frames, faces=self.source_faces)

    @property
    def numbers(self) -> np.ndarray:
        """Numbers of the frames that have a face: int k."""
        return np.flatnonzero(self.has_face) + self.start


@dataclass(frozen=True)
class Column:
    """One number that a metric gives of a video, or of a set of videos."""

    name: str  # in results and tables, such as "ssim_face"
    unit: str = ""  # "dB", "frames"; empty for a plain number
    better: Better | None = None  # which way is better; "zero": as near to 0 as possible; None: neither
    digits: int = 3  # behind the point in tables


class Metric:
    """Something measured of each video by itself; its row in a table is the mean over videos with its interval."""

    name: str  # in commands and results, such as "ssim"
    protocol: str  # what is done to the video, on which part of the picture, by which network with which weights
    columns: Sequence[Column]
    reconstructions_only = False  # it says nothing of videos with the sound of another
    settings: Mapping[str, Any] = MappingProxyType({})  # what decides its numbers beside protocol and weights
    warning: str | None = None  # what a reader of its numbers must not miss

    def of_chunk(self, chunk: Chunk, carried: list[Any]) -> np.ndarray:
        """Rows float64 n v of some frames. `carried` is empty at first, and holds what the metric puts in until the next chunk."""
        return np.empty((0, 0))

    def of_video(self, case: Case, rows: np.ndarray) -> Any:
        """`Numbers` of a video by the rows n v of all chunks: their mean. Raises InputError where it cannot be measured."""
        return dict(zip((column.name for column in self.columns), require_faces(rows).mean(0).tolist(), strict=True))


class SetMetric(Metric):
    """A Frechet distance, its one column, of all videos together from their sources; the rows of a chunk are features n d."""

    def of_video(self, case: Case, rows: np.ndarray) -> Any:
        """The features n d of a video; n may be 0."""
        return rows


def require_faces(rows: np.ndarray) -> np.ndarray:
    """The rows themselves. Raises InputError where there are none."""
    if not len(rows):
        raise InputError("No frame shows a face that could be measured: leave the video out")
    return rows


def load_torchscript(path: Path | str, origin: str, arguments: Iterable[str] = (), device: torch.device | str = "cpu") -> torch.nn.Module:
    """A published TorchScript network whose `forward` knows the `arguments`. Raises WeightsError, which ends with its `origin`."""
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"{path} does not exist: get {origin}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # TorchScript is no longer developed; the published files are what they are
            network = torch.jit.load(str(path), map_location=device)
    except (RuntimeError, ValueError, OSError) as error:
        raise WeightsError(f"{path} is no TorchScript file ({first_line(error)[:80]}): get {origin}") from None
    known = {argument.name for argument in network.forward.schema.arguments}
    if unknown := sorted(set(arguments) - known):
        raise WeightsError(f"{path} holds another network, one that knows no {unknown[0]!r}: get {origin}")
    return network.eval()


def check_features(features: Tensor, count: int, origin: str) -> Tensor:
    """Features of `count` pictures or clips as float64 n d on the CPU. Raises WeightsError where they have another shape."""
    if features.ndim != 2 or len(features) != count:
        raise WeightsError(f"The network gave {list(features.shape)} for {count} inputs and not one row for each: get {origin}")
    return features.double().cpu()
