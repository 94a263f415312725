"""Accuracy of a trained SyncNet on a data set: `eval/eval_syncnet_acc.sh --config CONFIG --checkpoint W --data_dir DIR`."""

import argparse
import logging
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from eval.metrics.base import Estimate, share
from eval.metrics.sync import MAX_OFFSET, SyncReading
from eval.metrics.syncnet import THRESHOLDS, Pairs
from latentsync.cli import CODES, run_command
from latentsync.errors import InputError
from latentsync.losses.sync import IN_SYNC
from latentsync.media.files import staged

if TYPE_CHECKING:
    from accelerate import Accelerator

    from eval.metrics.sync import SyncMeter, SyncReading
    from latentsync.config import SyncNetConfig
    from latentsync.data.syncnet_dataset import SyncNetDataset
    from latentsync.models.syncnet import SyncNet
    from latentsync.models.vae import LatentCodec

NONE = "-"
_BLUE, _RED, _GREY = "#1f5fa8", "#c8501e", "#888888"


@dataclass(frozen=True)
class AccuracyResults:
    """Everything that was measured of one SyncNet on one data set.

    Attributes:
        settings: configuration, weights, clips, and how they were looked at.
        clips: clips that can be used.
        rejected: those that cannot, and why.
        offsets: readings of whole clips by name.
        failed: clips whose offset could not be read, and why.
        remarks: what a reader should know.
    """

    settings: Mapping[str, Any]
    clips: int
    rejected: Mapping[str, str]
    pairs: Pairs
    offsets: Mapping[str, SyncReading]
    failed: Mapping[str, str]
    remarks: tuple[str, ...] = ()

    @cached_property
    def rows(self) -> dict[str, Estimate | None]:
        """Value and interval of each number of the table."""
        offsets = [reading.offset for reading in self.offsets.values()]
        return {
            "accuracy": self.pairs.accuracy(),
            "accuracy_over_clips": self.pairs.accuracy_over_clips(),
            "accuracy_shuffled_labels": self.pairs.shuffled(),
            "roc_area": self.pairs.area(),
            "offset_0": share([offset == 0 for offset in offsets]),
            "offset_1_at_most": share([abs(offset) <= 1 for offset in offsets]),
        }


_NAMES = {
    "accuracy": f"accuracy at cosine > {IN_SYNC:g} (interval: Wilson, over pairs)",
    "accuracy_over_clips": "... with the interval over clips (bootstrap)",
    "accuracy_shuffled_labels": "control: the same with shuffled labels (50 % is chance)",
    "roc_area": "area below the ROC curve (50 % is chance; bootstrap over pairs)",
    "offset_0": "clips whose offset is 0 (Wilson)",
    "offset_1_at_most": "clips whose offset is one frame at most (Wilson)",
}


def to_json(results: AccuracyResults) -> dict[str, Any]:
    """Everything, for other programs."""
    curve = results.pairs.curve()
    values = {name: None if row is None else row._asdict() for name, row in results.rows.items()}
    counts = Counter(reading.offset for reading in results.offsets.values())
    return {
        "settings": dict(results.settings),
        "pairs": len(results.pairs.labels),
        "pairs_in_sync": int(results.pairs.labels.sum()),
        "clips": results.clips,
        "rejected_clips": dict(results.rejected),
        "problems": list(results.pairs.problems),
        **values,
        "loss": results.pairs.loss,
        "thresholds": THRESHOLDS.round(2).tolist(),
        "accuracy_at_thresholds": curve.tolist(),
        "best_threshold": float(THRESHOLDS[curve.argmax()].round(2)),
        "offsets": {str(offset): counts[offset] for offset in sorted(counts)},
        "offset_of_clips": {name: {"offset": r.offset, "confidence": r.confidence} for name, r in results.offsets.items()},
        "offset_failed": dict(results.failed),
        "remarks": list(results.remarks),
    }


