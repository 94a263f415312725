"""Train SyncNet: `./train_syncnet.sh data.train_data_dir=CLIPS data.val_data_dir=OTHER_CLIPS`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from latentsync.cli import run_training, training_arguments
from latentsync.config import dump_config, load_syncnet_config

DEFAULT_CONFIG = Path(__file__).resolve().parents[1] / "configs" / "syncnet" / "syncnet_16_pixel_attn.yaml"


def run(parsed: argparse.Namespace) -> bool:
    """Train, or print the recipe; False where the training was stopped before its end."""
    config = load_syncnet_config(parsed.config_path, parsed.overrides)
    if parsed.print_config:
        print(dump_config(config), end="")
        return True
    from latentsync.training.syncnet import build_syncnet
    from latentsync.training.trainer import train

    return train(config, build_syncnet, parsed)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit code."""
    description = "Train SyncNet on a folder of processed clips (aligned faces, 25 frames a second, with sound)."
    return run_training(run, training_arguments("train_syncnet.sh", description, DEFAULT_CONFIG, arguments))


if __name__ == "__main__":
    sys.exit(main())
