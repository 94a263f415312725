"""Accuracy of a trained SyncNet on a data set: `eval/eval_syncnet_acc.sh --config CONFIG --checkpoint W --data_dir DIR`."""

import argparse
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from latentsync.command import CODES, run_command
from latentsync.errors import InputError

if TYPE_CHECKING:  # torch and its company take seconds to import, which --help should not
    from accelerate import Accelerator

    from eval.measures.sync_offset import SyncMeter, SyncReading
    from eval.results.syncnet_sheet import AccuracyResults
    from latentsync.data.syncnet_dataset import SyncNetDataset
    from latentsync.models.syncnet import SyncNet
    from latentsync.models.vae import LatentCodec
    from latentsync.training_config import SyncNetConfig

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
    from latentsync.data.catalog import open_catalog
    from latentsync.data.clips import SYNCNET_LENGTHS
    from latentsync.data.sound import Mels
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
    from eval.measures.sync_offset import SyncMeter
    from eval.measures.syncnet_pairs import LatentMeter

    sizes = {"resolution": config.data.resolution, "num_frames": config.data.num_frames, "lower_half": config.data.lower_half}
    return SyncMeter(network, **sizes) if codec is None else LatentMeter(network, codec, **sizes)


def read_offsets(
    dataset: "SyncNetDataset", meter: "SyncMeter", parsed: argparse.Namespace, accelerator: "Accelerator"
) -> "tuple[dict[str, SyncReading], dict[str, str]]":
    """Readings of some clips, evenly spread, by path; and why others have none."""
    from tqdm import tqdm

    from eval.measures.syncnet_pairs import read_offset, spread

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

    from eval.measures.syncnet_pairs import ask_pairs
    from eval.results.syncnet_sheet import AccuracyResults
    from latentsync.data.loader import fixed_batches
    from latentsync.models.syncnet_choice import load_syncnet
    from latentsync.training.build import make_accelerator
    from latentsync.training.syncnet_build import load_codec
    from latentsync.training.syncnet_step import SyncNetStep
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
    from eval.results.syncnet_sheet import draw, to_json, to_markdown
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
