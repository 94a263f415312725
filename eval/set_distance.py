"""Distances between two folders of videos: what `eval_fid` and `eval_fvd` share."""

import argparse
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from eval.metrics.base import Estimate, SetMeasure
from latentsync.cli import CODES, run_command
from latentsync.errors import InputError, LatentSyncError, WeightsError, reason_of
from latentsync.media.files import staged, write_text

if TYPE_CHECKING:
    import numpy as np
    import torch

    from eval.measure import FaceClips
    from eval.metrics.base import Estimate, SetMeasure


@dataclass
class Seen:
    """One folder of videos, looked at."""

    features: list[np.ndarray] = field(default_factory=list)  # n d of each video
    failed: dict[str, str] = field(default_factory=dict)  # video -> why it could not be measured

    @property
    def videos(self) -> int:
        """Videos that gave features."""
        return sum(len(features) > 0 for features in self.features)

    @property
    def count(self) -> int:
        """Features of all of them."""
        return sum(len(features) for features in self.features)


class SetResults:
    """What was found.

    Args:
        measure: what was measured.
        distance: of both sets.
        halves: distance of two halves of the real one; None where it is too small.
        seen: "real" and "made".
        weights: file -> SHA-256.
        settings: what else decided the numbers.
    """

    def __init__(
        self,
        measure: SetMeasure,
        distance: Estimate,
        halves: float | None,
        seen: Mapping[str, Seen],
        weights: Mapping[str, str],
        settings: Mapping[str, str],
    ) -> None:
        self.measure, self.distance, self.halves, self.seen = measure, distance, halves, seen
        self.weights, self.settings = weights, settings

    def write(self, folder: Path) -> str:
        """Write all three files; the table. Raises OutputError."""
        table, name = self.table(), self.measure.name
        write_text(folder / f"{name}.json", json.dumps(self.content(), indent=2, ensure_ascii=False) + "\n")
        write_text(folder / f"{name}.md", table)
        with staged(folder / f"{name}.png") as temporary:
            self.draw(temporary)
        return table

    def content(self) -> dict[str, object]:
        """What goes into the JSON."""
        return {
            "measure": self.measure.name,
            "value": self.distance.value,
            "interval": [self.distance.low, self.distance.high],
            "real_halves": self.halves,
            "sets": {side: {"videos": part.videos, "features": part.count, "failed": part.failed} for side, part in self.seen.items()},
            "features_width": self.width,
            "full_rank": self.full_rank,
            "protocol": self.measure.protocol,
            "weights": dict(self.weights),
            "settings": dict(self.settings),
        }

    @property
    def width(self) -> int:
        """Numbers of one feature."""
        return self.seen["real"].features[0].shape[1]

    @property
    def full_rank(self) -> bool:
        """Whether both sets have enough features for a covariance that can be inverted."""
        return min(part.count for part in self.seen.values()) > self.width

    def table(self) -> str:
        """Markdown."""
        name, digits, (real, made) = self.measure.name, self.measure.column.digits, (self.seen["real"], self.seen["made"])
        value, low, high, _ = self.distance
        interval = "" if low is None or high is None else f" [{low:.{digits}f}, {high:.{digits}f}]"
        halves = "too few videos" if self.halves is None else f"{self.halves:.{digits}f}"
        lines = [
            f"| {name} (lower is better) | value [95 % interval] | videos | features |",
            "|---|---|---|---|",
            f"| made against real | {value:.{digits}f}{interval} | {made.videos}, {real.videos} | {made.count}, {real.count} |",
            f"| ground truth: real against real, by halves | {halves} | {real.videos} | {real.count} |",
            *("", self.measure.protocol),
        ]
        if not self.full_rank:
            lines += ["", f"**Fewer features than the {self.width} numbers of each: compare with sets of the same size alone.**"]
        failed = [f"- {path}: {why}" for part in (made, real) for path, why in part.failed.items()]
        return "\n".join([*lines, *(["", f"Left out ({len(failed)}):", "", *failed] if failed else [])]) + "\n"

    def draw(self, path: Path) -> None:
        """Both rows as points, with the interval."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # here, because importing it looks for a folder of settings
        from matplotlib.figure import Figure

        figure = Figure(figsize=(6, 2), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        value, low, high, _ = self.distance
        reach = None if low is None or high is None else [[value - low], [high - value]]
        axes.errorbar([value], [1], xerr=reach, fmt="o", capsize=4)
        if self.halves is not None:
            axes.plot([self.halves], [0], "s", color="grey")
        axes.set_yticks([0, 1], ["real against real", "made against real"])
        axes.set_ylim(-0.5, 1.5)
        axes.set_xlim(left=0)
        axes.set_xlabel(self.measure.name)
        figure.savefig(path, dpi=120)


logger = logging.getLogger("eval")
RESOLUTION = 256  # pixels a side of the aligned faces
SEED = 0  # of the halves of the real videos
SIDES = ("real", "made")


def make_parser(prog: str, what: str) -> argparse.ArgumentParser:
    """The arguments of every such command; a measure adds its own."""
    parser = argparse.ArgumentParser(
        prog=f"python -m eval.{prog}",
        description=f"{what} of the faces of two folders of videos. Prints the table; --output_dir also writes .json, .md and .png.",
        epilog=CODES,
    )
    made = "folder of generated ones; names need not be the same"
    parser.add_argument(
        *("--real", "--real_videos_dir"), type=Path, required=True, metavar="DIR", help="folder of real videos (folders in it, too)"
    )
    parser.add_argument("--made", "--fake_videos_dir", type=Path, required=True, metavar="DIR", help=made)
    parser.add_argument("--output_dir", type=Path, help="where results go (default: the table is printed only)")
    parser.add_argument("--checkpoints", type=Path, help="folder of weight files (default: checkpoints/ of the project)")
    parser.add_argument("--detector", choices=("auto", "face-alignment", "mtcnn"), default="auto", help="face detector, as in inference")
    parser.add_argument("--device", default="auto", help="auto (default), cuda, cuda:1, mps or cpu")
    parser.add_argument("--verbose", action="store_true", help="show where an unexpected failure happened")
    return parser


def run_set_command(
    parsed: argparse.Namespace, weights: Path | None, name: str, build: "Callable[[Path, torch.device], SetMeasure]"
) -> int:
    """Measure and write; the exit code.

    Args:
        weights: of the network; None: the place of `name` in the table of weight files.
        build: makes the measure of a file.
    """
    return run_command(lambda: _run(parsed, weights, name, build), "eval", "nothing was written.", verbose=parsed.verbose)


def _run(parsed: argparse.Namespace, weights: Path | None, name: str, build: "Callable[[Path, torch.device], SetMeasure]") -> None:
    from eval.measure import FaceClips
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
    measure = build(weights, device)
    detector = build_detector(parsed.detector, *(weights_path(name, checkpoints) for name in ("s3fd", "2dfan4")), device)
    looker = FaceClips(detector, RESOLUTION)
    seen = {side: look_at_all(found, measure, looker) for side, found in videos.items()}
    for side, part in seen.items():
        if not part.count:
            why = f", the last because: {list(part.failed.values())[-1]}" if part.failed else ""
            raise InputError(f"Not one of {len(videos[side])} videos in {getattr(parsed, side)} could be measured{why}")
    results = SetResults(
        *(measure, estimate(seen), halves_apart(seen["real"].features, measure), seen),
        *({weights.name: file_sha256(weights)}, {"detector": detector.name, **{side: str(getattr(parsed, side)) for side in SIDES}}),
    )
    print(results.table() if parsed.output_dir is None else results.write(parsed.output_dir), end="")


def look_at_all(videos: Sequence[Path], measure: "SetMeasure", looker: "FaceClips") -> "Seen":
    """The features of videos, each with the faces found in itself. Raises WeightsError: a network that is another."""
    from eval.metrics.base import Case

    seen = Seen()
    for number, path in enumerate(videos, 1):
        logger.info("%s (%d of %d)", path, number, len(videos))
        try:
            case = Case(path.stem, path, path, path, "reconstruction")
            tally = measure.open(case)
            for chunk in looker.chunks(case):
                tally.add(chunk)
            features = tally.finish()
        except WeightsError:
            raise  # of every video alike
        except LatentSyncError as error:
            logger.warning("%s is left out: %s", path, error)
            seen.failed[str(path)] = reason_of(error)
            continue
        if len(features):
            seen.features.append(features)
        else:
            seen.failed[str(path)] = "it is too short, or shows no face in the frames that are looked at"
    return seen


def estimate(seen: "dict[str, Seen]") -> "Estimate":
    """The distance with its interval. Raises InputError where a set has too few features."""
    from eval.metrics.distribution import distance_estimate

    return distance_estimate(seen["made"].features, seen["real"].features)


def halves_apart(features: "Sequence[np.ndarray]", measure: "SetMeasure") -> float | None:
    """How far two halves of the real videos, drawn by seed, are apart: what the distance is of nothing but chance. None of too few."""
    import numpy as np

    order = np.random.default_rng(SEED).permutation(len(features))
    halves = [[features[index] for index in part] for part in (order[::2], order[1::2])]
    if any(sum(map(len, half)) < 2 for half in halves):
        return None
    return measure.compare(*halves)