def to_markdown(results: AccuracyResults) -> str:
    """The table and what is to be known about it."""
    pairs, curve = results.pairs, results.pairs.curve()
    lines = ["# Accuracy of a SyncNet", "", "| measure | value | 95 % interval | of |", "|---|---|---|---|"]
    for name, row in results.rows.items():
        if row is None:
            lines.append(f"| {_NAMES[name]} | {NONE} | {NONE} | 0 |")
            continue
        interval = NONE if row.low is None or row.high is None else f"{_percent(row.low)} to {_percent(row.high)}"
        lines.append(f"| {_NAMES[name]} | {_percent(row.value)} | {interval} | {row.count} |")
    best = int(curve.argmax())
    count = len(pairs.labels)
    lines += [
        f"| best accuracy, at cosine > {THRESHOLDS[best]:.2f} (chosen on these very pairs) | {_percent(curve[best])} | {NONE} | {count} |",
        f"| loss (0.693 is chance) | {pairs.loss:.4f} | {NONE} | {count} |",
        "",
    ]
    used = len(np.unique(pairs.clips))
    lines.append(f"{count} pairs ({int(pairs.labels.sum())} of them in sync) from {used} of {results.clips} clips.")
    if results.rejected:
        lines.append(f"{len(results.rejected)} clips cannot be used; the reasons stand in syncnet_acc.json.")
    if results.failed:
        lines.append(f"{len(results.failed)} clips have no offset, such as: {next(iter(results.failed.values()))}")
    settings = ", ".join(f"{name} {value}" for name, value in results.settings.items())
    return "\n".join([*lines, *pairs.problems, *results.remarks, "", f"Settings: {settings}"]) + "\n"


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def draw(results: AccuracyResults, path: Path) -> None:
    """Write a picture (PNG): cosines, accuracy over thresholds, ROC curve, offsets of clips. Raises OutputError."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # here, because importing it looks for a folder of settings
    from matplotlib.figure import Figure

    pairs, figure = results.pairs, Figure(figsize=(11, 7.6), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    (cosines, thresholds), (roc, offsets) = figure.subplots(2, 2)
    for label, colour, name in ((True, _BLUE, "same moment"), (False, _RED, "another moment")):
        cosines.hist(pairs.cosines[pairs.labels == label], bins=np.linspace(0, 1, 41), color=colour, alpha=0.6, label=name)
    cosines.set(xlabel="cosine", ylabel="pairs")
    thresholds.plot(THRESHOLDS, pairs.curve(), color=_BLUE)
    thresholds.axhline(0.5, color=_GREY, linewidth=0.8, linestyle="--", label="chance")
    thresholds.axvline(IN_SYNC, color=_RED, linewidth=0.8, linestyle="--", label=f"{IN_SYNC:g}")
    thresholds.set(xlabel="cosine above which a pair counts as in sync", ylabel="accuracy", ylim=(0, 1.02))
    area = results.rows["roc_area"]
    roc.plot(*pairs.roc(), color=_BLUE, label=NONE if area is None else f"area {area.value:.3f}")
    roc.plot([0, 1], [0, 1], color=_GREY, linewidth=0.8, linestyle="--", label="chance")
    roc.set(xlabel="wrong pairs accepted", ylabel="right pairs accepted")
    counts = Counter(reading.offset for reading in results.offsets.values())
    offsets.bar(list(counts), list(counts.values()), color=_BLUE, label=f"{len(results.offsets)} clips")
    offsets.set(xlabel="offset in frames: +, the sound comes too early", ylabel="clips", xlim=(-MAX_OFFSET - 1, MAX_OFFSET + 1))
    for axes in (cosines, offsets):
        axes.yaxis.get_major_locator().set_params(integer=True)
    for axes in (cosines, thresholds, roc, offsets):
        axes.grid(alpha=0.25)
        axes.legend(fontsize=8)
    with staged(path) as temporary:
        canvas.print_figure(temporary, dpi=110, format="png")


logger = logging.getLogger("eval")


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; wrong usage ends the program with code 2."""
    parser = argparse.ArgumentParser(
        prog="eval_syncnet_acc.sh",
        description="How often a trained SyncNet tells pictures and sound of one moment from those of two, on clips with the windows, the "
        "preprocessing and the autoencoder of its training; and which offset it finds in whole clips. Prints the table.",
        epilog=CODES,
    )
    parser.add_argument(
        "--config", "--config_path", type=Path, metavar="CONFIG", required=True, help="YAML that the network was trained with"
    )
    parser.add_argument("--checkpoint", type=Path, required=True, help="its weights, as training publishes them")
    parser.add_argument("--data_dir", type=Path, help="folder of processed clips that it was not trained on")
    parser.add_argument("--fileslist", type=Path, help="... and, or, a text file with one clip a line")
    parser.add_argument("--output_dir", type=Path, help="where syncnet_acc.json, .md and .png go (default: the table is printed only)")
    parser.add_argument("--pairs", type=int, default=2000, help="pairs that are drawn (default %(default)s)")
    parser.add_argument("--offset_clips", type=int, default=40, help="clips whose offset is read; 0: none (default %(default)s)")
    parser.add_argument("--offset_frames", type=int, default=100, help="frames of each that are looked at (default %(default)s)")
    parser.add_argument("--batch_size", type=int, default=32, help="pairs that are computed together (default %(default)s)")
    parser.add_argument("--num_workers", type=int, default=0, help="processes that read ahead (default %(default)s)")
    parser.add_argument("--seed", type=int, help="of the pairs (default: the one of the training, as in its validation)")
    parser.add_argument("--device", choices=("auto", "cpu"), default="auto", help="cpu keeps everything off a GPU that is there")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    parser.add_argument("--verbose", action="store_true", help="show where an unexpected failure happened")
    return parser.parse_args(arguments)


