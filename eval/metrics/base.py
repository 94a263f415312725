"""What a metric is, and values with 95 % intervals."""

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import numpy as np
import torch
from scipy.stats import binomtest
from torch import Tensor

from latentsync.errors import WeightsError, first_line

RESAMPLES = 2000
TAIL = 2.5  # per cent beyond either end of an interval


class Estimate(NamedTuple):
    """A measured value."""

    value: float
    low: float | None  # of its 95 % interval; None where one clip is all there is
    high: float | None
    count: int  # clips (or, for shares, cases) that it rests on


def share(hits: Sequence[bool]) -> Estimate | None:
    """The share of hits with Wilson's score interval (1927); None of nothing."""
    if not hits:
        return None
    count, right = len(hits), sum(map(bool, hits))
    return Estimate(right / count, *binomtest(right, count).proportion_ci(method="wilson"), count)


def pearson(first: Tensor, second: Tensor) -> Tensor:
    """Pearson's r along the last axis: [... n] -> [...]; 0 where either does not vary."""
    first, second = (values.double() - values.double().mean(-1, keepdim=True) for values in (first, second))
    lengths = first.norm(dim=-1) * second.norm(dim=-1)
    return (first * second).sum(-1) / lengths.clamp(min=torch.finfo(torch.float32).tiny)


def bootstrap(statistic: Callable[[np.ndarray], float], clips: int) -> Estimate | None:
    """A statistic of the clips with these indices, with the interval of resampled clips (Efron 1979); None of nothing, or no number."""
    if clips == 0 or not np.isfinite(value := float(statistic(np.arange(clips)))):
        return None
    if clips == 1:
        return Estimate(value, None, None, 1)
    rng = np.random.default_rng(0)
    drawn = np.array([statistic(rng.integers(clips, size=clips)) for _ in range(RESAMPLES)])
    low, high = np.percentile(drawn[np.isfinite(drawn)], (TAIL, 100 - TAIL))
    return Estimate(value, float(low), float(high), clips)


def mean(values: Sequence[float | None]) -> Estimate | None:
    """The mean of those that are there."""
    return ratio([value for value in values if value is not None], None)


def ratio(above: Sequence[float], below: Sequence[float] | None) -> Estimate | None:
    """Mean above over mean below the line, clip by clip; None for `below` is 1. None where nothing is below."""
    top = np.asarray(above, dtype=np.float64)
    bottom = np.ones_like(top) if below is None else np.asarray(below, dtype=np.float64)
    if not bottom.sum() > 0:
        return None
    with np.errstate(divide="ignore", invalid="ignore"):
        return bootstrap(lambda chosen: top[chosen].sum() / bottom[chosen].sum(), len(top))


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


def load_torchscript(path: Path | str, origin: str, arguments: Iterable[str] = (), device: torch.device | str = "cpu") -> torch.nn.Module:
    """A network that is ready to be asked.

    Args:
        origin: which file it should be and where that comes from; ends the sentences.
        arguments: names that its `forward` must know.

    Raises:
        WeightsError: the file is missing, no TorchScript, or holds another network.
    """
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
