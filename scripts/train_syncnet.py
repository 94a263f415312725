"""Train SyncNet: `./train_syncnet.sh data.train_data_dir=CLIPS data.val_data_dir=OTHER_CLIPS`."""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from scripts.training import parse_arguments, run_training, start_training

logger = logging.getLogger("latentsync")

DEFAULT_CONFIG = Path(__file__).resolve().parents[1] / "configs" / "syncnet" / "syncnet_16_pixel_attn.yaml"


def work(parsed: argparse.Namespace) -> bool:
    """Train; False where it was stopped before the end."""
    from latentsync.config import dump_config, load_syncnet_config

    config = load_syncnet_config(parsed.config_path, parsed.overrides)
    if parsed.print_config:
        print(dump_config(config), end="")
        return True
    from latentsync.training.syncnet import build_syncnet
    from latentsync.training.trainer import make_accelerator

    accelerator = make_accelerator(config.run, parsed.device)
    return start_training(config, accelerator, lambda: build_syncnet(config, accelerator, not parsed.quiet), parsed)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit code."""
    description = "Train SyncNet on a folder of processed clips (aligned faces, 25 frames a second, with sound)."
    return run_training(work, parse_arguments("train_syncnet.sh", description, DEFAULT_CONFIG, arguments))


if __name__ == "__main__":
    sys.exit(main())
