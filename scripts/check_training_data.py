"""Check the data of a training before it starts: `python -m scripts.check_training_data CONFIG [key=value ...]`."""

import argparse
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from latentsync.cli import run_command
from latentsync.errors import ConfigError, InputError

if TYPE_CHECKING:  # torch and its company take seconds to import, which --help should not
    from latentsync.config import Config, SyncNetConfig, TrainingDataConfig
    from latentsync.data.clip_index import Catalog
    from latentsync.training.data_check import Finding, Overfit, Side

logger = logging.getLogger("latentsync")

UNFIT = 1  # something serious was found
_BAR = 40  # characters of the longest bar of a histogram


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; wrong usage ends the program with code 2."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.check_training_data",
        description="Examine the clips of a training, try whether a network learns one batch of them, and say what to change.",
        epilog="Exit codes: 0 nothing serious, 1 something serious, 2 an input cannot be used, 130 interrupted.",
    )
    parser.add_argument("config", type=Path, metavar="CONFIG", help="YAML of the denoiser's or of SyncNet's training")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="settings that win over the file, such as data.train_data_dir=clips"
    )
    parser.add_argument(
        "--looks", type=int, default=2000, help="clips on each side whose picture and sound are decoded (default %(default)s)"
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="time for training on one batch (default %(default)s)")
    parser.add_argument("--no_overfit", action="store_true", help="leave that test out")
    parser.add_argument("--device", choices=("auto", "cpu"), default="auto", help="cpu keeps everything off a GPU that is there")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything that was found")
    parser.add_argument("--quiet", action="store_true", help="no progress bars, no log")
    return parser.parse_args(arguments)


def run(arguments: argparse.Namespace) -> int:
    """Run the checks; the exit code."""
    from latentsync.media.files import check_target, write_json
    from latentsync.training.data_check import SERIOUS, facts_of, findings

    if arguments.looks < 1 or not 0 < arguments.seconds < float("inf"):
        raise InputError(f"--looks {arguments.looks} --seconds {arguments.seconds:g}: give numbers above 0")
    if arguments.json is not None:
        check_target(arguments.json, [arguments.config])
    config, syncnet = read_configs(arguments.config, arguments.overrides)
    with TemporaryDirectory(prefix="latentsync-") as spare:
        cache = cache_of(config.data, Path(spare))
        train, held_out = examine_clips(config, cache, arguments.looks, not arguments.quiet)
        tried = None if arguments.no_overfit else try_to_learn(syncnet, train.catalog, cache, arguments)
    facts = {side.name: facts_of(side) for side in (train, held_out) if side is not None}
    found = findings(config, train, held_out, tried)
    serious = any(finding.gravity == SERIOUS for finding in found)
    for name, numbers in facts.items():
        print_facts(name, numbers)
    print_findings(found)
    if arguments.json is not None:
        write_json(arguments.json, report(arguments, facts, tried, found, serious))
    return UNFIT if serious else 0


def read_configs(path: Path, overrides: Sequence[str]) -> "tuple[Config | SyncNetConfig, SyncNetConfig]":
    """The configuration, and that of the SyncNet which is trained or gives the sync losses. Raises ConfigError."""
    from latentsync.config import SyncNetConfig, load_config, load_syncnet_config, read_yaml

    tree = read_yaml(path, ["data", "model", "run"])
    sections = [section if isinstance(section, Mapping) else {} for section in (tree.get("model"), tree.get("data"))]
    if {"network", "audio_encoder", "visual_encoder"} & sections[0].keys() or {"latent_space", "lower_half"} & sections[1].keys():
        config = load_syncnet_config(path, overrides)
        return config, config
    unet = load_config(path, overrides)
    where = unet.data.syncnet_config_path
    return unet, SyncNetConfig() if where is None else load_syncnet_config(where)


def cache_of(data: "TrainingDataConfig", spare: Path) -> Path:
    """Where training would keep what is computed once for each clip, or, where it does not say, a folder that vanishes."""
    from latentsync.training.trainer import cache_folder

    return spare if data.cache_dir is None and data.train_output_dir is None else cache_folder(data)


def examine_clips(config: "Config | SyncNetConfig", cache: Path, limit: int, show_progress: bool) -> "tuple[Side, Side | None]":
    """Open and measure the clips on both sides. Raises InputError, ConfigError."""
    from latentsync.config import SyncNetConfig
    from latentsync.data.clip_index import open_catalog
    from latentsync.data.sampling import SYNCNET_LENGTHS, UNET_LENGTHS
    from latentsync.training.data_check import examine

    data = config.data
    if data.train_data_dir is None and data.train_fileslist is None:
        raise ConfigError("No clips are named: set data.train_data_dir to a folder of processed clips, or data.train_fileslist.")
    frames = data.num_frames * (SYNCNET_LENGTHS if isinstance(config, SyncNetConfig) else UNET_LENGTHS)

    def side(name: str, folder: Path | None, listed: Path | None) -> "Side":
        catalog = open_catalog(folder, listed, min_frames=frames, cache_dir=cache, show_progress=show_progress)
        return examine(name, catalog, folder, limit, show_progress)

    train = side("training", data.train_data_dir, data.train_fileslist)
    if data.val_data_dir is None and data.val_fileslist is None:
        return train, None
    return train, side("held-out", data.val_data_dir, data.val_fileslist)


