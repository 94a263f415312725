"""What the commands of distances between two folders of videos share: arguments, the way through the videos, results."""

import argparse
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from latentsync.command import CODES, run_command
from latentsync.errors import InputError, LatentSyncError, WeightsError, reason_of

if TYPE_CHECKING:  # torch and its company take seconds to import, which --help should not
    import numpy as np
    import torch

    from eval.measures.estimates import Estimate
    from eval.measures.measure import SetMeasure
    from eval.results.set_results import Seen
    from eval.runs.looking import Looker

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
    from eval.results.set_results import SetResults
    from eval.runs.looking import Looker
    from latentsync.faces.build import build_detector
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
    looker = Looker(detector, RESOLUTION)
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


def look_at_all(videos: Sequence[Path], measure: "SetMeasure", looker: "Looker") -> "Seen":
    """The features of videos, each with the faces found in itself. Raises WeightsError: a network that is another."""
    from eval.measures.measure import Case
    from eval.results.set_results import Seen

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
    from eval.measures.frechet import distance_estimate

    return distance_estimate(seen["made"].features, seen["real"].features)


def halves_apart(features: "Sequence[np.ndarray]", measure: "SetMeasure") -> float | None:
    """How far two halves of the real videos, drawn by seed, are apart: what the distance is of nothing but chance. None of too few."""
    import numpy as np

    order = np.random.default_rng(SEED).permutation(len(features))
    halves = [[features[index] for index in part] for part in (order[::2], order[1::2])]
    if any(sum(map(len, half)) < 2 for half in halves):
        return None
    return measure.compare(*halves)
