"""Check the data of a training before it starts: `python -m scripts.check_training_data CONFIG [key=value ...]`."""

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import yaml

from latentsync.cli import run_command
from latentsync.config import Config, SyncNetConfig, load_config, load_syncnet_config, read_yaml
from latentsync.errors import InputError
from latentsync.media.files import check_target, write_json

if TYPE_CHECKING:  # torch and its company take seconds to import, which --help should not
    from latentsync.data.clip_index import Catalog
    from latentsync.training.data_check import Overfit

UNFIT = 1  # something serious was found


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; wrong usage ends the program with code 2."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.check_training_data",
        description="Check the clips of a training, and whether a small network can overfit one batch of them; print what to change.",
        epilog="Exit codes: 0 no serious problem, 1 a serious problem, 2 unusable input, 130 interrupted.",
    )
    parser.add_argument("config", type=Path, metavar="CONFIG", help="YAML of the training of the denoiser or SyncNet")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="overrides of the configuration, such as data.train_data_dir=clips"
    )
    parser.add_argument("--clips", "--looks", type=int, default=2000, help="clips of each split that are decoded (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=60.0, help="duration of the overfitting test (default %(default)s)")
    parser.add_argument("--no_overfit", action="store_true", help="skip the overfitting test")
    parser.add_argument("--device", choices=("auto", "cpu"), default="auto", help="auto (default): the GPU if there is one; cpu: no GPU")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all results to this file")
    parser.add_argument("--quiet", action="store_true", help="no progress bars, no log")
    return parser.parse_intermixed_args(arguments)  # options and settings in any order


def run(arguments: argparse.Namespace) -> int:
    """Run the checks; the exit code."""
    from latentsync.data.sampling import SYNCNET_LENGTHS, UNET_LENGTHS
    from latentsync.training import data_check
    from latentsync.training.trainer import cache_folder

    if arguments.clips < 1 or not 0 < arguments.seconds < math.inf:
        raise InputError(f"--clips {arguments.clips} --seconds {arguments.seconds:g}: give numbers above 0")
    if arguments.json is not None:
        check_target(arguments.json, [arguments.config])
    config, syncnet = read_configs(arguments.config, arguments.overrides)
    data = config.data
    least = data.num_frames * (SYNCNET_LENGTHS if isinstance(config, SyncNetConfig) else UNET_LENGTHS)
    with TemporaryDirectory(prefix="latentsync-") as spare:
        cache = Path(spare) if data.cache_dir is None and data.train_output_dir is None else cache_folder(data)
        how = {"min_frames": least, "cache_dir": cache, "limit": arguments.clips, "show_progress": not arguments.quiet}
        train = data_check.examine("training", data.train_data_dir, data.train_fileslist, **how)
        held_out = None
        if data.val_data_dir is not None or data.val_fileslist is not None:
            held_out = data_check.examine("held-out", data.val_data_dir, data.val_fileslist, **how)
        tried = None if arguments.no_overfit else try_to_learn(syncnet, train.catalog, cache, arguments)
    facts = {split.name: data_check.facts_of(split) for split in (train, held_out) if split is not None}
    found = data_check.findings(config, train, held_out, tried)
    serious = any(finding.gravity == data_check.SERIOUS for finding in found)
    print(yaml.safe_dump(facts, sort_keys=False, allow_unicode=True, width=math.inf))
    for finding in found:
        print(f"{finding.gravity:>8}  {finding.topic}: {finding.text}")
    if arguments.json is not None:
        overfit = None if tried is None else tried._asdict()
        report = {"config": str(arguments.config), "overrides": arguments.overrides, "serious": serious, "clips": facts, "overfit": overfit}
        write_json(arguments.json, report | {"findings": [finding._asdict() for finding in found]})
    return UNFIT if serious else 0


def read_configs(path: Path, overrides: Sequence[str]) -> tuple[Config | SyncNetConfig, SyncNetConfig]:
    """The configuration, and that of the SyncNet which is trained or gives the sync losses. Raises ConfigError."""
    tree = read_yaml(path, ["data", "model", "run"])
    model, data = (section if isinstance(section, Mapping) else {} for section in (tree.get("model"), tree.get("data")))
    if {"network", "audio_encoder", "visual_encoder"} & model.keys() or {"latent_space", "lower_half"} & data.keys():
        config = load_syncnet_config(path, overrides)
        return config, config
    unet = load_config(path, overrides)
    where = unet.data.syncnet_config_path
    return unet, SyncNetConfig() if where is None else load_syncnet_config(where)


def try_to_learn(syncnet: SyncNetConfig, catalog: "Catalog", cache: Path, arguments: argparse.Namespace) -> "Overfit":
    """Train a small SyncNet on one batch alone. Raises InputError."""
    import torch

    from latentsync.data.features import Mels
    from latentsync.data.syncnet_dataset import SyncNetDataset
    from latentsync.training.data_check import balanced_batch, overfit

    data = syncnet.data
    dataset = SyncNetDataset(catalog, Mels(cache), num_frames=data.num_frames, resolution=data.resolution, seed=syncnet.run.seed)
    device = torch.device("cuda" if torch.cuda.is_available() and arguments.device == "auto" else "cpu")
    lower_half = data.lower_half or data.latent_space
    with torch.random.fork_rng():
        torch.manual_seed(syncnet.run.seed)
        return overfit(
            balanced_batch(dataset), lower_half=lower_half, seconds=arguments.seconds, device=device, show_progress=not arguments.quiet
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit code."""
    parsed = parse_arguments(arguments)
    return run_command(lambda: run(parsed), "latentsync", "nothing was written but the cache of what clips hold.", quiet=True)


if __name__ == "__main__":
    sys.exit(main())