def try_to_learn(syncnet: "SyncNetConfig", catalog: "Catalog", cache: Path, arguments: argparse.Namespace) -> "Overfit":
    """Train SyncNet, or a smaller one, on one batch alone. Raises InputError."""
    import torch

    from latentsync.data.features import Mels
    from latentsync.data.syncnet_dataset import SyncNetDataset
    from latentsync.models.syncnet import make_syncnet
    from latentsync.training.data_check import balanced_batch, overfit

    data = syncnet.data
    dataset = SyncNetDataset(catalog, Mels(cache), num_frames=data.num_frames, resolution=data.resolution, seed=syncnet.run.seed)
    device = torch.device("cuda" if torch.cuda.is_available() and arguments.device == "auto" else "cpu")
    with torch.random.fork_rng():
        torch.manual_seed(syncnet.run.seed)
        real = None if data.latent_space else make_syncnet(syncnet.model)
        lower = data.lower_half or data.latent_space
        batch = balanced_batch(dataset)
        try:
            return overfit(batch, real, lower=lower, seconds=arguments.seconds, device=device, show_progress=not arguments.quiet)
        except ValueError as error:
            sizes = f"{data.num_frames} faces of {data.resolution} pixels"
            raise ConfigError(f"SyncNet's sizes (model) do not fit {sizes}: {error}; change data.resolution or the factors") from None


def print_facts(name: str, facts: Mapping[str, Any]) -> None:
    """The numbers about one side, for people."""
    lengths, largest, lag = facts["seconds"], facts["largest_source"], facts["measured_lag"]
    print(f"{name.capitalize()} clips: {facts['clips']} ({facts['hours']:.2f} hours, {facts['frames']} frames)")
    print(f"  length          {lengths['min']:.2f} s, median {lengths['median']:.2f} s, up to {lengths['max']:.2f} s")
    print(f"  sources         {facts['sources']}, the largest ({largest['name']}) has {largest['share']:.1%} of the clips")
    if facts["voices"]:
        print(f"  voices          {facts['voices']}")
    if facts["with_mouth_channels"]:
        print(f"  mouth channels  with {facts['with_mouth_channels']} clips")
    for why, entry in facts["rejected"].items():
        print(f"  left out        {entry['clips']}: {why} (such as {entry['example']})")
    for path, why in list(facts["broken"].items())[:5]:
        print(f"  broken          {path}: {why.removeprefix(path).strip()}")
    print(f"  looked at       {facts['looked_at']} clips: {', '.join(f'{count} of {size}' for size, count in facts['sizes'].items())}")
    print(f"  silence         {facts['silent_frames']:.0%} of frames; {facts['silent_clips']} clips for more than half of them")
    print(f"  still mouths    {facts['still_clips']} clips")
    place = f"at {lag['place'][0]:.0%} of the width, {lag['place'][1]:.0%} of the height"
    print(f"  sound's lag     {lag['frames']:+d} frames ({lag['standard_errors']:.1f} standard errors), seen {place}")
    print_histogram(facts["offsets"])
    print()


def print_histogram(offsets: Mapping[str, int]) -> None:
    """Known offsets in frames, a bar each."""
    most = max(offsets.values(), default=0)
    for frames, clips in offsets.items():
        print(f"  offset {frames:>4}     {'#' * max(1, _BAR * clips // most)} {clips}")


def print_findings(found: "Sequence[Finding]") -> None:
    """The advice, the gravest first."""
    for finding in found:
        print(f"{finding.gravity:>8}  {finding.topic}: {finding.text}")


def report(
    arguments: argparse.Namespace, facts: Mapping[str, Any], tried: "Overfit | None", found: "Sequence[Finding]", serious: bool
) -> dict[str, Any]:
    """Everything that was found, for other programs."""
    return {
        "config": str(arguments.config),
        "overrides": list(arguments.overrides),
        "serious": serious,
        "clips": dict(facts),
        "overfit": None if tried is None else asdict(tried) | {"learnt": tried.learnt, "decided": tried.decided},
        "findings": [finding._asdict() for finding in found],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit code."""
    parsed = parse_arguments(arguments)
    return run_command(lambda: run(parsed), "latentsync", "nothing was written but the cache of what clips hold.", quiet=True)


if __name__ == "__main__":
    sys.exit(main())