def check_arguments(parsed: argparse.Namespace) -> None:
    """Raises InputError for numbers that make no sense."""
    least = {"pairs": 1, "offset_clips": 0, "offset_frames": 1, "batch_size": 1, "num_workers": 0}
    for name, bound in least.items():
        if getattr(parsed, name) < bound:
            raise InputError(f"--{name} is {getattr(parsed, name)}: give {bound} or more")
    if parsed.data_dir is None and parsed.fileslist is None:
        raise InputError("No clips are named: give --data_dir, a folder of processed clips, or --fileslist, a list of them.")


@contextmanager
def cache_of(config: "SyncNetConfig", output_dir: Path | None) -> Iterator[Path]:
    """Where what is computed once for each clip is kept: as in training, else beside the results, else nowhere for long."""
    if config.data.cache_dir is not None or output_dir is not None:
        yield config.data.cache_dir or output_dir / "cache"
        return
    with TemporaryDirectory(prefix="latentsync-") as folder:
        yield Path(folder)


def open_data(config: "SyncNetConfig", parsed: argparse.Namespace, cache: Path) -> "SyncNetDataset":
    """The clips, cut into samples as in training. Raises InputError."""
    from latentsync.data.clip_index import open_catalog
    from latentsync.data.features import Mels
    from latentsync.data.sampling import SYNCNET_LENGTHS
    from latentsync.data.syncnet_dataset import SyncNetDataset

    data = config.data
    catalog = open_catalog(
        *(parsed.data_dir, parsed.fileslist),
        min_frames=SYNCNET_LENGTHS * data.num_frames,
        cache_dir=cache,
        show_progress=not parsed.quiet,
    )
    seed = config.run.seed if parsed.seed is None else parsed.seed
    return SyncNetDataset(catalog, Mels(cache), num_frames=data.num_frames, resolution=data.resolution, seed=seed)


def open_meter(config: "SyncNetConfig", network: "SyncNet", codec: "LatentCodec | None") -> "SyncMeter":
    """What looks at whole clips."""
    from eval.metrics.sync import SyncMeter
    from eval.metrics.syncnet import LatentMeter

    sizes = {"resolution": config.data.resolution, "num_frames": config.data.num_frames, "lower_half": config.data.lower_half}
    return SyncMeter(network, **sizes) if codec is None else LatentMeter(network, codec, **sizes)


