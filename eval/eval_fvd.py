"""Frechet distance of two folders of videos: `python -m eval.eval_fvd --real DIR --generated DIR`; `eval_fid` does the same by images."""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from eval.estimates import Estimate, markdown_table
from latentsync.cli import CODES, run_command
from latentsync.errors import InputError, LatentSyncError, WeightsError, reason_of
from latentsync.media.files import staged, walk_media, write_json, write_text

if TYPE_CHECKING:  # torch and its company take seconds to import, which --help should not
    from eval.measure import FaceClips
    from eval.metrics.base import SetMetric

logger = logging.getLogger("eval")
RESOLUTION = 256  # pixels a side of the aligned faces
SEED = 0  # of the halves of the real videos
SIDES = ("real", "generated")


def parse_arguments(name: str, arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line of `eval_fid` or `eval_fvd`; wrong usage ends the program with code 2."""
    what = {"fid": "Frechet inception distance", "fvd": "Frechet video distance"}[name]
    parser = argparse.ArgumentParser(
        prog=f"python -m eval.eval_{name}",
        description=f"{what} of the faces of two folders of videos. Prints the table; --output_dir also writes .json, .md and .png.",
        epilog=CODES,
    )
    for names, text in (
        (("--real", "--real_videos_dir"), "folder of real videos, searched with its subfolders"),
        (("--generated", "--made", "--fake_videos_dir"), "folder of generated videos; file names may differ"),
    ):
        parser.add_argument(*names, type=Path, required=True, metavar="DIR", help=text)
    parser.add_argument("--output_dir", type=Path, help="folder of the results (default: the table is only printed)")
    parser.add_argument("--checkpoints", type=Path, help="folder of weight files (default: checkpoints/ of the project)")
    parser.add_argument("--detector", choices=("auto", "face-alignment", "mtcnn"), default="auto", help="face detector, as in inference")
    parser.add_argument("--device", default="auto", help="auto (default), cuda, cuda:1, mps or cpu")
    if name == "fid":
        parser.add_argument("--inception", type=Path, help="Inception as TorchScript (default: that in checkpoints/)")
    else:
        parser.add_argument("--i3d", type=Path, help="I3D as TorchScript (default: i3d_torchscript.pt in checkpoints/)")
        windows = "one (default): frames 20 to 35 of each video, as in LatentSync; all: every 16 frames, for a covariance of full rank"
        parser.add_argument("--windows", choices=("one", "all"), default="one", help=windows)
    parser.add_argument("--verbose", action="store_true", help="print the traceback of an unexpected error")
    return parser.parse_args(arguments)


def run(name: str, parsed: argparse.Namespace) -> None:
    from eval.measure import FaceClips
    from eval.metrics.distribution import Fid, Fvd, load_i3d, load_inception
    from latentsync.faces.detector import build_detector
    from latentsync.pipelines.build import ROOT, resolve_device
    from latentsync.weights import CHECKPOINTS, file_sha256, weights_path

    videos = {side: list(walk_media(getattr(parsed, side))) for side in SIDES}
    for side, found in videos.items():
        if not found:
            raise InputError(f"{getattr(parsed, side)} holds no video: name a folder of videos with --{side}")
    device, checkpoints = resolve_device(parsed.device), parsed.checkpoints or ROOT / CHECKPOINTS
    if name == "fvd":
        weights = parsed.i3d or weights_path("i3d", checkpoints)
        metric: SetMetric = Fvd(load_i3d(weights, device=device), parsed.windows, device)
    else:
        weights = parsed.inception or weights_path("inception", checkpoints)
        metric = Fid(load_inception(weights, device=device), device)
    detector = build_detector(parsed.detector, *(weights_path(file, checkpoints) for file in ("s3fd", "2dfan4")), device)
    face_clips = FaceClips(detector, RESOLUTION)
    features, failed = {}, {}
    for side, found in videos.items():
        features[side], failed[side] = features_of_videos(found, metric, face_clips)
        if not features[side]:
            why = f", the last because: {list(failed[side].values())[-1]}" if failed[side] else ""
            raise InputError(f"Not one of {len(found)} videos in {getattr(parsed, side)} could be measured{why}")
    content = to_json(metric, features, failed) | {
        "weights": {weights.name: file_sha256(weights)},
        "settings": {"detector": detector.name, **{side: str(getattr(parsed, side)) for side in SIDES}},
    }
    table = to_markdown(metric, content)
    if parsed.output_dir is not None:
        write_json(parsed.output_dir / f"{metric.name}.json", content)
        write_text(parsed.output_dir / f"{metric.name}.md", table)
        draw(content, parsed.output_dir / f"{metric.name}.png")
    print(table, end="")


def features_of_videos(videos: Sequence[Path], metric: "SetMetric", face_clips: "FaceClips") -> tuple[list[np.ndarray], dict[str, str]]:
    """The features n d of videos by the faces found in each, and why others have none. Raises WeightsError: a network that is another."""
    from eval.metrics.base import Case

    features, failed = [], {}
    for number, path in enumerate(videos, 1):
        logger.info("%s (%d of %d)", path, number, len(videos))
        carried: list[Any] = []
        try:
            parts = [metric.of_chunk(chunk, carried) for chunk in face_clips.chunks(Case(path.stem, path, path, path, "reconstruction"))]
        except WeightsError:
            raise  # of every video alike
        except LatentSyncError as error:
            logger.warning("%s is left out: %s", path, error)
            failed[str(path)] = reason_of(error)
            continue
        if parts := list(filter(len, parts)):
            features.append(np.concatenate(parts))
        else:
            failed[str(path)] = "it is too short, or shows no face in the frames that are measured"
    return features, failed


def to_json(metric: "SetMetric", features: dict[str, list[np.ndarray]], failed: dict[str, dict[str, str]]) -> dict[str, Any]:
    """The distance of both sets, and as a reference that of two halves of the real videos, drawn by seed; None of too few."""
    from eval.metrics.distribution import FEWEST, distance_estimate, set_distance

    real, width = features["real"], features["real"][0].shape[1]
    counts = {side: sum(map(len, part)) for side, part in features.items()}
    order = np.random.default_rng(SEED).permutation(len(real))
    halves = [[real[index] for index in part] for part in (order[::2], order[1::2])]
    value, low, high, _ = distance_estimate(features["generated"], real)
    return {
        "measure": metric.name,
        "value": value,
        "interval": [low, high],
        "real_halves": None if any(sum(map(len, half)) < FEWEST for half in halves) else set_distance(*halves),
        "sets": {side: {"videos": len(features[side]), "features": counts[side], "failed": failed[side]} for side in SIDES},
        "features_width": width,
        "full_rank": min(counts.values()) > width,
        "protocol": metric.protocol,
    }


def to_markdown(metric: "SetMetric", content: dict[str, Any]) -> str:
    digits, halves = metric.columns[0].digits, content["real_halves"]
    real, generated = ([str(content["sets"][side][key]) for key in ("videos", "features")] for side in SIDES)
    distance = Estimate(content["value"], *content["interval"], 0).text(digits)
    rows = [
        ("generated against real", distance, *(", ".join(pair) for pair in zip(generated, real, strict=True))),
        ("reference: real against real, by halves", "too few videos" if halves is None else f"{halves:.{digits}f}", *real),
    ]
    parts = [markdown_table((f"{metric.name} (lower is better)", "value [95 % interval]", "videos", "features"), rows), metric.protocol]
    if not content["full_rank"]:
        parts.append(f"**Fewer features than the {content['features_width']} numbers of each: compare with sets of the same size alone.**")
    if failed := [f"- {path}: {why}" for side in reversed(SIDES) for path, why in content["sets"][side]["failed"].items()]:
        parts += [f"Left out ({len(failed)}):", "\n".join(failed)]
    return "\n\n".join(parts) + "\n"


def draw(content: dict[str, Any], path: Path) -> None:
    """Write both distances as points, with the interval. Raises OutputError."""
    from matplotlib.figure import Figure  # here, because importing it searches a folder of settings

    figure = Figure(figsize=(6, 2), layout="constrained")
    axes = figure.add_subplot()
    value, (low, high) = content["value"], content["interval"]
    axes.errorbar([value], [1], xerr=None if low is None else [[value - low], [high - value]], fmt="o", capsize=4)
    if content["real_halves"] is not None:
        axes.plot([content["real_halves"]], [0], "s", color="grey")
    axes.set_yticks([0, 1], ["real against real", "generated against real"])
    axes.set(ylim=(-0.5, 1.5), xlabel=content["measure"])
    axes.set_xlim(left=0)
    with staged(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")


def main(name: str, arguments: Sequence[str] | None = None) -> int:
    parsed = parse_arguments(name, arguments)
    return run_command(lambda: run(name, parsed), "eval", "nothing was written.", verbose=parsed.verbose)


if __name__ == "__main__":
    sys.exit(main("fvd"))
