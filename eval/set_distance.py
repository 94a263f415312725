"""Distances between two folders of videos: what `eval_fid` and `eval_fvd` share."""

import argparse
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from latentsync.cli import CODES, run_command
from latentsync.errors import InputError, LatentSyncError, WeightsError, reason_of

if TYPE_CHECKING:  # torch and its company take seconds to import, which --help should not
    import torch

    from eval.estimates import Estimate
    from eval.measure import FaceClips
    from eval.metrics.base import SetMetric

logger = logging.getLogger("eval")
RESOLUTION = 256  # pixels a side of the aligned faces
SEED = 0  # of the halves of the real videos
SIDES = ("real", "generated")


@dataclass
class VideoSet:
    """The features of one folder of videos."""

    features: list[np.ndarray] = field(default_factory=list)  # n d of each video that has any
    failed: dict[str, str] = field(default_factory=dict)  # video -> why it could not be measured

    @property
    def count(self) -> int:
        """Features of all of them."""
        return sum(map(len, self.features))


@dataclass(frozen=True)
class SetResults:
    """What was found.

    Attributes:
        distance: of both sets.
        halves: distance of two halves of the real one; None where it is too small.
        sets: "real" and "generated".
        weights: file -> SHA-256.
        settings: what else decided the numbers.
    """

    metric: "SetMetric"
    distance: "Estimate"
    halves: float | None
    sets: Mapping[str, VideoSet]
    weights: Mapping[str, str]
    settings: Mapping[str, str]

    @property
    def width(self) -> int:
        """Numbers of one feature."""
        return self.sets["real"].features[0].shape[1]

    @property
    def full_rank(self) -> bool:
        """Whether both sets have enough features for a covariance that can be inverted."""
        return min(part.count for part in self.sets.values()) > self.width

    def content(self) -> dict[str, Any]:
        """What goes into the JSON."""
        return {
            "measure": self.metric.name,
            "value": self.distance.value,
            "interval": [self.distance.low, self.distance.high],
            "real_halves": self.halves,
            "sets": {
                side: {"videos": len(part.features), "features": part.count, "failed": part.failed} for side, part in self.sets.items()
            },
            "features_width": self.width,
            "full_rank": self.full_rank,
            "protocol": self.metric.protocol,
            "weights": dict(self.weights),
            "settings": dict(self.settings),
        }

    def table(self) -> str:
        """Markdown."""
        from eval.estimates import markdown_table

        name, digits, (real, generated) = self.metric.name, self.metric.column.digits, (self.sets["real"], self.sets["generated"])
        halves = "too few videos" if self.halves is None else f"{self.halves:.{digits}f}"
        both = f"{len(generated.features)}, {len(real.features)}", f"{generated.count}, {real.count}"
        rows = [
            ("generated against real", self.distance.text(digits), *both),
            ("reference: real against real, by halves", halves, str(len(real.features)), str(real.count)),
        ]
        header = (f"{name} (lower is better)", "value [95 % interval]", "videos", "features")
        parts = [markdown_table(header, rows), self.metric.protocol]
        if not self.full_rank:
            parts.append(f"**Fewer features than the {self.width} numbers of each: compare with sets of the same size alone.**")
        if failed := [f"- {path}: {why}" for part in (generated, real) for path, why in part.failed.items()]:
            parts += [f"Left out ({len(failed)}):", "\n".join(failed)]
        return "\n\n".join(parts) + "\n"

    def write(self, folder: Path) -> str:
        """Write JSON, table and figure; the table. Raises OutputError."""
        from latentsync.media.files import write_json, write_text

        table, name = self.table(), self.metric.name
        write_json(folder / f"{name}.json", self.content())
        write_text(folder / f"{name}.md", table)
        self.draw(folder / f"{name}.png")
        return table

    def draw(self, path: Path) -> None:
        """Write both rows as points, with the interval. Raises OutputError."""
        from matplotlib.figure import Figure  # here, because importing it searches a folder of settings

        from latentsync.media.files import staged

        figure = Figure(figsize=(6, 2), layout="constrained")
        axes = figure.add_subplot()
        value, low, high, _ = self.distance
        reach = None if low is None or high is None else [[value - low], [high - value]]
        axes.errorbar([value], [1], xerr=reach, fmt="o", capsize=4)
        if self.halves is not None:
            axes.plot([self.halves], [0], "s", color="grey")
        axes.set_yticks([0, 1], ["real against real", "generated against real"])
        axes.set(ylim=(-0.5, 1.5), xlabel=self.metric.name)
        axes.set_xlim(left=0)
        with staged(path) as temporary:
            figure.savefig(temporary, dpi=110, format="png")