def read_offsets(
    dataset: "SyncNetDataset", meter: "SyncMeter", parsed: argparse.Namespace, accelerator: "Accelerator"
) -> "tuple[dict[str, SyncReading], dict[str, str]]":
    """Readings of some clips, evenly spread, by path; and why others have none."""
    from tqdm import tqdm

    from eval.metrics.syncnet import read_offset, spread

    found, failed = {}, {}
    places = spread(len(dataset), parsed.offset_clips)
    for place in tqdm(places, desc="Offsets", unit="clip", disable=parsed.quiet or not places):
        name = str(dataset.catalog.clips[place].path)
        try:
            with accelerator.autocast():
                found[name] = read_offset(dataset, place, meter, parsed.offset_frames)
        except InputError as error:
            failed[name] = str(error)
    return found, failed


def remarks_of(config: "SyncNetConfig", parsed: argparse.Namespace) -> tuple[str, ...]:
    """What a reader of the results must know."""
    trained = config.data.train_data_dir
    if trained is None or parsed.data_dir is None or not parsed.data_dir.resolve().is_relative_to(trained.resolve()):
        return ()
    return (f"**{parsed.data_dir} is what this SyncNet was trained on: these figures say nothing about other people.**",)


def measure(parsed: argparse.Namespace) -> "AccuracyResults":
    """Load, look, count. Raises InputError, ConfigError, WeightsError."""
    from tqdm import tqdm

    from eval.metrics.syncnet import ask_pairs
    from latentsync.data.sampling import fixed_batches
    from latentsync.models.syncnet import load_syncnet
    from latentsync.training.syncnet import SyncNetStep, load_codec
    from latentsync.training.trainer import make_accelerator
    from latentsync.weights import file_sha256

    config, network = load_syncnet(parsed.config, parsed.checkpoint)
    accelerator = make_accelerator(config.run, parsed.device)
    codec = load_codec(config, accelerator) if config.data.latent_space else None
    network = network.to(accelerator.device).eval().requires_grad_(False)
    for remark in (remarks := remarks_of(config, parsed)):
        logger.warning("%s", remark.strip("*"))
    with cache_of(config, parsed.output_dir) as cache:
        dataset = open_data(config, parsed, cache)
        step = SyncNetStep({}, lower_half=config.data.lower_half, codec=codec, seed=dataset.seed)
        batches = fixed_batches(dataset, parsed.pairs, parsed.batch_size, num_workers=parsed.num_workers)
        with tqdm(total=parsed.pairs, desc="Pairs", unit="pair", disable=parsed.quiet) as bar:
            pairs = ask_pairs(network, step, batches, accelerator, bar)
        offsets, failed = read_offsets(dataset, open_meter(config, network, codec), parsed, accelerator)
    settings = {
        "config": str(parsed.config),
        "checkpoint": str(parsed.checkpoint),
        "sha256": file_sha256(parsed.checkpoint),
        **{name: str(path) for name in ("data_dir", "fileslist") if (path := getattr(parsed, name)) is not None},
        "seed": dataset.seed,
        "resolution": config.data.resolution,
        "num_frames": config.data.num_frames,
        "latent_space": config.data.latent_space,
        "lower_half": config.data.lower_half,
        "precision": accelerator.mixed_precision,
    }
    rejected = {str(path): why for path, why in dataset.catalog.rejected.items()}
    return AccuracyResults(settings, len(dataset), rejected, pairs, offsets, failed, remarks)


def run(parsed: argparse.Namespace) -> None:
    """Do what the command line says."""
    check_arguments(parsed)
    from latentsync.media.files import check_target, write_json, write_text

    if parsed.output_dir is not None:
        check_target(parsed.output_dir / "syncnet_acc.json")
    results = measure(parsed)
    table = to_markdown(results)
    if parsed.output_dir is not None:
        write_json(parsed.output_dir / "syncnet_acc.json", to_json(results))
        write_text(parsed.output_dir / "syncnet_acc.md", table)
        draw(results, parsed.output_dir / "syncnet_acc.png")
    print(table, end="")


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit code."""
    parsed = parse_arguments(arguments)
    return run_command(lambda: run(parsed), "eval", "nothing was written but the cache of what clips hold.", verbose=parsed.verbose)


if __name__ == "__main__":
    sys.exit(main())