def make_parser(prog: str, what: str) -> argparse.ArgumentParser:
    """The arguments of every such command; a metric adds its own."""
    parser = argparse.ArgumentParser(
        prog=f"python -m eval.{prog}",
        description=f"{what} of the faces of two folders of videos. Prints the table; --output_dir also writes .json, .md and .png.",
        epilog=CODES,
    )
    generated = "folder of generated ones; names need not be the same"
    parser.add_argument(
        *("--real", "--real_videos_dir"), type=Path, required=True, metavar="DIR", help="folder of real videos (folders in it, too)"
    )
    parser.add_argument(*("--generated", "--made", "--fake_videos_dir"), type=Path, required=True, metavar="DIR", help=generated)
    parser.add_argument("--output_dir", type=Path, help="where results go (default: the table is printed only)")
    parser.add_argument("--checkpoints", type=Path, help="folder of weight files (default: checkpoints/ of the project)")
    parser.add_argument("--detector", choices=("auto", "face-alignment", "mtcnn"), default="auto", help="face detector, as in inference")
    parser.add_argument("--device", default="auto", help="auto (default), cuda, cuda:1, mps or cpu")
    parser.add_argument("--verbose", action="store_true", help="show where an unexpected failure happened")
    return parser


def run_set_command(parsed: argparse.Namespace, weights: Path | None, name: str, build: "Callable[[Path, torch.device], SetMetric]") -> int:
    """Measure and write; the exit code.

    Args:
        weights: of the network; None: the place of `name` in the table of weight files.
        build: makes the metric of a file.
    """
    return run_command(lambda: _run(parsed, weights, name, build), "eval", "nothing was written.", verbose=parsed.verbose)


def _run(parsed: argparse.Namespace, weights: Path | None, name: str, build: "Callable[[Path, torch.device], SetMetric]") -> None:
    from eval.measure import FaceClips
    from eval.metrics.distribution import distance_estimate
    from latentsync.faces.detector import build_detector
    from latentsync.media.files import walk_media
    from latentsync.pipelines.build import ROOT, resolve_device
    from latentsync.weights import CHECKPOINTS, file_sha256, weights_path

    videos = {side: list(walk_media(getattr(parsed, side))) for side in SIDES}
    for side, found in videos.items():
        if not found:
            raise InputError(f"{getattr(parsed, side)} holds no video: name a folder of videos with --{side}")
    device, checkpoints = resolve_device(parsed.device), parsed.checkpoints or ROOT / CHECKPOINTS
    weights = weights or weights_path(name, checkpoints)
    metric = build(weights, device)
    detector = build_detector(parsed.detector, *(weights_path(name, checkpoints) for name in ("s3fd", "2dfan4")), device)
    face_clips = FaceClips(detector, RESOLUTION)
    sets = {side: features_of_videos(found, metric, face_clips) for side, found in videos.items()}
    for side, part in sets.items():
        if not part.count:
            why = f", the last because: {list(part.failed.values())[-1]}" if part.failed else ""
            raise InputError(f"Not one of {len(videos[side])} videos in {getattr(parsed, side)} could be measured{why}")
    results = SetResults(
        metric=metric,
        distance=distance_estimate(sets["generated"].features, sets["real"].features),
        halves=halves_distance(sets["real"].features),
        sets=sets,
        weights={weights.name: file_sha256(weights)},
        settings={"detector": detector.name, **{side: str(getattr(parsed, side)) for side in SIDES}},
    )
    print(results.table() if parsed.output_dir is None else results.write(parsed.output_dir), end="")


def features_of_videos(videos: Sequence[Path], metric: "SetMetric", face_clips: "FaceClips") -> VideoSet:
    """The features of videos, each with the faces found in itself. Raises WeightsError: a network that is another."""
    from eval.metrics.base import Case

    found = VideoSet()
    for number, path in enumerate(videos, 1):
        logger.info("%s (%d of %d)", path, number, len(videos))
        carried: list[Any] = []
        try:
            parts = [metric.of_chunk(chunk, carried) for chunk in face_clips.chunks(Case(path.stem, path, path, path, "reconstruction"))]
        except WeightsError:
            raise  # of every video alike
        except LatentSyncError as error:
            logger.warning("%s is left out: %s", path, error)
            found.failed[str(path)] = reason_of(error)
            continue
        if parts := list(filter(len, parts)):
            found.features.append(np.concatenate(parts))
        else:
            found.failed[str(path)] = "it is too short, or shows no face in the frames that are measured"
    return found


def halves_distance(features: Sequence[np.ndarray]) -> float | None:
    """The distance of two halves of the real videos, drawn by seed: what it is of nothing but chance. None of too few."""
    from eval.metrics.distribution import FEWEST, set_distance

    order = np.random.default_rng(SEED).permutation(len(features))
    halves = [[features[index] for index in part] for part in (order[::2], order[1::2])]
    return None if any(sum(map(len, half)) < FEWEST for half in halves) else set_distance(*halves)
